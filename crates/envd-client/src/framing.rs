//! The head of an HTTP/1.1 answer, and where its body ends (RFC 9112, 6).

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use http_body::Frame;

use crate::kept::FetchError;

/// Of an answer, in bytes.
pub(crate) const LONGEST_HEAD: usize = 64 << 10;
const MOST_HEADERS: usize = 100;
/// Of a chunk's size with its extensions, or of all trailers.
pub(crate) const LONGEST_PART: usize = 16 << 10;

/// What came is not HTTP/1.1, or not what can be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("not an answer of HTTP/1")]
    Http,
    #[error("the answer's head is too long")]
    Long,
    #[error("it is not said where the answer's body ends")]
    Framing,
    #[error("the server switched protocols although it was not asked to")]
    Switched,
}

/// The head of an answer as it came.
pub struct RawHead<'a> {
    pub status: StatusCode,
    version: Version,
    fields: &'a [httparse::Header<'a>],
}

impl<'a> RawHead<'a> {
    /// Names as the server wrote them, and values.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.fields.iter().map(|field| (field.name, field.value))
    }

    /// The same taken apart; without a length where the body comes in chunks (RFC 9112, 6.3). `None` for names that are too long.
    #[must_use]
    pub fn response(&self) -> Option<Response<()>> {
        let mut response = Response::new(());
        *response.status_mut() = self.status;
        *response.version_mut() = self.version;
        *response.headers_mut() = header_map(self.fields)?;
        if response.headers().contains_key(TRANSFER_ENCODING) {
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        Some(response)
    }

    fn named(&self, name: &'static HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.fields().filter(move |(own, _)| own.eq_ignore_ascii_case(name.as_str())).map(|(_, value)| value)
    }

    fn says_close(&self) -> bool {
        let lines = self.named(&CONNECTION).map(|value| str::from_utf8(value).unwrap_or("close"));
        lines.flat_map(|line| line.split(',')).any(|option| option.trim().eq_ignore_ascii_case("close"))
    }
}

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Head<T> {
    /// What was made of it.
    pub(crate) read: T,
    pub(crate) framing: Framing,
    /// Another request may follow on the connection.
    pub(crate) reusable: bool,
}

/// Takes the head of the final answer to a request with `method` off `buffer`, and shows it to `read`; `None` until all of it has
/// come.
pub(crate) fn read_head<T>(
    buffer: &mut BytesMut,
    method: &Method,
    read: impl FnOnce(&RawHead<'_>) -> T,
) -> Result<Option<Head<T>>, Malformed> {
    loop {
        let mut fields = [const { MaybeUninit::uninit() }; MOST_HEADERS];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let length = match config.parse_response_with_uninit_headers(&mut parsed, buffer, &mut fields) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Malformed::Http),
        };
        let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Malformed::Http)?;
        let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
        match status {
            StatusCode::SWITCHING_PROTOCOLS => return Err(Malformed::Switched),
            status if status.is_informational() => buffer.advance(length),
            _ => {
                let head = framed(&RawHead { status, version, fields: parsed.headers }, method, read)?;
                buffer.advance(length);
                return Ok(Some(head));
            }
        }
    }
}

fn framed<T>(head: &RawHead<'_>, method: &Method, read: impl FnOnce(&RawHead<'_>) -> T) -> Result<Head<T>, Malformed> {
    let framing = Framing::of(head, method)?;
    let reusable = head.version == Version::HTTP_11 && !matches!(framing, Framing::UntilClose) && !head.says_close();
    Ok(Head { read: read(head), framing, reusable })
}

fn header_map(fields: &[httparse::Header<'_>]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some(headers)
}

/// What is left of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Done,
    Length(u64),
    Chunked(Chunk),
    UntilClose,
}

/// Where in a chunked body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
}

