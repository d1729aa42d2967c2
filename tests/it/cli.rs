//! The subcommands, as an operator runs them.

use std::process::{Command, Output};

use crate::harness::{self, Api, Options, Stack, eventually};

const SECRET: &str = "the-auth-secret-of-the-command-line-tests";

/// The binary with these variables and no others.
fn gateway(variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ags-gateway"));
    command.env_clear().envs(variables.iter().copied()).args(arguments);
    command.output().unwrap()
}

fn complete(database_url: &str) -> [(&str, &str); 5] {
    [
        ("DATABASE_URL", database_url),
        ("AGS_GATEWAY__AUTH__SECRET", SECRET),
        ("TENCENTCLOUD_REGION", "ap-guangzhou"),
        ("TENCENTCLOUD_SECRET_ID", "the-secret-id"),
        ("TENCENTCLOUD_SECRET_KEY", "the-secret-key"),
    ]
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// The other process changed the database: the gateway sees it within a second.
async fn refused(api: &Api) {
    eventually(async || (api.get("/v1/me").await.status == 401).then_some(())).await;
}

#[test]
fn a_bad_configuration_is_told_whole_before_a_port_opens() {
    let output =
        gateway(&[("AGS_GATEWAY__SERVER__LISTEN", "nowhere"), ("AGS_GATEWAY__AUTH__SECRET", "short")], &["serve"]);
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    for key in
        ["server.listen", "auth.secret is shorter", "database.url is required", "credentials.secret_key is required"]
    {
        assert!(told.contains(key), "{key} missing in {told}");
    }
}

#[test]
fn the_configuration_is_shown_without_its_secrets() {
    let shown = done(&gateway(&complete("postgres://gateway:pg-password@db/gateway"), &["check-config"]));
    assert!(shown.contains("AGS_GATEWAY__AUTH__SECRET") && shown.contains("[redacted]"), "{shown}");
    for secret in [SECRET, "pg-password", "the-secret-key"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn a_database_that_is_away_is_one_sentence() {
    let output = gateway(&complete("postgres://nobody@127.0.0.1:1/none"), &["serve", "--port", "0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("ags-gateway: the database cannot be reached"), "{}", text(&output.stderr));
}

#[test]
fn the_committed_document_is_the_one_printed() {
    let printed = done(&gateway(&[], &["openapi"]));
    let document: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
}

#[test]
fn teams_and_keys_are_managed_from_the_command_line() {
    harness::run(async {
        let stack = Stack::with(Options::simulated().with("AUTH__SECRET", SECRET)).await;
        let variables = complete(&stack.database_url);
        let run = |arguments: &[&str]| gateway(&variables, arguments);
        assert!(done(&run(&["migrate"])).starts_with("0 migrations applied"));

        let team = done(&run(&["teams", "create", "crew"]));
        assert!(done(&run(&["teams", "list"])).contains(team.trim()));
        let taken = run(&["teams", "create", "crew"]);
        assert!(text(&taken.stderr).contains("crew"), "{}", text(&taken.stderr));

        let create = run(&["keys", "create", "--team", "crew", "--name", "ci", "--scopes", "keys,exec"]);
        let secret = done(&create);
        let api = Api::new(&stack.url, secret.trim());
        let me = api.get("/v1/me").await.expect(200);
        assert_eq!(me["scopes"], serde_json::json!(["exec", "keys"]));
        let key = me["key"]["id"].as_str().unwrap();
        let listed = done(&run(&["keys", "list", "--team", "crew"]));
        assert!(listed.contains(key) && !listed.contains(secret.trim()), "{listed}");

        let rotated = done(&run(&["keys", "rotate", "--team", "crew", "--grace", "0s", key]));
        refused(&api).await;
        let api = Api::new(&stack.url, rotated.trim());
        api.get("/v1/me").await.expect(200);
        assert_eq!(done(&run(&["keys", "revoke", "--team", "crew", key])), "1 revoked\n");
        refused(&api).await;

        let history = stack.admin().get("/v1/audit?team=crew").await.expect(200);
        let told = history["items"].as_array().unwrap().iter().rev().map(|event| {
            assert_eq!((&event["key_id"], &event["outcome"]), (&serde_json::Value::Null, &serde_json::json!("ok")));
            event["action"].as_str().unwrap()
        });
        assert_eq!(told.collect::<Vec<_>>(), ["create_team", "create_key", "rotate_key", "delete_key"]);

        let foreign = run(&["keys", "revoke", "--team", "nobody", key]);
        assert!(text(&foreign.stderr).contains("team \"nobody\""), "{}", text(&foreign.stderr));
        let unknown = run(&["keys", "create", "--team", "crew", "--name", "x", "--scopes", "fly"]);
        assert_eq!(unknown.status.code(), Some(2));
        assert!(text(&unknown.stderr).contains("the scopes are"), "{}", text(&unknown.stderr));
    });
}
