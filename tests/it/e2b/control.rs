//! The control plane: routes of all generations, lists, states, errors.

use http::Method;
use serde_json::{Value, json};

use super::{DOMAIN, Sandbox, refused};
use crate::harness::{Api, Options, Stack, eventually, read, run};

async fn simulated() -> Stack {
    let options = Options::simulated().with("TOOLS__SHARED", "base").with("SERVER__SANDBOX_DOMAIN", DOMAIN);
    Stack::with(options).await
}

fn path(sandbox: &Sandbox, rest: &str) -> String {
    format!("/e2b/sandboxes/{}{rest}", sandbox.id)
}

fn seconds_between(from: &Value, to: &Value) -> i64 {
    let time = |value: &Value| value.as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    (time(to) - time(from)).num_seconds()
}

#[test]
fn a_sandbox_is_an_instance_of_ours() {
    run(async {
        let stack = simulated().await;
        let api = stack.api();
        for route in ["/e2b/sandboxes", "/e2b/v2/sandboxes"] {
            let body = json!({"templateID": "base:latest", "timeout": 120, "metadata": {"k": "v w"}, "secure": true, "later": 1});
            let created = api.post(route, &body).await.expect(201);
            let sandbox = Sandbox::of(&created);
            assert!(created["domain"].is_null(), "nothing speaks TLS here");
            let info = api.get(&path(&sandbox, "")).await.expect(200);
            assert_eq!((&info["state"], &info["metadata"]), (&json!("running"), &json!({"k": "v w"})));
            assert_eq!(seconds_between(&info["startedAt"], &info["endAt"]), 120);
            assert_eq!(info["envdAccessToken"], created["envdAccessToken"], "whoever asks again gets the same");
            let instance = api.get(&format!("/v1/instances/{}", sandbox.id)).await.expect(200);
            assert_eq!((&instance["tool_name"], &instance["status"]), (&json!("base"), &json!("RUNNING")));
            assert!(!created.to_string().contains("sit_"), "the cloud's own token: {created}");
            assert_eq!(api.delete(&path(&sandbox, "")).await.status, 204);
            refused(api.delete(&path(&sandbox, "")).await, 404);
            refused(api.get(&path(&sandbox, "")).await, 404);
            refused(api.post(&path(&sandbox, "/connect"), &json!({"timeout": 5})).await, 404);
        }
        // What was tried in vain is written down as well.
        let told = async || {
            let history = api.get("/v1/audit?action=create_instance,delete_instance").await.expect(200);
            let events = history["items"].as_array().unwrap().clone();
            let count = |action: &str, outcome: &str| {
                events.iter().filter(|event| event["action"] == action && event["outcome"] == outcome).count()
            };
            let counts = [("create_instance", "ok"), ("delete_instance", "ok"), ("delete_instance", "not_found")];
            (counts.map(|(action, outcome)| count(action, outcome)) == [2, 2, 2]).then_some(())
        };
        eventually(told).await;
    });
}

#[test]
fn the_key_is_the_same_under_its_other_name() {
    run(async {
        let stack = simulated().await;
        let key = stack.key.replace("agsk_", "e2b_");
        let anybody = Api::anonymous(&stack.url);
        let list = |key: &str| anybody.request(Method::GET, "/e2b/v2/sandboxes").header("X-API-KEY", key);
        assert_eq!(read(list(&key)).await.expect(200), json!([]));
        for wrong in ["e2b_12", &"e2b_".repeat(9), &format!("e2b_{}", "0".repeat(64))] {
            refused(read(list(wrong)).await, 401);
        }
        refused(anybody.get("/e2b/sandboxes").await, 401);
        refused(anybody.get("/e2b/nonsense").await, 401);
        let scopes = json!({"name": "reader", "scopes": ["instances:read"]});
        let reader = stack.api().post("/v1/keys", &scopes).await.expect(201);
        let reader = stack.bearer(reader["secret"].as_str().unwrap());
        reader.get("/e2b/sandboxes").await.expect(200);
        refused(reader.post("/e2b/sandboxes", &json!({"templateID": "base"})).await, 403);
    });
}

