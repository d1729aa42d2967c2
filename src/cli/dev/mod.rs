//! `dev`: PostgreSQL, the emulator and the gateway as three supervised processes (API.md, "The local stack").

mod announce;
mod backoff;
mod certificates;
mod config;
mod https;
mod programs;
mod service;
mod stack;
mod state;
mod tenants;

use std::{path::PathBuf, time::Duration};

use clap::Args;

use self::{backoff::Backoff, programs::Programs, stack::Stack, state::State};
use crate::lifecycle::Signals;

#[derive(Args)]
pub(super) struct Arguments {
    /// Where everything is kept: data, keys, logs, dev.env.
    #[arg(long, value_name = "DIR", default_value = ".ags-gateway", overrides_with = "state")]
    state: PathBuf,
    /// Port of the API; 0 takes any free port.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Serve HTTPS on that port, with a certificate of an authority made here. Plain HTTP goes to any free port.
    #[arg(long)]
    tls: bool,
    /// Drop what earlier runs left in the state directory.
    #[arg(long)]
    fresh: bool,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut signals = Signals::install()?;
    let programs = Programs::find()?;
    let state = State::open(&arguments.state, arguments.fresh)?;
    let mut stack = Stack::new(state, programs, arguments.port, arguments.tls)?;
    let started = tokio::select! {
        started = stack.start() => started,
        signal = signals.next() => {
            println!("{signal}: giving up the start");
            return stack.stop().await;
        }
    };
    if let Err(error) = started {
        stack.stop().await?;
        return Err(error);
    }
    announce::ready(&stack);
    let outcome = supervise(stack, &mut signals).await;
    println!("stopped");
    outcome
}

/// Restarts what dies until a signal comes, then stops everything; a second signal kills what is left.
async fn supervise(mut stack: Stack, signals: &mut Signals) -> anyhow::Result<()> {
    let mut backoff = Backoff::default();
    let signal = loop {
        let death = tokio::select! {
            signal = signals.next() => break signal,
            death = stack.next_death() => death,
        };
        let delay = backoff.next(tokio::time::Instant::now());
        println!("{death}: restarting it in {} s", delay.as_secs_f32());
        let restarted = tokio::select! {
            signal = signals.next() => break signal,
            result = restart(&mut stack, death.part, delay) => result,
        };
        match restarted {
            Ok(()) => println!("{} is back", death.part),
            Err(error) => println!("{} did not come back: {error:#}", death.part),
        }
    };
    println!("{signal}: stopping");
    tokio::select! {
        result = stack.stop() => result,
        signal = signals.next() => {
            println!("{signal}: killing what is left");
            Ok(())
        }
    }
}

async fn restart(stack: &mut Stack, part: stack::Part, delay: Duration) -> anyhow::Result<()> {
    tokio::time::sleep(delay).await;
    stack.restart(part).await
}
