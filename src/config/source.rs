//! Where configuration comes from, as a parameter: nothing below reads the process environment.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// The variables and files that a configuration is read from.
pub trait Source {
    /// All environment variables that are valid UTF-8.
    fn variables(&self) -> &BTreeMap<String, String>;

    /// The text of a file: the configuration file, or one that holds a secret.
    fn read(&self, path: &Path) -> io::Result<String>;
}

/// Variables that were collected by `main`, and the real file system.
#[derive(Clone)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { variables: variables.into_iter().collect() }
    }
}

impl Source for Environment {
    fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }
}
