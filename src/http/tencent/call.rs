//! A signed call: from its bytes to who calls and what with.

use std::sync::Arc;

use ags_client::{Action, codes, request as reader};
use axum::{
    extract::{FromRequest, Request},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, Method, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::envelope::Refusal;
use crate::{
    app::{App, idempotency::Key},
    auth::{Caller, Signer},
    domain::scope::Scope,
    error::{Code, Error, Result},
    http::extract::noted,
};

/// Largest body of a POST, and largest query of a GET (PROTOCOLS A.6).
const MAX_BODY: usize = 10 << 20;
const MAX_QUERY: usize = 32 << 10;

/// A call of the action `A`, by somebody whose signature fits.
pub struct Call<A> {
    pub caller: Arc<Caller>,
    pub request: A,
}

/// Why a call is refused before anything was done: in the cloud's own words, or in ours.
pub enum Fault {
    Api(Error, Refusal),
    Own(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Own(error)
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        match self {
            Self::Own(error) => error.into_response(),
            Self::Api(error, refusal) => {
                let mut response = error.into_response();
                response.extensions_mut().insert(refusal);
                response
            }
        }
    }
}

fn fault(code: Code, refusal: &'static str, message: impl Into<String>) -> Fault {
    let message = message.into();
    Fault::Api(Error::new(code, message.clone()), Refusal { code: refusal, message })
}

fn missing(parameter: &str) -> Fault {
    let message = format!("The request lacks the parameter `{parameter}`.");
    fault(Code::InvalidRequest, codes::MISSING_PARAMETER, message)
}

/// An action that there is not.
pub async fn unknown() -> Fault {
    let message = "There is no such action in API version 2025-09-20 of AGS, or the gateway does not serve it.";
    fault(Code::NotFound, codes::INVALID_ACTION, message)
}

impl<A: Action> Call<A> {
    /// # Errors
    /// `scope_missing` when the key has none of the scopes.
    pub fn require(&self, scopes: &[Scope]) -> Result<()> {
        self.caller.require_any(scopes)
    }

    /// The request's own idempotency token, as a key of the gateway's.
    ///
    /// # Errors
    /// `invalid_request` for one that cannot be a key.
    pub fn key(&self) -> Result<Option<Key>> {
        let Some(token) = self.request.client_token().filter(|token| !token.is_empty()) else { return Ok(None) };
        let body = serde_json::to_vec(&self.request).map_err(Error::internal)?;
        Key::new(&format!("{}/{token}", A::NAME), "TC3", A::NAME, &body).map(Some)
    }
}

impl<A: Action> FromRequest<App> for Call<A> {
    type Rejection = Fault;

    async fn from_request(request: Request, app: &App) -> std::result::Result<Self, Fault> {
        let (parts, body) = request.into_parts();
        match text(&parts.headers, "x-tc-version") {
            Some(ags_client::VERSION) => {}
            Some(_) => {
                let message = format!("The gateway serves version {}.", ags_client::VERSION);
                return Err(fault(Code::InvalidRequest, codes::NO_SUCH_VERSION, message));
            }
            None => return Err(missing("X-TC-Version")),
        }
        let body = match Limited::new(body, MAX_BODY).collect().await {
            Ok(collected) if parts.uri.query().unwrap_or_default().len() <= MAX_QUERY => collected.to_bytes(),
            Err(error) if !error.is::<LengthLimitError>() => {
                return Err(Error::new(Code::InvalidRequest, "The body broke off.").into());
            }
            _ => {
                let message = "The request is larger than 10 MiB, or its query than 32 KiB.";
                return Err(fault(Code::BodyTooLarge, codes::REQUEST_SIZE_LIMIT_EXCEEDED, message));
            }
        };
        let caller = Box::pin(authenticated(app, &parts, &body)).await?;
        let caller = noted(&parts, Arc::new(caller))?;
        Ok(Self { caller, request: decoded(&parts, &body)? })
    }
}

fn decoded<A: Action>(parts: &Parts, body: &Bytes) -> std::result::Result<A, Fault> {
    let decoded = match parts.method {
        Method::GET => reader::decode_query(parts.uri.query().unwrap_or_default()),
        _ => reader::decode(body),
    };
    decoded.map_err(|error| fault(Code::ValidationFailed, error.code(), error.to_string()))
}

async fn authenticated(app: &App, parts: &Parts, body: &[u8]) -> std::result::Result<Caller, Fault> {
    let refused = |code: &'static str, message: String| fault(Code::Unauthenticated, code, message);
    let header = text(&parts.headers, header::AUTHORIZATION.as_str())
        .ok_or_else(|| refused(codes::AUTH_INVALID_AUTHORIZATION, "The request is not signed.".into()))?;
    let authorization = tc3::Authorization::parse(header)
        .map_err(|error| refused(codes::AUTH_INVALID_AUTHORIZATION, error.to_string()))?;
    let timestamp = text(&parts.headers, "x-tc-timestamp").ok_or_else(|| missing("X-TC-Timestamp"))?;
    let timestamp = timestamp
        .parse()
        .map_err(|_| fault(Code::InvalidRequest, codes::INVALID_PARAMETER, "X-TC-Timestamp is not a Unix time."))?;
    if parts.headers.contains_key("x-tc-token") {
        let message = "The gateway's pairs have no session token: leave it out.";
        return Err(refused(codes::AUTH_TOKEN_FAILURE, message.into()));
    }
    let unknown = || {
        let message =
            "The gateway has no such SecretId, or its key is over. Make one with `keys create --kind tencent`.";
        refused(codes::AUTH_SECRET_ID_NOT_FOUND, message.into())
    };
    let Signer { caller, secret_key } = app.signers.find(&authorization.secret_id).await?.ok_or_else(unknown)?;
    let hosts: Vec<&str> = app.config.server.signing_hosts.iter().map(String::as_str).collect();
    let unsigned = text(&parts.headers, "x-tc-content-sha256") == Some(tc3::UNSIGNED_PAYLOAD);
    let get = parts.method == Method::GET;
    let request = tc3::VerifyRequest {
        authorization: &authorization,
        method: if get { tc3::Method::Get } else { tc3::Method::Post },
        query: parts.uri.query().unwrap_or_default(),
        headers: &signable(parts),
        signing_hosts: &hosts,
        payload: if unsigned { tc3::Payload::Unsigned } else { tc3::Payload::Bytes(body) },
        service: ags_client::SERVICE,
        timestamp,
    };
    tc3::verify(&request, &secret_key, app.clock.now().timestamp()).map_err(|error| {
        let advice = match &error {
            tc3::VerifyError::Mismatch => {
                "The provided credentials could not be validated. Please check your signature is correct: the secret key, \
                 and that no proxy changes Host (server.signing_hosts)."
                    .into()
            }
            other => other.to_string(),
        };
        refused(error.code(), advice)
    })?;
    app.signers.used(&caller).await?;
    Ok(caller)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// All headers as received, with `host` where HTTP/2 has none.
fn signable(parts: &Parts) -> Vec<(&str, &[u8])> {
    let mut all: Vec<(&str, &[u8])> =
        parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    if !parts.headers.contains_key(header::HOST)
        && let Some(authority) = parts.uri.authority()
    {
        all.push(("host", authority.as_str().as_bytes()));
    }
    all
}
