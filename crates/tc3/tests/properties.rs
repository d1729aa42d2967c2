//! What must hold for any request.

use proptest::collection::vec;
use proptest::prelude::*;
use secrecy::SecretString;
use tc3::{Authorization, Credential, Header, Method, Payload, SignRequest, VerifyError, VerifyRequest, sign, verify};

const NOW: i64 = 1_760_000_000;
const DAY: i64 = 86_400;

/// A request that owns its parts. Headers are lower-case names with values; the first two are the required ones.
#[derive(Clone, Debug)]
struct Sent {
    post: bool,
    query: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    unsigned: bool,
    timestamp: i64,
}

impl Sent {
    fn method(&self) -> Method {
        if self.post { Method::Post } else { Method::Get }
    }

    fn payload(&self) -> Payload<'_> {
        if self.unsigned { Payload::Unsigned } else { Payload::Bytes(&self.body) }
    }

    fn headers(&self) -> Vec<Header<'_>> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect()
    }

    fn authorization(&self) -> String {
        let request = SignRequest {
            method: self.method(),
            query: &self.query,
            headers: &self.headers(),
            payload: self.payload(),
            service: "ags",
            timestamp: self.timestamp,
        };
        sign(&request, &credential()).unwrap().authorization
    }

    fn verify(&self, authorization: &str) -> Result<(), VerifyError> {
        self.verify_at(authorization, &[], self.timestamp)
    }

    fn verify_at(&self, authorization: &str, signing_hosts: &[&str], now: i64) -> Result<(), VerifyError> {
        let authorization = Authorization::parse(authorization).unwrap();
        let request = VerifyRequest {
            authorization: &authorization,
            method: self.method(),
            query: &self.query,
            headers: &self.headers(),
            signing_hosts,
            payload: self.payload(),
            service: "ags",
            timestamp: self.timestamp,
        };
        verify(&request, &credential().secret_key, now)
    }
}

fn credential() -> Credential {
    Credential { secret_id: "AKIDEXAMPLE".into(), secret_key: "SKEXAMPLE".into(), token: None }
}

fn sample() -> Sent {
    Sent {
        post: true,
        query: String::new(),
        headers: vec![
            ("content-type".into(), b"application/json".to_vec()),
            ("host".into(), b"ags.example.com:8443".to_vec()),
        ],
        body: b"{}".to_vec(),
        unsigned: false,
        timestamp: NOW,
    }
}

fn header_value() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![0x20_u8..0x7f, 0x80_u8..=0xff], 0..40)
}

fn requests() -> impl Strategy<Value = Sent> {
    let extra = proptest::collection::btree_map("x-[a-z]{1,8}", header_value(), 0..4);
    (
        any::<bool>(),
        "[ -~]{0,60}",
        "[a-z0-9.-]{1,30}(:[0-9]{1,5})?",
        "[a-z/]{1,20}(; charset=utf-8)?",
        extra,
        vec(any::<u8>(), 0..300),
        any::<bool>(),
        0..4 * 365 * DAY,
    )
        .prop_map(|(post, query, host, content_type, extra, body, unsigned, offset)| {
            let required = [("content-type", content_type), ("host", host)];
            let required = required.map(|(name, value)| (name.to_owned(), value.into_bytes()));
            let headers = required.into_iter().chain(extra).collect();
            Sent { post, query, headers, body, unsigned, timestamp: NOW + offset }
        })
}

fn flip(bytes: &mut [u8], at: prop::sample::Index, mask: u8) {
    bytes[at.index(bytes.len())] ^= mask;
}

