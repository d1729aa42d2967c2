//! What fuzzing calls (`fuzz/`): the parsers of what clients send over WebSockets.

use bytes::Bytes;

use super::{
    code::{dto::CodeRequest, ws},
    exec::{dto::ExecRequest, input},
};
use crate::{
    domain::{code::CodeSpec, exec::Limits},
    http::websocket::traffic::start_frame,
};

const LIMITS: Limits = Limits { max_timeout: std::time::Duration::from_secs(3600), max_output_limit: 1 << 20 };

/// Frames of a command's socket: the first one, and those after it. What is wrong is an error, which is fine.
pub fn exec_messages(frame: &[u8]) {
    let _text = input::parse_text(frame);
    let _binary = input::parse_binary(&Bytes::copy_from_slice(frame));
    if let Ok(spec) = start_frame::<ExecRequest>(frame).and_then(ExecRequest::into_spec) {
        let _problems = spec.problems(&LIMITS);
    }
}

/// Frames of a code socket.
pub fn code_messages(frame: &[u8]) {
    let _input = ws::parse_text(frame);
    if let Ok(request) = start_frame::<CodeRequest>(frame) {
        let _problems = CodeSpec::from(request).problems(&LIMITS);
    }
}
