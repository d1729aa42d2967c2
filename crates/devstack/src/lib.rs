//! What the local stack and the tests run on: child processes that never outlive their parent, and a private PostgreSQL.
//!
//! For development and tests on Linux; production runs none of this.

pub mod child;
pub mod files;
pub mod postgres;
pub mod process;

pub use child::Child;
pub use postgres::Postgres;
pub use process::ProcessId;
