//! Extractors whose rejections are problem documents that name the field at fault.

use std::{marker::PhantomData, ops::Deref, sync::Arc};

use axum::{
    extract::{FromRequest, FromRequestParts, OptionalFromRequest, Request, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, header, request::Parts};
use serde::{
    Serialize,
    de::{DeserializeOwned, IgnoredAny},
};

use super::{activity::Wake, limits, objects::Strict, queries};
use crate::{
    app::App,
    auth::{Caller, Trail},
    domain::{
        audit::{MAX_ON_BEHALF_OF, names_a_user},
        scope::Permission,
    },
    error::{Code, Error, FieldError, Result},
    telemetry::request::RequestLog,
};

pub const ON_BEHALF_OF: HeaderName = HeaderName::from_static("x-on-behalf-of");

/// A caller whose credential has the scope `P`: the permission is in the handler's signature.
pub struct Authorized<P>(Arc<Caller>, PhantomData<P>);

impl<P> Authorized<P> {
    /// The caller itself, to hand on to a task.
    #[must_use]
    pub fn into_caller(self) -> Arc<Caller> {
        self.0
    }
}

impl<P> Deref for Authorized<P> {
    type Target = Caller;
    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl<P: Permission> FromRequestParts<App> for Authorized<P> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let caller = authenticate(parts, app).await?;
        caller.require_any(P::ANY_OF)?;
        Ok(Self(caller, PhantomData))
    }
}

/// A caller with any valid key.
pub struct Authenticated(pub Arc<Caller>);

impl FromRequestParts<App> for Authenticated {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        authenticate(parts, app).await.map(Self)
    }
}

/// # Errors
/// `unauthenticated`, `rate_limited`.
pub(super) async fn authenticate(parts: &Parts, app: &App) -> Result<Arc<Caller>> {
    let caller = app.auth.authenticate(&parts.headers).await?;
    noted(parts, caller)
}

/// Notes who calls in the log and the history of the request.
///
/// # Errors
/// `invalid_request` for an `X-On-Behalf-Of` that cannot name anybody; `rate_limited`; `validation_failed` for a query of an
/// operation that takes none.
pub(super) fn noted(parts: &Parts, caller: Arc<Caller>) -> Result<Arc<Caller>> {
    if let Some(log) = parts.extensions.get::<RequestLog>() {
        log.note(caller.team_id(), &caller.key_id);
    }
    limits::count(parts, &caller)?;
    queries::check(parts)?;
    let Some(trail) = parts.extensions.get::<Trail>() else { return Ok(caller) };
    if let Some(user) = end_user(&parts.headers)? {
        trail.note_user(&user);
    }
    let wake = parts.extensions.get::<Wake>().map(|wake| wake.0);
    Ok(Arc::new(Caller { wake, ..caller.within(trail) }))
}

/// The end user that a caller acts for, as it says.
fn end_user(headers: &HeaderMap) -> Result<Option<String>> {
    let mut values = headers.get_all(ON_BEHALF_OF).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let user = std::str::from_utf8(value.as_bytes()).ok().filter(|user| names_a_user(user) && values.next().is_none());
    user.map(|user| Some(user.to_owned())).ok_or_else(|| {
        let detail = format!(
            "X-On-Behalf-Of stands once and has 1 to {MAX_ON_BEHALF_OF} characters of UTF-8, no control characters."
        );
        Error::new(Code::InvalidRequest, detail)
    })
}

/// A JSON body, or a JSON answer.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, app: &App) -> Result<Self> {
        from_json(&read_json(request, app.config.server.max_json_body).await?).map(Self)
    }
}

/// The bytes of a body that is said to be JSON, `limit` at most.
///
/// # Errors
/// `unsupported_media_type`, `body_too_large`.
pub(super) async fn read_json(request: Request, limit: u64) -> Result<Bytes> {
    let is_json = content_type_is_json(&request);
    let body = read_body(request, limit).await?;
    if is_json {
        return Ok(body);
    }
    let detail = "Send the body with `Content-Type: application/json`.";
    Err(Error::new(Code::UnsupportedMediaType, detail))
}

