//! Client of the sandbox data plane: processes, terminals, filesystem and files, and the code interpreter.
//!
//! A [`Transport`] is made once per region and shared; an [`EnvdClient`] or a [`CodeClient`] is made per instance, or
//! per call. RPCs go out as Connect in binary protobuf over HTTP/1.1 (with framing of our own: `rpc.rs`
//! says why), file contents over envd's plain HTTP. Streams have no total time limit, only one on
//! silence, and end at both sides when they are dropped. Nothing is retried here: [`EnvdError`] tells
//! whether a retry is safe.

mod client;
mod code;
mod connector;
mod endpoint;
mod error;
mod files;
mod filesystem;
mod frame;
mod framing;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gunzip;
mod idle;
mod kept;
mod measure;
mod process;
mod rpc;
mod transport;
mod watch;

pub use client::EnvdClient;
pub use code::{CODE_PORT, CodeClient, CodeContext, CodeEvent, CodeResult, CodeRun, CodeStream, TrafficToken};
pub use endpoint::{ENVD_PORT, Endpoint};
pub use error::{EnvdError, EnvdErrorKind};
pub use files::{Download, DownloadBody, UploadedFile};
pub use filesystem::{EntryInfo, EntryKind};
pub use framing::RawHead;
pub use kept::{Bodiless, FetchError, Fetched, Stencil};
pub use measure::Measured;
pub use process::{EventStream, Input, ProcessEvent, ProcessInfo, PtySize, Selector, Signal, StartSpec};
pub use transport::{Body, Transport, TransportSettings, empty, full, stream};
pub use watch::{ChangeKind, WatchEvent, WatchSpec, WatchStream};
