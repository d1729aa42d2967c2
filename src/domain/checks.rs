//! Checks of a request's fields, all reported together.

use crate::error::{Error, FieldError};

/// What was found wrong so far.
#[derive(Debug, Default)]
pub struct Checks(Vec<FieldError>);

impl Checks {
    /// Notes that `field` is at fault unless `fine`.
    pub fn that(&mut self, fine: bool, field: impl Into<String>, message: impl Into<String>) {
        if !fine {
            self.0.push(FieldError { field: field.into(), message: message.into() });
        }
    }

    /// # Errors
    /// `validation_failed` that names every field at fault.
    pub fn finish(self) -> Result<(), Error> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::fields(self.0)) }
    }
}

/// A path from the root, without NUL.
#[must_use]
pub fn absolute(path: &str) -> bool {
    path.starts_with('/') && !path.contains('\0')
}
