//! A request whose fields are, byte for byte, those of the one before it on its connection: what polls a server sends nothing
//! else. Whatever its fields mean was found out then; only its target is its own, and what tells requests [apart](OWN).

use std::{any::Any, ops::Range, sync::Arc};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderName;

use super::answer::{Framing, Manner};
use crate::http::request_log::{REQUEST_ID, TRACEPARENT, TRACESTATE};

/// Fields by which requests are told apart: each repetition may have its own values of them.
pub static OWN: [HeaderName; OWN_FIELDS] = [REQUEST_ID, TRACEPARENT, TRACESTATE];

const OWN_FIELDS: usize = 3;
/// Longest value of such a field.
const LONGEST_OWN: usize = 512;

/// What is a request's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repetition<'a> {
    pub target: &'a str,
    /// Values of [`OWN`], in that order.
    own: [Option<&'a str>; OWN_FIELDS],
}

impl<'a> Repetition<'a> {
    /// The value of a field of [`OWN`].
    #[must_use]
    pub fn value(&self, name: &HeaderName) -> Option<&'a str> {
        OWN.iter().position(|own| own == name).and_then(|which| self.own[which])
    }
}

/// Answers what repeats a request.
pub trait Way: Send + Sync {
    /// Answers a `GET`. `None` when it has to be looked at like any other.
    fn again<'a>(
        &'a self,
        asked: Repetition<'a>,
        manner: Manner<'a>,
        wires: &'a mut Wires,
    ) -> Option<BoxFuture<'a, Again>>;
}

/// Put into the extensions of a request that repeats the one before it: it is likely to be repeated itself, and worth
/// [remembering](Remembered) how.
#[derive(Clone, Copy)]
pub struct Likely;

/// Put into an answer's extensions: how those are answered that repeat its request.
#[derive(Clone)]
pub struct Remembered(pub Arc<dyn Way>);

/// What is sent to both sides of a connection; the room is used again.
#[derive(Default)]
pub struct Wires {
    pub asked: Vec<u8>,
    pub answer: Vec<u8>,
}

/// An answer to a repetition.
pub enum Again {
    /// Its head is in [`Wires::answer`].
    Begun {
        /// Whether it said that no other follows on the connection.
        last: bool,
        rest: Rest,
    },
    /// It is to be written like any other.
    Response(Response),
}

/// What follows the head of an answer.
pub enum Rest {
    /// It is in [`Wires::answer`], too. What the request holds is to be kept until it is about to be written.
    Whole(Arc<dyn Any + Send + Sync>),
    Body(Body, Framing),
}

/// A request that may be repeated: its lines but the first, and how those are answered that repeat it, once one did.
pub(super) struct Last {
    /// Without what is the request's own.
    fields: Bytes,
    /// Where values of its own stood: which of [`OWN`], and the place in `fields`, in the order of places.
    own: Vec<(usize, usize)>,
    way: Option<Arc<dyn Way>>,
}

/// What begins a request that can be repeated, and ends its first line.
const GET: &[u8] = b"GET ";
const HTTP_11: &[u8] = b" HTTP/1.1\r\n";

impl Last {
    /// What `head`, a request's whole head, leaves to remember.
    pub(super) fn of(head: &[u8], remembered: Option<Remembered>) -> Option<Self> {
        let (_, lines) = taken_apart(head)?;
        let (mut fields, mut own) = (Vec::with_capacity(lines.len()), Vec::new());
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let Some((which, value)) = own_value(line) else {
                fields.extend_from_slice(line);
                continue;
            };
            // What stands twice, or is no plain word, is left to those who look at it.
            if own.iter().any(|(known, _)| *known == which) || plain(&line[value.clone()]).is_none() {
                return None;
            }
            fields.extend_from_slice(&line[..value.start]);
            own.push((which, fields.len()));
            fields.extend_from_slice(&line[value.end..]);
        }
        Some(Self { fields: fields.into(), own, way: remembered.map(|Remembered(way)| way) })
    }

    /// The request and the length of its head, if such a repetition is at the beginning of `buffer`; and the way to answer it.
    pub(super) fn repeated<'a>(&self, buffer: &'a [u8]) -> Option<(Repetition<'a>, usize, Option<&dyn Way>)> {
        let (target, mut rest) = taken_apart(buffer)?;
        let (mut own, mut compared) = ([None; OWN_FIELDS], 0);
        for &(which, place) in &self.own {
            let from = rest.strip_prefix(&self.fields[compared..place])?;
            let (value, after) = from.split_at(from.iter().position(|byte| !byte.is_ascii_graphic())?);
            own[which] = Some(plain(value)?);
            (rest, compared) = (after, place);
        }
        let after = rest.strip_prefix(&self.fields[compared..])?;
        Some((Repetition { target, own }, buffer.len() - after.len(), self.way.as_deref()))
    }
}

/// Which of [`OWN`] a line is of, and where its value stands.
fn own_value(line: &[u8]) -> Option<(usize, Range<usize>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let which = OWN.iter().position(|name| line[..colon].eq_ignore_ascii_case(name.as_str().as_bytes()))?;
    let value = line[colon + 1..].trim_ascii_end();
    let (end, value) = (colon + 1 + value.len(), value.trim_ascii_start());
    Some((which, end - value.len()..end))
}

