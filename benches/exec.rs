//! Commands through the gateway, against the same commands asked of the sandbox's daemon without it. Prints numbers, asserts
//! nothing.
//!
//! ```text
//! cargo build --release --workspace --bins && cargo bench --bench exec [-- --mib N --rounds N --echoes N --sockets N]
//! ```
//!
//! The stack is that of `ags-gateway dev`, in processes of their own.

#[path = "support/measure.rs"]
mod measure;
#[path = "support/stack.rs"]
mod stack;
#[path = "support/wait.rs"]
mod wait;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use envd_client::{EnvdClient, ProcessEvent, StartSpec};
use futures_util::{SinkExt, StreamExt, future};
use http::{HeaderValue, header};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        protocol::{CloseFrame, WebSocketConfig},
    },
};

use self::{
    measure::{Process, Spent, median, option},
    stack::{Instance, Stack},
};

const LINE: &str = "0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXY";
const VIEWERS: usize = 10;
/// For what was opened to settle, before it counts as idle.
const SETTLE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(2);
/// Commands that the idle sockets look on at.
const IDLE_EXECS: usize = 20;
const OPENING_AT_ONCE: usize = 50;

fn main() -> Result<()> {
    // Clients cannot be made without; false where there is one already.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Runtime::new()?.block_on(run())
}

async fn run() -> Result<()> {
    let stack = Stack::start().await?;
    let instance = stack.instance().await?;
    let bench = Bench {
        daemon: EnvdClient::new(instance.transport.clone(), &instance.upstream_id, Some(&instance.token))?,
        client: reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?,
        process: stack.gateway()?,
        stack,
        instance,
    };
    bench.echoes(option("--echoes", 300)?).await?;
    bench.output(option("--mib", 500)? << 20, option("--rounds", 3)?).await?;
    bench.viewers(option("--mib", 500)? << 18, option("--rounds", 3)?).await?;
    bench.sockets(option("--sockets", 5000)?).await
}

struct Bench {
    daemon: EnvdClient,
    client: reqwest::Client,
    process: Process,
    stack: Stack,
    instance: Instance,
}

type Socket = WebSocketStream<TcpStream>;

impl Bench {
    /// Milliseconds from the request to the first byte of what `echo` prints, and to its end.
    async fn echoes(&self, rounds: usize) -> Result<()> {
        let command = json!(["/bin/echo", "hello"]);
        let (mut direct, mut streamed, mut waited) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=rounds {
            // One each for nothing. The way that each follows on is the same, so that what it leaves behind is, too.
            let took = (self.direct(&spec(&command)?).await?, self.stream(&command).await?, self.wait(&command).await?);
            if round > 0 {
                direct.push(took.0);
                streamed.push(took.1);
                waited.push(took.2);
            }
        }
        let middle = |taken: &[Taken], of: fn(&Taken) -> Duration| {
            median(taken.iter().map(|taken| of(taken).as_secs_f64() * 1000.0))
        };
        let first: fn(&Taken) -> Duration = |taken| taken.first;
        let whole: fn(&Taken) -> Duration = |taken| taken.whole;
        println!("echo, medians of {rounds}, each way by turns:");
        for (name, taken) in [("straight", &direct), ("gateway, streaming", &streamed), ("gateway, waiting", &waited)] {
            println!(
                "  {name:<20} first byte {:.2} ms ({:+.2})   end {:.2} ms ({:+.2})",
                middle(taken, first),
                middle(taken, first) - middle(&direct, if name.ends_with("waiting") { whole } else { first }),
                middle(taken, whole),
                middle(taken, whole) - middle(&direct, whole),
            );
        }
        Ok(())
    }

    /// What one viewer gets per second of what a command prints as fast as it can.
    async fn output(&self, size: usize, rounds: usize) -> Result<()> {
        let command = json!(["/bin/sh", "-c", format!("yes '{LINE}' | head -c {size}")]);
        println!("{} MiB of output to one viewer, medians of {rounds}:", size >> 20);
        let ways = ["straight", "gateway, lines of JSON", "gateway, WebSocket"];
        let mut results: [Vec<(f64, Spent)>; 3] = Default::default();
        for _ in 0..rounds {
            for (way, results) in results.iter_mut().enumerate() {
                let begun = self.process.begin()?;
                let (seconds, bytes) = match way {
                    0 => {
                        let taken = self.direct(&spec(&command)?).await?;
                        (taken.whole.as_secs_f64(), taken.bytes)
                    }
                    1 => {
                        let taken = self.stream(&command).await?;
                        (taken.whole.as_secs_f64(), taken.bytes)
                    }
                    _ => self.socket(&command).await?,
                };
                ensure!(bytes >= size, "{}: {bytes} bytes", ways[way]);
                results.push((seconds, begun.end()?));
            }
        }
        let seconds = |taken: &[(f64, Spent)]| median(taken.iter().map(|(seconds, _)| *seconds));
        for (name, taken) in ways.iter().zip(&results) {
            println!(
                "  {name:<24}{:>6.0} MiB/s  {:>5.1} % of straight   {:.2} s of CPU in the gateway, memory +{} KiB",
                (size >> 20) as f64 / seconds(taken),
                seconds(&results[0]) / seconds(taken) * 100.0,
                median(taken.iter().map(|(_, spent)| spent.cpu_seconds)),
                taken.iter().map(|(_, spent)| spent.growth).max().unwrap_or_default(),
            );
        }
        Ok(())
    }

