//! What clients send over the WebSocket of code.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| ags_gateway::http::v1::fuzzing::code_messages(frame));