proptest! {
    #[test]
    fn what_is_signed_is_accepted(sent in requests()) {
        prop_assert_eq!(sent.verify(&sent.authorization()), Ok(()));
    }

    #[test]
    fn the_digest_of_a_body_does_for_the_body(mut sent in requests(), digest in any::<[u8; 32]>()) {
        sent.unsigned = false;
        let with = |payload| {
            let headers = sent.headers();
            let request = SignRequest {
                method: sent.method(), query: &sent.query, headers: &headers, payload, service: "ags", timestamp: NOW,
            };
            sign(&request, &credential()).unwrap().signature
        };
        use sha2::Digest;
        let real: [u8; 32] = sha2::Sha256::digest(&sent.body).into();
        prop_assert_eq!(with(Payload::Bytes(&sent.body)), with(Payload::Sha256(real)));
        prop_assert_ne!(with(Payload::Bytes(&sent.body)), with(Payload::Sha256(digest)));
    }

    #[test]
    fn a_changed_body_is_refused(mut sent in requests(), at: prop::sample::Index, mask in 1_u8..) {
        prop_assume!(!sent.body.is_empty());
        sent.unsigned = false;
        let authorization = sent.authorization();
        flip(&mut sent.body, at, mask);
        prop_assert_eq!(sent.verify(&authorization), Err(VerifyError::Mismatch));
    }

    #[test]
    fn a_changed_signed_header_is_refused(
        mut sent in requests(), which: prop::sample::Index, at: prop::sample::Index, mask in 1_u8..,
    ) {
        let authorization = sent.authorization();
        let which = which.index(sent.headers.len());
        let value = &mut sent.headers[which].1;
        prop_assume!(!value.is_empty());
        let before = value.clone();
        flip(value, at, mask);
        // Case and outer blanks are not part of what is signed.
        prop_assume!(!value.trim_ascii().eq_ignore_ascii_case(before.trim_ascii()));
        prop_assert_eq!(sent.verify(&authorization), Err(VerifyError::Mismatch));
    }

    #[test]
    fn a_changed_query_is_refused(mut sent in requests(), suffix in "[ -~]{1,5}") {
        let authorization = sent.authorization();
        sent.query.push_str(&suffix);
        prop_assert_eq!(sent.verify(&authorization), Err(VerifyError::Mismatch));
    }

    #[test]
    fn a_changed_signature_is_refused(sent in requests(), at in 0_usize..64, digit in "[0-9a-f]") {
        let mut authorization = sent.authorization();
        let at = authorization.len() - 64 + at;
        prop_assume!(authorization[at..=at] != digit);
        authorization.replace_range(at..=at, &digit);
        prop_assert_eq!(sent.verify(&authorization), Err(VerifyError::Mismatch));
    }

    #[test]
    fn the_other_method_is_refused(mut sent in requests()) {
        let authorization = sent.authorization();
        sent.post = !sent.post;
        prop_assert_eq!(sent.verify(&authorization), Err(VerifyError::Mismatch));
    }

    #[test]
    fn another_key_is_refused(sent in requests(), key in "[!-~]{1,40}") {
        prop_assume!(key != "SKEXAMPLE");
        let authorization = Authorization::parse(&sent.authorization()).unwrap();
        let headers = sent.headers();
        let request = VerifyRequest {
            authorization: &authorization, method: sent.method(), query: &sent.query, headers: &headers,
            signing_hosts: &[], payload: sent.payload(), service: "ags", timestamp: sent.timestamp,
        };
        prop_assert_eq!(verify(&request, &SecretString::from(key), sent.timestamp), Err(VerifyError::Mismatch));
    }

    #[test]
    fn parsing_never_panics(text in any::<String>()) {
        let _ = Authorization::parse(&text);
        let _ = Authorization::parse(&format!("TC3-HMAC-SHA256 {text}"));
    }

    #[test]
    fn almost_right_headers_never_panic(sent in requests(), at: prop::sample::Index, with in any::<char>()) {
        let mut chars: Vec<char> = sent.authorization().chars().collect();
        let at = at.index(chars.len());
        chars[at] = with;
        if let Ok(parsed) = Authorization::parse(&chars.iter().collect::<String>()) {
            prop_assert_eq!(Authorization::parse(&parsed.to_string()), Ok(parsed));
        }
    }
}

#[test]
fn a_signature_over_lower_cased_values_is_accepted() {
    let mut sent = sample();
    let authorization = sent.authorization();
    sent.headers[0].1 = b"Application/JSON".to_vec();
    sent.headers[1].1 = b"  AGS.example.com:8443\t".to_vec();
    assert_eq!(sent.verify(&authorization), Ok(()));
}

#[test]
fn a_signature_over_mixed_case_values_is_accepted() {
    let mut sent = sample();
    sent.headers[0].1 = b"application/json; charset=UTF-8".to_vec();
    assert_eq!(sent.verify(&sent.authorization()), Ok(()));
}

#[test]
fn a_host_that_a_proxy_rewrote_is_found_among_the_signing_hosts() {
    let mut sent = sample();
    let authorization = sent.authorization();
    sent.headers[1].1 = b"10.0.0.7".to_vec();
    assert_eq!(sent.verify(&authorization), Err(VerifyError::Mismatch));
    let hosts = ["other.example.com", "ags.example.com:8443"];
    assert_eq!(sent.verify_at(&authorization, &hosts, NOW), Ok(()));
}

