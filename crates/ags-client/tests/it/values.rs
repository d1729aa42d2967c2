//! Enums, times, secrets, timeouts, codes and envelopes.

use std::time::Duration;

use ags_client::envelope::{self, DecodeError, Decoded, Envelope};
use ags_client::types::*;
use ags_client::{codes, timeout};
use chrono::{DateTime, Utc};
use proptest::prelude::*;
use serde_json::json;

#[test]
fn known_and_unknown_enum_values_round_trip() {
    for status in InstanceStatus::KNOWN {
        assert_eq!(&InstanceStatus::from(status.as_str()), status);
        assert!(status.is_known());
    }
    let odd: InstanceStatus = serde_json::from_value(json!("running")).unwrap();
    assert_eq!(odd, InstanceStatus::Unknown("running".into()));
    assert_eq!(serde_json::to_value(&odd).unwrap(), json!("running"));
    assert!(serde_json::from_value::<InstanceStatus>(json!(1)).is_err());
}

fn instance_expiring(at: serde_json::Value) -> SandboxInstance {
    let object = json!({"InstanceId": "i", "ToolId": "t", "ToolName": "n", "Status": "RUNNING", "ExpiresAt": at});
    serde_json::from_value(object).unwrap()
}

#[test]
fn times_are_read_with_any_offset_and_written_as_utc() {
    let expected: DateTime<Utc> = "2026-01-01T00:05:00Z".parse().unwrap();
    for text in ["2026-01-01T00:05:00Z", "2026-01-01T08:05:00+08:00", "2026-01-01T00:05:00.000Z"] {
        let instance = instance_expiring(json!(text));
        assert_eq!(instance.expires_at, Some(expected), "{text}");
        assert_eq!(serde_json::to_value(instance).unwrap()["ExpiresAt"], "2026-01-01T00:05:00Z");
    }
    let fraction = instance_expiring(json!("2026-01-01T00:05:00.094Z"));
    assert_eq!(serde_json::to_value(fraction).unwrap()["ExpiresAt"], "2026-01-01T00:05:00.094Z");
}

#[test]
fn one_odd_time_does_not_hide_the_instance() {
    for odd in [json!(null), json!(""), json!("tomorrow")] {
        assert_eq!(instance_expiring(odd).expires_at, None);
    }
}

#[test]
fn secrets_are_on_the_wire_but_not_in_debug() {
    let token = AcquireSandboxInstanceTokenResponse {
        token: "sit_hush".into(),
        traffic_token: Some("hush".into()),
        expires_at: None,
    };
    let key = CreateApiKeyResponse { api_key: "ark_hush".into(), ..Default::default() };
    let env = EnvVar { name: "PASSWORD".into(), value: "hush".into() };
    assert!(!format!("{token:?} {key:?} {env:?}").contains("hush"));
    let wire = json!({"Token": "sit_hush", "TrafficToken": "hush"});
    assert_eq!(serde_json::to_value(&token).unwrap(), wire);
    assert_eq!(serde_json::from_value::<AcquireSandboxInstanceTokenResponse>(wire).unwrap(), token);
}

#[test]
fn omitted_and_empty_lists_stay_distinct() {
    let request = |metadata| UpdateSandboxInstanceRequest { instance_id: "i".into(), timeout: None, metadata };
    assert_eq!(serde_json::to_value(request(None)).unwrap(), json!({"InstanceId": "i"}));
    assert_eq!(serde_json::to_value(request(Some(vec![]))).unwrap(), json!({"InstanceId": "i", "Metadata": []}));
}