impl Framing {
    fn of(head: &RawHead<'_>, method: &Method) -> Result<Self, Malformed> {
        if *method == Method::HEAD || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return Ok(Self::Done);
        }
        let mut codings = head.named(&TRANSFER_ENCODING);
        if let Some(coding) = codings.next() {
            let only_chunked = coding.eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
            if !only_chunked || head.version != Version::HTTP_11 {
                return Err(Malformed::Framing);
            }
            return Ok(Self::Chunked(Chunk::Size));
        }
        let mut lengths = head.named(&CONTENT_LENGTH).map(length);
        let Some(first) = lengths.next() else { return Ok(Self::UntilClose) };
        if first.is_none() || lengths.any(|other| other != first) {
            return Err(Malformed::Framing);
        }
        Ok(first.filter(|length| *length > 0).map_or(Self::Done, Self::Length))
    }

    pub(crate) fn is_done(&self) -> bool {
        *self == Self::Done
    }

    /// Bytes to come, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self {
            Self::Done => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// The next piece of the body within `buffer`; `None` when more has to be read, or that was its end.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame<Bytes>>, Malformed> {
        match self {
            Self::Done => Ok(None),
            Self::UntilClose => Ok((!buffer.is_empty()).then(|| Frame::data(buffer.split().freeze()))),
            Self::Length(left) => {
                let data = take(buffer, left);
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(data.map(Frame::data))
            }
            Self::Chunked(_) => self.next_of_chunked(buffer),
        }
    }

    fn next_of_chunked(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame<Bytes>>, Malformed> {
        while let Self::Chunked(chunk) = self {
            match chunk {
                Chunk::Size => {
                    let Some(size) = chunk_size(buffer)? else { return Ok(None) };
                    *chunk = if size == 0 { Chunk::Trailers } else { Chunk::Data(size) };
                }
                Chunk::Data(left) => {
                    let data = take(buffer, left);
                    if *left == 0 {
                        *chunk = Chunk::DataEnd;
                    }
                    return Ok(data.map(Frame::data));
                }
                Chunk::DataEnd if buffer.len() < 2 => return Ok(None),
                Chunk::DataEnd if buffer.starts_with(b"\r\n") => {
                    buffer.advance(2);
                    *chunk = Chunk::Size;
                }
                Chunk::DataEnd => return Err(Malformed::Framing),
                Chunk::Trailers => {
                    let Some(trailers) = trailers(buffer)? else { return Ok(None) };
                    *self = Self::Done;
                    return Ok((!trailers.is_empty()).then(|| Frame::trailers(trailers)));
                }
            }
        }
        Ok(None)
    }

    /// The connection was closed.
    pub(crate) fn end(&mut self) -> Result<(), FetchError> {
        if matches!(self, Self::Length(_) | Self::Chunked(_)) {
            return Err(FetchError::Short);
        }
        *self = Self::Done;
        Ok(())
    }
}

/// As it must be written (RFC 9110, 8.6): digits alone.
fn length(value: &[u8]) -> Option<u64> {
    let text = str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}

fn take(buffer: &mut BytesMut, left: &mut u64) -> Option<Bytes> {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
    *left -= length as u64;
    (length > 0).then(|| buffer.split_to(length).freeze())
}

fn chunk_size(buffer: &mut BytesMut) -> Result<Option<u64>, Malformed> {
    match httparse::parse_chunk_size(buffer) {
        Ok(httparse::Status::Complete((length, size))) => {
            buffer.advance(length);
            Ok(Some(size))
        }
        Ok(httparse::Status::Partial) if buffer.len() <= LONGEST_PART => Ok(None),
        _ => Err(Malformed::Framing),
    }
}

