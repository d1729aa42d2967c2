//! The contexts of an instance.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::context::{Context, Description};
use super::language;
use crate::envd::Daemon;

/// Listed from the start; their kernels are started when they are first used.
const DEFAULTS: [&str; 2] = ["python", "javascript"];

/// Why there is no context.
#[derive(Debug, PartialEq, Eq)]
pub enum Missing {
    /// No context has this id.
    Unknown(String),
    /// Its kernel cannot be had.
    Kernel(String),
}

/// All contexts, in the order of their creation.
pub struct Table {
    daemon: Arc<Daemon>,
    entries: Mutex<Vec<Entry>>,
}

#[derive(Clone)]
struct Entry {
    context: Arc<Context>,
    /// It is the one that a language stands for.
    default: bool,
}

impl Table {
    /// With the default contexts.
    pub fn new(daemon: Arc<Daemon>) -> Self {
        let table = Self { daemon, entries: Mutex::default() };
        for language in DEFAULTS {
            // Without its user there is no sandbox.
            if let Ok(context) = table.make(language.into(), None) {
                table.lock().push(Entry { context, default: true });
            }
        }
        table
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, language: String, cwd: Option<String>) -> Result<Arc<Context>, Missing> {
        let user = self.daemon.user(None).ok_or_else(|| Missing::Kernel("the sandbox has no user".into()))?;
        let path = match &cwd {
            Some(cwd) => self.daemon.resolve(cwd, &user).map_err(|error| Missing::Kernel(error.to_string()))?,
            None => PathBuf::from(&user.home),
        };
        let cwd = cwd.unwrap_or_else(|| user.home.display().to_string());
        let description = Description { id: uuid::Uuid::new_v4().to_string(), language, cwd };
        Ok(Arc::new(Context::new(Arc::clone(&self.daemon), description, user, path)))
    }

    /// A new context with a kernel.
    ///
    /// # Errors
    /// The kernel cannot be had.
    pub async fn create(&self, language: Option<&str>, cwd: Option<String>) -> Result<Description, Missing> {
        let context = self.make(language::normalise(language.unwrap_or(DEFAULTS[0])), cwd)?;
        context.prepare().await.map_err(Missing::Kernel)?;
        let description = context.description.clone();
        self.lock().push(Entry { context, default: false });
        Ok(description)
    }

    pub fn list(&self) -> Vec<Description> {
        self.lock().iter().map(|entry| entry.context.description.clone()).collect()
    }

    /// The context of an id.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, id: &str) -> Result<Arc<Context>, Missing> {
        let found = self.lock().iter().find(|entry| entry.context.description.id == id).cloned();
        found.map(|entry| entry.context).ok_or_else(|| Missing::Unknown(id.to_owned()))
    }

    /// The context that a language stands for, made when there is none yet; its kernel is ready.
    ///
    /// # Errors
    /// The kernel cannot be had.
    pub async fn default_of(&self, language: Option<&str>) -> Result<Arc<Context>, Missing> {
        let language = language::normalise(language.unwrap_or(DEFAULTS[0]));
        let present = |entries: &[Entry]| {
            let found = entries.iter().find(|entry| entry.default && entry.context.description.language == language);
            found.map(|entry| Arc::clone(&entry.context))
        };
        let found = present(&self.lock());
        if let Some(context) = found {
            context.prepare().await.map_err(Missing::Kernel)?;
            return Ok(context);
        }
        let context = self.make(language.clone(), None)?;
        context.prepare().await.map_err(Missing::Kernel)?;
        let mut entries = self.lock();
        // Another request may have been faster.
        Ok(present(&entries).unwrap_or_else(|| {
            entries.push(Entry { context: Arc::clone(&context), default: true });
            context
        }))
    }

    /// Ends a context.
    ///
    /// # Errors
    /// There is none.
    pub async fn remove(&self, id: &str) -> Result<(), Missing> {
        let context = self.find(id)?;
        self.lock().retain(|entry| entry.context.description.id != id);
        context.end().await;
        Ok(())
    }
}