#[test]
fn timeouts_are_read_in_every_documented_form() {
    let cases = [("5m", 300), ("300s", 300), ("1h", 3600), ("5m0s", 300), ("1h0m0s", 3600), ("1h30m", 5400), ("0s", 0)];
    for (text, seconds) in cases {
        assert_eq!(timeout::parse(text), Ok(Duration::from_secs(seconds)), "{text}");
    }
    assert_eq!(timeout::parse("1s500ms"), Ok(Duration::from_millis(1500)));
    let bad = ["", "5", "m", "5x", "-5m", "+5m", "5 m", " 5m", "5m ", "1.5h", "5M", "99999999999999999999s", "5m3"];
    for text in bad {
        assert!(timeout::parse(text).is_err(), "{text:?}");
    }
    assert!(timeout::parse(&format!("{}h", u64::MAX)).is_err());
}

#[test]
fn timeouts_are_rounded_up() {
    assert_eq!(timeout::format(Duration::from_secs(300)), "300s");
    assert_eq!(timeout::format(Duration::from_millis(30_001)), "31s");
}

proptest! {
    #[test]
    fn timeouts_round_trip(seconds in 0_u64..1_000_000_000) {
        let duration = Duration::from_secs(seconds);
        prop_assert_eq!(timeout::parse(&timeout::format(duration)), Ok(duration));
        let go = format!("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60);
        prop_assert_eq!(timeout::parse(&go), Ok(duration));
    }

    #[test]
    fn reading_a_timeout_never_panics(text in any::<String>(), number in any::<u128>(), unit in "[hms]{1,2}") {
        let _ = timeout::parse(&text);
        let _ = timeout::parse(&format!("{number}{unit}{number}{unit}"));
    }
}

#[test]
fn codes_compare_by_segment() {
    assert!(codes::is("ResourceNotFound", codes::RESOURCE_NOT_FOUND));
    assert!(codes::is("ResourceNotFound.SandboxTool", codes::RESOURCE_NOT_FOUND));
    assert!(!codes::is("ResourceNotFoundX", codes::RESOURCE_NOT_FOUND));
    assert!(!codes::is("LimitExceeded", codes::REQUEST_LIMIT_EXCEEDED));
}

#[test]
fn envelopes_are_written_as_the_sdks_expect() {
    let success = Envelope::success(CreateSandboxToolResponse { tool_id: "sdt-1".into() }, "r-1");
    let wire = json!({"Response": {"ToolId": "sdt-1", "RequestId": "r-1"}});
    assert_eq!(serde_json::to_value(success).unwrap(), wire);
    let nothing = Envelope::success(StopSandboxInstanceResponse {}, "r-2");
    assert_eq!(serde_json::to_value(nothing).unwrap(), json!({"Response": {"RequestId": "r-2"}}));
    let failure = Envelope::failure(codes::SANDBOX_TOOL_NOT_FOUND, "no such tool", "r-3");
    let error = json!({"Code": "ResourceNotFound.SandboxTool", "Message": "no such tool"});
    assert_eq!(serde_json::to_value(failure).unwrap(), json!({"Response": {"Error": error, "RequestId": "r-3"}}));
}

#[test]
fn envelopes_are_told_from_other_bodies() {
    let decode = |body: &str| envelope::decode::<CreateSandboxToolResponse>(body.as_bytes());
    let success = decode(r#"{"Response":{"ToolId":"sdt-1","RequestId":"r","Error":null}}"#).unwrap();
    assert!(matches!(success, Decoded::Success { value, request_id }
        if value.tool_id == "sdt-1" && request_id.as_deref() == Some("r")));
    let failure = decode(r#"{"Response":{"Error":{"Code":"InternalError"}}}"#).unwrap();
    assert!(matches!(failure, Decoded::Failure { error, request_id: None } if error.code == "InternalError"));
    let shape = decode(r#"{"Response":{"RequestId":"r"}}"#).unwrap_err();
    assert!(matches!(shape, DecodeError::Shape { request_id: Some(id), .. } if id == "r"));
    for body in ["", "<html>", "null", "{}", "[1]", r#"{"Response":7}"#, r#"{"Response":{"ToolId":"sd"#] {
        assert!(matches!(decode(body).unwrap_err(), DecodeError::NotAnEnvelope(_)), "{body}");
    }
}
