//! Who may, and what cannot be a port.

use http::{Method, StatusCode};
use serde_json::json;

use super::web::{self, DOMAIN, PORT, Web, values};
use crate::harness::{self, Api, Options, Stack, eventually, read};

#[test]
fn only_the_teams_own_keys_with_the_scope_get_through() {
    harness::run(async {
        let web = Web::start().await;
        let anybody = Api::anonymous(&web.stack.url);
        anybody.get(&web.url("/")).await.problem(401, "unauthenticated");
        web.stack.team("other").await.get(&web.url("/")).await.problem(404, "not_found");
        let narrow = |scopes: &[&str]| json!({"name": "narrow", "scopes": scopes});
        let minted = web.api().post("/v1/keys", &narrow(&["instances:read"])).await.expect(201);
        let without = Api::new(&web.stack.url, minted["secret"].as_str().unwrap());
        without.get(&web.url("/")).await.problem(403, "scope_missing");
        let minted = web.api().post("/v1/keys", &narrow(&["ports"])).await.expect(201);
        let with = Api::new(&web.stack.url, minted["secret"].as_str().unwrap());
        with.get(&web.url("/")).await.expect(200);
        // Commands and files have scopes of their own, whichever way they are reached.
        let envd = format!("/v1/instances/{}/ports/49983/health", web.id);
        with.get(&envd).await.problem(403, "scope_missing");
        assert_eq!(web.api().request(Method::GET, &envd).send().await.unwrap().status(), 204);
        for internal in ["init", "freeze", "/fsthaw", "%69nit", "./Upgrade"] {
            let path = format!("/v1/instances/{}/ports/49983/{internal}", web.id);
            read(web.api().request(Method::POST, &path)).await.problem(404, "not_found");
        }
    });
}

#[test]
fn what_is_no_port_is_refused_before_anything_is_looked_up() {
    harness::run(async {
        let options = Options::simulated().with("SERVER__SANDBOX_DOMAIN", DOMAIN);
        let stack = Stack::with(options).await;
        let anybody = Api::anonymous(&stack.url);
        let id = "ins00000000000000000000000000";
        for port in ["0", "65536", "+80", "080", "abc", "-1", "80%20", "%38%30", "8e1"] {
            let path = format!("/v1/instances/{id}/ports/{port}/");
            let problem = anybody.get(&path).await.problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["field"], "port");
            let host = format!("{port}-{id}.{DOMAIN}");
            if !port.contains(['%', '+']) {
                let asked = anybody.request(Method::GET, "/v1/me").header("host", host);
                read(asked).await.problem(404, "not_found");
            }
        }
        stack.api().get("/v1/instances/nonsense/ports/80/").await.problem(404, "not_found");
        stack.api().get(&format!("/v1/instances/{id}/ports/80/")).await.problem(404, "not_found");
        stack.api().get(&format!("/v1/instances/{id}/url?port=080")).await.problem(422, "validation_failed");
    });
}

#[test]
fn only_the_credential_that_was_used_stays_behind() {
    harness::run(async {
        let web = Web::start().await;
        let seen = web.seen(web.get("/").header("x-api-key", "sk-for-the-sandbox")).await;
        assert_eq!(values(&seen, "x-api-key"), ["sk-for-the-sandbox"]);
        assert!(values(&seen, "authorization").is_empty());
        let anybody = Api::anonymous(&web.stack.url);
        let by_header = |name: &'static str, value: &str| {
            let request = anybody.request(Method::GET, &web.url("/")).header("x-api-key", web.api().key());
            request.header(name, value)
        };
        let seen = web.seen(by_header("authorization", "Bearer of-the-sandbox")).await;
        assert_eq!(values(&seen, "authorization"), ["Bearer of-the-sandbox"]);
        assert!(values(&seen, "x-api-key").is_empty());
        let seen = web.seen(by_header("authorization", "Basic cm9vdDo=")).await;
        assert_eq!(values(&seen, "authorization"), ["Basic cm9vdDo="]);
        // The cloud's own credentials end before the server.
        for name in ["x-access-token", "e2b-traffic-access-token"] {
            assert!(values(&seen, name).is_empty(), "{name}");
        }
    });
}

