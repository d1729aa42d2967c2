//! AGS's own E2B endpoint.

use serde_json::{Value, json};

use crate::harness::{Harness, start};

async fn create(h: &Harness, body: Value) -> Value {
    let response = h.e2b("POST", "/v2/sandboxes").json(&body).send().await.unwrap();
    assert_eq!(response.status(), 201);
    response.json().await.unwrap()
}

async fn status(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

fn id(sandbox: &Value) -> &str {
    sandbox["sandboxID"].as_str().unwrap()
}

#[tokio::test]
async fn keys_open_the_endpoint() {
    let h = start().await;
    let url = format!("{}/sandboxes", h.emulator.url());
    let refused = h.http.get(&url).header("x-api-key", "ark_wrong").send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], 401);
    assert_eq!(status(h.http.get(&url)).await, 401);
    let key = h.call("CreateAPIKey", json!({})).await.unwrap();
    let by_key = h.http.get(&url).header("x-api-key", key["APIKey"].as_str().unwrap());
    assert_eq!(status(by_key).await, 200);
}

#[tokio::test]
async fn a_sandbox_lives_its_life() {
    let h = start().await;
    let made = create(&h, json!({"templateID": "base", "timeout": 10, "metadata": {"k": "v"}})).await;
    for field in ["templateID", "sandboxID", "clientID", "envdVersion", "envdAccessToken", "trafficAccessToken"] {
        assert!(made[field].is_string(), "{field}");
    }
    let path = format!("/sandboxes/{}", id(&made));
    let info: Value = h.e2b("GET", &path).send().await.unwrap().json().await.unwrap();
    for field in ["startedAt", "endAt", "state", "cpuCount", "memoryMB", "diskSizeMB", "envdVersion"] {
        assert!(!info[field].is_null(), "{field}");
    }
    let connect = |timeout: u64| h.e2b("POST", &format!("/v2{path}/connect")).json(&json!({"timeout": timeout}));
    let shorter = connect(1).send().await.unwrap();
    assert_eq!(shorter.status(), 200);
    assert_eq!(shorter.json::<Value>().await.unwrap()["envdAccessToken"], made["envdAccessToken"]);
    let same: Value = h.e2b("GET", &path).send().await.unwrap().json().await.unwrap();
    assert_eq!(same["endAt"], info["endAt"], "connect never shortens");
    assert_eq!(status(connect(600)).await, 200);
    let longer: Value = h.e2b("GET", &path).send().await.unwrap().json().await.unwrap();
    assert!(longer["endAt"].as_str() > info["endAt"].as_str());
    assert_eq!(status(h.e2b("POST", &format!("{path}/timeout")).json(&json!({"timeout": 5}))).await, 204);
    assert_eq!(status(h.e2b("POST", &format!("{path}/pause"))).await, 204);
    assert_eq!(status(h.e2b("POST", &format!("{path}/pause")).json(&json!({}))).await, 409);
    assert_eq!(status(connect(60)).await, 201);
    assert_eq!(status(h.e2b("GET", &format!("{path}/metrics"))).await, 200);
    assert_eq!(status(h.e2b("DELETE", &path)).await, 204);
    assert_eq!(status(h.e2b("DELETE", &path)).await, 404);
    assert_eq!(status(h.e2b("GET", &path)).await, 404);
    assert_eq!(status(connect(60)).await, 404);
}

#[tokio::test]
async fn the_traffic_token_opens_ports_but_not_envd() {
    let h = start().await;
    let made = create(&h, json!({"templateID": "code-interpreter-v1"})).await;
    let to = |port: &str, header: &str, token: &Value| {
        let request = h.http.get(format!("{}/x", h.emulator.url()));
        request
            .header("e2b-sandbox-id", id(&made))
            .header("e2b-sandbox-port", port)
            .header(header, token.as_str().unwrap())
    };
    assert_eq!(status(to("8000", "e2b-traffic-access-token", &made["trafficAccessToken"])).await, 200);
    assert_eq!(status(to("49983", "e2b-traffic-access-token", &made["trafficAccessToken"])).await, 401);
    assert_eq!(status(to("49983", "x-access-token", &made["envdAccessToken"])).await, 200);
}

#[tokio::test]
async fn lists_page_newest_first() {
    let h = start().await;
    let mut ids = Vec::new();
    for n in 0..3 {
        let body = json!({"templateID": "base", "metadata": {"a k": "b&c", "n": n.to_string()}});
        ids.push(id(&create(&h, body).await).to_owned());
    }
    let mut token = String::new();
    let mut seen = Vec::new();
    for page in 0..3 {
        let query = format!("/v2/sandboxes?limit=1&metadata=a%252520k%3Db%252526c{token}");
        let response = h.e2b("GET", &query).send().await.unwrap();
        let next = response.headers().get("x-next-token").map(|t| t.to_str().unwrap().to_owned());
        assert_eq!(next.is_none(), page == 2, "absent on the last page only");
        token = next.map(|next| format!("&nextToken={next}")).unwrap_or_default();
        let rows: Value = response.json().await.unwrap();
        seen.push(id(&rows[0]).to_owned());
    }
    ids.reverse();
    assert_eq!(seen, ids);
    let none: Value = h.e2b("GET", "/v2/sandboxes?state=paused").send().await.unwrap().json().await.unwrap();
    assert_eq!(none, json!([]));
}

#[tokio::test]
async fn errors_have_integer_codes() {
    let h = start().await;
    for (request, expected) in [
        (h.e2b("POST", "/sandboxes").json(&json!({"templateID": "nope"})), 404),
        (h.e2b("POST", "/sandboxes").body("{"), 400),
        (h.e2b("POST", "/sandboxes").json(&json!({"templateID": "base", "metadata": {"x-custom-config": "["}})), 400),
        (h.e2b("POST", "/sandboxes/x/timeout").json(&json!({"timeout": 5})), 404),
        (h.e2b("GET", "/v2/sandboxes?limit=0"), 400),
        (h.e2b("GET", "/templates"), 501),
        (h.e2b("GET", "/sandboxes/x/what/ever"), 404),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), expected);
        assert_eq!(response.json::<Value>().await.unwrap()["code"], expected);
    }
}

#[tokio::test]
async fn a_custom_configuration_is_taken_and_echoed() {
    let h = start().await;
    let config = json!({"image": "python:3.11", "resources": {"cpu": "3", "memory": "2Gi"}}).to_string();
    let made = create(&h, json!({"templateID": "base", "metadata": {"x-custom-config": config}})).await;
    let info: Value = h.e2b("GET", &format!("/sandboxes/{}", id(&made))).send().await.unwrap().json().await.unwrap();
    assert!(info["metadata"]["x-custom-config"].as_str().unwrap().contains("imageDigest"));
    assert_eq!((&info["cpuCount"], &info["memoryMB"]), (&json!(3), &json!(2048)));
    let shown = h.instance(id(&made)).await;
    assert_eq!(shown["CustomConfiguration"]["Image"], "python:3.11");
}

#[tokio::test]
async fn an_idempotency_key_creates_once() {
    let h = start().await;
    let send = async || {
        let request =
            h.e2b("POST", "/v2/sandboxes").header("idempotency-key", "k-1").json(&json!({"templateID": "base"}));
        request.send().await.unwrap().json::<Value>().await.unwrap()
    };
    assert_eq!(send().await, send().await);
}
