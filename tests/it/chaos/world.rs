//! Two gateways, a database and a cloud in which things go wrong, and what must hold all the same.

use std::{collections::BTreeSet, fs, time::Duration};

use ags_client::types::StopSandboxInstanceRequest;
use ags_emulator::faults::Struck;
use devstack::Child;
use nix::sys::signal::Signal;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tempfile::TempDir;
use url::Url;

use super::step::{By, KEYS, Outage, Step, rule};
use crate::harness::{Answer, Api, Cutter, Options, SECRETS, Stack, Target, eventually, read, setting};

/// Longer than the cloud's deadline and the database's patience together.
const CALL: Duration = Duration::from_secs(20);
/// How long a client that does not wait for its answer stays.
const LEAVES_AFTER: Duration = Duration::from_millis(15);
const KILL_PATIENCE: Duration = Duration::from_secs(30);
/// A row in none of these will change by itself.
const SETTLED: [&str; 4] = ["RUNNING", "PAUSED", "STOPPED", "FAILED"];

/// What is known of the instance of an idempotency key.
#[derive(Clone, Debug, Default)]
struct Known {
    used: bool,
    /// All that were ever answered for the key.
    ids: BTreeSet<String>,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fate {
    /// It may be there or not.
    #[default]
    Open,
    /// It was said to run, and nobody has ended it.
    Lives,
    Ended,
}

pub struct World {
    stack: Stack,
    program: Option<Child>,
    program_url: String,
    starts: usize,
    known: Vec<Known>,
    /// Beside the database that has the troubles.
    admin: PgPool,
    database: String,
    /// The second gateway's way to the database.
    way: Cutter,
    directory: TempDir,
}

fn options() -> Options {
    let options = Options::simulated().with("TOOLS__SHARED", "base");
    let settings = [
        ("JOBS__CLAIM", "1s"),
        ("JOBS__REAP_INTERVAL", "200ms"),
        ("JOBS__RECONCILE_INTERVAL", "400ms"),
        ("JOBS__SETTLE_INTERVAL", "400ms"),
        ("JOBS__MISSING_GRACE", "1s"),
        ("JOBS__ORPHAN_GRACE", "3s"),
        ("JOBS__STOP_BACKOFF", "1s"),
        ("JOBS__BRAKE_COUNT", "1000"),
        ("DATABASE__ACQUIRE_TIMEOUT", "1s"),
        ("UPSTREAM_DEFAULTS__ATTEMPT_TIMEOUT", "1s"),
        ("UPSTREAM_DEFAULTS__DEADLINE", "3s"),
    ];
    settings.into_iter().fold(options, |options, (key, value)| options.with(key, value))
}

/// Where the database listens.
fn socket(url: &str) -> Target {
    let options: PgConnectOptions = url.parse().expect("a database's URL");
    Target::Unix(options.get_socket().expect("a socket").join(format!(".s.PGSQL.{}", options.get_port())))
}

impl World {
    pub async fn new() -> Self {
        let stack = Stack::with(options()).await;
        let mut server = Url::parse(&stack.database_url).expect("a URL");
        let database = server.path().trim_start_matches('/').to_owned();
        server.set_path("postgres");
        let admin = PgPoolOptions::new().max_connections(1).connect(server.as_str()).await.expect("a connection");
        let way = Cutter::start(&stack.app.lifecycle, socket(&stack.database_url), setting("AGS_TEST_SEED", 7)).await;
        let directory = TempDir::new().expect("a directory");
        let known = vec![Known::default(); KEYS.into()];
        let (program, program_url) = (None, String::new());
        let mut world = Self { stack, program, program_url, starts: 0, known, admin, database, way, directory };
        world.start_program().await;
        world
    }

    pub async fn play(&mut self, steps: &[Step]) {
        for step in steps {
            self.take(step).await;
        }
    }

    async fn take(&mut self, step: &Step) {
        match *step {
            Step::Start { key, by } => {
                let answer = self.start(key, by).await;
                self.started(key, answer);
            }
            Step::StartAtBoth { key } => {
                let both = futures_util::future::join(self.start(key, By::First), self.start(key, By::Second)).await;
                self.started(key, both.0);
                self.started(key, both.1);
            }
            Step::StartAndLeave { key, by } => {
                // An answer that came in time all the same counts.
                if let Ok(answer) = tokio::time::timeout(LEAVES_AFTER, self.start(key, by)).await {
                    self.started(key, answer);
                }
                self.known[usize::from(key)].used = true;
            }
            Step::Stop { key, by } => self.stop(key, by).await,
            Step::Pause { key, by } => self.call(key, by, Method::POST, "/pause", None).await,
            Step::Resume { key, by } => self.call(key, by, Method::POST, "/resume", None).await,
            Step::Extend { key, by } => {
                self.call(key, by, Method::PATCH, "", Some(json!({"timeout": "30m"}))).await;
            }
            Step::Expire { key } => self.expire(key).await,
            Step::StopInTheCloud { key } => self.stop_in_the_cloud(key).await,
            Step::Cloud { action, trouble, times } => self.stack.fault(rule(action, trouble, times)),
            Step::Database(outage) => self.trouble_database(outage).await,
            Step::CutDatabase { bytes } => self.way.cut_within(bytes.into()),
            Step::Kill => {
                self.kill().await;
                self.start_program().await;
            }
            Step::Heal => self.heal().await,
        }
    }