/// The value of a field that is one word.
fn plain(value: &[u8]) -> Option<&str> {
    let plain = (1..=LONGEST_OWN).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
    if plain { str::from_utf8(value).ok() } else { None }
}

/// The target of a `GET`, and what follows the first line.
fn taken_apart(head: &[u8]) -> Option<(&str, &[u8])> {
    let end = head.iter().position(|byte| *byte == b'\n')? + 1;
    let target = head[..end].strip_prefix(GET)?.strip_suffix(HTTP_11)?;
    Some((str::from_utf8(target).ok()?, &head[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Nowhere;

    impl Way for Nowhere {
        fn again<'a>(&'a self, _: Repetition<'a>, _: Manner<'a>, _: &'a mut Wires) -> Option<BoxFuture<'a, Again>> {
            None
        }
    }

    fn last(head: &str) -> Option<Last> {
        Last::of(head.as_bytes(), Some(Remembered(Arc::new(Nowhere))))
    }

    fn repeated<'a>(last: &Last, buffer: &'a str) -> Option<(&'a str, usize)> {
        last.repeated(buffer.as_bytes()).map(|(asked, length, _)| (asked.target, length))
    }

    #[test]
    fn only_the_target_may_differ() {
        let last = last("GET /a HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n").unwrap();
        let again = "GET /other?c=%20d HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n";
        assert_eq!(repeated(&last, again), Some(("/other?c=%20d", again.len())));
        assert_eq!(repeated(&last, &format!("{again}GET /next")), Some(("/other?c=%20d", again.len())));
        for other in [
            "GET /a HTTP/1.1\r\nHost: y\r\nA: b\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nA: b\r\nC: d\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: x\r\nA: b\r\n",
            "GET /a HTTP/1.1\r\nhost: x\r\nA: b\r\n\r\n",
            "GET /a HTTP/1.0\r\nHost: x\r\nA: b\r\n\r\n",
            "GET /a HTTP/1.1\nHost: x\r\nA: b\r\n\r\n",
            "POST /a HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n",
            "HEAD /a HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n",
        ] {
            assert_eq!(repeated(&last, other), None, "{other}");
        }
    }

    #[test]
    fn what_tells_requests_apart_may_differ() {
        let head = "GET /a HTTP/1.1\r\nX-Request-ID:  a-1 \r\nHost: x\r\ntraceparent: 00-01\r\n\r\n";
        let last = last(head).unwrap();
        let again = head.replace("a-1", "another:1").replace("00-01", "01");
        let (asked, length, _) = last.repeated(again.as_bytes()).unwrap();
        assert_eq!((asked.target, length), ("/a", again.len()));
        assert_eq!(asked.value(&REQUEST_ID), Some("another:1"));
        assert_eq!(asked.value(&TRACEPARENT), Some("01"));
        assert_eq!(asked.value(&TRACESTATE), None);
        for other in [
            head.replace("a-1", ""),
            head.replace("a-1", "a 1"),
            head.replace("a-1", "\u{e4}"),
            head.replace("a-1", &"a".repeat(LONGEST_OWN + 1)),
            head.replace("00-01\r\n", "00-01\r\nb: c\r\n"),
            head.replace("00-01\r\n", "00-01\n"),
            head.replace("traceparent", "tracestate"),
            head.replace("traceparent: 00-01\r\n", ""),
            head.replace("Host", "host"),
        ] {
            assert_eq!(repeated(&last, &other), None, "{other}");
        }
    }

    #[test]
    fn what_stands_twice_or_is_no_word_is_not_remembered() {
        for fields in ["traceparent: a\r\nTraceparent: b\r\n", "tracestate: a=b, c=d\r\n", "x-request-id:\r\n"] {
            assert!(last(&format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n")).is_none(), "{fields}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_has_its_own_values(
            (first, second) in ("[!-~]{1,9}", "[!-~]{1,9}"),
            (before, after) in ("([A-Z]{1,9}: [ -~]{0,9}\r\n){0,2}", "([A-Z]{1,9}: [ -~]{0,9}\r\n){0,2}\r\n"),
            space in "[ \t]{0,2}",
        ) {
            let head = |value: &str| format!("GET / HTTP/1.1\r\n{before}Tracestate:{space}{value}{space}\r\n{after}");
            let (last, again) = (last(&head(&first)).unwrap(), head(&second));
            let (asked, length, _) = last.repeated(again.as_bytes()).unwrap();
            prop_assert_eq!(asked.value(&TRACESTATE), Some(&*second));
            prop_assert_eq!(length, again.len());
        }

        #[test]
        fn what_is_taken_is_one_request_with_the_same_fields(
            fields in "([A-Za-z-]{1,9}: [ -~]{0,9}\r\n){0,3}\r\n",
            line in "(GET|PUT) [ -~]{0,12}( HTTP/1.[01])?\r?\n",
            rest in "[ -~\r\n]{0,20}",
        ) {
            let last = last(&format!("GET / HTTP/1.1\r\n{fields}")).unwrap();
            let buffer = format!("{line}{fields}{rest}");
            match repeated(&last, &buffer) {
                Some((target, length)) => {
                    prop_assert_eq!(format!("GET {target} HTTP/1.1\r\n{fields}"), &buffer[..length]);
                    prop_assert_eq!(&buffer[length..], rest);
                }
                None => prop_assert!(!(line.starts_with("GET ") && line.ends_with(" HTTP/1.1\r\n"))),
            }
        }
    }
}
