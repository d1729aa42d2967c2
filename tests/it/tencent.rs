//! The face of the cloud's own API, asked by the client that asks the cloud. That SDKs agree is shown by `tests/clients`.

use std::sync::Arc;

use ags_client::{
    AgsClient, AgsError, Credential, Settings, StaticCredentials,
    types::{
        AcquireSandboxInstanceTokenRequest, CreateApiKeyRequest, CreateSandboxToolRequest, CustomConfiguration,
        DeleteSandboxToolRequest, DescribeApiKeyListRequest, DescribeSandboxInstanceListRequest,
        DescribeSandboxToolListRequest, Filter, InstanceStatus, MetadataVar, NetworkConfiguration, NetworkMode,
        PauseSandboxInstanceRequest, ResumeSandboxInstanceRequest, SandboxInstance, StartSandboxInstanceRequest,
        StopSandboxInstanceRequest, UpdateSandboxInstanceRequest,
    },
};
use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::harness::{Api, Options, Stack, run};

fn credential(secret_id: &str, secret_key: &str) -> Credential {
    Credential { secret_id: secret_id.to_owned(), secret_key: secret_key.to_owned().into(), token: None }
}

/// A client of a gateway, with a pair that it has issued.
fn client(url: &str, secret_id: &str, secret_key: &str) -> AgsClient {
    let mut settings = Settings::new(url.parse().unwrap(), "ap-guangzhou");
    settings.max_attempts = 1.try_into().unwrap();
    let credential = credential(secret_id, secret_key);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    AgsClient::new(settings, http, Arc::new(StaticCredentials(credential))).unwrap()
}

fn client_of(url: &str, key: &Value) -> AgsClient {
    client(url, key["secret_id"].as_str().unwrap(), key["secret_key"].as_str().unwrap())
}

async fn pair(api: &Api, scopes: &[&str]) -> Value {
    api.post("/v1/keys", &json!({"name": "signing", "kind": "tencent", "scopes": scopes})).await.expect(201)
}

const ALL: [&str; 6] = ["instances:read", "instances:write", "tools:read", "tools:write", "keys", "ports"];

struct Face {
    stack: Stack,
    api: Api,
    key: Value,
    ags: AgsClient,
}

impl Face {
    async fn of(options: Options) -> Self {
        let stack = Stack::with(options.with("TOOLS__SHARED", "code-interpreter-v1")).await;
        let api = stack.api();
        let key = pair(&api, &ALL).await;
        let ags = client_of(&stack.url, &key);
        Self { stack, api, key, ags }
    }

    async fn start(&self, request: StartSandboxInstanceRequest) -> Result<SandboxInstance, AgsError> {
        let request = StartSandboxInstanceRequest { tool_name: Some("code-interpreter-v1".into()), ..request };
        Ok(self.ags.call(&request).await?.value.instance)
    }

    async fn find(&self, id: &str) -> SandboxInstance {
        let request = DescribeSandboxInstanceListRequest { instance_ids: Some(vec![id.into()]), ..Default::default() };
        self.ags.call(&request).await.unwrap().value.instance_set.pop().unwrap()
    }
}

fn code(outcome: Result<impl Sized, AgsError>) -> String {
    outcome.err().and_then(|error| error.code().map(str::to_owned)).expect("a refusal of the API")
}

#[test]
fn an_instance_lives_its_life() {
    run(async {
        let face = Face::of(Options::simulated()).await;
        let metadata = Some(vec![MetadataVar { name: "user".into(), value: "42".into() }]);
        let request = StartSandboxInstanceRequest { timeout: Some("10m".into()), metadata, ..Default::default() };
        let instance = face.start(request).await.unwrap();
        assert_eq!((instance.status, instance.timeout_seconds), (InstanceStatus::Running, Some(600)));
        let id = instance.instance_id;
        let ours = face.api.get(&format!("/v1/instances/{id}")).await.expect(200);
        assert_eq!(ours["metadata"], json!({"user": "42"}));
        assert_eq!(ours["created_by"], face.key["id"]);

        let change =
            UpdateSandboxInstanceRequest { instance_id: id.clone(), timeout: Some("1h0m0s".into()), metadata: None };
        face.ags.call(&change).await.unwrap();
        assert_eq!(face.find(&id).await.timeout_seconds, Some(3600));

        face.ags.call(&PauseSandboxInstanceRequest { instance_id: id.clone(), memory: None }).await.unwrap();
        assert_eq!(face.find(&id).await.status, InstanceStatus::Paused);
        face.ags.call(&ResumeSandboxInstanceRequest { instance_id: id.clone(), timeout: None }).await.unwrap();
        let token = AcquireSandboxInstanceTokenRequest { instance_id: id.clone() };
        let token = face.ags.call(&token).await.unwrap().value;
        assert_eq!(token.expires_at, face.find(&id).await.expires_at);

        face.ags.call(&StopSandboxInstanceRequest { instance_id: id.clone() }).await.unwrap();
        let ended = face.find(&id).await;
        assert_eq!((ended.status, ended.stop_reason.unwrap().as_str()), (InstanceStatus::Stopped, "manual"));
        let change =
            UpdateSandboxInstanceRequest { instance_id: id.clone(), timeout: Some("1h".into()), metadata: None };
        assert_eq!(code(face.ags.call(&change).await), "UnsupportedOperation.SandboxInstance");

        let events = face.api.get(&format!("/v1/audit?instance={id}")).await.expect(200);
        let actions: Vec<&str> =
            events["items"].as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect();
        assert!(actions.contains(&"create_instance") && actions.contains(&"delete_instance"), "{actions:?}");
    });
}