    fn api(&self, by: By) -> Api {
        let url = if by == By::First { &self.stack.url } else { &self.program_url };
        self.stack.api().through(Client::builder().no_proxy().timeout(CALL).build().expect("a client")).at(url)
    }

    async fn start(&self, key: u8, by: By) -> Answer {
        let body = json!({"tool": "base", "timeout": "20m"});
        let request = self.api(by).request(Method::POST, "/v1/instances?wait=2s");
        honest(read(request.header("idempotency-key", format!("key-{key}")).json(&body)).await)
    }

    fn started(&mut self, key: u8, answer: Answer) {
        let known = &mut self.known[usize::from(key)];
        known.used = true;
        if !answer.status.is_success() {
            return;
        }
        known.ids.insert(answer.body["id"].as_str().expect("an id").to_owned());
        if known.fate == Fate::Open && known.ids.len() == 1 && answer.body["status"] == "RUNNING" {
            // What is replayed was said when it was first answered: it may have been ended since.
            known.fate = if answer.headers.contains_key("idempotency-replayed") { Fate::Open } else { Fate::Lives };
        }
    }

    fn id(&self, key: u8) -> Option<&String> {
        self.known[usize::from(key)].ids.first()
    }

    async fn stop(&mut self, key: u8, by: By) {
        let Some(id) = self.id(key) else { return };
        let answer = honest(self.api(by).delete(&format!("/v1/instances/{id}")).await);
        let known = &mut self.known[usize::from(key)];
        known.fate = if answer.status == 204 { Fate::Ended } else { Fate::Open };
    }

    async fn call(&self, key: u8, by: By, method: Method, rest: &str, body: Option<Value>) {
        let Some(id) = self.id(key) else { return };
        let request = self.api(by).request(method, &format!("/v1/instances/{id}{rest}"));
        honest(read(request.json(&body.unwrap_or_else(|| json!({})))).await);
    }

    async fn expire(&mut self, key: u8) {
        let Some(id) = self.id(key) else { return };
        let update = "UPDATE instances SET expires_at = now() WHERE id = $1";
        // The database may be the one in trouble.
        if sqlx::query(update).bind(id).execute(&self.stack.app.pool).await.is_ok() {
            self.known[usize::from(key)].fate = Fate::Ended;
        }
    }

    async fn stop_in_the_cloud(&mut self, key: u8) {
        let stamped = |one: &Value| self.id(key).is_some_and(|id| one["Metadata"].to_string().contains(id.as_str()));
        let Some(one) = self.stack.upstream_instances().into_iter().find(stamped) else { return };
        let instance_id = one["InstanceId"].as_str().expect("an id").to_owned();
        let request = StopSandboxInstanceRequest { instance_id };
        if self.stack.emulator.cloud().stop_instance(request, &Struck::default()).await.is_ok() {
            self.known[usize::from(key)].fate = Fate::Ended;
        }
    }

    async fn trouble_database(&self, outage: Outage) {
        let name = &self.database;
        match outage {
            Outage::Restarts => {}
            Outage::Gone => self.alter(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await,
            Outage::ReadOnly => {
                self.alter(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
            }
        }
        self.cut_database().await;
    }

    async fn cut_database(&self) {
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
        sqlx::query(cut).bind(&self.database).execute(&self.admin).await.expect("cut connections");
    }

    async fn alter(&self, statement: &str) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&self.admin).await.expect(statement);
    }

