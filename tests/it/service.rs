//! Health, documents, request ids, and what unknown requests get.

use http::{HeaderName, Method};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{self, Api, Options, Stack};

#[test]
fn what_is_public_needs_no_key() {
    harness::run(async {
        let stack = Stack::with(Options::simulated()).await;
        let anybody = Api::anonymous(&stack.url);
        assert_eq!(anybody.get("/healthz").await.expect(200)["status"], "ok");
        let ready = anybody.get("/readyz").await.expect(200);
        assert_eq!((&ready["ready"], ready["upstreams"]["default"].is_string()), (&json!(true), true), "{ready:#}");
        let document = anybody.get("/openapi.json").await.expect(200);
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        let docs = anybody.request(Method::GET, "/docs/").send().await.unwrap();
        assert!(docs.text().await.unwrap().contains("swagger"));
        anybody.get("/metrics").await.problem(401, "unauthenticated");
    });
}

#[test]
fn the_request_id_is_kept_and_unfit_ones_are_replaced() {
    harness::run(async {
        let stack = Stack::with(Options::simulated()).await;
        let name = HeaderName::from_static("x-request-id");
        let call = |id: &'static str| stack.api().request(Method::GET, "/v1/me").header(&name, id).send();
        assert_eq!(call("abc-1").await.unwrap().headers()[&name], "abc-1");
        assert_ne!(call("with space").await.unwrap().headers()[&name], "with space");
    });
}

#[test]
fn unknown_paths_methods_and_parameters_get_problem_documents() {
    harness::run(async {
        let stack = Stack::with(Options::simulated()).await;
        let api = stack.api();
        api.get("/v1/nothing").await.problem(404, "not_found");
        api.delete("/v1/me").await.problem(405, "method_not_allowed");
        let unknown = api.get("/v1/keys?colour=red").await.problem(422, "validation_failed");
        assert_eq!(unknown["errors"][0]["field"], "colour");
        let malformed = api.request(Method::POST, "/v1/keys").header("content-type", "application/json").body("{");
        harness::read(malformed).await.problem(400, "malformed_json");
        let text = api.request(Method::POST, "/v1/keys").header("content-type", "text/plain").body("x");
        harness::read(text).await.problem(415, "unsupported_media_type");
        let large = serde_json::json!({"name": "x".repeat(2 << 20), "scopes": ["exec"]});
        let refused = api.post("/v1/keys", &large).await.problem(413, "body_too_large");
        assert_eq!(refused["limit"]["name"], "max_json_body");
    });
}

/// Every operation that needs a credential refuses without one: the list of the public ones only shrinks.
#[test]
fn every_operation_but_the_public_ones_asks_for_a_credential() {
    const PUBLIC: &[&str] = &["get_health", "get_readiness"];
    harness::run(async {
        let stack = Stack::with(Options::simulated()).await;
        let anybody = Api::anonymous(&stack.url);
        let document = anybody.get("/openapi.json").await.expect(200);
        let mut seen = 0;
        for Operation { id, method, path, .. } in operations(&document) {
            if PUBLIC.contains(&id) {
                continue;
            }
            let response = anybody.request(method, &path).send().await.unwrap();
            assert_eq!(response.status(), 401, "{id} answers without a credential");
            seen += 1;
        }
        assert!(seen > 5, "the document lists the operations");
    });
}

/// No operation takes a query parameter that it does not know, those that know none included.
#[test]
fn every_operation_names_a_query_parameter_that_it_does_not_know() {
    harness::run(async {
        let stack = Stack::with(Options::simulated()).await;
        let admin = stack.admin();
        let document = Api::anonymous(&stack.url).get("/openapi.json").await.expect(200);
        let mut bare = 0;
        for Operation { id, method, path, described } in operations(&document) {
            // What is asked of a port is the sandbox's.
            if !path.starts_with("/v1/") || path.contains("/ports/") {
                continue;
            }
            let answer = harness::read(admin.request(method, &format!("{path}?colour=red"))).await;
            assert!(answer.status.is_client_error(), "{id}: {answer:?}");
            let parameters = described["parameters"].as_array().cloned().unwrap_or_default();
            if !parameters.iter().any(|one| one["in"] == "query" && one["name"] != "wake") {
                let refused = answer.problem(422, "validation_failed");
                assert_eq!(refused["errors"][0]["field"], "colour", "{id}: {refused:#}");
                bare += 1;
            }
        }
        assert!(bare > 20, "{bare}");
    });
}

#[test]
fn a_body_that_comes_after_its_answer_does_not_cost_the_connection() {
    harness::run(async {
        let stack = Stack::with(Options::simulated()).await;
        let mut connection = TcpStream::connect(stack.url.trim_start_matches("http://")).await.unwrap();
        let head = "POST /v1/keys HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 3\r\n\r\n";
        let mut said = String::new();
        for _ in 0..3 {
            connection.write_all(head.as_bytes()).await.unwrap();
            said = until(&mut connection, "\"unauthenticated\"").await;
            assert!(said.starts_with("HTTP/1.1 401"), "{said}");
            connection.write_all(b"abc").await.unwrap();
        }
        assert!(!said.to_lowercase().contains("connection: close"), "{said}");
        connection.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert!(until(&mut connection, "\"ok\"").await.contains("HTTP/1.1 200"));
    });
}

/// What comes until this stands in it, with the rest of its body.
async fn until(connection: &mut TcpStream, text: &str) -> String {
    let (mut said, mut piece) = (String::new(), [0; 4096]);
    while !(said.contains(text) && said.ends_with('}')) {
        let read = connection.read(&mut piece).await.unwrap();
        assert!(read > 0, "closed after {said}");
        said.push_str(std::str::from_utf8(&piece[..read]).unwrap());
    }
    said
}

/// An operation of the document.
struct Operation<'a> {
    id: &'a str,
    method: Method,
    /// With something in the place of each parameter.
    path: String,
    described: &'a Value,
}

fn operations(document: &Value) -> Vec<Operation<'_>> {
    let paths = document["paths"].as_object().unwrap().iter();
    let all = paths
        .flat_map(|(path, methods)| methods.as_object().unwrap().iter().map(move |(method, one)| (path, method, one)));
    let named = all.filter_map(|(path, method, described)| {
        let id = described["operationId"].as_str()?;
        let method = method.to_uppercase().parse().unwrap();
        Some(Operation { id, method, path: fill_in(path, described), described })
    });
    named.collect()
}

/// A path with something in the place of each parameter.
fn fill_in(path: &str, operation: &Value) -> String {
    let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    parameters.iter().filter(|parameter| parameter["in"] == "path").fold(path.to_owned(), |path, parameter| {
        let name = parameter["name"].as_str().unwrap();
        path.replace(&format!("{{{name}}}"), "1")
    })
}