#[test]
fn an_instance_tells_what_it_was_started_with() {
    run(async {
        let face = Face::of(Options::simulated()).await;
        let custom_configuration = Some(CustomConfiguration {
            image: Some("swebench/one:latest".into()),
            image_registry_type: Some("system".into()),
            ..Default::default()
        });
        let started =
            face.start(StartSandboxInstanceRequest { custom_configuration, ..Default::default() }).await.unwrap();
        let found = face.find(&started.instance_id).await;
        for instance in [&started, &found] {
            let custom = instance.custom_configuration.as_ref().expect("its own image");
            assert_eq!(custom.image.as_deref(), Some("swebench/one:latest"));
            assert_eq!((instance.persistent, &instance.network_mode), (Some(false), &Some(NetworkMode::Public)));
        }
        let plain = face.start(StartSandboxInstanceRequest::default()).await.unwrap();
        assert_eq!((plain.custom_configuration, plain.mount_options), (None, None));
    });
}

#[test]
fn what_starts_may_be_asked_for_its_token() {
    run(async {
        let face = Face::of(Options::simulated()).await;
        let ours = json!({"tool": "code-interpreter-v1"});
        face.stack.tune(|tunables| tunables.start_delay_ms = 600_000);
        let starting = face.api.post("/v1/instances?wait=0", &ours).await.expect(202);
        let id = starting["id"].as_str().unwrap();
        let acquire = AcquireSandboxInstanceTokenRequest { instance_id: id.into() };
        assert!(face.ags.call(&acquire).await.unwrap().value.traffic_token.is_some());
        face.api.delete(&format!("/v1/instances/{id}")).await.expect(204);
        assert_eq!(code(face.ags.call(&acquire).await), "UnsupportedOperation.SandboxInstance");
    });
}

#[test]
fn a_client_token_starts_one_instance() {
    run(async {
        let face = Face::of(Options::simulated()).await;
        let request = |timeout: &str| StartSandboxInstanceRequest {
            client_token: Some("once".into()),
            timeout: Some(timeout.into()),
            ..Default::default()
        };
        let first = face.start(request("5m")).await.unwrap();
        let again = face.start(request("5m")).await.unwrap();
        assert_eq!(first.instance_id, again.instance_id);
        assert_eq!(code(face.start(request("6m")).await), "FailedOperation.DuplicateRequest");
        assert_eq!(face.stack.upstream_instances().len(), 1);
    });
}

#[test]
fn lists_are_paged_by_offset_and_filtered() {
    run(async {
        let face = Face::of(Options::simulated()).await;
        for _ in 0..3 {
            face.start(StartSandboxInstanceRequest::default()).await.unwrap();
        }
        let stopped = face.start(StartSandboxInstanceRequest::default()).await.unwrap().instance_id;
        face.ags.call(&StopSandboxInstanceRequest { instance_id: stopped.clone() }).await.unwrap();
        let running = Some(vec![Filter { name: "Status".into(), values: vec!["RUNNING".into()] }]);
        let part = |offset, filters| DescribeSandboxInstanceListRequest {
            offset: Some(offset),
            limit: Some(2),
            filters,
            ..Default::default()
        };
        let first = face.ags.call(&part(0, running.clone())).await.unwrap().value;
        let second = face.ags.call(&part(2, running)).await.unwrap().value;
        assert_eq!((first.total_count, first.instance_set.len(), second.instance_set.len()), (3, 2, 1));
        assert!(first.instance_set.iter().all(|one| one.instance_id != second.instance_set[0].instance_id));
        assert_eq!(face.ags.call(&part(9, None)).await.unwrap().value.total_count, 4);
        assert_eq!(face.find(&stopped).await.status, InstanceStatus::Stopped);
        let wrong = Some(vec![Filter { name: "Colour".into(), values: vec!["red".into()] }]);
        assert_eq!(code(face.ags.call(&part(0, wrong)).await), "InvalidParameter");

        // Another team sees none of it, and an id of another kind is nobody's.
        let other = face.stack.team("others").await;
        let stranger = client_of(&face.stack.url, &pair(&other, &ALL).await);
        let all = DescribeSandboxInstanceListRequest::default();
        assert_eq!(stranger.call(&all).await.unwrap().value.total_count, 0);
        for id in [stopped.as_str(), "0123456789abcdef"] {
            let stop = StopSandboxInstanceRequest { instance_id: id.into() };
            assert_eq!(code(stranger.call(&stop).await), "ResourceNotFound.SandboxInstance");
        }
    });
}