    /// One command, one viewer or several.
    async fn viewers(&self, size: usize, rounds: usize) -> Result<()> {
        println!("{} MiB of output of one command to its viewers over WebSockets, medians of {rounds}:", size >> 20);
        let mut results: Vec<(Vec<f64>, Vec<f64>)> = vec![Default::default(); 2];
        let mut gaps = 0;
        for _ in 0..rounds {
            for (viewers, results) in [1, VIEWERS].into_iter().zip(&mut results) {
                let shown = self.watched(size, viewers).await?;
                results.0.push(shown.seconds);
                results.1.push(shown.cpu_seconds);
                gaps += shown.missed;
            }
        }
        let of = |place: usize| (median(results[place].0.clone()), median(results[place].1.clone()));
        let (one, many) = (of(0), of(1));
        println!("  1 viewer     {:.2} s, {:.2} s of CPU in the gateway", one.0, one.1);
        println!(
            "  {VIEWERS} viewers   {:.2} s ({:.1} times one), {:.2} s of CPU ({:.1} times one); {gaps} bytes told as gaps",
            many.0,
            many.0 / one.0,
            many.1,
            many.1 / one.1
        );
        Ok(())
    }

    async fn watched(&self, size: usize, viewers: usize) -> Result<Shown> {
        // It waits for a line, so that all look on before it begins.
        let line = format!("read go; yes '{LINE}' | head -c {size}");
        let exec = self.background(&json!({"cmd": ["/bin/sh", "-c", line], "stdin": true, "background": true})).await?;
        let mut sockets = Vec::new();
        for _ in 0..viewers {
            sockets.push(self.attach(&exec).await?);
        }
        let (begun, since) = (self.process.begin()?, Instant::now());
        let go = self.post(&format!("execs/{exec}/stdin")).body("\n");
        go.send().await?.error_for_status()?;
        let mut missed = 0;
        for seen in future::try_join_all(sockets.into_iter().map(read)).await? {
            ensure!(seen.bytes + seen.missed == size, "{} bytes and {} told as gaps", seen.bytes, seen.missed);
            missed += seen.missed;
        }
        Ok(Shown { seconds: since.elapsed().as_secs_f64(), cpu_seconds: begun.end()?.cpu_seconds, missed })
    }

    /// Memory of the gateway per socket that looks on at a command which prints nothing.
    async fn sockets(&self, count: usize) -> Result<()> {
        let sleep = json!({"cmd": ["/bin/sleep", "600"], "background": true});
        let mut execs = Vec::new();
        for _ in 0..IDLE_EXECS.min(count.max(1)) {
            execs.push(self.background(&sleep).await?);
        }
        // The first few are for what is set up once.
        let mut open = JoinSet::new();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        self.open(&execs, OPENING_AT_ONCE, &mut open, &stopped).await?;
        tokio::time::sleep(SETTLE).await;
        let begun = self.process.begin()?;
        self.open(&execs, count, &mut open, &stopped).await?;
        tokio::time::sleep(SETTLE).await;
        let spent = begun.end()?;
        println!(
            "{count} idle WebSockets, attached to {} commands: {:.1} KiB of the gateway's memory each ({} KiB in all)",
            execs.len(),
            spent.growth as f64 / count as f64,
            spent.growth
        );
        ensure!(open.try_join_next().is_none(), "a socket was closed");
        stop.send(true)?;
        while let Some(closed) = open.join_next().await {
            closed??;
        }
        Ok(())
    }

    async fn open(
        &self,
        execs: &[String],
        count: usize,
        open: &mut JoinSet<Result<()>>,
        stopped: &tokio::sync::watch::Receiver<bool>,
    ) -> Result<()> {
        for first in (0..count).step_by(OPENING_AT_ONCE) {
            let batch = (first..count.min(first + OPENING_AT_ONCE)).map(|n| self.attach(&execs[n % execs.len()]));
            for socket in future::try_join_all(batch).await? {
                open.spawn(idle(socket, stopped.clone()));
            }
        }
        Ok(())
    }

    async fn direct(&self, spec: &StartSpec) -> Result<Taken> {
        let since = Instant::now();
        let mut events = self.daemon.start(spec.clone()).await?;
        let (mut first, mut bytes) = (None, 0);
        while let Some(event) = events.next().await {
            if let ProcessEvent::Stdout(data) = event? {
                first.get_or_insert_with(|| since.elapsed());
                bytes += data.len();
            }
        }
        let taken = Taken { first: first.context("output")?, whole: since.elapsed(), bytes };
        tokio::time::sleep(PAUSE).await;
        Ok(taken)
    }