#[test]
fn clocks_may_differ_by_five_minutes() {
    let sent = sample();
    let at = |now| sent.verify_at(&sent.authorization(), &[], now);
    assert_eq!(at(NOW + 300), Ok(()));
    assert_eq!(at(NOW - 300), Ok(()));
    assert_eq!(at(NOW + 301), Err(VerifyError::Expired));
    assert_eq!(at(NOW - 301), Err(VerifyError::Expired));
    assert_eq!(at(i64::MIN), Err(VerifyError::Expired));
    assert_eq!(VerifyError::Expired.code(), "AuthFailure.SignatureExpire");
}

#[test]
fn the_scope_must_be_of_the_day_and_of_the_service() {
    let sent = sample();
    let authorization = sent.authorization();
    let yesterday = authorization.replace("2025-10-09", "2025-10-08");
    assert_eq!(sent.verify(&yesterday), Err(VerifyError::ScopeDate));
    let other = authorization.replace("/ags/", "/cvm/");
    assert_eq!(sent.verify(&other), Err(VerifyError::ScopeService));
}

#[test]
fn content_type_and_host_must_be_signed_and_present_once() {
    let sent = sample();
    let authorization = sent.authorization();
    let without = |list: &str| authorization.replace("content-type;host", list);
    assert_eq!(sent.verify(&without("content-type")), Err(VerifyError::HeaderNotSigned("host")));
    assert_eq!(sent.verify(&without("host")), Err(VerifyError::HeaderNotSigned("content-type")));
    let absent = without("content-type;host;x-tc-action");
    assert_eq!(sent.verify(&absent), Err(VerifyError::HeaderAbsent("x-tc-action".into())));

    let mut twice = sent.clone();
    twice.headers.push(("Host".into(), b"evil.example.com".to_vec()));
    assert_eq!(twice.verify(&authorization), Err(VerifyError::HeaderAbsent("host".into())));
}

#[test]
fn malformed_authorizations_say_what_is_wrong() {
    use tc3::ParseError::*;
    let good = sample().authorization();
    let cases = [
        ("", Algorithm),
        ("SKIP", Algorithm),
        ("TC3-HMAC-SHA256", Algorithm),
        ("TC3-HMAC-SHA256x Credential=a/2025-10-09/ags/tc3_request", Algorithm),
        ("TC3-HMAC-SHA256 nothing", Part),
        ("TC3-HMAC-SHA256 Credential=a/2025-10-09/ags/tc3_request", Missing),
    ];
    for (text, error) in cases {
        assert_eq!(Authorization::parse(text), Err(error), "{text}");
    }
    let edits = [
        ("SignedHeaders=", "Extra=1, SignedHeaders=", Part),
        ("SignedHeaders=", "SignedHeaders=a, SignedHeaders=", Duplicate),
        ("/tc3_request", "", Credential),
        ("/tc3_request", "/tc4_request", Credential),
        ("AKIDEXAMPLE/", "/", Credential),
        ("AKIDEXAMPLE/", "a/b/", Credential),
        ("2025-10-09", "2025-1-009", Credential),
        ("content-type;host", "Content-Type;host", SignedHeaders),
        ("content-type;host", "host;content-type;host", SignedHeaders),
        ("content-type;host", "", SignedHeaders),
        ("Signature=", "Signature=0", Signature),
        ("Signature=", "Signature=g", Signature),
    ];
    for (from, to, error) in edits {
        assert_eq!(Authorization::parse(&good.replacen(from, to, 1)), Err(error), "{from} -> {to}");
    }
    let upper = good.to_uppercase();
    let digits = &upper[upper.len() - 64..];
    let shouted = format!("{}{digits}", &good[..good.len() - 64]);
    assert_eq!(Authorization::parse(&shouted), Err(Signature));
}

#[test]
fn what_cannot_be_verified_is_not_signed() {
    let sign_headers = |headers: &[Header<'_>]| {
        let payload = Payload::Unsigned;
        let request = SignRequest { method: Method::Post, query: "", headers, payload, service: "ags", timestamp: NOW };
        sign(&request, &credential()).unwrap_err()
    };
    let (content_type, host): (Header<'_>, Header<'_>) = (("content-type", b"a/b"), ("host", b"h"));
    assert_eq!(sign_headers(&[content_type]), tc3::SignError::HeaderMissing("host"));
    let doubled = sign_headers(&[content_type, host, host]);
    assert_eq!(doubled, tc3::SignError::HeaderName("host".into()));
    let upper = sign_headers(&[content_type, host, ("X-Upper", b"1")]);
    assert_eq!(upper, tc3::SignError::HeaderName("X-Upper".into()));
}