#[test]
fn a_tool_is_made_listed_used_and_deleted() {
    run(async {
        let face = Face::of(Options::simulated()).await;
        let request = CreateSandboxToolRequest {
            tool_name: "swe".into(),
            tool_type: "custom".into(),
            network_configuration: NetworkConfiguration { network_mode: NetworkMode::Public, vpc_config: None },
            description: Some("a tool".into()),
            default_timeout: Some("5m".into()),
            custom_configuration: Some(CustomConfiguration {
                image: Some("python:3.11".into()),
                image_registry_type: Some("personal".into()),
                command: Some(vec!["sleep".into(), "infinity".into()]),
                ..Default::default()
            }),
            ..Default::default()
        };
        let id = face.ags.call(&request).await.unwrap().value.tool_id;
        assert_eq!(code(face.ags.call(&request).await), "InvalidParameterValue.SandboxTool");
        let named = Some(vec![Filter { name: "ToolName".into(), values: vec!["swe".into()] }]);
        let list = DescribeSandboxToolListRequest { filters: named, ..Default::default() };
        let found = face.ags.call(&list).await.unwrap().value;
        let tool = &found.sandbox_tool_set[0];
        assert_eq!((found.total_count, &tool.tool_id), (1, &id));
        assert_eq!(tool.default_timeout_seconds, Some(300));
        assert_eq!(tool.custom_configuration.as_ref().unwrap().image.as_deref(), Some("python:3.11"));
        face.api.get(&format!("/v1/tools/{id}?wait=10s")).await;

        let start = StartSandboxInstanceRequest { tool_id: Some(id.clone()), ..Default::default() };
        let instance = face.ags.call(&start).await.unwrap().value.instance;
        assert_eq!(instance.tool_name, "swe");
        let delete = DeleteSandboxToolRequest { tool_id: id.clone() };
        assert_eq!(code(face.ags.call(&delete).await), "ResourceInUse.SandboxTool");
        face.ags.call(&StopSandboxInstanceRequest { instance_id: instance.instance_id }).await.unwrap();
        face.ags.call(&delete).await.unwrap();
        assert_eq!(code(face.ags.call(&start).await), "ResourceNotFound.SandboxTool");
    });
}

#[test]
fn who_does_not_sign_well_is_told_why() {
    run(async {
        let face = Face::of(Options::simulated()).await;
        let list = DescribeSandboxInstanceListRequest::default();
        let id = face.key["secret_id"].as_str().unwrap();
        let forged = client(&face.stack.url, id, "not-the-key");
        assert_eq!(code(forged.call(&list).await), "AuthFailure.SignatureFailure");
        let unknown = client(&face.stack.url, "AKIDnobody", "key");
        assert_eq!(code(unknown.call(&list).await), "AuthFailure.SecretIdNotFound");
        let narrow = client_of(&face.stack.url, &pair(&face.api, &["instances:read"]).await);
        assert_eq!(narrow.call(&list).await.unwrap().value.total_count, 0);
        let start = StartSandboxInstanceRequest { tool_name: Some("code-interpreter-v1".into()), ..Default::default() };
        assert_eq!(code(narrow.call(&start).await), "UnauthorizedOperation");
        let bad = StartSandboxInstanceRequest { timeout: Some("5s".into()), ..start };
        assert_eq!(code(face.ags.call(&bad).await), "InvalidParameterValue.Timeout");

        // A secret is not a key of the other faces, and a revoked pair signs nothing more.
        let answer = Api::anonymous(&face.stack.url).bearing(face.key["secret_key"].as_str().unwrap());
        answer.get("/v1/me").await.problem(401, "unauthenticated");
        face.api.delete(&format!("/v1/keys/{}", face.key["id"].as_str().unwrap())).await.expect(204);
        assert_eq!(code(face.ags.call(&list).await), "AuthFailure.SecretIdNotFound");
    });
}

