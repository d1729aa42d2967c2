//! `check-config`.

use std::io::{self, Write};

use super::{ConfigFile, print_table};
use crate::{
    config::{Entry, Environment},
    http::tls::Certificates,
};

pub(super) fn run(file: &ConfigFile, environment: &Environment) -> anyhow::Result<()> {
    let config = file.load(environment)?;
    if let Some(tls) = &config.server.tls {
        Certificates::load(tls)?;
    }
    let rows: Vec<Vec<String>> = config
        .entries()
        .into_iter()
        .map(|Entry { key, value, origin }| vec![key, format!("= {value}"), format!("# {origin}")])
        .collect();
    let mut out = io::stdout().lock();
    print_table(&mut out, &rows)?;
    out.flush()?;
    Ok(())
}
