//! Decompresses gzip as it arrives.

use std::io::Write as _;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use futures_util::stream::{self, Stream, StreamExt};

use crate::error::EnvdError;

/// Compressed bytes taken at once. Deflate expands at most 1032 times, so that no input, however made, puts
/// more than about 256 KiB into memory at a time.
const SLICE: usize = 256;

struct State<S> {
    compressed: S,
    /// Arrived, but not decompressed yet.
    waiting: Bytes,
    decoder: MultiGzDecoder<Vec<u8>>,
}

/// What was compressed. Ends with `Protocol` if the input is no gzip or lacks its end.
pub(crate) fn gunzip<S>(compressed: S) -> impl Stream<Item = Result<Bytes, EnvdError>>
where
    S: Stream<Item = Result<Bytes, EnvdError>> + Unpin,
{
    let state = State { compressed, waiting: Bytes::new(), decoder: MultiGzDecoder::new(Vec::new()) };
    stream::try_unfold(Some(state), |state| async move {
        let Some(mut state) = state else { return Ok(None) };
        loop {
            if state.waiting.is_empty() {
                match state.compressed.next().await {
                    Some(bytes) => state.waiting = bytes?,
                    None => {
                        let rest = state.decoder.finish().map_err(malformed)?;
                        return Ok(Some((rest.into(), None)));
                    }
                }
            }
            let slice = state.waiting.split_to(state.waiting.len().min(SLICE));
            state.decoder.write_all(&slice).map_err(malformed)?;
            let decoded = std::mem::take(state.decoder.get_mut());
            if !decoded.is_empty() {
                return Ok(Some((decoded.into(), Some(state))));
            }
        }
    })
}

fn malformed(error: std::io::Error) -> EnvdError {
    EnvdError::protocol("a compressed body that cannot be decompressed").with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EnvdErrorKind;
    use flate2::{Compression, write::GzEncoder};
    use futures_util::TryStreamExt;
    use proptest::prelude::*;

    fn compress(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn decompress(input: &[u8], chunk: usize) -> Result<Vec<Bytes>, EnvdError> {
        let chunks: Vec<_> = input.chunks(chunk).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(gunzip(stream::iter(chunks)).boxed().try_collect())
    }

    proptest! {
        #[test]
        fn any_content_comes_back_however_it_is_cut(
            content in proptest::collection::vec(any::<u8>(), 0..2000), chunk in 1_usize..700,
        ) {
            prop_assert_eq!(decompress(&compress(&content), chunk).unwrap().concat(), content);
        }

        #[test]
        fn what_is_cut_short_is_an_error(content in proptest::collection::vec(any::<u8>(), 1..500), cut in 1_usize..20) {
            let compressed = compress(&content);
            let error = decompress(&compressed[..compressed.len() - cut], 100).unwrap_err();
            prop_assert_eq!(error.kind(), EnvdErrorKind::Protocol);
        }
    }

    #[test]
    fn a_bomb_comes_in_small_pieces() {
        let compressed = compress(&vec![0; 64 << 20]);
        assert!(compressed.len() < 1 << 20);
        let pieces = decompress(&compressed, compressed.len()).unwrap();
        assert_eq!(pieces.iter().map(Bytes::len).sum::<usize>(), 64 << 20);
        assert!(pieces.iter().all(|piece| piece.len() <= 512 << 10), "none is large");
    }
}
