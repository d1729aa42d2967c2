//! A sandbox's environment reaches what is started in it: AGS has no other way than to name it with each start.

use std::collections::BTreeMap;

use axum::{body::Body, extract::Request};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Method, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value};

use crate::{
    app::{App, ports::ENVD_PORT},
    domain::port::Port,
    error::{Code, Error, Result},
};

const START: &str = "/process.Process/Start";
const EXECUTE: &str = "/execute";
/// A frame of Connect: one byte of flags, four of length (PROTOCOLS D.4).
const HEAD: usize = 5;

/// How a request says the environment of what it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `{process: {envs}}` in the first frame of a stream.
    Framed,
    /// `{env_vars}`.
    Plain,
}

impl Form {
    fn of(port: Port, request: &Request) -> Option<Self> {
        let kind = request.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
        let kind = kind.split(';').next().unwrap_or_default().trim();
        match (port.get(), request.uri().path(), kind) {
            (ENVD_PORT, START, "application/connect+json") => Some(Self::Framed),
            (envd_client::CODE_PORT, EXECUTE, "application/json") => Some(Self::Plain),
            _ => None,
        }
    }
}

/// Whether a request starts something.
#[must_use]
pub fn may_concern(port: Port, request: &Request) -> bool {
    request.method() == Method::POST && Form::of(port, request).is_some()
}

/// The request with the sandbox's environment under its own. What cannot be read is left to the sandbox to refuse.
///
/// # Errors
/// `body_too_large`; `invalid_request` when the body breaks off.
pub async fn added(app: &App, port: Port, env: &BTreeMap<String, String>, request: Request) -> Result<Request> {
    let Some(form) = Form::of(port, &request).filter(|_| !env.is_empty()) else { return Ok(request) };
    let (mut parts, body) = request.into_parts();
    let limit = usize::try_from(app.config.server.max_json_body).unwrap_or(usize::MAX);
    let body = Limited::new(body, limit).collect().await.map_err(|error| match error.is::<LengthLimitError>() {
        true => Error::new(Code::BodyTooLarge, format!("The start of something may have up to {limit} bytes.")),
        false => Error::new(Code::InvalidRequest, "The body could not be read to its end."),
    })?;
    let body = body.to_bytes();
    let merged = match form {
        Form::Framed => framed(&body, env),
        Form::Plain => plain(&body, env),
    };
    let body = merged.unwrap_or(body);
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    parts.headers.remove(header::TRANSFER_ENCODING);
    Ok(Request::from_parts(parts, Body::from(body)))
}

fn framed(body: &[u8], env: &BTreeMap<String, String>) -> Option<Bytes> {
    let (head, rest) = body.split_at_checked(HEAD)?;
    let length = usize::try_from(u32::from_be_bytes(head.get(1..)?.try_into().ok()?)).ok()?;
    let (payload, rest) = rest.split_at_checked(length)?;
    if head[0] != 0 {
        return None;
    }
    let mut message: Value = serde_json::from_slice(payload).ok()?;
    merge(message.get_mut("process")?.as_object_mut()?, "envs", env)?;
    let payload = serde_json::to_vec(&message).ok()?;
    let mut out = BytesMut::with_capacity(HEAD + payload.len() + rest.len());
    out.put_u8(0);
    out.put_u32(u32::try_from(payload.len()).ok()?);
    out.extend_from_slice(&payload);
    out.extend_from_slice(rest);
    Some(out.freeze())
}

fn plain(body: &[u8], env: &BTreeMap<String, String>) -> Option<Bytes> {
    let mut message: Value = serde_json::from_slice(body).ok()?;
    merge(message.as_object_mut()?, "env_vars", env)?;
    serde_json::to_vec(&message).ok().map(Bytes::from)
}

/// Puts what is not said by the request itself under `name`.
fn merge(message: &mut Map<String, Value>, name: &str, env: &BTreeMap<String, String>) -> Option<()> {
    let own = message.entry(name).or_insert(Value::Null);
    if own.is_null() {
        *own = Value::Object(Map::new());
    }
    let own = own.as_object_mut()?;
    for (key, value) in env {
        own.entry(key.clone()).or_insert_with(|| Value::String(value.clone()));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn env() -> BTreeMap<String, String> {
        BTreeMap::from([("A".to_owned(), "sandbox".to_owned()), ("B".to_owned(), "b ü".to_owned())])
    }

    fn frame(message: &Value) -> Vec<u8> {
        let payload = serde_json::to_vec_pretty(message).unwrap();
        let mut frame = vec![0];
        frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        frame.extend(payload);
        frame
    }

    #[test]
    fn what_the_request_says_itself_stays() {
        let sent = frame(&json!({"process": {"cmd": "sh", "envs": {"A": "own"}}, "stdin": false}));
        let merged = framed(&[sent.as_slice(), b"rest"].concat(), &env()).unwrap();
        assert!(merged.ends_with(b"rest"));
        let message: Value = serde_json::from_slice(&merged[HEAD..merged.len() - 4]).unwrap();
        assert_eq!(message, json!({"process": {"cmd": "sh", "envs": {"A": "own", "B": "b ü"}}, "stdin": false}));
        let code = plain(br#"{"code":"1","env_vars":null}"#, &env()).unwrap();
        let code: Value = serde_json::from_slice(&code).unwrap();
        assert_eq!(code["env_vars"], json!({"A": "sandbox", "B": "b ü"}));
    }

    #[test]
    fn what_cannot_be_read_is_passed_on_as_it_is() {
        let compressed = [&[1_u8][..], &frame(&json!({"process": {}}))[1..]].concat();
        for body in [b"".as_slice(), &[0, 0, 0, 0, 9], b"\0\0\0\0\x02[]", b"\0\0\0\0\x0d{\"process\":1}", &compressed] {
            assert_eq!(framed(body, &env()), None, "{body:?}");
        }
        assert_eq!(plain(b"[]", &env()), None);
        assert_eq!(plain(br#"{"env_vars": "x"}"#, &env()), None);
    }

    proptest! {
        #[test]
        fn merging_never_panics(body in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (framed(&body, &env()), plain(&body, &env()));
        }
    }
}
