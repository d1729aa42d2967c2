//! The control plane: tools, instances, tokens, keys, and the signed API over them.

pub mod actions;
pub mod error;
pub mod front;
pub mod idempotency;
pub mod instances;
pub mod keys;
pub mod lifecycle;
pub mod listing;
pub mod persist;
pub mod ratelimit;
pub mod state;
pub mod store;
pub mod timeout;
pub mod tools;
pub mod validate;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::faults::Faults;
use crate::ids;
use crate::instance::Launch;
use crate::journal::Journal;
use crate::settings::{Account, Settings, Tunables};
use persist::{File, MadeAccount, Saved};
use store::State;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A signed request.
    Account(String),
    /// The E2B endpoint, by key id.
    ApiKey(String),
    /// The emulator itself.
    System,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(id) => write!(f, "account:{id}"),
            Self::ApiKey(id) => write!(f, "api_key:{id}"),
            Self::System => f.write_str("system"),
        }
    }
}

/// The emulated cloud. Everything that comes in at a listener ends here.
pub struct Cloud {
    pub settings: Settings,
    pub accounts: Vec<Account>,
    pub clock: Clock,
    pub faults: Faults,
    pub journal: Journal,
    pub limiter: ratelimit::RateLimiter,
    pub client_tokens: idempotency::Tokens,
    pub tasks: TaskTracker,
    /// Cancelled when the emulator ends.
    pub stopping: CancellationToken,
    launcher: Arc<dyn Launch>,
    tunables: RwLock<Tunables>,
    state: Mutex<State>,
    file: File,
    made_account: Option<MadeAccount>,
}

impl Cloud {
    /// Loads what the last run left and adds the built-in tools.
    ///
    /// # Errors
    /// The state directory cannot be used.
    pub fn open(settings: Settings, launcher: Arc<dyn Launch>) -> io::Result<Arc<Self>> {
        let file = File::within(&settings.state_dir)?;
        let mut saved = file.load()?;
        if settings.accounts.is_empty() && saved.account.is_none() {
            let made = MadeAccount { secret_id: ids::secret_id(), secret_key: ids::secret_key() };
            saved.account = Some(made);
        }
        let mut accounts = settings.accounts.clone();
        if accounts.is_empty() {
            accounts.extend(saved.account.as_ref().map(|made| Account {
                secret_id: made.secret_id.clone(),
                secret_key: made.secret_key.clone().into(),
                token: None,
            }));
        }
        let cloud = Self {
            accounts,
            clock: Clock::new(settings.clock),
            faults: Faults::default(),
            journal: Journal::default(),
            limiter: ratelimit::RateLimiter::default(),
            client_tokens: idempotency::Tokens::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            launcher,
            tunables: RwLock::new(settings.tunables.clone()),
            state: Mutex::new(State::default()),
            file,
            made_account: saved.account.clone(),
            settings,
        };
        cloud.restore(saved)?;
        Ok(Arc::new(cloud))
    }

    fn restore(&self, saved: Saved) -> io::Result<()> {
        let now = self.clock.now();
        self.with_state(|state| {
            state.tools = saved.tools.into_iter().map(|t| (t.tool_id.clone(), t)).collect();
            state.keys = saved.api_keys.into_iter().map(|k| (k.id.clone(), k)).collect();
            tools::settle_interrupted(state);
            tools::add_built_in(state, now);
            self.save(state)
        })
    }

    /// Runs `f` on the state; nothing waits inside.
    pub fn with_state<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// A copy of what an admin may change.
    pub fn tunables(&self) -> Tunables {
        self.tunables.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    pub fn set_tunables(&self, tunables: Tunables) {
        *self.tunables.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = tunables;
    }

    /// Writes tools and keys to disk.
    pub(crate) fn save(&self, state: &State) -> io::Result<()> {
        self.file.save(&Saved {
            account: self.made_account.clone(),
            tools: state.tools.values().cloned().collect(),
            api_keys: state.keys.values().cloned().collect(),
        })
    }

    /// Ends every instance and every task.
    pub async fn shutdown(&self) {
        self.stopping.cancel();
        let handles: Vec<_> = self.with_state(|state| {
            let records = state.instances.values_mut();
            records.inspect(|record| record.links.cancel()).filter_map(|record| record.handle.take()).collect()
        });
        futures_util::future::join_all(handles.iter().map(|handle| handle.stop())).await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Milliseconds of a tunable.
pub(crate) fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
