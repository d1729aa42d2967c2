//! The signed API over HTTP: TC3 verification, the envelope, faults and limits (PROTOCOLS A).

use std::sync::Arc;
use std::time::Instant;

use ags_client::envelope::Envelope;
use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use subtle::ConstantTimeEq as _;

use super::actions::{self, Params};
use super::error::{ApiError, ApiResult};
use super::{Caller, Cloud};
use crate::body::{self, Answer, Body, Broken};
use crate::clock::wall_now;
use crate::faults::{Instead, Plane, Subject};
use crate::ids;
use crate::journal::Call;
use crate::settings::Account;

/// Largest body of a POST (PROTOCOLS A.6).
pub const MAX_BODY: usize = 10 << 20;
const MAX_QUERY: usize = 32 << 10;

/// One request to the signed API, complete.
pub struct SignedCall {
    parts: Parts,
    /// `Host`, or `:authority` of HTTP/2.
    host: String,
    /// `None`: larger than [`MAX_BODY`].
    body: Option<Bytes>,
}

impl SignedCall {
    pub fn new(parts: Parts, host: String, body: Option<Bytes>) -> Self {
        Self { parts, host, body }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }

    fn query(&self) -> &str {
        self.parts.uri.query().unwrap_or_default()
    }

    fn params(&self) -> ApiResult<Params> {
        let too_large = || {
            let message = "The request is larger than 10 MiB, or 32 KiB for GET.";
            ApiError::new("RequestSizeLimitExceeded", message)
        };
        match self.parts.method {
            Method::POST => self.body.clone().map(Params::Json).ok_or_else(too_large),
            Method::GET if self.query().len() > MAX_QUERY => Err(too_large()),
            Method::GET => Ok(Params::Query(self.query().to_owned())),
            _ => Err(ApiError::new("UnsupportedProtocol", "Only GET and POST are served.")),
        }
    }
}

/// What is known of a call when it is over.
struct Outcome {
    by: String,
    action: String,
    instance: Option<String>,
    client_token: Option<String>,
    result: ApiResult<Value>,
}

impl Cloud {
    /// Answers a signed request.
    ///
    /// # Errors
    /// A fault rule drops the connection.
    pub async fn answer_signed(self: &Arc<Self>, call: SignedCall) -> Answer {
        let request_id = ids::request();
        let action = call.header("x-tc-action").map(str::to_owned);
        let params = call.params();
        let peek = |name: &str| params.as_ref().ok().and_then(|params| params.peek(name));
        let (instance, client_token) = (peek("InstanceId"), peek("ClientToken"));
        let struck = self.faults.strike(&Subject {
            plane: Plane::Control,
            action: action.as_deref(),
            path: call.parts.uri.path(),
            method: call.parts.method.as_str(),
            port: None,
            instance: instance.as_deref(),
        });
        struck.before().await;
        if struck.expires_tokens() {
            self.expire_tokens(instance.as_deref());
        }
        let mut outcome = Outcome {
            by: "unknown".into(),
            action: action.unwrap_or_default(),
            instance,
            client_token,
            result: Err(ApiError::invalid("not performed")),
        };
        match struck.instead() {
            Some(Instead::Drop) => return Err(Broken::OnPurpose),
            Some(Instead::Http { status, body }) => return Ok(bare(status, body)),
            Some(Instead::Error { code, message }) => outcome.result = Err(ApiError::new(code, message)),
            None => match params.and_then(|params| Ok((self.admit_signed(&call)?, params))) {
                Err(error) => outcome.result = Err(error),
                Ok((caller, params)) => {
                    outcome.by = caller.to_string();
                    outcome.result = self.perform(&outcome.action, &params, &struck).await;
                }
            },
        }
        struck.after().await;
        let lost = struck.loses_response();
        let response = envelope(&outcome.result, &request_id);
        self.note(outcome, request_id, lost);
        if lost {
            return Err(Broken::OnPurpose);
        }
        Ok(match struck.cut_after() {
            Some(bytes) => response.map(|body| body::cut_after(body, bytes)),
            None => response,
        })
    }

    fn note(&self, outcome: Outcome, request_id: String, response_lost: bool) {
        let started = |value: &Value| value.pointer("/Instance/InstanceId")?.as_str().map(str::to_owned);
        let (made, error) = match outcome.result {
            Ok(value) => (started(&value), None),
            Err(error) => (None, Some(error.code.into_owned())),
        };
        self.journal.add(Call {
            at: self.clock.now(),
            wall_at: wall_now(),
            action: outcome.action,
            by: outcome.by,
            instance: outcome.instance.or(made),
            client_token: outcome.client_token,
            error,
            request_id,
            response_lost,
        });
    }