/// A JSON body that may be left out altogether, or be null.
impl<T: DeserializeOwned> OptionalFromRequest<App> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, app: &App) -> Result<Option<Self>> {
        let is_json = content_type_is_json(&request);
        let body = read_body(request, app.config.server.max_json_body).await?;
        optional_json(&body, is_json).map(|value| value.map(Self))
    }
}

/// What an optional body says.
///
/// # Errors
/// `unsupported_media_type`; those of the body.
pub(super) fn optional_json<T: DeserializeOwned>(body: &[u8], is_json: bool) -> Result<Option<T>> {
    if body.is_empty() {
        return Ok(None);
    }
    if !is_json {
        let detail = "Send the body with `Content-Type: application/json`, or none.";
        return Err(Error::new(Code::UnsupportedMediaType, detail));
    }
    from_json(body)
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
            Err(error) => Error::internal(error).into_response(),
        }
    }
}

pub(super) fn content_type_is_json(request: &Request) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json") || essence.to_ascii_lowercase().ends_with("+json")
}

/// The bytes of a body of `limit` bytes at most.
///
/// # Errors
/// `body_too_large`; `invalid_request` when it breaks off.
pub(super) async fn read_body(request: Request, limit: u64) -> Result<Bytes> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let limited = http_body_util::Limited::new(request.into_body(), limit);
    match http_body_util::BodyExt::collect(limited).await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Error::new(
            Code::BodyTooLarge,
            format!("JSON bodies may have up to {limit} bytes here. Send large content through the files endpoints."),
        )
        .with_limit("max_json_body", limit as u64, limit as u64)),
        Err(error) => {
            Err(Error::new(Code::InvalidRequest, "The body could not be read to its end.").with_source(error))
        }
    }
}

/// Parses JSON, telling text that is not JSON from JSON that does not fit.
///
/// # Errors
/// `malformed_json`, or `validation_failed` with the field's path.
pub fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value: T =
        serde_path_to_error::deserialize(Strict(&mut deserializer)).map_err(|error| describe(&error, body))?;
    deserializer.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

fn malformed(error: &serde_json::Error) -> Error {
    let place = format!("line {}, column {}", error.line(), error.column());
    Error::new(Code::MalformedJson, format!("The body is not valid JSON ({place})."))
}

fn describe(error: &serde_path_to_error::Error<serde_json::Error>, body: &[u8]) -> Error {
    let inner = error.inner();
    if !inner.is_data() {
        if is_about_variants(inner, body) {
            return Error::field(error.path().to_string(), "is an object with exactly one of its fields");
        }
        return malformed(inner);
    }
    let (field, message) = field_and_message(&error.path().to_string(), &inner.to_string());
    Error::field(field, message)
}

/// Of an object that is to name one of several variants, serde_json says that the text is wrong, though it is not: it misses a
/// name, or an end after the first. What is wrong with texts and numbers it says in other words.
fn is_about_variants(error: &serde_json::Error, body: &[u8]) -> bool {
    let text = error.to_string();
    let expects = ["expected value", "expected `,` or `}`"].iter().any(|start| text.starts_with(start));
    expects && serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

/// serde reports an unknown or missing field at its parent: the field itself is named instead.
fn field_and_message(path: &str, text: &str) -> (String, String) {
    let text = text.split(" at line ").next().unwrap_or(text);
    let text = &in_json(text);
    let quoted = text.split('`').nth(1);
    let join = |name: &str| match path {
        "." | "" => name.to_owned(),
        path if path.ends_with(name) => path.to_owned(),
        path => format!("{path}.{name}"),
    };
    match quoted {
        Some(name) if text.starts_with("unknown field") => {
            let known = text.split_once(", expected ").map_or("none is known here", |(_, known)| known);
            (join(name), format!("unknown field; known: {}", known.trim_start_matches("one of ").replace('`', "")))
        }
        Some(name) if text.starts_with("missing field") => (join(name), "this field is required".to_owned()),
        _ => (if path == "." { "body".to_owned() } else { path.to_owned() }, text.to_owned()),
    }
}

/// What serde expects, in words of JSON instead of Rust's.
fn in_json(text: &str) -> String {
    let Some((said, expected)) = text.split_once(", expected ") else { return text.to_owned() };
    let expected = match expected {
        "a nonzero u16" => "a number between 1 and 65535",
        "a sequence" => "a list",
        "a map" => "an object",
        name if ["struct ", "internally tagged enum ", "adjacently tagged enum "]
            .iter()
            .any(|kind| name.starts_with(kind)) =>
        {
            "an object"
        }
        other => other,
    };
    format!("{said}, expected {expected}")
}

/// Path parameters. An id that cannot be one is an unknown one.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        match axum::extract::Path::<T>::from_request_parts(parts, app).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(_)) => Err(Error::not_found("resource")),
            Err(other) => Err(Error::internal(other)),
        }
    }
}

