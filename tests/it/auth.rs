//! Teams, keys, scopes.

use serde_json::json;

use crate::harness::{self, Api, Options, Stack};

#[test]
fn credentials_are_asked_for_and_checked() {
    harness::run(async {
        let stack = Stack::with(Options::simulated()).await;
        Api::anonymous(&stack.url).get("/v1/me").await.problem(401, "unauthenticated");
        Api::new(&stack.url, "agsk_short").get("/v1/me").await.problem(401, "unauthenticated");
        let unknown = format!("agsk_{}", "ab".repeat(32));
        Api::new(&stack.url, &unknown).get("/v1/me").await.problem(401, "unauthenticated");
        let me = stack.api().get("/v1/me").await.expect(200);
        assert_eq!(me["team"]["name"], "dev");
        assert!(stack.key.starts_with(me["key"]["prefix"].as_str().unwrap()));
        let e2b = stack.key.replace("agsk_", "e2b_");
        Api::new(&stack.url, &e2b).get("/v1/me").await.expect(200);
        stack.api().get("/v1/teams").await.problem(403, "scope_missing");
    });
}

#[test]
fn a_minted_key_is_never_wider_than_its_issuer_and_dies_with_it() {
    harness::run(async {
        let stack = Stack::with(Options::simulated()).await;
        let api = stack.api();
        api.post("/v1/keys", &json!({"name": "k", "scopes": ["admin"]})).await.problem(403, "scope_missing");
        let body = json!({"name": "child", "scopes": ["keys", "exec"], "expires_in": "1h"});
        let child = api.post("/v1/keys", &body).await.expect(201);
        let child_api = Api::new(&stack.url, child["secret"].as_str().unwrap());
        child_api.post("/v1/keys", &json!({"name": "k", "scopes": ["ports"]})).await.problem(403, "scope_missing");
        let grandchild = child_api.post("/v1/keys", &json!({"name": "g", "scopes": ["exec"]})).await.expect(201);
        assert_eq!(grandchild["expires_at"], child["expires_at"], "it cannot outlive its issuer");
        let grandchild_api = Api::new(&stack.url, grandchild["secret"].as_str().unwrap());
        grandchild_api.get("/v1/me").await.expect(200);
        api.delete(&format!("/v1/keys/{}", child["id"].as_str().unwrap())).await.expect(204);
        grandchild_api.get("/v1/me").await.problem(401, "unauthenticated");
        let listed = api.get("/v1/keys?limit=2").await.expect(200);
        assert_eq!(listed["items"].as_array().unwrap().len(), 2);
        assert!(listed["next_cursor"].is_string());
        assert!(!listed.to_string().contains("secret"));
    });
}

#[test]
fn both_secrets_work_while_a_key_is_rotated() {
    harness::run(async {
        let stack = Stack::with(Options::simulated()).await;
        let key = stack.api().post("/v1/keys", &json!({"name": "k", "scopes": ["exec"]})).await.expect(201);
        let path = format!("/v1/keys/{}/rotate", key["id"].as_str().unwrap());
        let new = stack.api().post(&path, &json!({"grace": "1h"})).await.expect(200);
        for secret in [&key["secret"], &new["secret"]] {
            Api::new(&stack.url, secret.as_str().unwrap()).get("/v1/me").await.expect(200);
        }
        let newest = stack.api().post(&path, &json!({})).await.expect(200);
        Api::new(&stack.url, newest["secret"].as_str().unwrap()).get("/v1/me").await.expect(200);
        for secret in [&key["secret"], &new["secret"]] {
            Api::new(&stack.url, secret.as_str().unwrap()).get("/v1/me").await.problem(401, "unauthenticated");
        }
    });
}

#[test]
fn other_teams_keys_are_not_there() {
    harness::run(async {
        let stack = Stack::with(Options::simulated()).await;
        let other = stack.team("other").await;
        let key = stack.api().post("/v1/keys", &json!({"name": "k", "scopes": ["exec"]})).await.expect(201);
        let id = key["id"].as_str().unwrap();
        other.delete(&format!("/v1/keys/{id}")).await.problem(404, "not_found");
        other.post(&format!("/v1/keys/{id}/rotate"), &json!({})).await.problem(404, "not_found");
        stack.api().get("/v1/keys?team=other").await.problem(404, "not_found");
        stack.admin().get("/v1/keys?team=dev").await.expect(200);
        stack.admin().delete(&format!("/v1/keys/{id}")).await.expect(204);
    });
}

#[test]
fn teams_are_made_and_changed_by_administrators() {
    harness::run(async {
        let stack = Stack::with(Options::simulated()).await;
        let admin = stack.admin();
        let team = admin.post("/v1/teams", &json!({"name": "red", "quotas": {"max_instances": 3}})).await.expect(201);
        assert_eq!(team["quotas"]["max_instances"], 3);
        admin.post("/v1/teams", &json!({"name": "red"})).await.problem(409, "name_taken");
        let path = format!("/v1/teams/{}", team["id"].as_str().unwrap());
        let grants = json!({"grants": {"networks": ["PUBLIC"], "role_arns": ["*"]}});
        let changed = admin.patch(&path, &grants).await.expect(200);
        assert_eq!(changed["grants"]["role_arns"], json!(["*"]));
        assert_eq!(changed["quotas"]["max_instances"], 3);
        let bad =
            admin.patch(&path, &json!({"quotas": {"max_instances": "x"}})).await.problem(422, "validation_failed");
        assert_eq!(bad["errors"][0]["field"], "quotas.max_instances");
        let long = admin.post("/v1/teams", &json!({"name": "x".repeat(51)})).await.problem(422, "validation_failed");
        assert_eq!(long["errors"][0]["field"], "name");
    });
}
