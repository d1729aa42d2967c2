//! What the cloud's failures mean to callers. The cloud's own texts stay in the log; its codes and request ids get through.

use std::time::Duration;

use ags_client::{AgsError, ErrorKind, Stage, codes};
use envd_client::{EnvdError, EnvdErrorKind};

use crate::{
    domain::instance::Instance,
    error::{Code, Error},
};

impl From<AgsError> for Error {
    fn from(error: AgsError) -> Self {
        let (code, detail) = classify(&error);
        let retryable = error.retryable();
        let upstream = (error.code().map(str::to_owned), error.request_id().map(str::to_owned));
        let mut mapped = Self::new(code, detail).retryable(retryable).with_upstream(upstream.0, upstream.1);
        if retryable {
            mapped = mapped.with_retry_after(Duration::from_secs(1));
        }
        if let Some((code, field)) = error.code().and_then(|code| Some((code, field_of(code)?))) {
            let missing = codes::is(code, "MissingParameter");
            let message = if missing { "the cloud wants one for this" } else { "the cloud does not accept it" };
            mapped = mapped.with_field(field, message);
        }
        mapped.with_source(error)
    }
}

fn classify(error: &AgsError) -> (Code, String) {
    if error.rate_limited() {
        return (Code::UpstreamThrottled, "The cloud limits the account's call rate. Try again shortly.".into());
    }
    if error.quota_exceeded() {
        let detail = "The cloud account's own quota is used up. Stop what is not needed, wait in line with `?queue=5m` \
                      where an instance is started, or ask the operators for more.";
        return (Code::QuotaExceeded, detail.into());
    }
    if error.auth_failed() {
        let detail = "The cloud refused the gateway's credentials, or they do not permit this. Tell its operators.";
        return (Code::UpstreamError, detail.into());
    }
    if error.not_found() && error.code().and_then(field_of).is_none() {
        return (Code::NotFound, "The cloud does not know this any more.".into());
    }
    match error.kind() {
        ErrorKind::Timeout(Stage::Answer, _) => {
            (Code::UpstreamTimeout, "The cloud did not answer in time. It may still have done what was asked.".into())
        }
        ErrorKind::Timeout(..) => {
            (Code::UpstreamThrottled, "Too many calls to the cloud are waiting. Try again.".into())
        }
        ErrorKind::Connect(_) | ErrorKind::Exchange(_) => (
            Code::UpstreamUnavailable,
            "The cloud cannot be reached at the moment. Try again; if it lasts, tell the gateway's operators.".into(),
        ),
        ErrorKind::Api { code, .. } => by_api_code(code),
        _ => (Code::UpstreamError, "The cloud answered with something unexpected.".into()),
    }
}

/// The field of a request that a refusal is about, as callers of this API write it.
fn field_of(code: &str) -> Option<&'static str> {
    Some(match code {
        codes::INVALID_ROLE_ARN | codes::MISSING_ROLE_ARN => "role_arn",
        codes::INVALID_SUBNET_ID | codes::SUBNET_NOT_FOUND | codes::MISSING_VPC_PARAMETERS => "network.subnet_ids",
        codes::INVALID_SECURITY_GROUP_ID | codes::SECURITY_GROUP_NOT_FOUND => "network.security_group_ids",
        codes::INVALID_STORAGE_MOUNT | codes::STORAGE_MOUNT_NOT_FOUND => "storage_mounts",
        codes::INVALID_MOUNT_OPTION => "mounts",
        codes::INVALID_TIMEOUT => "timeout",
        codes::INVALID_TOOL_TYPE => "type",
        _ => return None,
    })
}

fn by_api_code(code: &str) -> (Code, String) {
    let is = |parent: &str| codes::is(code, parent);
    if code == codes::FAILED_STORAGE_MOUNT {
        let detail = "Mounting the storage failed: check that it exists under that name and path, and that the role may read it.";
        return (Code::UpstreamError, detail.into());
    }
    let hint = match field_of(code) {
        Some(field) => format!("Check `{field}`."),
        None if ["InvalidParameter", "InvalidParameterValue", "MissingParameter"].into_iter().any(is) => {
            "It did not say which: compare with a request that works; operators find its words in the log.".to_owned()
        }
        None => String::new(),
    };
    let (code, text) = if ["InvalidParameter", "InvalidParameterValue", "MissingParameter", "ResourceNotFound"]
        .into_iter()
        .any(is)
    {
        (Code::ValidationFailed, "The cloud refused a parameter.")
    } else if is("ResourceInUse") {
        (Code::ToolInUse, "The cloud says that it is still in use. Stop what uses it first.")
    } else if is("UnsupportedOperation") {
        (
            Code::InvalidState,
            "The cloud does not support this in the present state: look at the `status` of the instance and of its tool.",
        )
    } else if is("ResourceUnavailable") || is("ResourceInsufficient") {
        (
            Code::UpstreamUnavailable,
            "The cloud has no capacity for this now, or the tool is not usable. Is it ACTIVE? Then try again later.",
        )
    } else {
        (Code::UpstreamError, "The cloud failed. If it does so again, tell the gateway's operators the request's id.")
    };
    (code, format!("{text} {hint}").trim_end().to_owned())
}

