//! The worked vectors: what the official Python SDK signs.

use secrecy::SecretString;
use tc3::{Authorization, Credential, Header, Method, Payload, SignRequest, VerifyError, VerifyRequest, sign, verify};

const TIMESTAMP: i64 = 1_760_000_000;
const BODY: &[u8] =
    br#"{"ToolName": "code-interpreter-v1", "Timeout": "5m", "Metadata": [{"Name": "k", "Value": "\u503c v"}]}"#;
const QUERY: &str = "InstanceIds.0=a&InstanceIds.1=b&Limit=5&Filters.0.Name=Status&Filters.0.Values.0=RUNNING&Filters.0.Values.1=PAUSED";
const POST_HEADERS: &[Header<'static>] = &[("content-type", b"application/json"), ("host", b"127.0.0.1:18080")];
const GET_HEADERS: &[Header<'static>] =
    &[("content-type", b"application/x-www-form-urlencoded"), ("host", b"127.0.0.1:18080")];

struct Vector {
    request: SignRequest<'static>,
    canonical_hash: &'static str,
    signature: &'static str,
}

fn vectors() -> [Vector; 3] {
    let post = SignRequest {
        method: Method::Post,
        query: "",
        headers: POST_HEADERS,
        payload: Payload::Bytes(BODY),
        service: "ags",
        timestamp: TIMESTAMP,
    };
    let get =
        SignRequest { method: Method::Get, query: QUERY, headers: GET_HEADERS, payload: Payload::Bytes(b""), ..post };
    let unsigned = SignRequest { payload: Payload::Unsigned, ..post };
    [
        Vector {
            request: post,
            canonical_hash: "b3ab1e597794b1630b738277887e5c29ebfcec795ea0587ff06e15d6384a042d",
            signature: "29be139343abec7190f0e9310436f50602cf84ecfc839bba8a7e7d5be5529371",
        },
        Vector {
            request: get,
            canonical_hash: "692be25f4582cc9bb6b5fa8e00f85bfdaa154549d778f403c62829b996c2ec68",
            signature: "781beff606a2e1a0cdb265f5dca733430f26bbd5826b1b7b5cebd95f5290c861",
        },
        Vector {
            request: unsigned,
            canonical_hash: "587aec6ac0d69a4c60b53fa15dfe5040fcb9632ff032c792b8066ff7dff3a4e5",
            signature: "bfe73b414614ff0c1ef9ddff5014e671bea69d3bd94d7cca8c924b21ba1d8750",
        },
    ]
}

fn credential() -> Credential {
    Credential {
        secret_id: "AKIDEXAMPLE0000000000000000000000000".into(),
        secret_key: "SKEXAMPLE00000000000000000000000".into(),
        token: None,
    }
}

fn as_received<'a>(request: &SignRequest<'a>, authorization: &'a Authorization) -> VerifyRequest<'a> {
    VerifyRequest {
        authorization,
        method: request.method,
        query: request.query,
        headers: request.headers,
        signing_hosts: &[],
        payload: request.payload,
        service: request.service,
        timestamp: request.timestamp,
    }
}

#[test]
fn the_official_signatures_are_made() {
    for vector in vectors() {
        let signed = sign(&vector.request, &credential()).unwrap();
        assert!(signed.string_to_sign.ends_with(vector.canonical_hash));
        assert_eq!(signed.signature, vector.signature);
        assert_eq!(
            signed.authorization,
            format!(
                "TC3-HMAC-SHA256 Credential=AKIDEXAMPLE0000000000000000000000000/2025-10-09/ags/tc3_request, \
                 SignedHeaders=content-type;host, Signature={}",
                vector.signature
            )
        );
    }
}

#[test]
fn the_canonical_request_is_as_documented() {
    let signed = sign(&vectors()[0].request, &credential()).unwrap();
    let expected = "POST\n/\n\ncontent-type:application/json\nhost:127.0.0.1:18080\n\ncontent-type;host\n\
                    9b827ddfce9859a7fe2ab5fa9e9461fe9a78775e8fba588c3119f86d89605f11";
    assert_eq!(BODY.len(), 102);
    assert_eq!(String::from_utf8(signed.canonical_request).unwrap(), expected);
    assert_eq!(
        signed.string_to_sign,
        "TC3-HMAC-SHA256\n1760000000\n2025-10-09/ags/tc3_request\n\
         b3ab1e597794b1630b738277887e5c29ebfcec795ea0587ff06e15d6384a042d"
    );
}

#[test]
fn the_official_signatures_are_accepted() {
    for vector in vectors() {
        let signed = sign(&vector.request, &credential()).unwrap();
        let authorization = Authorization::parse(&signed.authorization).unwrap();
        let request = as_received(&vector.request, &authorization);
        assert_eq!(verify(&request, &credential().secret_key, TIMESTAMP), Ok(()));
        let other = SecretString::from("SKEXAMPLE00000000000000000000001");
        assert_eq!(verify(&request, &other, TIMESTAMP), Err(VerifyError::Mismatch));
    }
}
