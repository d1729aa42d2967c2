//! Which requests take the lane.

use std::mem::MaybeUninit;

use axum::body::Body;
use http::{HeaderName, HeaderValue, Method, Request, Uri, header};

const MOST_HEADERS: usize = 64;
/// Room for what is added to a request on its way.
const ADDED_HEADERS: usize = 8;

/// The request at the beginning of `buffer`, and the length of its head; `None` when it is not of the simplest kind, or not all
/// there.
pub(super) fn read(buffer: &[u8]) -> Option<(Request<Body>, usize)> {
    let mut space = [const { MaybeUninit::uninit() }; MOST_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    let httparse::Status::Complete(length) = parsed.parse_with_uninit_headers(buffer, &mut space).ok()? else {
        return None;
    };
    let method = match parsed.method? {
        "GET" => Method::GET,
        "HEAD" => Method::HEAD,
        _ => return None,
    };
    let uri: Uri = parsed.path?.parse().ok()?;
    // HTTP/1.1, and the origin form of a target (RFC 9112, 3.2.1).
    if parsed.version? != 1 || uri.authority().is_some() || !uri.path().starts_with('/') {
        return None;
    }
    let mut request = Request::new(Body::empty());
    let headers = request.headers_mut();
    headers.reserve(parsed.headers.len() + ADDED_HEADERS);
    for field in &*parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        if concerns_connection(&name, field.value) {
            return None;
        }
        headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    if hosts.next().is_none() || hosts.next().is_some() {
        return None;
    }
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    Some((request, length))
}

/// Whether a header says that more follows, or that this is to become something else.
fn concerns_connection(name: &HeaderName, value: &[u8]) -> bool {
    match *name {
        header::CONNECTION => !value.eq_ignore_ascii_case(b"keep-alive"),
        header::CONTENT_LENGTH
        | header::TRANSFER_ENCODING
        | header::TRAILER
        | header::TE
        | header::UPGRADE
        | header::EXPECT
        | header::PROXY_AUTHORIZATION => true,
        _ => matches!(name.as_str(), "keep-alive" | "http2-settings" | "proxy-connection"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn taken(text: &str) -> Option<(Request<Body>, &str)> {
        read(text.as_bytes()).map(|(request, length)| (request, &text[length..]))
    }

    #[test]
    fn a_plain_get_is_taken_with_its_headers_as_they_came() {
        let text =
            "GET /a%2Fb?c=d&e HTTP/1.1\r\nHost: x:80\r\nX-Two: 1\r\nx-two: € 2 \r\nConnection: Keep-Alive\r\n\r\nGET /";
        let (request, rest) = taken(text).unwrap();
        assert_eq!((request.method(), request.uri().to_string().as_str()), (&Method::GET, "/a%2Fb?c=d&e"));
        let two: Vec<&[u8]> = request.headers().get_all("x-two").iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(two, [b"1".as_slice(), "€ 2".as_bytes()]);
        assert_eq!(rest, "GET /");
        assert_eq!(taken("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap().0.method(), Method::HEAD);
    }

    #[test]
    fn what_is_not_of_the_simplest_kind_is_left() {
        for (line, fields) in [
            ("POST / HTTP/1.1", "Host: x\r\n"),
            ("get / HTTP/1.1", "Host: x\r\n"),
            ("GET / HTTP/1.0", "Host: x\r\n"),
            ("GET http://x/ HTTP/1.1", "Host: x\r\n"),
            ("GET * HTTP/1.1", "Host: x\r\n"),
            ("GET x:80 HTTP/1.1", "Host: x\r\n"),
            ("GET / HTTP/1.1", ""),
            ("GET / HTTP/1.1", "Host: x\r\nHost: x\r\n"),
            ("GET / HTTP/1.1", "Host: x\r\nContent-Length: 0\r\n"),
            ("GET / HTTP/1.1", "Host: x\r\nTransfer-Encoding: chunked\r\n"),
            ("GET / HTTP/1.1", "Host: x\r\nConnection: close\r\n"),
            ("GET / HTTP/1.1", "Host: x\r\nConnection: keep-alive, x-own\r\n"),
            ("GET / HTTP/1.1", "Host: x\r\nConnection: keep-alive\r\nConnection: Upgrade\r\n"),
            ("GET / HTTP/1.1", "Host: x\r\nUpgrade: websocket\r\n"),
            ("GET / HTTP/1.1", "Host: x\r\nTE: trailers\r\n"),
            ("GET / HTTP/1.1", "Host: x\r\nExpect: 100-continue\r\n"),
            ("GET / HTTP/1.1", "Host: x\r\nContent-Length : 5\r\n"),
            ("GET / HTTP/1.1", "Host: x\r\nA: b\r\n c: d\r\n"),
            ("GET / HTTP/1.1", "Host: x\r\nA: b\0c\r\n"),
            ("PRI * HTTP/2.0", ""),
        ] {
            assert!(taken(&format!("{line}\r\n{fields}\r\n")).is_none(), "{line} {fields}");
        }
        let whole = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
        for end in 0..whole.len() {
            assert!(taken(&whole[..end]).is_none(), "{end}");
        }
        let many: String = (0..MOST_HEADERS).map(|n| format!("x-{n}: 1\r\n")).collect();
        assert!(taken(&format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n")).is_none());
    }

    proptest! {
        #[test]
        fn what_is_taken_ends_where_its_head_does(
            head in "(GET|HEAD|POST) [ -~]{0,20} HTTP/1.[01]\r\n(([hH]ost|[a-zA-Z-]{1,20}): [\\PC]{0,12}\r\n){0,4}\r?\n?",
            rest in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut bytes = head.into_bytes();
            bytes.extend_from_slice(&rest);
            if let Some((request, length)) = read(&bytes) {
                prop_assert!(bytes[..length].ends_with(b"\n\r\n") || bytes[..length].ends_with(b"\n\n"));
                prop_assert_eq!(request.headers().get_all(header::HOST).iter().count(), 1);
            }
        }
    }
}
