//! Connections that were opened to a server which has become one that follows another: they would stay read-only for ever.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::error::DatabaseError;

/// `read_only_sql_transaction`.
const READ_ONLY: &str = "25006";
/// What passes: the server starts, stops, is full, or gave way to another transaction. Classes of SQLSTATE, and codes.
const PASSING: [&str; 7] = ["08", "53", "57P", "57014", "40001", "40P01", READ_ONLY];
/// `object_not_in_prerequisite_state`: of a database that takes no connections, among other things.
const NOT_READY: &str = "55000";

/// When a server was last found to be read-only. One for the process: its pools lead to one database.
static FOUND: Mutex<Option<Instant>> = Mutex::new(None);

/// Notes when it is a read-only server that says this.
pub fn note(error: &dyn DatabaseError) {
    if error.code().as_deref() == Some(READ_ONLY) {
        *FOUND.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

/// Whether what the server says will pass.
pub fn passes(error: &dyn DatabaseError) -> bool {
    let code = error.code().unwrap_or_default();
    PASSING.iter().any(|passing| code.starts_with(passing)) || code == NOT_READY
}

/// Whether a connection of that age may lead to a server that was found to be read-only.
pub fn is_suspect(age: Duration) -> bool {
    let found = *FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    found.is_some_and(|found| found.elapsed() <= age)
}