/// How the daemon's texts end, which calls whatever the kernel refused `internal` (PROTOCOLS D.6, D.8).
const SYSTEM_ERRORS: [(&str, Code); 14] = [
    ("no such file or directory", Code::NotFound),
    ("permission denied", Code::PermissionDenied),
    ("operation not permitted", Code::PermissionDenied),
    ("read-only file system", Code::PermissionDenied),
    ("no space left on device", Code::NoSpace),
    ("disk quota exceeded", Code::NoSpace),
    ("is a directory", Code::IsADirectory),
    ("not a directory", Code::NotADirectory),
    ("file exists", Code::AlreadyExists),
    ("directory not empty", Code::AlreadyExists),
    ("device or resource busy", Code::InvalidState),
    ("file name too long", Code::ValidationFailed),
    ("invalid argument", Code::ValidationFailed),
    ("invalid cross-device link", Code::ValidationFailed),
];

/// What the kernel said, at the end of the daemon's text.
#[must_use]
pub fn by_system_error(said: &str) -> Option<Code> {
    let said = said.rsplit_once(" (os error ").map_or(said, |(text, _)| text).to_ascii_lowercase();
    SYSTEM_ERRORS.iter().find(|(text, _)| said.ends_with(text)).map(|(_, code)| *code)
}

/// The error for a call into an instance that failed.
#[must_use]
pub fn in_instance(instance: &Instance, error: EnvdError) -> Error {
    let said = error.daemon_message().map(str::to_owned);
    let or = |text: &str| said.clone().unwrap_or_else(|| text.to_owned());
    let mapped = match error.kind() {
        EnvdErrorKind::NotFound => Error::new(Code::NotFound, or("There is no such thing in the sandbox.")),
        EnvdErrorKind::InvalidUser => Error::field("user", or("no such user in the sandbox")),
        EnvdErrorKind::InvalidArgument => Error::new(Code::ValidationFailed, or("The sandbox refused an argument.")),
        EnvdErrorKind::AlreadyExists => Error::new(Code::AlreadyExists, or("It exists already.")),
        EnvdErrorKind::PermissionDenied => {
            Error::new(Code::PermissionDenied, or("The sandbox's user may not do this."))
        }
        EnvdErrorKind::FailedPrecondition => {
            Error::new(Code::InvalidState, or("The sandbox's state does not allow it."))
        }
        EnvdErrorKind::NoSpace => Error::new(Code::NoSpace, "The sandbox's disk is full. Remove files and try again."),
        EnvdErrorKind::Deadline => Error::new(Code::UpstreamTimeout, "The sandbox did not answer in time."),
        EnvdErrorKind::ResourceExhausted => {
            Error::new(Code::UpstreamThrottled, or("The sandbox is asked for too much."))
        }
        EnvdErrorKind::Unavailable | EnvdErrorKind::Gone => {
            let detail = "The sandbox cannot be reached: it may have just ended, or its daemon does not answer.";
            Error::new(Code::UpstreamUnavailable, detail)
        }
        EnvdErrorKind::Unauthenticated => Error::new(Code::UpstreamError, "The sandbox refused the gateway's token."),
        EnvdErrorKind::Internal => {
            let code = said.as_deref().and_then(by_system_error).unwrap_or(Code::UpstreamError);
            Error::new(code, or("The sandbox's daemon failed."))
        }
        _ => Error::new(Code::UpstreamError, or("The sandbox's daemon failed.")),
    };
    let retryable = error.retryable();
    mapped.retryable(retryable).with_sandbox(instance.reference()).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_refused_has_a_code_of_its_own() {
        let cases = [
            ("error opening file '/x': open /x: permission denied", Some(Code::PermissionDenied)),
            ("error opening file '/x': Permission denied (os error 13)", Some(Code::PermissionDenied)),
            ("error renaming: rename /a /b: file exists", Some(Code::AlreadyExists)),
            ("error renaming: Directory not empty (os error 39)", Some(Code::AlreadyExists)),
            ("error writing file: No space left on device (os error 28)", Some(Code::NoSpace)),
            ("error reading file: lstat /f/x: not a directory", Some(Code::NotADirectory)),
            ("error opening 'permission denied': it exploded", None),
            ("", None),
        ];
        for (said, code) in cases {
            assert_eq!(by_system_error(said), code, "{said}");
        }
    }
}