#[test]
fn another_teams_sandbox_is_not_there() {
    run(async {
        let stack = simulated().await;
        let sandbox = Sandbox::create(&stack.api(), json!({"templateID": "base"})).await;
        let other = stack.team("other").await;
        for answer in [
            other.get(&path(&sandbox, "")).await,
            other.delete(&path(&sandbox, "")).await,
            other.post(&path(&sandbox, "/connect"), &json!({"timeout": 60})).await,
            other.post(&path(&sandbox, "/timeout"), &json!({"timeout": 60})).await,
            other.post(&path(&sandbox, "/pause"), &json!({})).await,
            other.get(&path(&sandbox, "/metrics")).await,
            other.get("/e2b/sandboxes/nonsense").await,
        ] {
            assert!(refused(answer, 404).contains("doesn't exist or you don't have access to it"));
        }
        assert_eq!(other.get("/e2b/v2/sandboxes").await.expect(200), json!([]));
    });
}

#[test]
fn a_list_has_pages_and_filters() {
    run(async {
        let stack = simulated().await;
        let api = stack.api();
        let mut ids = Vec::new();
        for n in ["a", "b", "c"] {
            let body = json!({"templateID": "base", "metadata": {"a k": "b&c", "n": n}});
            ids.push(Sandbox::create(&api, body).await);
        }
        api.post(&path(&ids[0], "/pause"), &json!({})).await.expect(204);
        let listed = async |query: &str| {
            let answer = api.get(&format!("/e2b/v2/sandboxes?{query}")).await;
            let next = answer.headers.get("x-next-token").map(|token| token.to_str().unwrap().to_owned());
            let found: Vec<String> = answer
                .expect(200)
                .as_array()
                .unwrap()
                .iter()
                .map(|one| {
                    let at = ids.iter().position(|sandbox| one["sandboxID"] == json!(sandbox.id));
                    ["a", "b", "c"][at.unwrap()].to_owned()
                })
                .collect();
            (found.concat(), next)
        };
        assert_eq!(listed("").await, ("cba".to_owned(), None));
        assert_eq!(listed("state=running").await.0, "cb");
        assert_eq!(listed("state=paused").await.0, "a");
        assert_eq!(listed("state=running%2Cpaused&order=asc").await.0, "abc");
        assert_eq!(listed("metadata=a%252520k%3Db%252526c").await.0, "cba");
        assert_eq!(listed("metadata=a%252520k%3Db%252526c%26n%3Db").await.0, "b");
        assert_eq!(listed("metadata=n%3Dx").await.0, "");
        assert_eq!(listed("template=base").await.0, "cba");
        assert_eq!(listed("template=other").await.0, "");
        for (order, pages) in [("desc", ["c", "b", "a"]), ("asc", ["a", "b", "c"])] {
            let mut token = String::new();
            for (at, page) in pages.iter().enumerate() {
                let (found, next) = listed(&format!("limit=1&order={order}{token}")).await;
                assert_eq!(found, *page);
                assert_eq!(next.is_some(), at < 2, "no token on the last page");
                token = format!("&nextToken={}", next.unwrap_or_default());
            }
        }
        let info = api.get(&path(&ids[1], "")).await.expect(200);
        let started = info["startedAt"].as_str().unwrap().replace('Z', "%2B00:00");
        assert_eq!(listed(&format!("startedAfter={started}")).await.0, "cb", "inclusive");
        assert!(refused(api.get("/e2b/v2/sandboxes?limit=101").await, 400).contains("limit"));
        refused(api.get("/e2b/v2/sandboxes?nextToken=%25").await, 400);
    });
}

#[test]
fn lives_are_shortened_lengthened_and_end() {
    run(async {
        let stack = simulated().await;
        let api = stack.api();
        let sandbox = Sandbox::create(&api, json!({"templateID": "base", "timeout": 600})).await;
        let end = async || api.get(&path(&sandbox, "")).await.expect(200)["endAt"].clone();
        let before = end().await;
        for (route, body) in [("/connect", json!({"timeout": 60})), ("/refreshes", json!({"duration": 60}))] {
            let answer = api.post(&path(&sandbox, route), &body).await;
            assert!(answer.status.is_success(), "{:#}", answer.body);
            assert_eq!(end().await, before, "a later end stays: {route}");
        }
        api.post(&path(&sandbox, "/refreshes"), &json!({"duration": 1200})).await.expect(204);
        assert!(seconds_between(&before, &end().await) >= 500);
        api.post(&path(&sandbox, "/timeout"), &json!({"timeout": 60})).await.expect(204);
        assert!(seconds_between(&before, &end().await) < 0);
        assert!(
            refused(api.post(&path(&sandbox, "/timeout"), &json!({"timeout": 90_000})).await, 400).contains("timeout")
        );
        refused(api.post(&path(&sandbox, "/timeout"), &json!({})).await, 400);
        api.post(&path(&sandbox, "/timeout"), &json!({"timeout": -3})).await.expect(204);
        eventually(async || (api.get(&path(&sandbox, "")).await.status == 404).then_some(())).await;
        let instance = format!("/v1/instances/{}", sandbox.id);
        let ended = eventually(async || {
            let instance = api.get(&instance).await.expect(200);
            (instance["status"] == "STOPPED").then_some(instance)
        });
        assert_eq!(ended.await["stop_reason"], "timeout");
        let brief = Sandbox::create(&api, json!({"templateID": "base", "timeout": 2})).await;
        eventually(async || (api.get(&path(&brief, "")).await.status == 404).then_some(())).await;
    });
}

