use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{clock, ids::Ids};

fn exec_id() -> ExecId {
    Ids::new(clock::Mock::at("2026-01-01T00:00:00Z".parse().unwrap())).next()
}

fn encoder(framing: Framing) -> Encoder {
    Encoder::new(framing, exec_id(), None, None)
}

/// A batch of pieces that follow each other from `position` on.
fn batch(position: u64, pieces: &[(Stream, &[u8])]) -> Batch {
    let mut end = position;
    let chunks = pieces.iter().map(|(stream, data)| {
        end += data.len() as u64;
        Chunk { stream: *stream, data: Bytes::copy_from_slice(data), end }
    });
    Batch { epoch: 1, chunks: chunks.collect(), ..Batch::default() }
}

fn exit() -> (Arc<Exit>, u64) {
    let exit = Exit {
        exit_code: Some(3),
        signal: None,
        reason: Reason::Exited,
        error: None,
        duration: Duration::from_millis(12),
    };
    (Arc::new(exit), 9)
}

fn lines(frames: &Frames) -> Vec<Value> {
    frames.bytes[..]
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

fn encode(encoder: &mut Encoder, batch: &Batch) -> Vec<Value> {
    let mut frames = Frames::default();
    encoder.batch(batch, &mut frames);
    lines(&frames)
}

#[test]
fn neighbours_become_one_frame_and_the_cursor_is_the_last_place() {
    let events = encode(
        &mut encoder(Framing::Lines),
        &batch(1, &[(Stream::Stdout, b"a\""), (Stream::Stdout, b"b\n\x01\\"), (Stream::Stderr, b"!")]),
    );
    assert_eq!(
        events,
        [
            json!({"type": "stdout", "data": "a\"b\n\u{1}\\", "cursor": "0.7"}),
            json!({"type": "stderr", "data": "!", "cursor": "0.8"}),
        ]
    );
}

#[test]
fn sse_names_the_event_and_its_place() {
    let mut frames = Frames::default();
    let mut encoder = encoder(Framing::Sse);
    let mut batch = batch(1, &[(Stream::Stdout, b"hi")]);
    batch.started = Some(42);
    batch.exit = Some(exit());
    encoder.batch(&batch, &mut frames);
    encoder.keepalive(&mut frames);
    let text = String::from_utf8(frames.bytes.to_vec()).unwrap();
    let blocks: Vec<&str> = text.split_terminator("\n\n").collect();
    assert!(blocks[0].starts_with("event: started\ndata: {") && blocks[0].ends_with("\nid: 1.1"), "{}", blocks[0]);
    assert_eq!(blocks[1], "event: stdout\ndata: {\"type\":\"stdout\",\"data\":\"hi\",\"cursor\":\"1.3\"}\nid: 1.3");
    assert!(
        blocks[2].starts_with("event: exit\ndata: {\"type\":\"exit\",\"exit_code\":3,\"signal\":null"),
        "{}",
        blocks[2]
    );
    assert_eq!(blocks[3], "event: keepalive\ndata: {\"type\":\"keepalive\"}");
}

#[test]
fn a_split_character_is_owed_in_the_cursor_and_paid_after_a_resume() {
    let mut first = encoder(Framing::Lines);
    let events = encode(&mut first, &batch(1, &[(Stream::Stdout, b"a\xe2\x82"), (Stream::Stderr, b"e")]));
    assert_eq!(events[0], json!({"type": "stdout", "data": "a", "cursor": "0.4.oe282"}));
    assert_eq!(events[1], json!({"type": "stderr", "data": "e", "cursor": "0.5.oe282"}));
    let after: Cursor = events[1]["cursor"].as_str().unwrap().parse().unwrap();
    let mut resumed = Encoder::new(Framing::Lines, exec_id(), Some(&after), None);
    let events = encode(&mut resumed, &batch(5, &[(Stream::Stdout, b"\xac!")]));
    assert_eq!(events, [json!({"type": "stdout", "data": "€!", "cursor": "0.7"})]);
    let mut binary = Encoder::new(Framing::Binary, exec_id(), Some(&after), None);
    let mut frames = Frames::default();
    binary.batch(&batch(5, &[(Stream::Stdout, b"\xac!")]), &mut frames);
    let messages: Vec<Bytes> = frames.split().map(|(frame, _)| frame).collect();
    assert_eq!(messages, [&b"\x01\x030.5\xe2\x82"[..], &b"\x01\x030.7\xac!"[..]]);
}

#[test]
fn only_what_is_not_text_is_base64() {
    let mut encoder = encoder(Framing::Lines);
    let events = encode(&mut encoder, &batch(1, &[(Stream::Stdout, b"ok\xff\xfe"), (Stream::Stdout, b"text\xe2")]));
    assert_eq!(
        events,
        [
            json!({"type": "stdout", "data": "ok", "cursor": "0.3"}),
            json!({"type": "stdout", "encoding": "base64", "data": "//4=", "cursor": "0.5"}),
            json!({"type": "stdout", "data": "text", "cursor": "0.10.oe2"}),
        ]
    );
    let ended = Batch { epoch: 1, exit: Some(exit()), ..Batch::default() };
    let events = encode(&mut encoder, &ended);
    assert_eq!(events[0], json!({"type": "stdout", "encoding": "base64", "data": "4g==", "cursor": "0.10"}));
    assert_eq!(events[1]["exit_code"], 3);
}

#[test]
fn frames_stay_small_enough() {
    let piece = vec![b'x'; 32 << 10];
    let pieces: Vec<(Stream, &[u8])> = (0..8).map(|_| (Stream::Stdout, &piece[..])).collect();
    let mut frames = Frames::default();
    encoder(Framing::Messages).batch(&batch(1, &pieces), &mut frames);
    let sizes: Vec<usize> = frames.split().map(|(frame, _)| frame.len()).collect();
    assert_eq!(sizes.len(), 4);
    assert!(sizes.iter().all(|size| *size < 2 * MAX_FRAME), "{sizes:?}");
}

/// The bytes of one stream in events, whatever their encoding.
fn bytes_of(events: &[Value], stream: &str) -> Vec<u8> {
    let of_stream = events.iter().filter(|event| event["type"] == stream);
    of_stream
        .flat_map(|event| {
            let data = event["data"].as_str().unwrap();
            if event["encoding"] == "base64" { BASE64_STANDARD.decode(data).unwrap() } else { data.as_bytes().to_vec() }
        })
        .collect()
}

fn some_bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![any::<u8>(), Just(0xe2), Just(0x82), Just(0xac), Just(0xf0), Just(b'"'), Just(b'a')];
    prop::collection::vec(byte, 1..9)
}

