//! The generated services on the wire, byte for byte as SDKs speak it (PROTOCOLS D.3, D.4, I.2).

#![allow(refining_impl_trait)]

use std::sync::Arc;

use buffa::{Message, MessageField};
use bytes::Bytes;
use connectrpc::{
    ConnectError, InboundStream, RequestContext, Response, Router, ServiceRequest, ServiceResult, ServiceStream,
};
use envd_proto::process::process_event::data_event::Output;
use envd_proto::process::process_event::{DataEvent, EndEvent, Event, StartEvent};
use envd_proto::process::*;
use futures_util::{StreamExt, stream};
use http::Request;
use http_body_util::{BodyExt, Full};
use tower::ServiceExt;

/// `Start` runs nothing: it prints the command's name and exits with 0.
struct Echo;

fn event(event: Event) -> StartResponse {
    StartResponse { event: MessageField::some(ProcessEvent { event: Some(event) }) }
}

impl Process for Echo {
    async fn start(
        &self,
        _ctx: RequestContext,
        request: ServiceRequest<'_, StartRequest>,
    ) -> ServiceResult<ServiceStream<StartResponse>> {
        let request = request.to_owned_message();
        if request.process.cmd.is_empty() {
            return Err(ConnectError::invalid_argument("no command"));
        }
        let output = Output::Stdout(Bytes::from(request.process.cmd.clone()));
        let events = [
            Event::Start(StartEvent { pid: 7 }),
            Event::Data(DataEvent { output: Some(output) }),
            Event::End(EndEvent { exited: true, status: "exit status 0".into(), ..Default::default() }),
        ];
        Response::stream_ok(stream::iter(events).map(|e| Ok(event(e))))
    }

    async fn send_signal(
        &self,
        _ctx: RequestContext,
        request: ServiceRequest<'_, SendSignalRequest>,
    ) -> ServiceResult<SendSignalResponse> {
        let request = request.to_owned_message();
        match request.signal.as_known() {
            Some(Signal::SIGNAL_SIGKILL) => Response::ok(SendSignalResponse {}),
            _ => Err(ConnectError::not_found("process with pid 7 not found")),
        }
    }

    async fn list(&self, _: RequestContext, _: ServiceRequest<'_, ListRequest>) -> ServiceResult<ListResponse> {
        Err(ConnectError::internal("not served here"))
    }

    async fn connect(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, ConnectRequest>,
    ) -> ServiceResult<ServiceStream<ConnectResponse>> {
        Response::stream_ok(stream::empty())
    }

    async fn update(&self, _: RequestContext, _: ServiceRequest<'_, UpdateRequest>) -> ServiceResult<UpdateResponse> {
        Response::ok(UpdateResponse {})
    }

    async fn stream_input(
        &self,
        _: RequestContext,
        _: InboundStream<StreamInputRequest>,
    ) -> ServiceResult<StreamInputResponse> {
        Response::ok(StreamInputResponse {})
    }

    async fn send_input(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, SendInputRequest>,
    ) -> ServiceResult<SendInputResponse> {
        Response::ok(SendInputResponse {})
    }

    async fn close_stdin(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, CloseStdinRequest>,
    ) -> ServiceResult<CloseStdinResponse> {
        Response::ok(CloseStdinResponse {})
    }
}

struct Reply {
    status: u16,
    content_type: String,
    body: Bytes,
}

async fn call(method: &str, content_type: &str, body: impl Into<Bytes>) -> Reply {
    let request = Request::post(format!("/process.Process/{method}"))
        .header("content-type", content_type)
        .header("connect-protocol-version", "1")
        .header("connect-accept-encoding", "identity")
        .header("connect-content-encoding", "identity")
        .header("accept-encoding", "gzip, zstd, br")
        .body(Full::new(body.into()))
        .unwrap();
    let router = Router::new().add_service(Arc::new(Echo));
    let response = envd_proto::service(router).oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Reply { status, content_type, body }
}

fn envelope(flags: u8, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap();
    [&[flags], &len.to_be_bytes()[..], payload].concat()
}

#[tokio::test]
async fn a_json_stream_is_what_the_sdks_parse() {
    let request = br#"{"process":{"cmd":"echo","args":["a"],"envs":{"K":"v"}},"stdin":false,"unheard":1}"#;
    let reply = call("Start", "application/connect+json", envelope(0, request)).await;

    assert_eq!(reply.status, 200);
    assert_eq!(reply.content_type, "application/connect+json");
    let expected = [
        envelope(0, br#"{"event":{"start":{"pid":7}}}"#),
        envelope(0, br#"{"event":{"data":{"stdout":"ZWNobw=="}}}"#),
        envelope(0, br#"{"event":{"end":{"exited":true,"status":"exit status 0"}}}"#),
        envelope(2, b"{}"),
    ]
    .concat();
    assert_eq!(reply.body.escape_ascii().to_string(), expected.escape_ascii().to_string());
}

#[tokio::test]
async fn a_failed_stream_says_so_in_its_last_frame() {
    let reply = call("Start", "application/connect+json", envelope(0, b"{}")).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.body[0], 2);
    let end: serde_json::Value = serde_json::from_slice(&reply.body[5..]).unwrap();
    assert_eq!(end["error"]["code"], "invalid_argument");
    assert_eq!(end["error"]["message"], "no command");
}

#[tokio::test]
async fn unary_calls_take_enum_names_numbers_and_line_breaks() {
    for body in [
        "{\n  \"process\": {\"pid\": 7},\n  \"signal\": \"SIGNAL_SIGKILL\"\n}",
        r#"{"process":{"tag":"t"},"signal":9}"#,
    ] {
        let reply = call("SendSignal", "application/json", body).await;
        assert_eq!((reply.status, &reply.body[..]), (200, &b"{}"[..]));
        assert_eq!(reply.content_type, "application/json");
    }
}

#[tokio::test]
async fn unary_errors_are_json_with_their_http_status() {
    for content_type in ["application/json", "application/proto"] {
        let body = if content_type.ends_with("json") { &b"{}"[..] } else { b"" };
        let reply = call("SendSignal", content_type, body).await;
        assert_eq!((reply.status, reply.content_type.as_str()), (404, "application/json"));
        let error: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(error["code"], "not_found");
        assert_eq!(error["message"], "process with pid 7 not found");
    }
}

#[tokio::test]
async fn the_binary_codec_uses_the_published_field_numbers() {
    // process(1) { cmd(1) "ls" }, tag(3) "t", stdin(4) false: an explicit default is sent.
    let wire = [0x0a, 4, 0x0a, 2, b'l', b's', 0x1a, 1, b't', 0x20, 0];
    let request = StartRequest {
        process: MessageField::some(ProcessConfig { cmd: "ls".into(), ..Default::default() }),
        tag: Some("t".into()),
        stdin: Some(false),
        ..Default::default()
    };
    assert_eq!(request.encode_to_vec(), wire);

    let reply = call("Start", "application/connect+proto", envelope(0, &wire)).await;
    assert_eq!(reply.content_type, "application/connect+proto");
    // event(1) { start(1) { pid(1) 7 } }
    assert_eq!(&reply.body[..11], &envelope(0, &[0x0a, 4, 0x0a, 2, 8, 7])[..]);

    // end(3) { exit_code(1) is zigzag: -1 is 1, exited(2) stays out as false }
    let end = event(Event::End(EndEvent { exit_code: -1, ..Default::default() }));
    assert_eq!(end.encode_to_vec(), [0x0a, 4, 0x1a, 2, 8, 1]);
}