#[test]
fn errors_name_their_side() {
    harness::run(async {
        let web = Web::start().await;
        let closed = format!("/v1/instances/{}/ports/9", web.id);
        let problem = web.api().get(&closed).await.problem(502, "port_not_open");
        assert_eq!((&problem["sandbox"]["id"], &problem["retryable"]), (&json!(web.id), &json!(true)));
        web.api().get(&web.url("/hung-up")).await.problem(502, "upstream_error");
        // What the server says of itself is its own, whatever it looks like.
        for (code, body) in
            [(502, "bad gateway"), (404, "{\"code\":404,\"message\":\"no page\"}"), (401, "log in"), (409, "")]
        {
            let query = web::query(&[("code", &code.to_string()), ("body", body), ("kind", "application/json")]);
            let answer = web.get(&format!("/status{query}")).send().await.unwrap();
            assert_eq!(answer.status(), code);
            assert_eq!(answer.text().await.unwrap(), body);
        }
        web.api().delete(&format!("/v1/instances/{}", web.id)).await.expect(204);
        let problem = web.api().get(&web.url("/")).await.problem(409, "invalid_state");
        assert_eq!(problem["sandbox"]["status"], "STOPPED");
        let page = web.browser().build().unwrap().get(web.at("/")).bearer_auth(web.api().key());
        let page = page.header("accept", "text/html,*/*").send().await.unwrap();
        assert_eq!(page.status(), StatusCode::CONFLICT);
        assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
        assert!(page.text().await.unwrap().contains("STOPPED"));
    });
}

#[test]
fn a_sandbox_that_ended_behind_the_gateways_back_is_not_taken_for_a_servers_word() {
    harness::run(async {
        let web = Web::start().await;
        web.stop_upstream().await;
        let answer = web.api().get(&web.url("/")).await;
        assert!(matches!(answer.status.as_u16(), 409 | 503), "{:#}", answer.body);
        assert_eq!(answer.body["sandbox"]["id"], web.id);
    });
}

#[test]
fn a_token_that_ended_is_renewed_without_the_caller_noticing() {
    harness::run(async {
        let web = Web::start().await.at_one_gateway();
        web.stack.emulator.cloud().expire_tokens(Some(&web.upstream_id));
        web.seen(web.get("/")).await;
        web.stack.emulator.cloud().expire_tokens(Some(&web.upstream_id));
        // A body that was sent once cannot be sent again; the next call finds the new token.
        let streamed = || reqwest::Body::wrap_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("x")]));
        read(web.request(Method::POST, "/").body(streamed())).await.problem(503, "upstream_unavailable");
        web.seen(web.request(Method::POST, "/").body(streamed())).await;
    });
}

#[test]
fn an_instance_without_tokens_is_reached_without() {
    harness::run(async {
        let web = Web::start().await;
        let before = web.stack.emulator.cloud().clone();
        sqlx::query("UPDATE instances SET auth_mode = 'NONE'").execute(&web.stack.app.pool).await.unwrap();
        web.stack.app.access.forget("default", &web.upstream_id).await;
        // The cloud still asks for one: that it was not sent shows in the refusal.
        let refused = eventually(async || {
            let answer = web.api().get(&web.url("/")).await;
            (answer.status == 502).then_some(answer)
        });
        refused.await.problem(502, "upstream_error");
        drop(before);
    });
}

#[test]
fn each_limit_is_named_when_it_is_reached() {
    harness::run(async {
        for (key, name) in [
            ("PORTS__MAX_STREAMS_PER_INSTANCE", "ports.max_streams_per_instance"),
            ("PORTS__MAX_STREAMS_PER_TEAM", "ports.max_streams_per_team"),
        ] {
            let web = Web::with(Options::default().with(key, "2")).await.at_one_gateway();
            let open = [web.get("/ticks").send().await.unwrap(), web.get("/ticks").send().await.unwrap()];
            let refused = web.api().get(&web.url("/")).await;
            assert!(refused.headers.contains_key("retry-after"));
            let problem = refused.problem(429, "quota_exceeded");
            assert_eq!(problem["limit"], json!({"name": name, "value": 2, "used": 2}));
            drop(open);
            eventually(async || (web.get("/").send().await.unwrap().status() == 200).then_some(())).await;
        }
    });
}

#[test]
fn the_address_of_a_port_works_by_path_and_by_host() {
    harness::run(async {
        let web = Web::start().await.at_one_gateway();
        let found = web.api().get(&format!("/v1/instances/{}/url?port={PORT}", web.id)).await.expect(200);
        let url = found["url"].as_str().unwrap();
        assert_eq!(url, web.api().url(&web.url("/")));
        let client = web.browser().build().unwrap();
        assert_eq!(client.get(url).bearer_auth(web.api().key()).send().await.unwrap().status(), 200);
        // The gateway is asked at an address without a name, the host's has one.
        let host = found["host_url"].as_str().unwrap();
        assert_eq!(host, web.at("/"));
        assert_eq!(client.get(host).bearer_auth(web.api().key()).send().await.unwrap().status(), 200);
    });
}