/// Query parameters, read by name; what is left over is an error that names it.
pub struct Query<T>(pub T);

/// A type that is read from query parameters.
pub trait FromQuery: Sized {
    /// # Errors
    /// Errors collected in the reader are reported together by [`Query`]; this returns only what cannot be collected.
    fn from_query(query: &mut QueryReader) -> Self;
}

impl<T: FromQuery> FromRequestParts<App> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self> {
        let mut reader = QueryReader::new(parts.uri.query().unwrap_or_default());
        let value = T::from_query(&mut reader);
        reader.finish().map(|()| Self(value))
    }
}

/// The parameters of a query, taken out one by one.
pub struct QueryReader {
    pairs: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl QueryReader {
    #[must_use]
    pub fn new(query: &str) -> Self {
        let pairs = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Self { pairs, errors: Vec::new() }
    }

    /// All values of a parameter, repeated or separated by commas.
    pub fn list(&mut self, name: &str) -> Vec<String> {
        let split = |text: String| text.split(',').map(str::to_owned).filter(|one| !one.is_empty()).collect::<Vec<_>>();
        self.take(name).into_iter().flat_map(split).collect()
    }

    /// All values of a parameter, parsed; those that do not parse are reported.
    pub fn parsed_list<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self, name: &str) -> Vec<T> {
        self.list(name).into_iter().filter_map(|text| self.parse(name, &text)).collect()
    }

    /// A parameter that stands at most once, verbatim.
    pub fn text(&mut self, name: &str) -> Option<String> {
        let mut values = self.take(name);
        if values.len() > 1 {
            self.error(name, "may be given once only");
        }
        values.pop()
    }

