//! What the gateways of this process say of failures of their own: to callers it is not told, and a test that meets one shows it.

use std::{
    io,
    sync::{Mutex, Once, PoisonError},
};

use serde_json::Value;

/// How an error's line says that it is such a failure.
const INTERNAL: &str = "code=\"internal\"";

static KEEPS: Once = Once::new();
static SAID: Mutex<String> = Mutex::new(String::new());

/// Takes the lines of the log, each in one piece.
struct Line;

impl io::Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        if text.contains(INTERNAL) {
            SAID.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps what is said from now on.
pub fn keep() {
    KEEPS.call_once(|| {
        let errors = tracing_subscriber::fmt().with_max_level(tracing::Level::ERROR).with_ansi(false);
        errors.with_writer(|| Line).try_init().expect("no other log in the process of the tests");
    });
}

/// All that was said so far, for an answer that tells of such a failure and of nothing else.
pub fn behind(answer: &Value) -> String {
    if answer["code"] == "internal" {
        SAID.lock().unwrap_or_else(PoisonError::into_inner).clone()
    } else {
        String::new()
    }
}
