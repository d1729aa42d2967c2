//! `openapi`.

use std::io::{self, Write};

use crate::http::openapi;

pub(super) fn run() -> anyhow::Result<()> {
    io::stdout().write_all(openapi::document_json()?.as_bytes())?;
    Ok(())
}
