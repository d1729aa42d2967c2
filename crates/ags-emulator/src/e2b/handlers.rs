//! What the operations of the E2B endpoint do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ags_client::types::{AuthMode, InstanceStatus, MetadataVar, StopReason};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::Problem;
use super::listing::{self, Query};
use super::{E2bCall, Operation, custom_config, view};
use crate::body::{self, Body};
use crate::clock::to_delta;
use crate::control::Cloud;
use crate::control::idempotency::Admission;
use crate::control::instances::{StartPlan, ToolRef};
use crate::control::store::Record;
use crate::edge::proxy::Proxy;
use crate::envd;
use crate::settings::ClientTokenMode;

/// Seconds a sandbox lives when the call does not say (PROTOCOLS F.3).
const DEFAULT_TIMEOUT: u64 = 300;
/// How long a create waits for RUNNING (real time).
const START_PATIENCE: Duration = Duration::from_secs(50);

type Outcome = Result<Response<Body>, Problem>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Create {
    #[serde(rename = "templateID")]
    template_id: String,
    timeout: Option<u64>,
    metadata: Option<BTreeMap<String, String>>,
    env_vars: Option<BTreeMap<String, String>>,
    network: Option<Network>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Network {
    allow_public_traffic: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Timeout {
    timeout: Option<i64>,
    duration: Option<i64>,
}

impl Timeout {
    /// Negative counts as zero.
    fn span(&self) -> Option<Duration> {
        let seconds = self.timeout.or(self.duration)?;
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }
}

impl Cloud {
    pub(super) async fn perform_e2b(
        self: &Arc<Self>,
        operation: Operation,
        id: &str,
        call: &E2bCall,
        proxy: &Proxy,
        fails: bool,
    ) -> Outcome {
        match operation {
            Operation::Create => self.e2b_create(call, fails).await,
            Operation::List => self.e2b_list(&call.query),
            Operation::Info => self.e2b_info(id),
            Operation::Kill => {
                self.found(id, |_, _| ())?;
                self.stop(id, StopReason::Manual, fails).await?;
                Ok(no_content())
            }
            Operation::Connect | Operation::Resume => {
                let span = read::<Timeout>(call)?.span().unwrap_or(Duration::from_secs(DEFAULT_TIMEOUT));
                self.e2b_connect(id, span, operation == Operation::Resume, fails).await
            }
            Operation::SetTimeout => {
                let span = read::<Timeout>(call)?.span().ok_or_else(|| Problem::bad("timeout is missing"))?;
                self.found(id, |_, _| ())?;
                self.change_instance(id, Some(span), None)?;
                Ok(no_content())
            }
            Operation::Refresh => {
                let span = read::<Timeout>(call)?.span().unwrap_or(Duration::from_secs(DEFAULT_TIMEOUT));
                self.extend(id, span)?;
                Ok(no_content())
            }
            Operation::Pause => self.e2b_pause(id, fails).await,
            Operation::Metrics => self.e2b_metrics(id, proxy).await,
            Operation::Logs => {
                self.found(id, |_, _| ())?;
                Ok(body::json(StatusCode::OK, &json!({"logs": [], "logEntries": []})))
            }
            Operation::NotImplemented => {
                Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "not part of Agent Sandbox's E2B endpoint"))
            }
        }
    }

    /// Runs `f` on a sandbox that is running or paused.
    fn found<T>(&self, id: &str, f: impl FnOnce(&mut Record, &'static str) -> T) -> Result<T, Problem> {
        self.with_state(|state| {
            let record = state.instances.get_mut(id).ok_or_else(|| Problem::no_sandbox(id))?;
            let shown = view::state(&record.status).ok_or_else(|| Problem::no_sandbox(id))?;
            Ok(f(record, shown))
        })
    }

    async fn e2b_create(self: &Arc<Self>, call: &E2bCall, fails: bool) -> Outcome {
        let create: Create = read(call)?;
        let key = call.headers.get("idempotency-key").and_then(|value| value.to_str().ok());
        let ticket = match key {
            None => None,
            Some(key) => {
                let params = serde_json::from_slice(call.body.as_deref().unwrap_or_default()).unwrap_or_default();
                match self.client_tokens.admit(ClientTokenMode::Replay, "e2b.create", key, params, self.clock.now())? {
                    Admission::Replay(id) => {
                        let id = id.as_str().unwrap_or_default();
                        let sandbox = self.found(id, |record, _| self.e2b_sandbox(record))?;
                        return Ok(body::json(StatusCode::CREATED, &sandbox));
                    }
                    Admission::Run(ticket) => Some(ticket),
                }
            }
        };
        let instance = self.start(self.plan(create)?, fails).await?;
        let id = instance.instance_id;
        self.settled(&id, &InstanceStatus::Starting, START_PATIENCE).await;
        let failed = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the sandbox failed to start");
        let sandbox = self.found(&id, |record, _| self.e2b_sandbox(record)).map_err(failed)?;
        if let Some(ticket) = ticket {
            ticket.done(Value::String(id));
        }
        Ok(body::json(StatusCode::CREATED, &sandbox))
    }

    fn plan(&self, create: Create) -> Result<StartPlan, Problem> {
        let metadata = create.metadata.unwrap_or_default();
        let custom = metadata.get(custom_config::KEY).map(|text| custom_config::read(text)).transpose()?;
        let public = create.network.and_then(|network| network.allow_public_traffic) == Some(true);
        let name = create.template_id.split(':').next().unwrap_or_default().to_owned();
        let by_id = self.with_state(|state| state.tools.contains_key(&name));
        let tool = if by_id { ToolRef { id: Some(name), name: None } } else { ToolRef { id: None, name: Some(name) } };
        Ok(StartPlan {
            tool,
            timeout: Some(Duration::from_secs(create.timeout.unwrap_or(DEFAULT_TIMEOUT))),
            custom,
            mount_options: None,
            metadata: metadata.into_iter().map(|(name, value)| MetadataVar { name, value }).collect(),
            auth_mode: public.then_some(AuthMode::Public),
            envs: create.env_vars.unwrap_or_default(),
        })
    }

    async fn e2b_connect(self: &Arc<Self>, id: &str, span: Duration, classic: bool, fails: bool) -> Outcome {
        let paused = self.found(id, |_, state| state == "paused")?;
        let status = if paused {
            self.settled(id, &InstanceStatus::Pausing, START_PATIENCE).await;
            self.resume(id, span, fails).await?;
            self.settled(id, &InstanceStatus::Resuming, START_PATIENCE).await;
            StatusCode::CREATED
        } else {
            self.extend(id, span)?;
            if classic { StatusCode::CREATED } else { StatusCode::OK }
        };
        let sandbox = self.found(id, |record, _| self.e2b_sandbox(record))?;
        Ok(body::json(status, &sandbox))
    }

    /// Moves the end further away, never closer.
    fn extend(&self, id: &str, span: Duration) -> Result<(), Problem> {
        let now = self.clock.now();
        self.found(id, |record, _| {
            if record.expires_at.is_some_and(|end| end < now + to_delta(span)) {
                record.restart_countdown(span, now);
            }
        })
    }

    async fn e2b_pause(self: &Arc<Self>, id: &str, fails: bool) -> Outcome {
        if self.found(id, |_, state| state == "paused")? {
            let message = format!("Sandbox \"{id}\" is already paused");
            return Err(Problem::new(StatusCode::CONFLICT, message));
        }
        self.pause(id, fails).await?;
        Ok(no_content())
    }

    fn e2b_info(&self, id: &str) -> Outcome {
        let detail = self.found(id, |record, state| self.e2b_detail(record, state))?;
        Ok(body::json(StatusCode::OK, &detail))
    }

    async fn e2b_metrics(&self, id: &str, proxy: &Proxy) -> Outcome {
        let running = self.found(id, |record, _| record.status == InstanceStatus::Running)?;
        let measured = if running { proxy.fetch(id, envd::PORT, "/metrics").await } else { None };
        let point = measured.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let points: Vec<Value> = point.iter().map(view::metric).collect();
        Ok(body::json(StatusCode::OK, &points))
    }

    fn e2b_list(&self, query: &str) -> Outcome {
        let query = Query::parse(query)?;
        let (rows, more) = self.with_state(|state| {
            let mut records: Vec<&Record> = state.instances.values().filter(|record| wanted(&query, record)).collect();
            records.sort_by_key(|record| record.sequence);
            if !query.ascending {
                records.reverse();
            }
            let more = records.len() > query.limit;
            records.truncate(query.limit);
            let last = records.last().map(|record| record.sequence).filter(|_| more);
            let rows: Vec<Value> = records
                .into_iter()
                .filter_map(|record| Some(self.e2b_listed(record, view::state(&record.status)?)))
                .collect();
            (rows, last)
        });
        let mut response = body::json(StatusCode::OK, &rows);
        if let Some(value) = more.and_then(|last| HeaderValue::from_str(&listing::token(last)).ok()) {
            response.headers_mut().insert(HeaderName::from_static("x-next-token"), value);
        }
        Ok(response)
    }
}

fn wanted(query: &Query, record: &Record) -> bool {
    let state_fits = match view::state(&record.status) {
        Some("running") => query.running,
        Some(_) => query.paused,
        None => false,
    };
    state_fits
        && query.unseen(record.sequence)
        && query.started_after.is_none_or(|after| record.created_at >= after)
        && query.template.as_ref().is_none_or(|name| *name == record.tool_name || *name == record.tool_id)
        && query.metadata_fits(&view::metadata(record))
}

/// Absent and empty bodies read as `{}`.
fn read<T: DeserializeOwned>(call: &E2bCall) -> Result<T, Problem> {
    let too_large = || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 1 MiB");
    let bytes = call.body.as_deref().ok_or_else(too_large)?;
    let bytes = if bytes.trim_ascii().is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|error| Problem::bad(format!("the body is not valid: {error}")))
}

fn no_content() -> Response<Body> {
    let mut response = Response::new(body::full(""));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
