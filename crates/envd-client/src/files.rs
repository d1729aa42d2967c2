//! File contents over plain HTTP (PROTOCOLS D.8), never held in memory.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::client::EnvdClient;
use crate::error::{Dialect, EnvdError, EnvdErrorKind};
use crate::gunzip::gunzip;
use crate::idle::{self, Progress};
use crate::rpc::{read_up_to, refusal};
use crate::transport::{self, Body, BoxError, body_error};

/// All but RFC 3986's unreserved characters: the same to a form decoder and to a URI decoder.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The receipt of one upload, with room for a long path.
const MAX_RECEIPT: usize = 1024 * 1024;

const GZIP: HeaderValue = HeaderValue::from_static("gzip");

const CONDITIONS: [HeaderName; 6] = [
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
];

const DESCRIPTION: [HeaderName; 8] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_ENCODING,
    header::CONTENT_DISPOSITION,
    header::ACCEPT_RANGES,
    header::LAST_MODIFIED,
    header::ETAG,
];

/// A file on its way out.
#[derive(Debug)]
pub struct Download {
    /// 200, 206 (a range), 304 (not modified), 412 (a precondition does not hold) or 416 (no such range).
    pub status: StatusCode,
    /// Content-Type, -Length, -Range, -Encoding and -Disposition, Accept-Ranges, Last-Modified, ETag, as far as given.
    pub headers: HeaderMap,
    pub body: DownloadBody,
}

/// The bytes of a [`Download`]: a `Stream` and an `http_body::Body`.
///
/// Read from the network as it is polled. Dropping it early closes the connection. A body that ends
/// short of its length, or is silent for the transport's `idle_timeout`, ends with `Unavailable`.
pub struct DownloadBody(BoxStream<'static, Result<Bytes, EnvdError>>);

impl DownloadBody {
    fn new(body: Incoming, idle_timeout: Option<Duration>) -> Self {
        Self(chunks(body, idle_timeout).boxed())
    }

    /// Of a body in gzip, what was compressed.
    fn decompressed(body: Incoming, idle_timeout: Option<Duration>) -> Self {
        Self(gunzip(chunks(body, idle_timeout).boxed()).boxed())
    }
}

fn chunks(body: Incoming, idle_timeout: Option<Duration>) -> impl Stream<Item = Result<Bytes, EnvdError>> {
    stream::try_unfold(body, move |mut body| async move {
        loop {
            let Some(frame) = idle::within(idle_timeout, body.frame()).await? else {
                return Ok(None);
            };
            if let Ok(data) = frame.map_err(body_error)?.into_data() {
                return Ok(Some((data, body)));
            }
        }
    })
}

impl Stream for DownloadBody {
    type Item = Result<Bytes, EnvdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl http_body::Body for DownloadBody {
    type Data = Bytes;
    type Error = EnvdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, EnvdError>>> {
        self.0.poll_next_unpin(cx).map_ok(Frame::data)
    }
}

impl fmt::Debug for DownloadBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DownloadBody").finish_non_exhaustive()
    }
}

/// What the daemon says of a file it has written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct UploadedFile {
    pub path: String,
    pub name: String,
    /// `file`
    #[serde(rename = "type")]
    pub kind: String,
}

impl EnvdClient {
    /// Reads a file. Of `conditions` (a caller's request headers, say) Range and the `If-*` family
    /// are passed on, nothing else.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a directory; `InvalidUser`.
    pub async fn download(
        &self,
        path: &str,
        user: Option<&str>,
        conditions: &HeaderMap,
    ) -> Result<Download, EnvdError> {
        let mut request = self.request(Method::GET, &files_uri(path, user), transport::empty())?;
        copy_headers(&CONDITIONS, conditions, request.headers_mut());
        let (response, headers) = self.described(request).await?;
        let (status, idle_timeout) = (response.status(), self.transport.settings().idle_timeout);
        Ok(Download { status, headers, body: DownloadBody::new(response.into_body(), idle_timeout) })
    }