    /// Routing, authentication and rate limit, in the cloud's order.
    fn admit_signed(&self, call: &SignedCall) -> ApiResult<Caller> {
        let Some(action) = call.header("x-tc-action") else {
            return Err(ApiError::missing("X-TC-Action"));
        };
        if !actions::known(action) {
            return Err(ApiError::new("InvalidAction", format!("Action `{action}` does not exist.")));
        }
        match call.header("x-tc-version") {
            Some(ags_client::VERSION) => {}
            Some(version) => {
                return Err(ApiError::new("NoSuchVersion", format!("Version `{version}` does not exist.")));
            }
            None => return Err(ApiError::missing("X-TC-Version")),
        }
        let account = self.verify(call)?;
        self.check_region(action, call.header("x-tc-region"))?;
        let tunables = self.tunables();
        let limit = tunables.rate_limits.get(action).copied().unwrap_or(tunables.rate_limit);
        if !self.limiter.admit(action, limit, Instant::now()) {
            return Err(ApiError::throttled(action, limit));
        }
        Ok(Caller::Account(account.secret_id.clone()))
    }

    fn check_region(&self, action: &str, region: Option<&str>) -> ApiResult<()> {
        match region {
            Some(region) if region == self.settings.region => Ok(()),
            Some(region) => Err(ApiError::new("UnsupportedRegion", format!("Region `{region}` is not served here."))),
            None if action == "AcquireSandboxInstanceToken" => Ok(()),
            None => Err(ApiError::missing("X-TC-Region")),
        }
    }

    fn verify(&self, call: &SignedCall) -> ApiResult<&Account> {
        let malformed = |text: String| ApiError::new("AuthFailure.InvalidAuthorization", text);
        let header = call.header("authorization").ok_or_else(|| malformed("Authorization is missing.".into()))?;
        let authorization = tc3::Authorization::parse(header).map_err(|error| malformed(error.to_string()))?;
        let account =
            self.accounts.iter().find(|account| account.secret_id == authorization.secret_id).ok_or_else(|| {
                ApiError::new("AuthFailure.SecretIdNotFound", "The SecretId is not found. Please check it.")
            })?;
        let timestamp = call
            .header("x-tc-timestamp")
            .ok_or_else(|| ApiError::missing("X-TC-Timestamp"))?
            .parse()
            .map_err(|_| ApiError::invalid("X-TC-Timestamp is not a Unix time."))?;
        let headers = signable(call);
        let body = call.body.as_deref().unwrap_or_default();
        let get = call.parts.method == Method::GET;
        let unsigned = call.header("x-tc-content-sha256") == Some(tc3::UNSIGNED_PAYLOAD);
        let request = tc3::VerifyRequest {
            authorization: &authorization,
            method: if get { tc3::Method::Get } else { tc3::Method::Post },
            query: call.query(),
            headers: &headers,
            signing_hosts: &[],
            payload: if unsigned { tc3::Payload::Unsigned } else { tc3::Payload::Bytes(body) },
            service: ags_client::SERVICE,
            timestamp,
        };
        tc3::verify(&request, &account.secret_key, wall_now().timestamp())
            .map_err(|error| ApiError::new(error.code(), error_text(&error)))?;
        check_session(account, call.header("x-tc-token"))?;
        Ok(account)
    }
}

fn error_text(error: &tc3::VerifyError) -> String {
    match error {
        tc3::VerifyError::Mismatch => {
            "The provided credentials could not be validated. Please check your signature is correct.".into()
        }
        other => other.to_string(),
    }
}

fn check_session(account: &Account, given: Option<&str>) -> ApiResult<()> {
    let fits = match (&account.token, given) {
        (None, None) => true,
        (Some(wanted), Some(given)) => wanted.expose_secret().as_bytes().ct_eq(given.as_bytes()).into(),
        _ => false,
    };
    if fits { Ok(()) } else { Err(ApiError::new("AuthFailure.TokenFailure", "The session token is not valid.")) }
}

/// All headers as received, with `host` where HTTP/2 has none.
fn signable(call: &SignedCall) -> Vec<(&str, &[u8])> {
    let headers = &call.parts.headers;
    let mut all: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    if !headers.contains_key(http::header::HOST) {
        all.push(("host", call.host.as_bytes()));
    }
    all
}

fn envelope(result: &ApiResult<Value>, request_id: &str) -> Response<Body> {
    match result {
        Ok(value) => body::json(StatusCode::OK, &Envelope::success(value, request_id)),
        Err(ApiError { code, message }) => {
            body::json(StatusCode::OK, &Envelope::failure(code.as_ref(), message.as_ref(), request_id))
        }
    }
}

/// An answer that is not the API speaking.
pub fn bare(status: u16, text: String) -> Response<Body> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = if text.starts_with('{') { "application/json" } else { "text/plain" };
    body::respond(status, kind, text)
}
