//! Directories as tar archives, streamed both ways through the sandbox's own `tar` (docs/adr/0005 says why).
//!
//! What goes in is read here member by member, checked, and written anew: `tar` gets nothing but plain files, directories and
//! symbolic links, below the directory it works in.

#[cfg(fuzzing)]
pub mod fuzzing;
mod guard;
mod helper;
mod pack;
mod tape;
mod unpack;
mod writer;

pub use self::{pack::Packing, unpack::Unpacked};
use crate::error::{Code, Error};

const PROGRAM: &str = "tar";

/// The archive itself is at fault.
fn unreadable(detail: impl Into<String>) -> Error {
    Error::new(Code::InvalidRequest, detail)
}

/// A member of the archive is not taken.
fn refused(name: &str, why: &str) -> Error {
    let shown: String = name.chars().take(200).collect();
    Error::new(Code::ValidationFailed, format!("The archive's member {shown:?} {why}.")).with_field("body", why)
}
