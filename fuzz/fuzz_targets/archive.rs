//! Archives that clients send.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| ags_gateway::app::files::archive::fuzzing::archive(input.1, usize::from(input.0)));
