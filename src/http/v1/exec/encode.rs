//! Events of a command as bytes: SSE, lines of JSON, or messages of a WebSocket.
//!
//! Frames are written straight into one buffer; neighbouring pieces of one stream become one frame.

use std::{convert::Infallible, fmt::Write, str};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;

use crate::{
    app::exec::log::{Batch, Chunk, Gap},
    domain::{
        exec::{Carried, Cursor, Exit, FIRST, GapReason, Reason, Stream},
        json::escape,
    },
    ids::ExecId,
};

/// Output in one frame at most, give or take one read of the daemon.
const MAX_FRAME: usize = 64 << 10;
/// What a frame costs besides its output.
const FRAME_OVERHEAD: usize = 160;

/// How events are set apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `text/event-stream`.
    Sse,
    /// `application/x-ndjson`.
    Lines,
    /// One event a message: `ags.exec.v1`.
    Messages,
    /// Output in binary messages, the rest as text: `ags.exec.v1.bin`.
    Binary,
}

/// Encoded events.
#[derive(Debug, Default)]
pub struct Frames {
    pub bytes: BytesMut,
    /// Where each frame ends, and whether it is a binary one.
    pub ends: Vec<(usize, bool)>,
}

impl Frames {
    /// The frames one by one.
    pub fn split(self) -> impl Iterator<Item = (Bytes, bool)> {
        let (bytes, mut start) = (self.bytes.freeze(), 0);
        self.ends.into_iter().map(move |(end, binary)| {
            let frame = bytes.slice(start..end);
            start = end;
            (frame, binary)
        })
    }
}

/// The end of a command as an event.
#[derive(Serialize)]
struct ExitEvent<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    exit_code: Option<i32>,
    signal: Option<&'a str>,
    reason: Reason,
    error: Option<&'a str>,
    duration_ms: u64,
    cursor: String,
}

#[derive(Serialize)]
struct StartedEvent<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    exec_id: &'a ExecId,
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    resume_token: Option<&'a str>,
    cursor: String,
}

#[derive(Serialize)]
struct GapEvent {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    reason: &'static str,
    cursor: String,
}

/// Milliseconds, as answers tell durations.
pub fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Encodes what one viewer sees of one command.
pub struct Encoder {
    framing: Framing,
    exec: ExecId,
    resume_token: Option<String>,
    /// What was told so far.
    told: Cursor,
    open: Option<Open>,
}

/// A text frame that is being written.
struct Open {
    stream: Stream,
    size: usize,
}

impl Encoder {
    /// `after`: where this viewer's reading begins.
    pub fn new(framing: Framing, exec: ExecId, after: Option<&Cursor>, resume_token: Option<String>) -> Self {
        Self { framing, exec, resume_token, told: after.copied().unwrap_or_default(), open: None }
    }

    /// The place up to which everything was told.
    pub fn cursor(&self) -> &Cursor {
        &self.told
    }

    /// Encodes a batch; every frame is complete.
    pub fn batch(&mut self, batch: &Batch, out: &mut Frames) {
        let bytes: usize = batch.chunks.iter().map(|chunk| chunk.data.len()).sum();
        out.bytes.reserve(bytes + bytes / 16 + (batch.chunks.len() + 2) * FRAME_OVERHEAD);
        if self.told.epoch != 0 && self.told.epoch != batch.epoch && batch.gap.is_none() {
            // The next owner counts on where the last one ended: what is carried is completed there.
            self.told.epoch = batch.epoch;
        }
        if let Some(pid) = batch.started {
            self.told = Cursor { epoch: batch.epoch, position: FIRST, carried: Carried::default() };
            let cursor = self.told.to_string();
            let token = self.resume_token.as_deref();
            let event = StartedEvent { kind: "started", exec_id: &self.exec, pid, resume_token: token, cursor };
            self.event("started", &event, out);
        }
        if let Some(gap) = &batch.gap {
            self.gap(gap, batch.epoch, out);
        }
        if self.framing == Framing::Binary {
            self.owed(out);
            self.binary_messages(&batch.chunks, out);
        } else {
            for chunk in &batch.chunks {
                self.chunk(chunk, out);
            }
            self.close(out);
        }
        if let Some((exit, position)) = &batch.exit {
            self.owed(out);
            self.told.position = *position;
            self.exit(exit, out);
        }
    }