    async fn stream(&self, command: &Value) -> Result<Taken> {
        let request = self.post("exec").header(header::ACCEPT, "application/x-ndjson").json(&json!({"cmd": command}));
        let since = Instant::now();
        let mut pieces = request.send().await?.error_for_status()?.bytes_stream();
        let (mut first, mut bytes, mut last) = (None, 0, bytes::Bytes::new());
        while let Some(piece) = pieces.next().await {
            last = piece?;
            bytes += last.len();
            // What comes before is the one short event that it runs.
            if first.is_none() && contains(&last, br#""type":"stdout""#) {
                first = Some(since.elapsed());
            }
        }
        ensure!(contains(&last, br#""type":"exit","exit_code":0"#), "the command did not end well");
        let taken = Taken { first: first.context("output")?, whole: since.elapsed(), bytes };
        tokio::time::sleep(PAUSE).await;
        Ok(taken)
    }

    async fn wait(&self, command: &Value) -> Result<Taken> {
        let request = self.post("exec").json(&json!({"cmd": command}));
        let since = Instant::now();
        let answer: Value = request.send().await?.error_for_status()?.json().await?;
        let whole = since.elapsed();
        ensure!(answer["stdout"] == "hello\n", "{answer}");
        tokio::time::sleep(PAUSE).await;
        Ok(Taken { first: whole, whole, bytes: 0 })
    }

    /// Seconds, and bytes of output, of a command that is started over a WebSocket.
    async fn socket(&self, command: &Value) -> Result<(f64, usize)> {
        let since = Instant::now();
        let mut socket = self.connect("exec/ws").await?;
        socket.send(Message::text(json!({"type": "start", "cmd": command}).to_string())).await?;
        let seen = read(socket).await?;
        Ok((since.elapsed().as_secs_f64(), seen.bytes + seen.missed))
    }

    fn post(&self, rest: &str) -> RequestBuilder {
        // The stack has told both when it was started.
        let (url, key) = (self.stack.url().unwrap_or_default(), self.stack.key().unwrap_or_default());
        self.client.post(format!("{url}/v1/instances/{}/{rest}", self.instance.id)).bearer_auth(key)
    }

    async fn background(&self, request: &Value) -> Result<String> {
        let exec: Value = self.post("exec").json(request).send().await?.error_for_status()?.json().await?;
        exec["id"].as_str().map(str::to_owned).with_context(|| format!("an exec: {exec}"))
    }

    async fn attach(&self, exec: &str) -> Result<Socket> {
        self.connect(&format!("execs/{exec}/ws?role=viewer")).await
    }

    async fn connect(&self, rest: &str) -> Result<Socket> {
        let address = self.stack.url()?.trim_start_matches("http://");
        let url = format!("ws://{address}/v1/instances/{}/{rest}", self.instance.id);
        let mut request = url.into_client_request()?;
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {}", self.stack.key()?))?);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("ags.exec.v1.bin"));
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let config = WebSocketConfig::default().read_buffer_size(16 << 10);
        Ok(client_async_with_config(request, stream, Some(config)).await?.0)
    }
}

fn spec(command: &Value) -> Result<StartSpec> {
    let words: Vec<String> = serde_json::from_value(command.clone())?;
    let (cmd, args) = words.split_first().context("a command")?;
    Ok(StartSpec { cmd: cmd.clone(), args: args.to_vec(), user: Some("user".to_owned()), ..StartSpec::default() })
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

/// When the first byte of output was there, and all of it.
#[derive(Clone, Copy)]
struct Taken {
    first: Duration,
    whole: Duration,
    /// As they came: of output, or of the events that carry it.
    bytes: usize,
}

struct Shown {
    seconds: f64,
    cpu_seconds: f64,
    missed: usize,
}

/// What one viewer saw.
struct Seen {
    bytes: usize,
    /// Told as gaps.
    missed: usize,
}

async fn read(mut socket: Socket) -> Result<Seen> {
    let mut seen = Seen { bytes: 0, missed: 0 };
    while let Some(message) = socket.next().await {
        match message? {
            // A byte for the stream, a byte for the length of the cursor, the cursor, the output.
            Message::Binary(frame) => seen.bytes += frame.len() - 2 - usize::from(frame[1]),
            Message::Text(text) => {
                let event: Value = serde_json::from_str(&text)?;
                seen.missed += event["bytes"].as_u64().unwrap_or_default() as usize;
                if event["type"] == "error" {
                    bail!("{event}");
                }
            }
            Message::Close(Some(CloseFrame { code, reason })) => {
                ensure!(u16::from(code) == 1000, "closed with {code}: {reason}");
            }
            _ => {}
        }
    }
    Ok(seen)
}

/// Answers pings until told to stop.
async fn idle(mut socket: Socket, mut stopped: tokio::sync::watch::Receiver<bool>) -> Result<()> {
    loop {
        tokio::select! {
            message = socket.next() => {
                message.context("the socket was closed")??;
            }
            _ = stopped.changed() => return Ok(socket.close(None).await?),
        }
    }
}
