//! Carries the output of a process from its pipes to the hub.

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio_util::sync::CancellationToken;

use super::hub::{Hub, Output};

/// Longest piece of standard output or error, in bytes.
pub const PIPE_CHUNK: usize = 32 * 1024;
/// Longest piece of a terminal's output, in bytes.
pub const PTY_CHUNK: usize = 16 * 1024;

/// Publishes what is read until the end of the file. Once `stop` is cancelled, only what is already there is
/// published: somebody else may hold the pipe open for long.
pub async fn pump<R>(mut from: R, chunk: usize, wrap: fn(Bytes) -> Output, hub: &Hub, stop: &CancellationToken)
where
    R: AsyncRead + Unpin,
{
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(chunk);
        let mut limited = (&mut buffer).limit(chunk);
        let mut read = std::pin::pin!(from.read_buf(&mut limited));
        let result = tokio::select! {
            biased;
            result = &mut read => result,
            () = stop.cancelled() => match read.now_or_never() {
                Some(result) => result,
                None => return,
            },
        };
        // A terminal whose last process is gone answers with an I/O error: that is its end of file.
        let Ok(1..) = result else {
            return;
        };
        hub.publish(wrap(buffer.split().freeze())).await;
    }
}