    /// Reads a file of which the file system does not tell the length, such as those in `/proc` and `/sys`: uncompressed
    /// the daemon sends as many bytes as `stat` says, compressed all that there are (PROTOCOLS D.8). They arrive
    /// decompressed, and without a Content-Length.
    ///
    /// # Errors
    /// As [`download`](Self::download).
    pub async fn download_unsized(&self, path: &str, user: Option<&str>) -> Result<Download, EnvdError> {
        let mut request = self.request(Method::GET, &files_uri(path, user), transport::empty())?;
        request.headers_mut().insert(header::ACCEPT_ENCODING, GZIP);
        let (response, mut headers) = self.described(request).await?;
        let (status, idle_timeout) = (response.status(), self.transport.settings().idle_timeout);
        let body = match headers.remove(header::CONTENT_ENCODING) {
            Some(encoding) if encoding == GZIP => {
                headers.remove(header::CONTENT_LENGTH);
                DownloadBody::decompressed(response.into_body(), idle_timeout)
            }
            Some(_) => return Err(EnvdError::protocol("an encoding that was not asked for")),
            // Daemons before 0.5.3 do not compress.
            None => DownloadBody::new(response.into_body(), idle_timeout),
        };
        Ok(Download { status, headers, body })
    }

    async fn described(&self, request: Request<Body>) -> Result<(Response<Incoming>, HeaderMap), EnvdError> {
        let idle_timeout = self.transport.settings().idle_timeout;
        let response = idle::within(idle_timeout, self.send(request)).await??;
        if !matches!(response.status().as_u16(), 200 | 206 | 304 | 412 | 416) {
            return idle::within(idle_timeout, refusal(Dialect::Rest, response)).await.and_then(Err);
        }
        let mut headers = HeaderMap::new();
        copy_headers(&DESCRIPTION, response.headers(), &mut headers);
        Ok((response, headers))
    }

    /// Writes a file, replacing what was there and creating missing parents. With a body of known
    /// length the request has a Content-Length, otherwise it is chunked. There is no limit on the whole,
    /// but after the transport's `idle_timeout` without progress it is given up.
    ///
    /// # Errors
    /// `NoSpace`; `InvalidArgument` for a directory; `InvalidUser`; `Cancelled` if `body` fails, in
    /// which case the file may be left cut short.
    pub async fn upload<B>(&self, path: &str, user: Option<&str>, body: B) -> Result<UploadedFile, EnvdError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let progress = Progress::new();
        let body = progress.watch(transport::stream(body)).boxed_unsync();
        let mut request = self.request(Method::POST, &files_uri(path, user), body)?;
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let idle_timeout = self.transport.settings().idle_timeout;
        progress
            .within(idle_timeout, async {
                let mut response = self.send(request).await?;
                if response.status() != StatusCode::OK {
                    return Err(refusal(Dialect::Rest, response).await);
                }
                let body = read_up_to(response.body_mut(), MAX_RECEIPT).await?;
                receipt(&body.unwrap_or_default())
            })
            .await?
    }
}

fn receipt(body: &[u8]) -> Result<UploadedFile, EnvdError> {
    let [file] = serde_json::from_slice::<[UploadedFile; 1]>(body).map_err(|e| {
        EnvdError::local(EnvdErrorKind::Protocol, "an upload without its receipt").with_unknown_outcome().with_source(e)
    })?;
    Ok(file)
}

fn files_uri(path: &str, user: Option<&str>) -> String {
    let mut uri = format!("/files?path={}", utf8_percent_encode(path, QUERY));
    if let Some(user) = user {
        uri.push_str("&username=");
        uri.extend(utf8_percent_encode(user, QUERY));
    }
    uri
}

fn copy_headers(names: &[HeaderName], from: &HeaderMap, to: &mut HeaderMap) {
    for name in names {
        if let Some(value) = from.get(name) {
            to.insert(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_encoded_once_and_for_every_decoder() {
        assert_eq!(files_uri("/a b+c&d=é?#", None), "/files?path=%2Fa%20b%2Bc%26d%3D%C3%A9%3F%23");
        assert_eq!(files_uri("x", Some("root")), "/files?path=x&username=root");
    }

    proptest! {
        #[test]
        fn any_path_comes_back_from_a_form_decoder(path in ".*", user in ".*") {
            let uri = files_uri(&path, Some(&user));
            let (_, query) = uri.split_once('?').unwrap();
            let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap();
            prop_assert_eq!(pairs, vec![("path".to_owned(), path), ("username".to_owned(), user)]);
            prop_assert!(uri.parse::<http::Uri>().is_ok());
        }
    }

    #[test]
    fn a_receipt_has_one_file() {
        let file = receipt(br#"[{"path":"/home/user/a.txt","name":"a.txt","type":"file","metadata":{}}]"#).unwrap();
        assert_eq!((file.path.as_str(), file.name.as_str(), file.kind.as_str()), ("/home/user/a.txt", "a.txt", "file"));
        for body in [&b""[..], b"[]", b"{}", b"null"] {
            assert_eq!(receipt(body).unwrap_err().kind(), EnvdErrorKind::Protocol);
        }
    }
}
