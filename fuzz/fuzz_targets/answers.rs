//! Answers of HTTP/1.1, as a server in a sandbox sends them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| envd_client::fuzzing::answers(input.1, usize::from(input.0)));
