//! The code interpreter's lines.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| envd_client::fuzzing::code_events(input.1, usize::from(input.0)));