#[test]
fn what_reached_the_api_is_answered_with_200() {
    run(async {
        let stack = Stack::with(Options::simulated()).await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let ask = async |headers: &[(&str, &str)], body: &'static str| {
            let mut request = http.post(format!("{}/", stack.url)).body(body);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["content-type"], "application/json");
            let document: Value = response.json().await.unwrap();
            assert!(!document["Response"]["RequestId"].as_str().unwrap().is_empty());
            document["Response"]["Error"]["Code"].as_str().unwrap().to_owned()
        };
        let version = ("x-tc-version", "2025-09-20");
        assert_eq!(ask(&[("x-tc-action", "FlyToTheMoon"), version], "{}").await, "InvalidAction");
        let action = ("x-tc-action", "DescribeSandboxToolList");
        assert_eq!(ask(&[action, ("x-tc-version", "2020-01-01")], "{}").await, "NoSuchVersion");
        assert_eq!(ask(&[action], "{}").await, "MissingParameter");
        assert_eq!(ask(&[action, version], "{}").await, "AuthFailure.InvalidAuthorization");
        assert_eq!(ask(&[action, version, ("authorization", "SKIP")], "{}").await, "AuthFailure.InvalidAuthorization");
        // Without the header the root is a path like others.
        assert_eq!(http.post(format!("{}/", stack.url)).send().await.unwrap().status(), 404);
    });
}

#[test]
fn pairs_are_rotated_and_their_encryption_too() {
    run(async {
        let face = Face::of(Options::simulated()).await;
        let list = DescribeSandboxInstanceListRequest::default();
        let path = format!("/v1/keys/{}/rotate", face.key["id"].as_str().unwrap());
        let rotated = face.api.post(&path, &json!({"grace": "1h"})).await.expect(200);
        assert_ne!(rotated["secret_id"], face.key["secret_id"]);
        assert_eq!(rotated["secret"], Value::Null);
        let fresh = client_of(&face.stack.url, &rotated);
        for client in [&face.ags, &fresh] {
            client.call(&list).await.unwrap();
        }

        // What was sealed under an old secret still opens, and is sealed anew: then the old one may go.
        let under = async |settings: &[(&'static str, &str)]| {
            let (app, url) = face.stack.replica_as(settings).await;
            let outcome = client_of(&url, &rotated).call(&list).await;
            app.lifecycle.drain();
            outcome
        };
        let (next, last, other) = ("n".repeat(40), "l".repeat(40), "x".repeat(40));
        let (present, previous) = ("AUTH__ENCRYPTION_SECRET", "AUTH__PREVIOUS_ENCRYPTION_SECRET");
        under(&[(present, &next)]).await.unwrap();
        under(&[(present, &last), (previous, &next)]).await.unwrap();
        under(&[(present, &last)]).await.unwrap();
        assert_eq!(code(under(&[(present, &other)]).await), "InternalError");
    });
}

#[test]
fn keys_of_the_other_faces_are_made_here() {
    run(async {
        let face = Face::of(Options::simulated()).await;
        let made = face.ags.call(&CreateApiKeyRequest { name: Some("for e2b".into()) }).await.unwrap().value;
        assert!(made.api_key.expose().starts_with("e2b_"));
        face.api.bearing(made.api_key.expose()).get("/v1/instances").await.expect(200);
        let listed = face.ags.call(&DescribeApiKeyListRequest {}).await.unwrap().value;
        let found = listed.api_key_set.iter().find(|key| key.key_id.as_deref() == Some(made.key_id.as_str())).unwrap();
        assert_eq!(found.name.as_deref(), Some("for e2b"));
        assert!(!made.api_key.expose().contains(found.masked_key.as_deref().unwrap()));
    });
}

/// A signature is good for a few minutes only.
#[test]
fn an_old_signature_is_refused() {
    run(async {
        let face = Face::of(Options::simulated()).await;
        let id = face.key["secret_id"].as_str().unwrap();
        let credential = credential(id, face.key["secret_key"].as_str().unwrap());
        let mut settings = Settings::new(face.stack.url.parse().unwrap(), "ap-guangzhou");
        settings.max_attempts = 1.try_into().unwrap();
        let now = ags_client::system_clock();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let late = AgsClient::builder(settings, http, Arc::new(StaticCredentials(credential)))
            .clock(Arc::new(move || now() - TimeDelta::seconds(400)))
            .build()
            .unwrap();
        let list = DescribeSandboxInstanceListRequest::default();
        assert_eq!(code(late.call(&list).await), "AuthFailure.SignatureExpire");
    });
}
