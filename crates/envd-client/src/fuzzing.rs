//! What fuzzing calls (`fuzz/`): the parsers of what a sandbox sends, with bytes that are cut anywhere.

use crate::{
    code::{event::parse, lines::LineDecoder},
    frame::{Frame, FrameDecoder, parse_end},
};

/// Small, so that the limit is met.
const MAX: usize = 1 << 10;

fn frames(wire: &[u8], cut: usize) -> (Vec<Frame>, bool) {
    let (mut decoder, mut found) = (FrameDecoder::new(MAX), Vec::new());
    for piece in wire.chunks(cut) {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(_) => return (found, false),
            }
        }
    }
    (found, true)
}

/// Envelopes of Connect's streaming protocol.
///
/// # Panics
/// When it matters how the bytes are cut, or a limit does not hold.
pub fn envelopes(wire: &[u8], cut: usize) {
    let whole = frames(wire, wire.len().max(1));
    assert_eq!(whole, frames(wire, cut.max(1)));
    for frame in whole.0 {
        let (Frame::Message(payload) | Frame::End(payload)) = &frame;
        assert!(payload.len() <= MAX);
        // Garbage is an error, which is fine.
        let _ended = parse_end(payload);
    }
}

fn lines(wire: &[u8], cut: usize) -> Option<Vec<Vec<u8>>> {
    let (mut decoder, mut found) = (LineDecoder::new(MAX), Vec::new());
    for piece in wire.chunks(cut) {
        decoder.push(piece);
        while let Some(line) = decoder.next_line().ok()? {
            found.push(line.to_vec());
        }
    }
    Some(found)
}

/// The code interpreter's lines.
///
/// # Panics
/// When it matters how the bytes are cut, or a limit does not hold.
pub fn code_events(wire: &[u8], cut: usize) {
    let whole = lines(wire, wire.len().max(1));
    assert_eq!(whole, lines(wire, cut.max(1)));
    for line in whole.iter().flatten() {
        assert!(line.len() <= MAX);
        // Garbage is an error, which is fine.
        let _event = parse(line);
    }
}