    /// A sign of life. What has been carried for so long begins no character: it is told as it is.
    pub fn keepalive(&mut self, out: &mut Frames) {
        self.owed(out);
        self.sign_of_life(out);
    }

    /// A sign of life between two pieces of output.
    pub fn sign_of_life(&self, out: &mut Frames) {
        self.raw_event("keepalive", br#"{"type":"keepalive"}"#, false, out);
    }

    fn exit(&mut self, exit: &Exit, out: &mut Frames) {
        let event = ExitEvent {
            kind: "exit",
            exit_code: exit.exit_code,
            signal: exit.signal.as_deref(),
            reason: exit.reason,
            error: exit.error.as_deref(),
            duration_ms: milliseconds(exit.duration),
            cursor: self.told.to_string(),
        };
        self.event("exit", &event, out);
    }

    fn gap(&mut self, gap: &Gap, epoch: u32, out: &mut Frames) {
        match gap.reason {
            // It was cut out of somebody else's counting.
            GapReason::UnknownCursor => self.told.carried = Carried::default(),
            _ => self.owed(out),
        }
        self.told = Cursor { epoch, position: gap.end, carried: Carried::default() };
        let (reason, cursor) = (gap.reason.as_str(), self.told.to_string());
        self.event("gap", &GapEvent { kind: "gap", bytes: gap.bytes, reason, cursor }, out);
    }

    /// Tells what was carried: nothing will complete it.
    fn owed(&mut self, out: &mut Frames) {
        for stream in Stream::ALL {
            let partial = self.told.carried.of_mut(stream).take();
            if partial.is_empty() {
                continue;
            }
            if self.framing == Framing::Binary {
                self.binary_message(stream, &[Bytes::copy_from_slice(partial.as_bytes())], out);
            } else {
                self.close(out);
                self.base64(stream, partial.as_bytes(), out);
            }
        }
    }

    fn chunk(&mut self, chunk: &Chunk, out: &mut Frames) {
        let mut carried = *self.told.carried.of(chunk.stream);
        let parts = carried.split(&chunk.data);
        if !parts.broken.is_empty() {
            self.close(out);
            self.told.carried.of_mut(chunk.stream).take();
            self.base64(chunk.stream, parts.broken.as_bytes(), out);
        }
        let joined = parts.joined.as_str();
        if !joined.is_empty() {
            self.text(chunk.stream, joined, out);
            let owed = self.told.carried.of_mut(chunk.stream).take();
            self.told.position += (joined.len() - owed.as_bytes().len()) as u64;
        }
        if !parts.text.is_empty() {
            self.text(chunk.stream, parts.text, out);
        }
        if !parts.binary.is_empty() {
            self.told.position = chunk.end - parts.binary.len() as u64;
            self.close(out);
        }
        self.told.position = chunk.end;
        *self.told.carried.of_mut(chunk.stream) = carried;
        if !parts.binary.is_empty() {
            self.base64(chunk.stream, parts.binary, out);
        }
    }

    fn text(&mut self, stream: Stream, text: &str, out: &mut Frames) {
        if self.open.as_ref().is_some_and(|open| open.stream != stream || open.size >= MAX_FRAME) {
            self.close(out);
        }
        let open = match &mut self.open {
            Some(open) => open,
            none => {
                begin(self.framing, stream.as_str(), &mut out.bytes);
                out.bytes.put_slice(br#"{"type":""#);
                out.bytes.put_slice(stream.as_str().as_bytes());
                out.bytes.put_slice(br#"","data":""#);
                none.insert(Open { stream, size: 0 })
            }
        };
        open.size += text.len();
        // Writing to a buffer in memory does not fail.
        let _ok = escape(text, |piece| {
            out.bytes.put_slice(piece.as_bytes());
            Ok::<_, Infallible>(())
        });
    }

    fn close(&mut self, out: &mut Frames) {
        if self.open.take().is_some() {
            self.close_with_cursor(out);
        }
    }

    fn base64(&mut self, stream: Stream, data: &[u8], out: &mut Frames) {
        begin(self.framing, stream.as_str(), &mut out.bytes);
        out.bytes.put_slice(br#"{"type":""#);
        out.bytes.put_slice(stream.as_str().as_bytes());
        out.bytes.put_slice(br#"","encoding":"base64","data":""#);
        let at = out.bytes.len();
        out.bytes.resize(at + data.len().div_ceil(3) * 4, 0);
        // The buffer has exactly the room that is needed.
        let _written = BASE64_STANDARD.encode_slice(data, &mut out.bytes[at..]);
        self.close_with_cursor(out);
    }

    fn close_with_cursor(&self, out: &mut Frames) {
        let bytes = &mut out.bytes;
        // Writing to a buffer in memory does not fail.
        let _ok = write!(bytes, r#"","cursor":"{}"}}"#, self.told);
        match self.framing {
            Framing::Sse => {
                let _ok = write!(bytes, "\nid: {}\n\n", self.told);
            }
            Framing::Lines => bytes.put_u8(b'\n'),
            Framing::Messages | Framing::Binary => {}
        }
        out.ends.push((bytes.len(), false));
    }

    fn event(&self, name: &str, event: &impl Serialize, out: &mut Frames) {
        // These are plain structs: they always serialise.
        let json = serde_json::to_vec(event).unwrap_or_default();
        self.raw_event(name, &json, true, out);
    }

    fn raw_event(&self, name: &str, json: &[u8], has_cursor: bool, out: &mut Frames) {
        put_event(self.framing, name, json, has_cursor.then_some(&self.told), &mut out.bytes);
        out.ends.push((out.bytes.len(), false));
    }

    fn binary_messages(&mut self, chunks: &[Chunk], out: &mut Frames) {
        let mut rest = chunks;
        while let Some(first) = rest.first() {
            let mut size = 0;
            let run = rest.iter().take_while(|chunk| {
                let joins = chunk.stream == first.stream && size < MAX_FRAME;
                size += chunk.data.len();
                joins
            });
            let run: Vec<Bytes> = run.map(|chunk| chunk.data.clone()).collect();
            let (taken, after) = rest.split_at(run.len());
            self.told.position = taken.last().map_or(self.told.position, |chunk| chunk.end);
            self.binary_message(first.stream, &run, out);
            rest = after;
        }
    }

    /// One byte for the stream, one for the length of the cursor, the cursor, the output.
    fn binary_message(&self, stream: Stream, data: &[Bytes], out: &mut Frames) {
        let cursor = self.told.to_string();
        out.bytes.put_u8(match stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
            Stream::Pty => 3,
        });
        out.bytes.put_u8(u8::try_from(cursor.len()).unwrap_or_default());
        out.bytes.put_slice(cursor.as_bytes());
        for piece in data {
            out.bytes.put_slice(piece);
        }
        out.ends.push((out.bytes.len(), true));
    }
}

/// Writes one event. `cursor`: its place, for those who resume.
pub fn put_event(framing: Framing, name: &str, json: &[u8], cursor: Option<&Cursor>, bytes: &mut BytesMut) {
    begin(framing, name, bytes);
    bytes.put_slice(json);
    match (framing, cursor) {
        (Framing::Sse, Some(cursor)) => {
            // Writing to a buffer in memory does not fail.
            let _ok = write!(bytes, "\nid: {cursor}\n\n");
        }
        (Framing::Sse, None) => bytes.put_slice(b"\n\n"),
        (Framing::Lines, _) => bytes.put_u8(b'\n'),
        (Framing::Messages | Framing::Binary, _) => {}
    }
}

fn begin(framing: Framing, event: &str, out: &mut BytesMut) {
    if framing == Framing::Sse {
        out.put_slice(b"event: ");
        out.put_slice(event.as_bytes());
        out.put_slice(b"\ndata: ");
    }
}

#[cfg(test)]
mod tests;