    /// A parameter that stands at most once, parsed.
    pub fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.text(name)?;
        self.parse(name, &text)
    }

    /// A duration (see [`crate::domain::duration`]).
    pub fn duration(&mut self, name: &str) -> Option<crate::domain::duration::Seconds> {
        let text = self.text(name)?;
        crate::domain::duration::Seconds::parse(&text).map_err(|error| self.error(name, error.to_string())).ok()
    }

    /// Parameters of the form `prefix.key=value`.
    pub fn prefixed(&mut self, prefix: &str) -> Vec<(String, String)> {
        let dotted = format!("{prefix}.");
        let (taken, left) =
            std::mem::take(&mut self.pairs).into_iter().partition(|(name, _)| name.starts_with(&dotted));
        self.pairs = left;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().map(|(name, value)| (name[dotted.len()..].to_owned(), value)).collect()
    }

    /// Parameters of the form `prefix.key=value`: each key with all its values, repeated or separated by commas.
    pub fn choices(&mut self, prefix: &str) -> std::collections::BTreeMap<String, Vec<String>> {
        let mut choices = std::collections::BTreeMap::<String, Vec<String>>::new();
        for (key, value) in self.prefixed(prefix) {
            let of_key = choices.entry(key).or_default();
            // A comma may separate values, or belong to one.
            of_key.extend(value.split(',').filter(|part| *part != value).map(str::to_owned));
            of_key.push(value);
        }
        choices
    }

    pub fn error(&mut self, name: &str, message: impl Into<String>) {
        self.errors.push(FieldError { field: name.to_owned(), message: message.into() });
    }

    fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self, name: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error: T::Err| self.error(name, error.to_string())).ok()
    }

    fn take(&mut self, name: &str) -> Vec<String> {
        let (taken, left) = std::mem::take(&mut self.pairs).into_iter().partition(|(key, _)| key == name);
        self.pairs = left;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().map(|(_, value)| value).collect()
    }

    /// # Errors
    /// `validation_failed` for what was wrong, and what was not taken out.
    pub fn finish(mut self) -> Result<()> {
        for (name, _) in std::mem::take(&mut self.pairs) {
            self.error(&name, "unknown query parameter");
        }
        if self.errors.is_empty() { Ok(()) } else { Err(Error::fields(self.errors)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::page::PageQuery;
    use proptest::prelude::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[allow(dead_code, reason = "only its errors are looked at")]
        name: String,
        #[allow(dead_code, reason = "only its errors are looked at")]
        #[serde(default)]
        probe: Option<Probe>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Probe {
        #[allow(dead_code, reason = "only its errors are looked at")]
        port: u16,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Mount {
        #[allow(dead_code, reason = "only its errors are looked at")]
        source: Source,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Source {
        #[allow(dead_code, reason = "only its errors are looked at")]
        Cos(Probe),
        #[allow(dead_code, reason = "only its errors are looked at")]
        Cfs(Probe),
    }

    #[test]
    fn one_of_several_is_no_matter_of_syntax() {
        for source in ["{}", r#"{"cos": {"port": 1}, "cfs": {"port": 2}}"#] {
            let error = from_json::<Mount>(format!(r#"{{"source": {source}}}"#).as_bytes()).unwrap_err();
            assert_eq!((error.code(), error.inner().fields[0].field.as_str()), (Code::ValidationFailed, "source"));
        }
        let error = from_json::<Mount>(br#"{"source": {"cos": {"port": 1}"#).unwrap_err();
        assert_eq!(error.code(), Code::MalformedJson);
        for malformed in [r#"{"name": "\ud800"}"#, r#"{"name": 1e999}"#, r#"{"name":}"#] {
            assert_eq!(from_json::<Body>(malformed.as_bytes()).unwrap_err().code(), Code::MalformedJson, "{malformed}");
        }
    }

    fn field_of(body: &str) -> String {
        let error = from_json::<Body>(body.as_bytes()).unwrap_err();
        assert_eq!(error.code(), Code::ValidationFailed, "{error}");
        error.inner().fields[0].field.clone()
    }

    #[test]
    fn the_field_at_fault_is_named() {
        assert_eq!(field_of(r#"{"name": 1}"#), "name");
        assert_eq!(field_of(r#"{}"#), "name");
        assert_eq!(field_of(r#"{"name": "a", "colour": 1}"#), "colour");
        assert_eq!(field_of(r#"{"name": "a", "probe": {"port": "x"}}"#), "probe.port");
        assert_eq!(field_of(r#"{"name": "a", "probe": {"port": 1, "prot": 2}}"#), "probe.prot");
        assert_eq!(field_of(r#"{"name": "a", "probe": {}}"#), "probe.port");
        assert_eq!(field_of("[]"), "body");
        assert_eq!(field_of(r#"["a", null]"#), "body");
        assert_eq!(field_of(r#"{"name": "a", "probe": [1]}"#), "probe");
    }

    #[test]
    fn what_is_not_json_is_malformed() {
        for text in ["", "{", "{\"name\": \"a\"} x"] {
            assert_eq!(from_json::<Body>(text.as_bytes()).unwrap_err().code(), Code::MalformedJson, "{text}");
        }
    }

    #[test]
    fn a_body_that_may_be_left_out_may_be_null() {
        assert!(from_json::<Option<Body>>(b"null").unwrap().is_none());
    }

    #[test]
    fn left_over_parameters_are_errors() {
        let mut reader = QueryReader::new("id=a,b&id=c&tag.x=1&limit=0&q=1");
        assert_eq!(reader.list("id"), ["a", "b", "c"]);
        assert_eq!(reader.prefixed("tag"), [("x".to_owned(), "1".to_owned())]);
        PageQuery::from_query(&mut reader);
        let error = reader.finish().unwrap_err();
        let fields: Vec<_> = error.inner().fields.iter().map(|field| field.field.as_str()).collect();
        assert_eq!(fields, ["limit", "q"]);
    }

    proptest! {
        #[test]
        fn reading_queries_never_panics(query in "\\PC{0,60}") {
            let mut reader = QueryReader::new(&query);
            PageQuery::from_query(&mut reader);
            reader.prefixed("metadata");
            let _ = reader.finish();
        }
    }
}
