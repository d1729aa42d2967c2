//! What clients send up a WebSocket.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::Deserialize;

use super::dto;
use crate::{
    app::exec::Handle,
    domain::exec::{PtySize, Signal},
    error::{Error, Result},
    http::extract::from_json,
};

/// Stream number of stdin in binary frames.
const STDIN: u8 = 0;

/// One frame.
#[derive(Debug, PartialEq)]
pub enum Input {
    Stdin(Bytes),
    CloseStdin,
    Resize(PtySize),
    Signal(Signal),
    Ping,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Frame {
    Stdin {
        data: String,
        #[serde(default)]
        encoding: Encoding,
    },
    CloseStdin,
    Resize {
        cols: u16,
        rows: u16,
    },
    Signal {
        signal: String,
    },
    Ping,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Utf8,
    Base64,
}

/// # Errors
/// `malformed_json`, `validation_failed` naming the field.
pub fn parse_text(text: &[u8]) -> Result<Input> {
    Ok(match from_json(text)? {
        Frame::Stdin { data, encoding: Encoding::Utf8 } => Input::Stdin(data.into()),
        Frame::Stdin { data, encoding: Encoding::Base64 } => {
            let bytes = BASE64_STANDARD.decode(data).map_err(|_| Error::field("data", "is not base64"))?;
            Input::Stdin(bytes.into())
        }
        Frame::CloseStdin => Input::CloseStdin,
        Frame::Resize { cols, rows } => Input::Resize(PtySize { cols, rows }),
        Frame::Signal { signal } => Input::Signal(dto::signal(&signal)?),
        Frame::Ping => Input::Ping,
    })
}

/// A binary frame: a byte for the stream (0), a byte for the length of a cursor, the cursor (of no meaning here), the input.
///
/// # Errors
/// `validation_failed` for another stream, or a frame that is cut short.
pub fn parse_binary(frame: &Bytes) -> Result<Input> {
    let [STDIN, cursor, ..] = frame[..] else {
        return Err(Error::field("frame", "must begin with the bytes 0 (stdin) and the length of the cursor"));
    };
    let start = 2 + usize::from(cursor);
    if start > frame.len() {
        return Err(Error::field("frame", "is shorter than its cursor"));
    }
    Ok(Input::Stdin(frame.slice(start..)))
}

impl Input {
    /// # Errors
    /// `invalid_state` when the command takes no such input; what the sandbox says.
    pub async fn apply(self, handle: &Handle) -> Result<()> {
        match self {
            Self::Stdin(data) if data.is_empty() => Ok(()),
            Self::Stdin(data) => handle.write(data).await,
            Self::CloseStdin => handle.close_stdin().await,
            Self::Resize(size) => handle.resize(size).await,
            Self::Signal(signal) => handle.signal(signal).await,
            Self::Ping => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_are_read_and_faults_are_named() {
        let stdin = |text: &'static str| Input::Stdin(Bytes::from_static(text.as_bytes()));
        assert_eq!(parse_text(br#"{"type":"stdin","data":"a\n"}"#).unwrap(), stdin("a\n"));
        assert_eq!(parse_text(br#"{"type":"stdin","data":"YQ==","encoding":"base64"}"#).unwrap(), stdin("a"));
        assert_eq!(parse_text(br#"{"type":"close_stdin"}"#).unwrap(), Input::CloseStdin);
        assert_eq!(
            parse_text(br#"{"type":"resize","cols":80,"rows":24}"#).unwrap(),
            Input::Resize(PtySize { cols: 80, rows: 24 })
        );
        assert!(parse_text(br#"{"type":"signal","signal":"SIGNOTHING"}"#).is_err());
        assert!(parse_text(br#"{"type":"fly"}"#).is_err());
        assert_eq!(parse_binary(&Bytes::from_static(b"\0\0abc")).unwrap(), stdin("abc"));
        assert_eq!(parse_binary(&Bytes::from_static(b"\0\x011abc")).unwrap(), stdin("abc"));
        assert!(parse_binary(&Bytes::from_static(b"\0\x05ab")).is_err());
        assert!(parse_binary(&Bytes::from_static(b"\x01\0ab")).is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(frame in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse_text(&frame);
            let _ = parse_binary(&frame.into());
        }
    }
}
