//! What clients send over the WebSocket of a command.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| ags_gateway::http::v1::fuzzing::exec_messages(frame));