    /// Connections to the database stay what they were: those that are read-only too, as to a server that was the first and
    /// now follows another.
    async fn heal(&self) {
        self.stack.no_faults();
        self.way.cut_within(0);
        self.alter(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", self.database)).await;
        self.alter(&format!("ALTER DATABASE {} RESET default_transaction_read_only", self.database)).await;
    }

    async fn kill(&mut self) {
        if let Some(child) = self.program.take() {
            child.stop(Signal::SIGKILL, KILL_PATIENCE).await;
        }
    }

    /// The second gateway; while the database is away it cannot start, and is started again when that is well.
    async fn start_program(&mut self) {
        self.starts += 1;
        let ready = self.directory.path().join(format!("ready-{}", self.starts));
        let mut command = self.stack.program(&ready);
        let mut database = Url::parse(&self.stack.database_url).expect("a URL");
        database.set_query(Some(&format!("host=127.0.0.1&port={}", self.way.address().port())));
        command.env("AGS_GATEWAY__DATABASE__URL", database.as_str());
        let log = fs::File::create(self.directory.path().join(format!("log-{}", self.starts))).expect("a log");
        command.stdout(log.try_clone().expect("its copy")).stderr(log);
        let child = Child::spawn(command, Signal::SIGKILL).await.expect("a program");
        let url = eventually(async || {
            if child.exit_status().is_some() {
                return Some(None);
            }
            let text = fs::read_to_string(&ready).ok()?;
            let content: Value = serde_json::from_str(&text).expect("JSON");
            Some(content["url"].as_str().map(str::to_owned))
        })
        .await;
        match url {
            Some(url) => (self.program, self.program_url) = (Some(child), url),
            None => {
                self.heal().await;
                Box::pin(self.start_program()).await;
            }
        }
    }

    /// Everything is well again: waits until nothing moves any more, then looks at it from the outside.
    pub async fn check(mut self) {
        self.heal().await;
        let mut last = String::new();
        let settled = async {
            loop {
                match self.differences().await {
                    Ok(()) => return,
                    Err(difference) => last = difference,
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let settled = tokio::time::timeout(Duration::from_secs(60), settled).await;
        assert!(settled.is_ok(), "{last}");
        self.check_replays().await;
        self.kill().await;
        self.check_logs();
    }

    /// # Errors
    /// What does not hold (yet).
    async fn differences(&self) -> Result<(), String> {
        let rows: Vec<(String, Option<String>, String)> =
            sqlx::query_as("SELECT id, upstream_id, status FROM instances ORDER BY id")
                .fetch_all(&self.stack.app.pool)
                .await
                .map_err(|error| error.to_string())?;
        let ensure = |holds: bool, what: String| if holds { Ok(()) } else { Err(what) };
        for (id, _, status) in &rows {
            ensure(SETTLED.contains(&status.as_str()), format!("{id} is {status} for good"))?;
        }
        let is_live = |status: &str| matches!(status, "RUNNING" | "PAUSED");
        let ours: BTreeSet<String> =
            rows.iter().filter(|row| is_live(&row.2)).map(|row| row.1.clone().unwrap_or_default()).collect();
        let theirs = self.stack.upstream_instances();
        let theirs: BTreeSet<String> = theirs
            .iter()
            .filter(|one| !matches!(one["Status"].as_str(), Some("STOPPED" | "FAILED")))
            .map(|one| one["InstanceId"].as_str().expect("an id").to_owned())
            .collect();
        ensure(ours == theirs, format!("live here {ours:?}, live in the cloud {theirs:?}"))?;
        let used = self.known.iter().filter(|known| known.used).count();
        let started = self.stack.emulator.cloud().with_state(|state| state.started);
        ensure(started <= used as u64, format!("{started} were started for {used} keys"))?;
        for (key, known) in self.known.iter().enumerate() {
            ensure(known.ids.len() <= 1, format!("key {key} was answered with {:?}", known.ids))?;
            let Some(id) = known.ids.first() else { continue };
            let row = rows.iter().find(|row| row.0 == *id).ok_or(format!("{id} is lost"))?;
            let holds = match known.fate {
                Fate::Open => true,
                Fate::Lives => is_live(&row.2),
                Fate::Ended => !is_live(&row.2),
            };
            ensure(holds, format!("{id} of key {key} is {}, though {:?}", row.2, known.fate))?;
        }
        let me = self.api(By::First).get("/v1/me").await;
        let counted = &me.body["usage"]["instances"];
        ensure(*counted == ours.len(), format!("{counted} of {} count", ours.len()))
    }

    /// A repetition answers what was answered, wherever, and starts nothing.
    async fn check_replays(&mut self) {
        if self.program.as_ref().is_none_or(|child| child.exit_status().is_some()) {
            self.start_program().await;
        }
        let started = |world: &Self| world.stack.emulator.cloud().with_state(|state| state.started);
        let before = started(self);
        for key in 0..KEYS {
            let Some(id) = self.id(key) else { continue };
            for by in [By::First, By::Second] {
                // A connection to the database that was cut a moment ago costs one call: the answer says to try again.
                let again = eventually(async || {
                    let again = self.start(key, by).await;
                    (again.status != 503).then_some(again)
                })
                .await;
                assert!(again.status.is_success(), "key {key}: {again:?}");
                assert_eq!(again.body["id"], *id, "key {key} at {by:?}");
            }
        }
        assert_eq!(started(self), before);
    }

    fn check_logs(&self) {
        let secrets = [&self.stack.key, &self.stack.admin_key].into_iter().map(String::as_str).chain(SECRETS);
        let secrets: Vec<&str> = secrets.collect();
        for number in 1..=self.starts {
            let log = fs::read_to_string(self.directory.path().join(format!("log-{number}"))).expect("a log");
            for secret in &secrets {
                assert!(!log.contains(secret), "a secret is in the log of run {number}");
            }
            assert!(!log.contains("panicked"), "{log}");
        }
    }
}

/// Whatever happens, the gateway knows what it says: a failure of its own is none of these.
fn honest(answer: Answer) -> Answer {
    assert_ne!(answer.body["code"], "internal", "{answer:?}");
    answer
}
