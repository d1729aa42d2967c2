//! What all services of the daemon share.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use connectrpc::ConnectError;
use http::{HeaderMap, header};
use secrecy::SecretString;
use tokio_util::task::TaskTracker;

use super::features::Features;
use super::files;
use super::filesystem::watchers::Watchers;
use super::metrics::CpuClock;
use super::paths::{self, PathError};
use super::process::table::Table;
use super::users::{Accounts, DEFAULT_USER, User};
use crate::instance::inside::{Isolation, Plan};

/// The daemon of one instance.
pub struct Daemon {
    pub accounts: Accounts,
    pub features: Features,
    /// In every process and at `GET /envs`.
    pub envs: BTreeMap<String, String>,
    /// `PATH` of processes that are not given one.
    pub search_path: OsString,
    /// Where an empty path leads; `None`: the user's home.
    pub default_workdir: Option<String>,
    /// What requests have to show; `None`: nothing, as behind the edge of AGS, which checks tokens itself.
    pub token: Option<SecretString>,
    pub processes: Arc<Table>,
    pub watchers: Watchers,
    pub limits: Limits,
    pub cpu_clock: CpuClock,
    pub tasks: TaskTracker,
}

/// What the instance is said to have; `None`: what the machine has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    pub cpu: Option<f64>,
    /// Bytes.
    pub memory: Option<u64>,
}

impl Daemon {
    /// As a plan describes it.
    #[must_use]
    pub fn new(plan: &Plan, search_path: OsString) -> Self {
        let tasks = TaskTracker::new();
        let features = Features::of(&plan.envd_version);
        Self {
            accounts: Accounts::of(plan),
            features,
            envs: plan.envs.clone(),
            search_path,
            default_workdir: None,
            token: plan.token.clone().map(SecretString::from),
            processes: Table::new(features.discard_unheard_output, features.late_connect, tasks.clone()),
            watchers: Watchers::default(),
            limits: Limits { cpu: plan.cpu, memory: plan.memory },
            cpu_clock: CpuClock::default(),
            tasks,
        }
    }

    /// The user of a name, or without one the default user.
    #[must_use]
    pub fn user(&self, name: Option<&str>) -> Option<User> {
        self.accounts.find(name.filter(|name| !name.is_empty()).unwrap_or(DEFAULT_USER))
    }

    /// The user that a request selects by the name in its `Authorization: Basic` header.
    ///
    /// # Errors
    /// `unauthenticated`: there is no such user.
    pub fn caller(&self, headers: &HeaderMap) -> Result<User, ConnectError> {
        let name = basic_user(headers);
        self.user(name.as_deref()).ok_or_else(|| {
            let name = name.unwrap_or_else(|| DEFAULT_USER.to_owned());
            ConnectError::unauthenticated(format!("invalid username: '{name}'"))
        })
    }

    /// What a path of a request means for a user.
    ///
    /// # Errors
    /// It asks for somebody else's home or is no path.
    pub fn resolve(&self, path: &str, user: &User) -> Result<PathBuf, PathError> {
        paths::resolve(path, &user.home, self.default_workdir.as_deref())
    }

    /// The environment of a new process; later sources win.
    #[must_use]
    pub fn environment<'a>(
        &'a self,
        user: &'a User,
        requested: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> HashMap<OsString, OsString> {
        let given = self.envs.iter().chain(requested);
        let given = given.map(|(name, value)| (name.into(), value.into()));
        self.own_environment(user).map(|(name, value)| (name.into(), value)).into_iter().chain(given).collect()
    }

    /// What a process has without the sandbox's variables.
    #[must_use]
    pub fn base_environment(&self, user: &User) -> BTreeMap<String, String> {
        let own = self.own_environment(user).into_iter();
        own.map(|(name, value)| (name.to_owned(), value.to_string_lossy().into_owned())).collect()
    }

    fn own_environment(&self, user: &User) -> [(&'static str, OsString); 4] {
        [
            ("PATH", self.search_path.clone()),
            ("HOME", user.home.clone().into()),
            ("USER", user.name.clone().into()),
            ("LOGNAME", user.name.clone().into()),
        ]
    }

    /// Whether a request shows the token that is asked for, if one is.
    #[must_use]
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        let given = headers.get("x-access-token");
        self.token.as_ref().is_none_or(|token| given.is_some_and(|given| files::same(given.as_bytes(), token)))
    }
}

/// The search path of a plan's instance, where the daemon's own is the machine's.
#[must_use]
pub fn search_path(plan: &Plan) -> OsString {
    let machine = std::env::var_os("PATH");
    machine.filter(|_| plan.isolation == Isolation::None).unwrap_or_else(|| crate::instance::SEARCH_PATH.into())
}

fn basic_user(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let encoded = value.strip_prefix("Basic ")?;
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    Some(decoded.split(':').next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_user_is_the_name_before_the_colon() {
        let user = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            basic_user(&headers)
        };
        assert_eq!(user("Basic cm9vdDo="), Some("root".into()));
        assert_eq!(user("Basic cm9vdDpzZWNyZXQ="), Some("root".into()));
        assert_eq!(user("Basic ???"), None);
        assert_eq!(user("Bearer cm9vdDo="), None);
        assert_eq!(basic_user(&HeaderMap::new()), None);
    }
}
