//! Request bodies, decompressed where they say so.

use std::io::{self, Write as _};

use axum::body::Body;
use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::{HeaderMap, header};

use crate::envd::rest_error::RestError;

/// Compressed bytes that are expanded at once: gzip expands by a factor of up to about 1000.
const STEP: usize = 4096;

/// The body as the file is to hold it.
///
/// # Errors
/// 400: a content encoding other than gzip.
pub fn decoded(headers: &HeaderMap, body: Body) -> Result<BoxStream<'static, io::Result<Bytes>>, RestError> {
    let body = body.into_data_stream().map_err(io::Error::other);
    let encoding = headers.get(header::CONTENT_ENCODING).map_or("", |value| value.to_str().unwrap_or("?"));
    match encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(body.boxed()),
        "gzip" => Ok(gunzip(body.boxed()).boxed()),
        other => {
            Err(RestError::bad_request(format!("unsupported Content-Encoding: {other}, supported: [identity gzip]")))
        }
    }
}

fn gunzip(
    mut body: BoxStream<'static, io::Result<Bytes>>,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send {
    async_stream::try_stream! {
        let mut decoder = MultiGzDecoder::new(Vec::new());
        while let Some(compressed) = body.try_next().await? {
            for step in compressed.chunks(STEP) {
                decoder.write_all(step)?;
                if !decoder.get_ref().is_empty() {
                    yield Bytes::from(std::mem::take(decoder.get_mut()));
                }
            }
        }
        decoder.try_finish()?;
        let rest = std::mem::take(decoder.get_mut());
        if !rest.is_empty() {
            yield Bytes::from(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(encoding: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(encoding))])
    }

    fn read(body: Body) -> io::Result<Vec<u8>> {
        let stream = decoded(&headers("gzip"), body).map_err(|error| io::Error::other(format!("{error:?}")))?;
        let parts: Vec<Bytes> = futures_util::FutureExt::now_or_never(stream.try_collect())
            .unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))?;
        Ok(parts.concat())
    }

    #[test]
    fn other_encodings_are_refused() {
        assert!(decoded(&headers("br"), Body::empty()).is_err());
        assert!(decoded(&headers("identity"), Body::empty()).is_ok());
        assert!(read(Body::from("not gzip at all")).is_err());
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back(content in proptest::collection::vec(any::<u8>(), 0..4096), cut in 1usize..512) {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&content)?;
            let compressed = encoder.finish()?;
            let pieces: Vec<io::Result<Bytes>> =
                compressed.chunks(cut).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
            prop_assert_eq!(read(Body::from_stream(futures_util::stream::iter(pieces)))?, content);
            let truncated = Bytes::copy_from_slice(&compressed[..compressed.len() - 4]);
            prop_assert!(read(Body::from(truncated)).is_err());
        }
    }
}
