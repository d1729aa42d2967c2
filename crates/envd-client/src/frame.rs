//! Envelopes of Connect's streaming protocol (PROTOCOLS D.4): one byte of flags, four of length
//! (big endian), the payload. Pure: bytes in, frames out.

use std::num::TryFromIntError;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Deserialize;

use crate::error::ConnectErrorBody;

const HEADER_LEN: usize = 5;
const COMPRESSED: u8 = 0x01;
const END_OF_STREAM: u8 = 0x02;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Message(Bytes),
    /// The last one. Its payload is JSON, whatever the codec.
    End(Bytes),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a compressed frame, although none was asked for")]
    Compressed,
    #[error("unknown frame flags {0:#04x}")]
    UnknownFlags(u8),
    #[error("a frame of {len} bytes, more than the {max} allowed")]
    TooLarge { len: usize, max: usize },
}

/// One message as a request body. Fails if its length does not fit in four bytes.
pub(crate) fn encode_message(payload: &[u8]) -> Result<Bytes, TryFromIntError> {
    let mut out = BytesMut::with_capacity(HEADER_LEN + payload.len());
    out.put_u8(0);
    out.put_u32(u32::try_from(payload.len())?);
    out.put_slice(payload);
    Ok(out.freeze())
}

/// Cuts a byte stream into frames, however the network has cut it before.
pub(crate) struct FrameDecoder {
    buffer: BytesMut,
    max: usize,
}

impl FrameDecoder {
    /// `max`: longest payload accepted, in bytes. No more than that (and one chunk) is ever held.
    pub(crate) fn new(max: usize) -> Self {
        Self { buffer: BytesMut::new(), max }
    }

    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// Bytes of an unfinished frame are waiting for the rest.
    pub(crate) fn is_mid_frame(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next complete frame, or `None` until more is pushed.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let [flags, len @ ..] = *header;
        let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
        if flags & COMPRESSED != 0 {
            return Err(FrameError::Compressed);
        }
        if flags & !END_OF_STREAM != 0 {
            return Err(FrameError::UnknownFlags(flags));
        }
        if len > self.max {
            return Err(FrameError::TooLarge { len, max: self.max });
        }
        if self.buffer.len() - HEADER_LEN < len {
            return Ok(None);
        }
        self.buffer.advance(HEADER_LEN);
        let payload = self.buffer.split_to(len).freeze();
        Ok(Some(if flags & END_OF_STREAM == 0 { Frame::Message(payload) } else { Frame::End(payload) }))
    }
}

#[derive(Deserialize)]
struct EndOfStream {
    error: Option<ConnectErrorBody>,
}

/// The error an end-of-stream payload carries, if any. An empty payload is a success, as `{}` is.
pub(crate) fn parse_end(payload: &[u8]) -> Result<Option<ConnectErrorBody>, serde_json::Error> {
    if payload.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice::<EndOfStream>(payload).map(|end| end.error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = encode_message(payload).unwrap().to_vec();
        out[0] = flags;
        out
    }

    fn drain(decoder: &mut FrameDecoder) -> Vec<Frame> {
        std::iter::from_fn(|| decoder.next_frame().expect("a valid frame")).collect()
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
            cut in 1usize..64,
        ) {
            let mut wire: Vec<u8> = payloads.iter().flat_map(|p| raw(0, p)).collect();
            wire.extend(raw(END_OF_STREAM, b"{}"));

            let mut decoder = FrameDecoder::new(200);
            let mut frames = Vec::new();
            for chunk in wire.chunks(cut) {
                decoder.push(chunk);
                frames.extend(drain(&mut decoder));
            }

            let mut expected: Vec<Frame> = payloads.into_iter().map(|p| Frame::Message(p.into())).collect();
            expected.push(Frame::End(Bytes::from_static(b"{}")));
            prop_assert_eq!(frames, expected);
            prop_assert!(!decoder.is_mid_frame());
        }

        #[test]
        fn garbage_never_panics_and_never_exceeds_the_limit(bytes in prop::collection::vec(any::<u8>(), 0..512), max in 0usize..64) {
            let mut decoder = FrameDecoder::new(max);
            decoder.push(&bytes);
            while let Ok(Some(frame)) = decoder.next_frame() {
                let (Frame::Message(payload) | Frame::End(payload)) = frame;
                prop_assert!(payload.len() <= max);
            }
        }

        #[test]
        fn garbage_at_the_end_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
            let _ = parse_end(&bytes);
        }
    }

    #[test]
    fn a_frame_is_refused_by_its_header_alone() {
        let mut decoder = FrameDecoder::new(4);
        decoder.push(&raw(0, b"12345")[..HEADER_LEN]);
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLarge { len: 5, max: 4 }));

        let mut decoder = FrameDecoder::new(4);
        decoder.push(&raw(COMPRESSED, b""));
        assert_eq!(decoder.next_frame(), Err(FrameError::Compressed));

        let mut decoder = FrameDecoder::new(4);
        decoder.push(&raw(0x80, b""));
        assert_eq!(decoder.next_frame(), Err(FrameError::UnknownFlags(0x80)));
    }

    #[test]
    fn the_end_carries_an_error_or_none() {
        assert!(parse_end(b"").unwrap().is_none());
        assert!(parse_end(b"{}").unwrap().is_none());
        assert!(parse_end(br#"{"metadata":{"k":["v"]}}"#).unwrap().is_none());
        let error = parse_end(br#"{"error":{"code":"not_found","message":"m"}}"#).unwrap().unwrap();
        assert_eq!((error.code.as_str(), error.message.as_str()), ("not_found", "m"));
        assert!(parse_end(b"nonsense").is_err());
    }
}
