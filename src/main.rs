//! Parse, run, exit code.

use std::process::ExitCode;

use ags_gateway::{cli, config::Environment};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // First of all: HTTP clients panic without a provider. It fails only when there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    cli::run(&Environment::new(variables))
}
