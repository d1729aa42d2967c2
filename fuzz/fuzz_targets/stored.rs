//! What is read back: cursors from callers, output from the database.
#![no_main]

use ags_gateway::domain::exec::{Cursor, Segment};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, &[u8], &str)| {
    let (position, bytes, text) = input;
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }
    let (runs, data) = bytes.split_at(bytes.len() / 2);
    if let Some(segment) = Segment::decode(position, runs, Some(data.to_vec())) {
        assert_eq!(segment.encode_runs(), runs);
    }
});
