//! What fuzzing calls (`fuzz/`): the reader of archives that clients send.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use tar::Header;

use super::tape::{BLOCK, Member, Tape};

const LIMIT: u64 = 1 << 20;

/// Reads an archive that comes in pieces; `None` for one with a fault.
async fn read(archive: &[u8], piece: usize) -> Option<Vec<(Member, usize)>> {
    let pieces: Vec<Bytes> = archive.chunks(piece).map(Bytes::copy_from_slice).collect();
    let body = StreamBody::new(stream::iter(pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)))));
    let (mut tape, mut members) = (Tape::new(body, Duration::from_secs(60), Some(LIMIT)), Vec::new());
    while let Some(member) = tape.member().await.ok()? {
        let mut length = 0;
        while let Some(piece) = tape.content().await.ok()? {
            length += piece.len();
        }
        members.push((member, length));
    }
    Some(members)
}

/// An archive, whose blocks get right sums so that what lies behind that check is reached.
///
/// # Panics
/// When it matters how the bytes are cut.
pub fn archive(bytes: &[u8], piece: usize) {
    let mut summed = bytes.to_vec();
    for block in summed.chunks_exact_mut(BLOCK).filter(|block| block.iter().any(|byte| *byte != 0)) {
        let mut header = Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
    }
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    for bytes in [bytes, &summed] {
        let whole = runtime.block_on(read(bytes, bytes.len().max(1)));
        assert_eq!(whole, runtime.block_on(read(bytes, piece.max(1))));
    }
}