fn trailers(buffer: &mut BytesMut) -> Result<Option<HeaderMap>, Malformed> {
    let mut space = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let (length, fields) = match httparse::parse_headers(buffer, &mut space) {
        Ok(httparse::Status::Complete(parsed)) => parsed,
        Ok(httparse::Status::Partial) if buffer.len() <= LONGEST_PART => return Ok(None),
        _ => return Err(Malformed::Framing),
    };
    let trailers = header_map(fields).ok_or(Malformed::Framing)?;
    buffer.advance(length);
    Ok(Some(trailers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Head, body, trailers, and what is left over.
    type Seen = (Head<Response<()>>, Vec<u8>, HeaderMap, BytesMut);

    /// What comes in these pieces, or why there is nothing.
    fn read(pieces: &[&[u8]], method: &Method) -> Result<Seen, String> {
        let (mut buffer, mut pieces) = (BytesMut::new(), pieces.iter());
        let mut head = loop {
            let head = read_head(&mut buffer, method, |head| head.response().unwrap());
            if let Some(head) = head.map_err(|error| error.to_string())? {
                break head;
            }
            buffer.extend_from_slice(pieces.next().ok_or("no head")?);
        };
        let (mut body, mut trailers) = (Vec::new(), HeaderMap::new());
        loop {
            while let Some(frame) = head.framing.next(&mut buffer).map_err(|error| error.to_string())? {
                match frame.into_data() {
                    Ok(data) => body.extend_from_slice(&data),
                    Err(frame) => trailers = frame.into_trailers().unwrap(),
                }
            }
            match pieces.next() {
                _ if head.framing.is_done() => break,
                Some(piece) => buffer.extend_from_slice(piece),
                None => head.framing.end().map_err(|error| error.to_string())?,
            }
        }
        Ok((head, body, trailers, buffer))
    }

    fn body(text: &str) -> Result<(String, bool), String> {
        let (head, body, ..) = read(&[text.as_bytes()], &Method::GET)?;
        Ok((String::from_utf8(body).unwrap(), head.reusable))
    }

    #[test]
    fn a_body_ends_where_its_head_says() {
        for (head, rest, expected, reusable) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", "ok", "ok", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n", "ok", "ok", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x, Close\r\n", "ok", "ok", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n", "ok", "ok", false),
            ("HTTP/1.1 200 OK\r\n", "until the end", "until the end", false),
            ("HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n", "", "", true),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n", "", "", true),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nContent-Length: 1\r\n",
                "2\r\nok\r\n0\r\n\r\n",
                "ok",
                true,
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 0\r\n",
                "",
                "",
                true,
            ),
        ] {
            assert_eq!(body(&format!("{head}\r\n{rest}")), Ok((expected.to_owned(), reusable)), "{head}");
        }
        let (head, ..) = read(&[b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"], &Method::HEAD).unwrap();
        assert_eq!((head.framing, head.read.headers()["content-length"].as_bytes()), (Framing::Done, b"7".as_slice()));
    }

    #[test]
    fn a_length_besides_chunks_is_taken_out() {
        let text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n";
        assert!(!read(&[text], &Method::GET).unwrap().0.read.headers().contains_key(CONTENT_LENGTH));
    }

    #[test]
    fn what_is_not_clear_is_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "hello\r\n\r\n",
        ] {
            assert!(body(text).is_err(), "{text}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;{}", "x".repeat(2 * LONGEST_PART));
        assert_eq!(body(&long), Err(Malformed::Framing.to_string()));
    }

    proptest! {
        #[test]
        fn where_it_is_cut_makes_no_difference(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6),
            cuts in proptest::collection::vec(0.0_f64..1.0, 0..8),
            after in "[a-z]{0,9}",
        ) {
            let mut wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n".to_vec();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:X};a=b\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\nX-T: 2\r\n\r\n");
            let whole = wire.len();
            wire.extend_from_slice(after.as_bytes());
            let mut places: Vec<usize> = cuts.iter().map(|cut| (cut * whole as f64) as usize).collect();
            places.extend([0, wire.len()]);
            places.sort_unstable();
            let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &wire[pair[0]..pair[1]]).collect();
            let (head, body, trailers, rest) = read(&pieces, &Method::GET).unwrap();
            prop_assert_eq!(body, chunks.concat());
            prop_assert_eq!(&trailers["x-t"], "2");
            prop_assert_eq!(rest.as_ref(), after.as_bytes());
            prop_assert!(head.reusable);
        }

        #[test]
        fn no_bytes_make_it_panic(head in "HTTP/1.[01] [0-9]{1,4}( [ -~]{0,9})?\r\n(([a-zA-Z-]{1,20}|content-length|transfer-encoding): ([0-9]{1,21}|chunked|[ -~]{0,9})\r\n){0,4}\r\n", rest in proptest::collection::vec(any::<u8>(), 0..60)) {
            // An error is as good as an answer here.
            let _either = read(&[head.as_bytes(), &rest], &Method::GET);
        }
    }
}
