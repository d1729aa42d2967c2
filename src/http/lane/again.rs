//! A request whose fields are, byte for byte, those of the one before it on its connection: what polls a server sends nothing
//! else. Whatever its fields mean was found out then; only its target is its own.

use std::{any::Any, sync::Arc};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::answer::{Framing, Manner};

/// Answers what repeats a request.
pub trait Way: Send + Sync {
    /// Answers a `GET` of `target`. `None` when it has to be looked at like any other.
    fn again<'a>(&'a self, target: &'a str, manner: Manner<'a>, wires: &'a mut Wires) -> Option<BoxFuture<'a, Again>>;
}

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
    /// It is in [`Wires::answer`], too. What the request holds is to be kept until it is written.
    Whole(Arc<dyn Any + Send + Sync>),
    Body(Body, Framing),
}

/// A request that may be repeated: its lines but the first, and how it was answered.
pub(super) struct Last {
    fields: Bytes,
    way: Arc<dyn Way>,
}

/// What begins a request that can be repeated, and ends its first line.
const GET: &[u8] = b"GET ";
const HTTP_11: &[u8] = b" HTTP/1.1\r\n";

impl Last {
    /// What `head`, a request's whole head, leaves to remember.
    pub(super) fn of(head: &[u8], Remembered(way): Remembered) -> Option<Self> {
        let (_, fields) = taken_apart(head)?;
        Some(Self { fields: Bytes::copy_from_slice(fields), way })
    }

    /// The way, the target, and the length of the request at the beginning of `buffer` if it is such a repetition.
    pub(super) fn repeated<'a>(&self, buffer: &'a [u8]) -> Option<(&dyn Way, &'a str, usize)> {
        let (target, rest) = taken_apart(buffer)?;
        rest.starts_with(&self.fields).then(|| (&*self.way, target, buffer.len() - rest.len() + self.fields.len()))
    }
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
        fn again<'a>(&'a self, _: &'a str, _: Manner<'a>, _: &'a mut Wires) -> Option<BoxFuture<'a, Again>> {
            None
        }
    }

    fn last(head: &str) -> Option<Last> {
        Last::of(head.as_bytes(), Remembered(Arc::new(Nowhere)))
    }

    fn repeated<'a>(last: &Last, buffer: &'a str) -> Option<(&'a str, usize)> {
        last.repeated(buffer.as_bytes()).map(|(_, target, length)| (target, length))
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

    proptest! {
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
