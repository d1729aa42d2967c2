//! The code interpreter as it stands on the wire (`PROTOCOLS` section E).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ags_emulator::instance::Instance;
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::harness::Machine;

const PORT: u16 = 49999;

struct Interpreter {
    client: Client,
    _machine: Machine,
}

impl Interpreter {
    async fn start(id: &str) -> anyhow::Result<Self> {
        Self::on(Machine::best().await?, id).await
    }

    async fn on(machine: Machine, id: &str) -> anyhow::Result<Self> {
        let mut spec = machine.spec(id);
        spec.code_interpreter = true;
        let instance: Arc<dyn Instance> = machine.launch(spec).await?;
        let mut client = Client::new(&instance);
        client.port = PORT;
        Ok(Self { client, _machine: machine })
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.client.post(path, "application/json", body.to_string()).await
    }

    async fn refused(&self, path: &str, body: &Value) -> anyhow::Result<(u16, String)> {
        let answer = self.post(path, body).await?;
        Ok((answer.status.as_u16(), answer.text()))
    }

    /// The events of an execution.
    async fn events(&self, request: &Value) -> anyhow::Result<Vec<Value>> {
        let answer = self.post("/execute", request).await?;
        ensure!(answer.status == StatusCode::OK, "{answer:?}");
        ensure!(!answer.headers.contains_key("content-type"), "{answer:?}");
        ensure!(answer.body.is_ascii() && answer.body.ends_with(b"\n"), "{answer:?}");
        answer.text().lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    async fn text(&self, request: &Value) -> anyhow::Result<Value> {
        let events = self.events(request).await?;
        let result = events.iter().find(|event| event["type"] == "result").with_context(|| format!("{events:?}"))?;
        Ok(result["text"].clone())
    }
}

#[tokio::test]
async fn an_execution_is_told_line_by_line() -> anyhow::Result<()> {
    for machine in Machine::all().await {
        let interpreter = Interpreter::on(machine, "lines").await?;
        let events =
            interpreter.events(&json!({"code": "print('é')\n'a'", "context_id": null, "env_vars": null})).await?;
        let kinds: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
        ensure!(kinds == ["number_of_executions", "stdout", "result", "end_of_execution"], "{events:?}");
        ensure!(events[0] == json!({"type": "number_of_executions", "execution_count": 1}), "{events:?}");
        ensure!(events[1]["text"] == "é\n" && events[1]["timestamp"].as_str().is_some_and(|at| at.ends_with('Z')));
        ensure!(events[2] == json!({"type": "result", "text": "a", "is_main_result": true, "extra": {}}), "{events:?}");
        ensure!(interpreter.client.get("/health").await?.text() == "\"OK\"");
    }
    Ok(())
}

#[tokio::test]
async fn refusals_are_text_or_name_the_field() -> anyhow::Result<()> {
    let interpreter = Interpreter::start("refusals").await?;
    let both = json!({"code": "1", "context_id": "x", "language": "python"});
    let (status, text) = interpreter.refused("/execute", &both).await?;
    ensure!((status, text.as_str()) == (400, "Only one of context_id or language can be provided"), "{status} {text}");
    for (path, body) in [("/execute", json!({"code": "1", "context_id": "x"})), ("/contexts/x/restart", Value::Null)] {
        let (status, text) = interpreter.refused(path, &body).await?;
        ensure!((status, text.as_str()) == (404, "Context x not found"), "{status} {text}");
    }
    for path in ["/execute", "/contexts"] {
        let (status, text) = interpreter.refused(path, &json!({"code": "1", "language": "cobol"})).await?;
        ensure!(status == 500 && text.contains("cobol"), "{status} {text}");
    }
    let answer = interpreter.post("/execute", &json!({"code": 1})).await?;
    ensure!(answer.status == StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
    ensure!(answer.json()?["detail"][0]["loc"] == json!(["body", "code"]), "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn contexts_come_in_the_order_of_their_creation() -> anyhow::Result<()> {
    let interpreter = Interpreter::start("contexts").await?;
    let made = interpreter.post("/contexts", &json!({"language": " PYTHON "})).await?.json()?;
    let listed = interpreter.client.get("/contexts").await?.json()?;
    let languages: Vec<&Value> = listed.as_array().context("a list")?.iter().map(|one| &one["language"]).collect();
    ensure!(languages == ["python", "javascript", "python"], "{listed}");
    ensure!(listed[2] == made && made["cwd"] == listed[0]["cwd"], "{listed}");
    let id = made["id"].as_str().context("an id")?;
    interpreter.events(&json!({"code": "x = 1", "context_id": id})).await?;
    let restarted = interpreter.post(&format!("/contexts/{id}/restart"), &Value::Null).await?;
    ensure!((restarted.status, restarted.text().as_str()) == (StatusCode::OK, "null"), "{restarted:?}");
    let events = interpreter.events(&json!({"code": "x", "context_id": id})).await?;
    ensure!(events[1]["value"] == "name 'x' is not defined", "{events:?}");
    let delete = Request::delete(format!("/contexts/{id}")).body(Full::default())?;
    ensure!(interpreter.client.request(delete).await?.status == StatusCode::OK);
    ensure!(interpreter.client.get("/contexts").await?.json()?.as_array().context("a list")?.len() == 2);
    Ok(())
}

#[tokio::test]
async fn the_sandboxes_environment_needs_the_callers_token() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let mut spec = machine.spec("token");
    spec.code_interpreter = true;
    spec.envd_token = Some("0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0".into());
    spec.envs = BTreeMap::from([("WIDE".into(), "of the sandbox".into())]);
    let instance = machine.launch(spec).await?;
    let code = json!({"code": "import os\nos.environ.get('WIDE', 'none')"});
    let made = json!({"language": "python"});
    for (token, expected) in [(None, "none"), (Some("0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0"), "of the sandbox")] {
        let mut client = Client::new(&instance);
        client.port = PORT;
        if let Some(token) = token {
            client = client.with("x-access-token", token)?;
        }
        let interpreter = Interpreter { client, _machine: Machine::best().await? };
        let mut request = code.clone();
        request["context_id"] = interpreter.post("/contexts", &made).await?.json()?["id"].clone();
        ensure!(interpreter.text(&request).await? == expected);
    }
    Ok(())
}

#[tokio::test]
async fn whoever_hangs_up_interrupts() -> anyhow::Result<()> {
    let interpreter = Interpreter::start("hangup").await?;
    for code in ["import time\ntime.sleep(600)", "while True: pass"] {
        let body = json!({"code": code}).to_string();
        let request = Request::post("/execute").header("content-type", "application/json");
        let request = request.body(Full::new(Bytes::from(body)))?;
        let (mut response, connection) = interpreter.client.send(request).await?;
        response.body_mut().frame().await.context("a line")??;
        drop((response, connection));
        let request = json!({"code": "1 + 1"});
        let after = interpreter.text(&request);
        ensure!(tokio::time::timeout(Duration::from_secs(9), after).await.context("it is not interrupted")?? == "2");
    }
    Ok(())
}

#[tokio::test]
async fn silence_has_signs_of_life() -> anyhow::Result<()> {
    let interpreter = Interpreter::start("silence").await?;
    let events = interpreter.events(&json!({"code": "import time\ntime.sleep(5.5)"})).await?;
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    ensure!(kinds == ["number_of_executions", "keepalive", "end_of_execution"], "{events:?}");
    Ok(())
}

#[tokio::test]
async fn other_instances_have_no_interpreter() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let instance = machine.instance("plain").await?;
    ensure!(instance.dial(PORT).await.is_err());
    Ok(())
}
