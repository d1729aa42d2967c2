//! Connect and protobuf types of envd's process and filesystem services, generated from our own
//! `proto/` (field numbers: PROTOCOLS D.12).
//!
//! # Messages
//!
//! [`process`] and [`filesystem`] hold plain structs; `bytes` fields are [`bytes::Bytes`], optional
//! messages are [`buffa::MessageField`] (`MessageField::some(..)`, `Default::default()`), enums are
//! [`buffa::EnumValue`], which keeps numbers it does not know. A oneof is an `Option` of an enum in
//! the module named after its message: [`process::process_event::Event`],
//! [`process::process_selector::Selector`], [`process::process_input::Input`]. They serialize to
//! proto3 JSON with serde and to the wire format with [`buffa::Message`].
//!
//! # Serving
//!
//! Implement [`process::Process`] and [`filesystem::Filesystem`], then mount [`service`]:
//!
//! ```ignore
//! #![allow(refining_impl_trait)] // of the implementing crate: the traits return `impl Encodable`
//!
//! impl Process for Daemon {
//!     async fn start(
//!         &self,
//!         ctx: RequestContext,                        // ctx.headers(), ctx.time_remaining(), ctx.extensions()
//!         request: ServiceRequest<'_, StartRequest>,  // request.to_owned_message()
//!     ) -> ServiceResult<ServiceStream<StartResponse>> {
//!         let events = self.spawn(request.to_owned_message())?; // Stream<Item = Result<StartResponse, ConnectError>>
//!         Response::stream_ok(events)                 // Err(ConnectError::invalid_argument(..)) fails the call
//!     }
//!     // ... a unary method: Response::ok(ListResponse { .. })
//! }
//!
//! let router = connectrpc::Router::new()
//!     .add_service(Arc::new(daemon.clone()))
//!     .add_service(Arc::new(filesystem));
//! let app = axum::Router::new()
//!     .route("/health", get(health))
//!     .fallback_service(envd_proto::service(router));
//! ```
//!
//! The service speaks JSON and protobuf, unary and streaming, by the request's content type. When
//! the caller hangs up the returned stream is dropped; while the caller does not read it is not
//! polled. `Connect-Timeout-Ms` bounds unary calls and the set-up of a stream; the stream itself is
//! the implementation's to end (`ctx.time_remaining()`).

use connectrpc::{CompressionPolicy, ConnectRpcService, Limits, Router};

#[allow(refining_impl_trait)]
mod generated {
    connectrpc::include_generated!();
}

pub use generated::{filesystem, process};

/// Longest message either side accepts, in bytes. A listing of a large tree is one message, and the
/// 4 MiB that connectrpc allows by default hold some 20 000 entries of it.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// The service as envd serves it: messages up to [`MAX_MESSAGE_BYTES`], nothing compressed (envd does
/// not, and a compressor between process and socket would swallow back-pressure).
pub fn service(router: Router) -> ConnectRpcService {
    let limits =
        Limits::default().with_max_request_body_size(MAX_MESSAGE_BYTES).with_max_message_size(MAX_MESSAGE_BYTES);
    ConnectRpcService::new(router).with_compression_policy(CompressionPolicy::disabled()).with_limits(limits)
}