#[test]
fn a_paused_sandbox_waits_and_comes_back_with_the_same_tokens() {
    run(async {
        let stack = simulated().await;
        let api = stack.api();
        let sandbox = Sandbox::create(&api, json!({"templateID": "base", "timeout": 60})).await;
        // Older SDKs send no body at all.
        let pause = || api.request(Method::POST, &path(&sandbox, "/pause"));
        assert_eq!(read(pause()).await.status, 204);
        refused(read(pause()).await, 409);
        let paused = api.get(&path(&sandbox, "")).await.expect(200);
        assert_eq!(paused["state"], "paused");
        assert!(seconds_between(&paused["startedAt"], &paused["endAt"]) > 3600, "it is kept for its owner's return");
        assert_eq!(api.get(&path(&sandbox, "/metrics")).await.expect(200), json!([]));
        let back = api.post(&path(&sandbox, "/connect"), &json!({"timeout": 77})).await.expect(201);
        assert_eq!((&back["sandboxID"], &back["envdAccessToken"]), (&json!(sandbox.id), &json!(sandbox.access)));
        let info = api.get(&path(&sandbox, "")).await.expect(200);
        assert_eq!(info["state"], "running");
        assert!((60..=200).contains(&seconds_between(&info["startedAt"], &info["endAt"])));
        // Some SDKs name the sandbox in headers here, too.
        let again = format!("/e2b/v2/sandboxes/{}/connect", sandbox.id);
        let again = sandbox.named(api.request(Method::POST, &again), 49_983).json(&json!({"timeout": 7}));
        read(again).await.expect(200);
        api.post(&path(&sandbox, "/resume"), &json!({"timeout": 7})).await.expect(201);
    });
}

#[test]
fn a_creation_is_repeated_safely() {
    run(async {
        let stack = simulated().await;
        let api = stack.api();
        let create =
            |body: Value| api.request(Method::POST, "/e2b/v2/sandboxes").header("idempotency-key", "k-1").json(&body);
        let first = read(create(json!({"templateID": "base"}))).await.expect(201);
        let again = read(create(json!({"templateID": "base"}))).await;
        assert_eq!(again.headers["idempotency-replayed"], "true");
        assert_eq!(again.expect(201), first, "tokens included");
        refused(read(create(json!({"templateID": "base", "timeout": 60}))).await, 422);
        assert_eq!(stack.calls("StartSandboxInstance"), 1);
        let kept: Vec<Value> =
            sqlx::query_scalar("SELECT body FROM idempotency_keys").fetch_all(&stack.app.pool).await.unwrap();
        assert!(!kept.iter().any(|body| body.to_string().contains("agsa_")), "no token is kept: {kept:?}");
    });
}

#[test]
fn what_cannot_be_done_is_refused_in_words_that_sdks_read() {
    run(async {
        let stack = simulated().await;
        let api = stack.api();
        let sandbox = Sandbox::create(&api, json!({"templateID": "base"})).await;
        for answer in [
            api.post(&path(&sandbox, "/snapshots"), &json!({})).await,
            api.post(&path(&sandbox, "/fork"), &json!({"count": 1})).await,
            api.get(&path(&sandbox, "/logs")).await,
            api.post("/e2b/v3/templates", &json!({"name": "x"})).await,
            api.get("/e2b/volumes").await,
            api.post("/e2b/sandboxes", &json!({"templateID": "base", "autoPause": true})).await,
            api.post("/e2b/sandboxes", &json!({"templateID": "base", "allow_internet_access": false})).await,
        ] {
            refused(answer, 501);
        }
        for (body, status, word) in [
            (json!({"templateID": "absent"}), 404, "absent"),
            (json!({}), 400, "templateID"),
            (json!({"templateID": "base", "timeout": "x"}), 400, "timeout"),
            (json!({"templateID": "base", "timeout": 90_000}), 400, "timeout"),
            (
                json!({"templateID": "base", "metadata": {"x-custom-config": "{\"imagine\": 1}"}}),
                400,
                "x-custom-config",
            ),
            (json!({"templateID": "base", "network": {"allowPublicTraffic": true}}), 403, "PUBLIC"),
        ] {
            let said = refused(api.post("/e2b/sandboxes", &body).await, status);
            assert!(said.contains(word), "{said}");
        }
        let quota = json!({"quotas": {"max_instances": 1}});
        let team = api.get("/v1/me").await.expect(200)["team"]["id"].as_str().unwrap().to_owned();
        stack.admin().patch(&format!("/v1/teams/{team}"), &quota).await.expect(200);
        let limited = api.post("/e2b/sandboxes", &json!({"templateID": "base"})).await;
        // Until the one that there is ends, as far as is known; nobody is told to stay away for longer than a minute.
        let after: u64 = limited.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=60).contains(&after), "{after}");
        refused(limited, 429);
        assert!(refused(read(api.request(Method::POST, "/e2b/sandboxes").body("{")).await, 400).contains("JSON"));
    });
}

