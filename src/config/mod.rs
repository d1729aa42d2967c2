//! The configuration: one file per section, all errors at once, nothing read from the process environment.
//!
//! `default.toml` documents every key. Layers, lowest first: that file, the operator's file, the well-known variables,
//! then `AGS_GATEWAY__SECTION__KEY`.

mod audit;
mod auth;
mod database;
mod exec;
mod files;
mod instances;
mod jobs;
mod log;
pub mod parse;
mod ports;
mod runs;
mod section;
mod server;
mod source;
mod tools;
mod tree;
mod upstreams;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::rc::Rc;

use section::{Findings, Reader, Section};
use tree::{Origin, Table};

pub use audit::Audit;
pub use auth::{Auth, MIN_SECRET_BYTES};
pub use database::Database;
pub use exec::Exec;
pub use files::Files;
pub use instances::{Instances, MAX_TIMEOUT, MIN_TIMEOUT};
pub use jobs::Jobs;
pub use log::{Log, LogFormat};
pub use parse::Cidr;
pub use ports::Ports;
pub use runs::Runs;
pub use server::{AllowedOrigin, Server, Tls};
pub use source::{Environment, Source};
pub use tools::{Probe, Tools};
pub use upstreams::{CredentialFiles, Credentials, EnvdMount, Upstream};

/// The documented defaults.
pub const DEFAULT_FILE: &str = include_str!("default.toml");

/// Variables of other programs' making that are understood, and the keys they set.
const WELL_KNOWN: [(&str, &str); 10] = [
    ("DATABASE_URL", "database.url"),
    ("DATABASE_URL_FILE", "database.url_file"),
    ("TENCENTCLOUD_SECRET_ID", "upstream_defaults.credentials.secret_id"),
    ("TENCENTCLOUD_SECRET_ID_FILE", "upstream_defaults.credentials.secret_id_file"),
    ("TENCENTCLOUD_SECRET_KEY", "upstream_defaults.credentials.secret_key"),
    ("TENCENTCLOUD_SECRET_KEY_FILE", "upstream_defaults.credentials.secret_key_file"),
    ("TENCENTCLOUD_TOKEN", "upstream_defaults.credentials.token"),
    ("TENCENTCLOUD_TOKEN_FILE", "upstream_defaults.credentials.token_file"),
    ("TENCENTCLOUD_REGION", "upstream_defaults.region"),
    ("TENCENTCLOUD_ROLE_ARN", "upstream_defaults.role_arn"),
];

/// The whole configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub server: Server,
    pub database: Database,
    pub auth: Auth,
    pub log: Log,
    /// By name; at least one.
    pub upstreams: BTreeMap<String, Upstream>,
    /// A key of `upstreams`.
    pub default_upstream: String,
    pub tools: Tools,
    pub instances: Instances,
    pub exec: Exec,
    pub files: Files,
    pub ports: Ports,
    pub jobs: Jobs,
    pub audit: Audit,
    pub runs: Runs,
    entries: Vec<Entry>,
}

/// One setting in effect: what `check-config` prints. Secrets stand as `[redacted]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: String,
    /// `default`, the file's path, or the variable's name.
    pub origin: String,
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// All problems of all layers together; none holds the value of a secret.
    pub fn load(source: &dyn Source, file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut findings = Findings::default();
        let table = layered(source, file, &mut findings.problems);
        let findings = Rc::new(RefCell::new(findings));
        let reader = Reader { source, findings: Rc::clone(&findings) };
        let mut config = Self::read(Section::root(reader, table));
        let findings = findings.take();
        if !findings.problems.is_empty() {
            return Err(ConfigError { problems: findings.problems });
        }
        config.entries = findings.entries;
        Ok(config)
    }

    fn read(mut root: Section<'_>) -> Self {
        let upstreams = upstreams::read(&mut root);
        let mut tools = root.section("tools");
        let default_upstream = default_upstream(&mut tools, &upstreams);
        let config = Self {
            server: Server::read(root.section("server")),
            database: Database::read(root.section("database")),
            auth: Auth::read(root.section("auth")),
            log: Log::read(root.section("log")),
            default_upstream,
            upstreams,
            tools: Tools::read(tools),
            instances: Instances::read(root.section("instances")),
            exec: Exec::read(root.section("exec")),
            files: Files::read(root.section("files")),
            ports: Ports::read(root.section("ports")),
            jobs: Jobs::read(root.section("jobs")),
            audit: Audit::read(root.section("audit")),
            runs: Runs::read(root.section("runs")),
            entries: Vec::new(),
        };
        root.finish();
        config
    }

    /// The upstream of a tool that names none.
    pub fn default_upstream(&self) -> &Upstream {
        &self.upstreams[&self.default_upstream]
    }

    /// Every setting in effect, sorted by key.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = self.entries.clone();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        entries
    }
}

fn default_upstream(tools: &mut Section<'_>, upstreams: &BTreeMap<String, Upstream>) -> String {
    let names = upstreams.keys().cloned().collect::<Vec<_>>().join(", ");
    match tools.optional("default_upstream") {
        Some(name) if upstreams.contains_key(&name) => name,
        Some(name) => {
            tools.problem("default_upstream", format!("{name:?} is not an upstream; there is {names}"));
            name
        }
        None => {
            if upstreams.len() > 1 {
                tools.problem("default_upstream", format!("is required: one of {names}"));
            }
            upstreams.keys().next().cloned().unwrap_or_default()
        }
    }
}

fn layered(source: &dyn Source, file: Option<&Path>, problems: &mut Vec<Problem>) -> Table {
    let mut table = tree::from_toml(DEFAULT_FILE, &Origin::Default).unwrap_or_else(|problem| {
        problems.push(problem);
        Table::new()
    });
    if let Some(path) = file {
        let layer = file_layer(source, path, problems);
        tree::overlay(&mut table, layer, problems);
    }
    tree::overlay(&mut table, well_known_layer(source.variables()), problems);
    let variables = tree::from_variables(source.variables(), problems);
    tree::overlay(&mut table, variables, problems);
    table
}

fn file_layer(source: &dyn Source, path: &Path, problems: &mut Vec<Problem>) -> Table {
    let origin = Origin::File(path.to_owned());
    let text =
        source.read(path).map_err(|error| Problem::new("(file)", Some(&origin), format!("cannot be read: {error}")));
    text.and_then(|text| tree::from_toml(&text, &origin)).unwrap_or_else(|problem| {
        problems.push(problem);
        Table::new()
    })
}

fn well_known_layer(variables: &BTreeMap<String, String>) -> Table {
    let mut layer = Table::new();
    for (name, key) in WELL_KNOWN {
        if let Some(value) = variables.get(name).filter(|value| !value.is_empty()) {
            let path: Vec<String> = key.split('.').map(str::to_owned).collect();
            tree::insert(&mut layer, &path, value, &Origin::WellKnown(name.to_owned()));
        }
    }
    layer
}

/// One thing that is wrong, with the key at fault and where its value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub key: String,
    pub origin: Option<String>,
    pub text: String,
}

impl Problem {
    fn new(key: &str, origin: Option<&Origin>, text: String) -> Self {
        Self { key: key.to_owned(), origin: origin.map(Origin::to_string), text }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{} (from {origin}) {}", self.key, self.text),
            None => write!(f, "{} {}", self.key, self.text),
        }
    }
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, thiserror::Error)]
pub struct ConfigError {
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        write!(f, "the configuration has {count} problem{}:", if count == 1 { "" } else { "s" })?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

#[cfg(test)]
mod tests;
