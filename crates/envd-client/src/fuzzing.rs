//! What fuzzing calls (`fuzz/`): the parsers of what a sandbox sends, with bytes that are cut anywhere.

use bytes::BytesMut;
use http::Method;

use crate::{
    code::{event::parse, lines::LineDecoder},
    frame::{Frame, FrameDecoder, parse_end},
    framing::{LONGEST_PART, read_head},
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

/// Status, body and what is left over of an answer, as far as it is one.
fn answer(wire: &[u8], cut: usize) -> Option<(u16, Vec<u8>, Vec<u8>)> {
    let (mut buffer, mut pieces) = (BytesMut::new(), wire.chunks(cut));
    let mut head = loop {
        if let Some(head) = read_head(&mut buffer, &Method::GET, |head| head.response()).ok()? {
            break head;
        }
        buffer.extend_from_slice(pieces.next()?);
    };
    let status = head.read?.status().as_u16();
    let mut body = Vec::new();
    loop {
        while let Some(frame) = head.framing.next(&mut buffer).ok()? {
            if let Ok(data) = frame.into_data() {
                body.extend_from_slice(&data);
            }
        }
        if head.framing.is_done() {
            break;
        }
        match pieces.next() {
            Some(piece) => buffer.extend_from_slice(piece),
            None => head.framing.end().ok()?,
        }
    }
    let mut rest = buffer.to_vec();
    pieces.for_each(|piece| rest.extend_from_slice(piece));
    Some((status, body, rest))
}

/// Answers of HTTP/1.1.
///
/// # Panics
/// When it matters how the bytes are cut, or some are made up.
pub fn answers(wire: &[u8], cut: usize) {
    // What is longer may be refused before all of it is there.
    let wire = &wire[..wire.len().min(LONGEST_PART)];
    let whole = answer(wire, wire.len().max(1));
    assert_eq!(whole, answer(wire, cut.max(1)));
    if let Some((_, body, rest)) = whole {
        assert!(body.len() + rest.len() <= wire.len() && wire.ends_with(&rest));
    }
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
