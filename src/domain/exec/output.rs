//! Output as it is stored: pieces of it, and what is missing between them.

use super::Stream;

/// Place of `started`; output begins after it.
pub const STARTED: u64 = 0;
/// Place of the first byte.
pub const FIRST: u64 = 1;

/// Marks a gap among the kinds of runs; the reason is in the lower bits.
const GAP: u8 = 0x10;

/// Why output is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// It fell out of the window before this viewer read it.
    Window,
    /// The cursor is beyond what is known.
    UnknownCursor,
    /// The way to the process was cut: what it printed meanwhile was not seen.
    Reattached,
    /// Another gateway follows the process now: what it printed in between was not seen.
    OwnerChanged,
    /// It is not kept any more.
    Expired,
}

impl GapReason {
    const ALL: [Self; 5] = [Self::Window, Self::UnknownCursor, Self::Reattached, Self::OwnerChanged, Self::Expired];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::UnknownCursor => "unknown_cursor",
            Self::Reattached => "reattached",
            Self::OwnerChanged => "owner_changed",
            Self::Expired => "expired",
        }
    }
}

/// What a [`Segment`] is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// So many bytes of one stream.
    Output(Stream, u32),
    /// Takes one place, and no data.
    Gap(GapReason),
}

/// Places in the files in the sandbox that a durable command's output goes to, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    pub stdout: u64,
    pub stderr: u64,
}

impl Offsets {
    /// The place in the file of a stream.
    #[must_use]
    pub fn of(&self, stream: Stream) -> u64 {
        if stream == Stream::Stderr { self.stderr } else { self.stdout }
    }

    /// Moves behind so many bytes of a stream.
    pub fn advance(&mut self, stream: Stream, bytes: u64) {
        match stream {
            Stream::Stderr => self.stderr += bytes,
            Stream::Stdout | Stream::Pty => self.stdout += bytes,
        }
    }
}

/// A piece of output, and its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    pub position: u64,
    /// What `data` is made of, in order.
    pub runs: Vec<Run>,
    /// Empty while it is left in the sandbox.
    pub data: Vec<u8>,
}

impl Segment {
    /// The place after it.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.position + self.runs.iter().map(|run| run.places()).sum::<u64>()
    }

    /// Adds output at its end.
    pub fn push(&mut self, stream: Stream, data: &[u8]) {
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.data.extend_from_slice(data);
        match self.runs.last_mut() {
            Some(Run::Output(last, sum)) if *last == stream && sum.checked_add(len).is_some() => *sum += len,
            _ => self.runs.push(Run::Output(stream, len)),
        }
    }

    /// The runs as bytes: a byte for the kind (1 stdout, 2 stderr, 3 pty, from 16 on a gap), four for the length, big endian.
    #[must_use]
    pub fn encode_runs(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.runs.len() * 5);
        for run in &self.runs {
            let (kind, len) = match run {
                Run::Output(stream, len) => (stream.number(), *len),
                Run::Gap(reason) => (GAP | *reason as u8, 0),
            };
            bytes.push(kind);
            bytes.extend_from_slice(&len.to_be_bytes());
        }
        bytes
    }

    /// The reverse of [`encode_runs`](Self::encode_runs); `None` for what it did not make, or not for this much data.
    /// Without data it is the segment of what was left in the sandbox.
    #[must_use]
    pub fn decode(position: u64, runs: &[u8], data: Option<Vec<u8>>) -> Option<Self> {
        let (pieces, rest) = runs.as_chunks::<5>();
        let runs: Option<Vec<Run>> = pieces.iter().map(decode_run).collect();
        let left = data.is_none();
        let segment = Self { position, runs: runs.filter(|_| rest.is_empty())?, data: data.unwrap_or_default() };
        (left || segment.output() == segment.data.len() as u64).then_some(segment)
    }

    /// Bytes of output, without what is missing.
    #[must_use]
    pub fn output(&self) -> u64 {
        self.outputs().map(|(_, len)| len).sum()
    }

    /// The lengths of the output of each run.
    pub fn outputs(&self) -> impl Iterator<Item = (Stream, u64)> {
        self.runs.iter().filter_map(|run| match run {
            Run::Output(stream, len) => Some((*stream, u64::from(*len))),
            Run::Gap(_) => None,
        })
    }
}

impl Run {
    /// How many places it takes.
    #[must_use]
    pub fn places(&self) -> u64 {
        match self {
            Self::Output(_, len) => u64::from(*len),
            Self::Gap(_) => 1,
        }
    }
}

fn decode_run(piece: &[u8; 5]) -> Option<Run> {
    let [kind, len @ ..] = *piece;
    let len = u32::from_be_bytes(len);
    match kind {
        GAP.. if len > 0 => None,
        GAP.. => GapReason::ALL.into_iter().find(|reason| GAP | *reason as u8 == kind).map(Run::Gap),
        _ => Stream::ALL.into_iter().find(|stream| stream.number() == kind).map(|stream| Run::Output(stream, len)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn neighbours_of_one_stream_are_one_run() {
        let mut segment = Segment { position: 1, ..Segment::default() };
        segment.push(Stream::Stdout, b"ab");
        segment.push(Stream::Stdout, b"c");
        segment.push(Stream::Stderr, b"d");
        segment.runs.push(Run::Gap(GapReason::Reattached));
        assert_eq!(segment.runs[..2], [Run::Output(Stream::Stdout, 3), Run::Output(Stream::Stderr, 1)]);
        assert_eq!(segment.end(), 6);
    }

    #[test]
    fn a_gap_has_no_length() {
        let gap = Segment { runs: vec![Run::Gap(GapReason::Reattached)], ..Segment::default() };
        let mut runs = gap.encode_runs();
        assert_eq!(Segment::decode(0, &runs, Some(Vec::new())), Some(gap));
        runs[4] = 255;
        assert_eq!(Segment::decode(0, &runs, Some(Vec::new())), None);
    }

    proptest! {
        #[test]
        fn segments_round_trip(pieces in prop::collection::vec((0_usize..3, prop::collection::vec(any::<u8>(), 1..20)), 0..20)) {
            let mut segment = Segment { position: 7, ..Segment::default() };
            for (index, (stream, data)) in pieces.iter().enumerate() {
                segment.push(Stream::ALL[*stream], data);
                if index % 5 == 0 {
                    segment.runs.push(Run::Gap(GapReason::ALL[index / 5]));
                }
            }
            let decoded = Segment::decode(7, &segment.encode_runs(), Some(segment.data.clone()));
            prop_assert_eq!(decoded.as_ref(), Some(&segment));
            let left = Segment::decode(7, &segment.encode_runs(), None).unwrap();
            prop_assert_eq!((left.end(), left.output()), (segment.end(), segment.output()));
            prop_assert!(left.data.is_empty());
        }

        #[test]
        fn decoding_never_panics(runs: Vec<u8>, data: Option<Vec<u8>>) {
            let _ = Segment::decode(0, &runs, data);
        }
    }
}