proptest! {
    /// A viewer that is cut off after any frame and resumes from its cursor gets every byte of both streams once.
    #[test]
    fn every_byte_arrives_once_wherever_one_resumes(
        pieces in prop::collection::vec((any::<bool>(), some_bytes()), 1..30),
        cuts in prop::collection::vec(1_usize..6, 1..30),
    ) {
        let of = |err: bool| if err { Stream::Stderr } else { Stream::Stdout };
        let all: Vec<(Stream, u8)> =
            pieces.iter().flat_map(|(err, data)| data.iter().map(|byte| (of(*err), *byte))).collect();
        let (mut told, mut events, mut cuts) = (Cursor { epoch: 0, position: 1, ..Cursor::default() }, Vec::new(), cuts.into_iter().cycle());
        // Each round reads on from the last cursor, in pieces cut as before, and keeps the first few frames.
        loop {
            let from = usize::try_from(told.position - 1).unwrap();
            let mut chunks: Vec<(Stream, Vec<u8>)> = Vec::new();
            let mut boundary = 0;
            let boundaries: Vec<usize> = pieces.iter().map(|(_, data)| { boundary += data.len(); boundary }).collect();
            for (index, (stream, byte)) in all.iter().enumerate().skip(from) {
                if index == from || boundaries.contains(&index) {
                    chunks.push((*stream, Vec::new()));
                }
                chunks.last_mut().unwrap().1.push(*byte);
            }
            let borrowed: Vec<(Stream, &[u8])> = chunks.iter().map(|(stream, data)| (*stream, &data[..])).collect();
            let mut encoder = Encoder::new(Framing::Lines, exec_id(), Some(&told), None);
            let mut frames = encode(&mut encoder, &batch(told.position, &borrowed));
            frames.truncate(cuts.next().unwrap());
            let Some(last) = frames.last() else {
                // What is left is owed: the end tells it.
                let mut end = Frames::default();
                encoder.keepalive(&mut end);
                events.extend(lines(&end));
                break;
            };
            told = last["cursor"].as_str().unwrap().parse().unwrap();
            events.extend(frames);
        }
        for (stream, name) in [(Stream::Stdout, "stdout"), (Stream::Stderr, "stderr")] {
            let expected: Vec<u8> = all.iter().filter(|(of, _)| *of == stream).map(|(_, byte)| *byte).collect();
            prop_assert_eq!(bytes_of(&events, name), expected);
        }
    }
}