#[test]
fn a_custom_configuration_reaches_the_cloud() {
    run(async {
        let stack = simulated().await;
        let api = stack.api();
        let config = json!({
            "image": "python:3.11", "imageRegistryType": "enterprise", "env": [{"name": "A", "value": "b"}],
            "resources": {"cpu": "1500m", "memory": "2Gi"},
        });
        let metadata = json!({"x-custom-config": config.to_string()});
        let sandbox = Sandbox::create(&api, json!({"templateID": "base", "metadata": metadata})).await;
        let instance = api.get(&format!("/v1/instances/{}", sandbox.id)).await.expect(200);
        let custom = &stack.upstream_instance(&instance["upstream_id"])["CustomConfiguration"];
        assert_eq!((&custom["Image"], &custom["Resources"]["CPU"]), (&json!("python:3.11"), &json!("1500m")));
        assert_eq!(custom["Env"], json!([{"Name": "A", "Value": "b"}]));
        let info = api.get(&path(&sandbox, "")).await.expect(200);
        assert_eq!((&info["cpuCount"], &info["memoryMB"]), (&json!(2), &json!(2048)));
        assert_eq!(info["metadata"], metadata);
    });
}

#[test]
fn tools_are_templates() {
    run(async {
        let stack = simulated().await;
        let api = stack.api();
        let tool = json!({"name": "mine", "type": "custom", "resources": {"cpu": "2", "memory": "512Mi"}});
        let tool = api.post("/v1/tools?wait=10s", &tool).await.expect(201);
        let listed = api.get("/e2b/templates").await.expect(200);
        let mine = listed.as_array().unwrap().iter().find(|one| one["templateID"] == tool["id"]).unwrap();
        assert_eq!(
            (&mine["aliases"], &mine["memoryMB"], &mine["public"]),
            (&json!(["mine"]), &json!(512), &json!(false))
        );
        assert_eq!(api.get("/e2b/templates/aliases/mine").await.expect(200)["templateID"], tool["id"]);
        refused(api.get("/e2b/templates/aliases/absent").await, 404);
        for template in [tool["id"].clone(), json!("mine")] {
            Sandbox::create(&api, json!({"templateID": template})).await;
        }
    });
}

#[test]
fn the_api_has_a_host_of_its_own() {
    run(async {
        let stack = simulated().await;
        let asked = |host: &str, path: &str| stack.api().request(Method::GET, path).header("host", host.to_owned());
        let host = format!("api.{DOMAIN}");
        assert_eq!(read(asked(&host, "/v2/sandboxes")).await.expect(200), json!([]));
        assert_eq!(read(asked(&format!("{host}:8443"), "/sandboxes")).await.expect(200), json!([]));
        // Unless it is the gateway's own name, nothing else is there.
        refused(read(asked(&host, "/v1/me")).await, 501);
        read(asked(&format!("apis.{DOMAIN}"), "/v2/sandboxes")).await.problem(404, "not_found");
        let (app, url) = stack.replica_with("SERVER__PUBLIC_URL", &format!("https://{host}:8443")).await;
        let own = stack.api().at(&url);
        let asked = |path: &str| own.request(Method::GET, path).header("host", host.clone());
        assert_eq!(read(asked("/v1/me")).await.expect(200)["team"]["name"], "dev");
        assert_eq!(read(asked("/v2/sandboxes")).await.expect(200), json!([]));
        let created = own.post("/e2b/sandboxes", &json!({"templateID": "base"})).await.expect(201);
        assert_eq!(created["domain"], format!("{DOMAIN}:8443"));
        app.lifecycle.drain();
    });
}
