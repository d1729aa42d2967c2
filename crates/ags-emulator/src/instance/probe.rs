//! The readiness probe of a tool with a command of its own (`ProbeConfiguration` of the AGS API).

use std::future::Future;
use std::io;

use http_body_util::Empty;
use hyper::Request;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::{BoxIo, Probe};

/// Probes until it has succeeded `success_threshold` times in a row. A status from 200 to 399 is a
/// success. Failures before `ready_timeout` only start the count again: a program may take its time
/// to start.
///
/// # Errors
/// What the last attempt said when `ready_timeout` was over.
pub async fn succeed<F, D>(probe: &Probe, dial: F) -> Result<(), String>
where
    F: Fn(u16) -> D,
    D: Future<Output = io::Result<BoxIo>>,
{
    let deadline = Instant::now() + probe.ready_timeout;
    let mut successes = 0;
    let mut last = String::from("not tried");
    loop {
        let next = Instant::now() + probe.period;
        match timeout_at(deadline, timeout(probe.timeout, attempt(probe, &dial))).await {
            Ok(Ok(Ok(()))) => successes += 1,
            Ok(Ok(Err(error))) => (successes, last) = (0, error),
            Ok(Err(_)) => (successes, last) = (0, "no answer in time".into()),
            Err(_) => return Err(last),
        }
        if successes >= probe.success_threshold.max(1) {
            return Ok(());
        }
        if next >= deadline {
            return Err(last);
        }
        sleep_until(next).await;
    }
}

async fn attempt<F, D>(probe: &Probe, dial: &F) -> Result<(), String>
where
    F: Fn(u16) -> D,
    D: Future<Output = io::Result<BoxIo>>,
{
    let stream = dial(probe.port).await.map_err(|error| error.to_string())?;
    if probe.scheme.eq_ignore_ascii_case("https") {
        // Certificates inside are nobody's to verify: that the port is served is all there is to know.
        return Ok(());
    }
    let request = Request::get(&probe.path)
        .header("host", format!("127.0.0.1:{}", probe.port))
        .header("user-agent", "ags-emulator-probe")
        .header("connection", "close")
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await;
        drop(sender);
        response
    };
    let (response, _connection) = tokio::join!(exchange, connection);
    let status = response.map_err(|error| error.to_string())?.status();
    match status.as_u16() {
        200..=399 => Ok(()),
        _ => Err(format!("status {status}")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_util::task::TaskTracker;

    use super::*;

    fn probe() -> Probe {
        Probe {
            path: "/up".into(),
            port: 80,
            scheme: "HTTP".into(),
            ready_timeout: Duration::from_millis(300),
            timeout: Duration::from_millis(100),
            period: Duration::from_millis(10),
            success_threshold: 2,
            failure_threshold: 3,
        }
    }

    fn serve(status: &'static str) -> BoxIo {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        TaskTracker::new().spawn(async move {
            let mut request = [0; 512];
            let _length = theirs.read(&mut request).await;
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _closed = theirs.write_all(answer.as_bytes()).await;
        });
        Box::new(ours)
    }

    #[tokio::test]
    async fn successes_in_a_row_are_wanted() {
        let calls = AtomicU32::new(0);
        let result = succeed(&probe(), async |_| match calls.fetch_add(1, Ordering::Relaxed) {
            0 => Err(io::ErrorKind::ConnectionRefused.into()),
            1 => Ok(serve("204 No Content")),
            2 => Ok(serve("503 Service Unavailable")),
            _ => Ok(serve("302 Found")),
        })
        .await;
        assert_eq!(result, Ok(()));
        assert_eq!(calls.load(Ordering::Relaxed), 5);
    }

    #[tokio::test]
    async fn the_last_failure_is_told() {
        let result = succeed(&probe(), async |_| Ok(serve("500 Oops"))).await;
        assert_eq!(result, Err("status 500 Internal Server Error".into()));
    }
}
