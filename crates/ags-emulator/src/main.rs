use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match ags_emulator::cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ags-emulator: {error:#}");
            ExitCode::FAILURE
        }
    }
}
