//! What the gateway costs a request to a port: the same bytes through the gateway, through a bare hyper-util proxy without
//! auth, and through nginx where it is installed. Prints numbers and judges nothing.
//!
//! ```text
//! cargo build --release --workspace --bins && cargo bench --bench ports [-- --seconds N --rounds N --mib N]
//! ```

#[path = "support/measure.rs"]
mod measure;
#[path = "support/role.rs"]
mod role;
#[path = "support/wait.rs"]
mod wait;

use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ags_emulator::{
    Emulator,
    settings::{Account, Backing, Settings},
};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use devstack::postgres::Temporary;
use http::{Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use self::{
    measure::{Spent, median, option},
    role::{Body, Running, bare, full, listen},
    wait::eventually,
};

const CONNECTIONS: usize = 32;
const WARM_UP: Duration = Duration::from_secs(1);
const SMALL: usize = 128;
const CHUNK: usize = 64 * 1024;
const SECRET_ID: &str = "AKIDBENCHBENCHBENCH0";
const SECRET_KEY: &str = "not-a-secret-of-anything";
const DOMAIN: &str = "sandbox.localhost";
/// Stands for a request's number among a connection's.
const NUMBER: &str = "00000000000000000000000000000000";

fn main() -> Result<()> {
    // Clients cannot be made without; false where there is one already.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match arguments.split_first() {
        Some((role, _)) if role == "upstream" => runtime.block_on(listen(|request| async { upstream(request).await })),
        Some((role, rest)) if role == "bare" => runtime.block_on(bare(rest)),
        _ => runtime.block_on(compare()),
    }
}

/// `/small`, `/down?mib=N`, `/up`: what the sandbox serves.
async fn upstream(request: Request<Incoming>) -> Response<Body> {
    static CONTENT: [u8; CHUNK] = [b'x'; CHUNK];
    match request.uri().path() {
        "/up" => {
            let mut body = request.into_body();
            let mut length = 0;
            while let Some(Ok(frame)) = body.frame().await {
                length += frame.data_ref().map_or(0, Bytes::len);
            }
            Response::new(full(length.to_string()))
        }
        "/down" => {
            let mib: usize = request.uri().query().and_then(|query| query[4..].parse().ok()).unwrap_or(1);
            let chunks = futures_util::stream::iter(
                (0..mib * 16).map(|_| Ok(http_body::Frame::data(Bytes::from_static(&CONTENT)))),
            );
            let mut response = Response::new(http_body_util::StreamBody::new(chunks).boxed());
            response.headers_mut().insert(header::CONTENT_LENGTH, (mib << 20).into());
            response
        }
        _ => Response::new(full(Bytes::from_static(&CONTENT[..SMALL]))),
    }
}

/// One way to the upstream.
struct Way {
    name: &'static str,
    running: Running,
    /// Before the path.
    prefix: String,
    /// `Host` and what else a request needs.
    headers: String,
}

async fn compare() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let upstream = Running::role(&["upstream"])?;
    let bare = Running::role(&["bare", &upstream.address.to_string()])?;
    let database = Temporary::start().await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let emulator = emulator(scratch.path()).await?;
    let (gateway, key) = gateway(scratch.path(), &database, &emulator, upstream.address).await?;
    let id = instance(gateway.address, &key).await?;
    let auth = format!("authorization: Bearer {key}\r\n");
    let by_host = Way {
        name: "gateway, by host",
        prefix: String::new(),
        headers: format!("host: 8000-{id}.{DOMAIN}\r\n{auth}"),
        running: gateway,
    };
    let by_path = (format!("/v1/instances/{id}/ports/8000"), format!("host: localhost\r\n{auth}"));
    let plain = |name, running| Way { name, running, prefix: String::new(), headers: "host: localhost\r\n".to_owned() };
    let mut ways = vec![plain("bare hyper-util proxy", bare), by_host];
    ways.extend(nginx(scratch.path(), upstream.address).await?.map(|running| plain("nginx proxy_pass", running)));
    small(&ways, &by_path, upstream.address).await?;
    large(&ways).await?;
    emulator.shutdown().await;
    Ok(())
}

/// Small GETs over all ways, by turns.
async fn small(ways: &[Way], by_path: &(String, String), upstream: SocketAddr) -> Result<()> {
    let (seconds, rounds) = (option("--seconds", 5)?, option("--rounds", 3)?);
    println!("small GET, {SMALL} bytes, {CONNECTIONS} connections kept alive, {rounds} rounds of {seconds} s:");
    let seconds = Duration::from_secs(seconds as u64);
    let gateway = &ways[1];
    let (path_prefix, path_headers) = by_path;
    let more = [
        ("gateway, by path", path_prefix.as_str(), path_headers.clone()),
        (
            "gateway, by host, traced",
            "",
            format!("{}traceparent: 00-{NUMBER}-0123456789abcdef-01\r\n", gateway.headers),
        ),
        // None is answered by what the one before it found out.
        ("gateway, by host, unlike", "", format!("{}x-number: {NUMBER}\r\n", gateway.headers)),
    ];
    let mut results: Vec<Vec<Rate>> = vec![Vec::new(); ways.len() + more.len()];
    for _ in 0..rounds {
        for (way, results) in ways.iter().zip(&mut results) {
            results.push(rate(&way.running, &way.prefix, &way.headers, seconds).await?);
        }
        for ((_, prefix, headers), results) in more.iter().zip(&mut results[ways.len()..]) {
            results.push(rate(&gateway.running, prefix, headers, seconds).await?);
        }
    }
    let names = ways.iter().map(|way| way.name).chain(more.iter().map(|way| way.0));
    let bare = median(results[0].iter().map(|rate| rate.per_second));
    for (name, rates) in names.zip(&results) {
        let per_second = median(rates.iter().map(|rate| rate.per_second));
        let ratio = median(rates.iter().zip(&results[0]).map(|(rate, bare)| rate.per_second / bare.per_second));
        let cpu = median(rates.iter().map(|rate| rate.cpu_micros));
        println!(
            "  {name:<26}{per_second:>9.0} /s  {:>5.1} % of bare ({:.1} % in the median round)  {cpu:>5.1} µs of CPU each",
            per_second / bare * 100.0,
            ratio * 100.0
        );
    }
    let direct = requests(upstream, "", "host: localhost\r\n", seconds).await?;
    println!("  {:<26}{direct:>9.0} /s", "upstream itself");
    Ok(())
}

/// One stream, over all ways.
async fn large(ways: &[Way]) -> Result<()> {
    let (mib, rounds) = (option("--mib", 1024)?, option("--rounds", 3)?);
    println!("{mib} MiB in one stream, {rounds} rounds:");
    for direction in ["down", "up"] {
        let mut results: Vec<Vec<(f64, Spent)>> = vec![Vec::new(); ways.len()];
        for _ in 0..rounds {
            for (way, results) in ways.iter().zip(&mut results) {
                results.push(transfer(way, direction, mib).await?);
            }
        }
        let bare = median(results[0].iter().map(|(speed, _)| *speed));
        for (way, results) in ways.iter().zip(&results) {
            let speed = median(results.iter().map(|(speed, _)| *speed));
            let cpu = median(results.iter().map(|(_, spent)| spent.cpu_seconds));
            let growth = results.iter().map(|(_, spent)| spent.growth).max().unwrap_or_default();
            println!(
                "  {direction:<5}{:<24}{speed:>7.0} MiB/s  {:>5.1} % of bare  {cpu:.2} s of CPU  memory +{growth} KiB",
                way.name,
                speed / bare * 100.0
            );
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Rate {
    per_second: f64,
    /// Of the process on the way, per request.
    cpu_micros: f64,
}

async fn rate(running: &Running, prefix: &str, headers: &str, time: Duration) -> Result<Rate> {
    let process = running.process();
    let begun = process.begin()?;
    let per_second = requests(running.address, prefix, headers, time).await?;
    let requests = per_second * (time + WARM_UP).as_secs_f64();
    Ok(Rate { per_second, cpu_micros: begun.end()?.cpu_seconds * 1e6 / requests })
}

/// Requests per second over kept connections, each with one request under way.
async fn requests(address: SocketAddr, prefix: &str, headers: &str, time: Duration) -> Result<f64> {
    let request = format!("GET {prefix}/small HTTP/1.1\r\n{headers}\r\n");
    let own = request.find(NUMBER);
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (mut request, done, stop) = (request.clone().into_bytes(), Arc::clone(&done), Arc::clone(&stop));
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut buffer = vec![0; 4096];
            let mut number = 1;
            while !stop.load(Ordering::Relaxed) {
                if let Some(own) = own {
                    request[own..own + NUMBER.len()].copy_from_slice(format!("{number:032x}").as_bytes());
                }
                stream.write_all(&request).await?;
                small_answer(&mut stream, &mut buffer).await?;
                number = 1 + done.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    tokio::time::sleep(WARM_UP).await;
    let (begun, before) = (Instant::now(), done.load(Ordering::Relaxed));
    tokio::time::sleep(time).await;
    let (elapsed, after) = (begun.elapsed(), done.load(Ordering::Relaxed));
    stop.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client??;
    }
    Ok((after - before) as f64 / elapsed.as_secs_f64())
}

async fn small_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        ensure!(read > 0, "the connection was closed");
        filled += read;
        let answer = &buffer[..filled];
        if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(answer));
            if filled - end - 4 == SMALL {
                return Ok(());
            }
        }
    }
}

/// MiB per second of one stream, and what it cost the process on the way.
async fn transfer(way: &Way, direction: &str, mib: usize) -> Result<(f64, Spent)> {
    let process = way.running.process();
    let spent = process.begin()?;
    let mut stream = TcpStream::connect(way.running.address).await?;
    let (length, begun) = (mib << 20, Instant::now());
    let mut buffer = vec![b'x'; 256 * 1024];
    let head = match direction {
        "down" => format!("GET {}/down?mib={mib} HTTP/1.1\r\n{}\r\n", way.prefix, way.headers),
        _ => format!("PUT {}/up HTTP/1.1\r\n{}content-length: {length}\r\n\r\n", way.prefix, way.headers),
    };
    stream.write_all(head.as_bytes()).await?;
    let mut left = length;
    if direction == "down" {
        while left > 0 {
            let read = stream.read(&mut buffer).await?;
            ensure!(read > 0, "the download broke off");
            left = left.saturating_sub(read);
        }
    } else {
        while left > 0 {
            let part = left.min(buffer.len());
            stream.write_all(&buffer[..part]).await?;
            left -= part;
        }
        let read = stream.read(&mut buffer).await?;
        ensure!(buffer[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..read]));
    }
    Ok((mib as f64 / begun.elapsed().as_secs_f64(), spent.end()?))
}

async fn emulator(scratch: &Path) -> Result<Emulator> {
    let mut settings = Settings::new(scratch.join("emulator"));
    settings.accounts =
        vec![Account { secret_id: SECRET_ID.into(), secret_key: SECRET_KEY.to_owned().into(), token: None }];
    settings.domain = "ags.localhost".into();
    settings.backing = Backing::Nothing;
    Ok(Emulator::start(settings).await?)
}

/// The gateway as it is shipped, and a key of a team. Its data plane is the bench's own upstream.
async fn gateway(
    scratch: &Path,
    database: &Temporary,
    emulator: &Emulator,
    upstream: SocketAddr,
) -> Result<(Running, String)> {
    database.postgres().create_database("bench").await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let ready = scratch.join("ready.json");
    let variables = [
        ("SERVER__LISTEN", "127.0.0.1:0".to_owned()),
        ("SERVER__SANDBOX_DOMAIN", DOMAIN.to_owned()),
        ("DATABASE__URL", database.postgres().url("bench")),
        ("AUTH__SECRET", "0123456789abcdef0123456789abcdef-for-benches".to_owned()),
        ("TOOLS__SHARED", "code-interpreter-v1".to_owned()),
        ("LOG__FORMAT", "json".to_owned()),
        ("UPSTREAM_DEFAULTS__REGION", "ap-guangzhou".to_owned()),
        ("UPSTREAM_DEFAULTS__ENDPOINT", emulator.url()),
        ("UPSTREAM_DEFAULTS__DOMAIN", "ags.localhost".to_owned()),
        ("UPSTREAM_DEFAULTS__SCHEME", "http".to_owned()),
        ("UPSTREAM_DEFAULTS__CONNECT_TO", upstream.to_string()),
        ("UPSTREAM_DEFAULTS__CREDENTIALS__SECRET_ID", SECRET_ID.to_owned()),
        ("UPSTREAM_DEFAULTS__CREDENTIALS__SECRET_KEY", SECRET_KEY.to_owned()),
    ];
    let command = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ags-gateway"));
        command.args(arguments).envs(variables.iter().map(|(name, value)| (format!("AGS_GATEWAY__{name}"), value)));
        command
    };
    let output = |arguments: &[&str]| -> Result<String> {
        let output = command(arguments).stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "{arguments:?} failed");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    output(&["migrate"])?;
    output(&["teams", "create", "bench"])?;
    let key = output(&["keys", "create", "--team", "bench", "--name", "bench"])?;
    let log = std::fs::File::create(scratch.join("gateway.log"))?;
    let file = ready.to_string_lossy();
    let child = command(&["serve", "--ready-file", &file]).stderr(log).stdout(Stdio::null()).spawn()?;
    let mut running = Running { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
    let url = || -> Option<String> {
        let value: serde_json::Value = serde_json::from_slice(&std::fs::read(&ready).ok()?).ok()?;
        value["url"].as_str().map(str::to_owned)
    };
    running.address = eventually(url).await?.trim_start_matches("http://").parse()?;
    Ok((running, key))
}

async fn instance(gateway: SocketAddr, key: &str) -> Result<String> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let request = client.post(format!("http://{gateway}/v1/instances")).bearer_auth(key);
    let body = serde_json::json!({"tool": "code-interpreter-v1", "timeout": "1h"});
    let answer: serde_json::Value = request.json(&body).send().await?.error_for_status()?.json().await?;
    Ok(answer["id"].as_str().context("id")?.to_owned())
}

/// nginx as a plain reverse proxy with kept connections, a process for each core; `None` where it is not installed.
async fn nginx(scratch: &Path, upstream: SocketAddr) -> Result<Option<Running>> {
    let found = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx"].map(PathBuf::from);
    let Some(program) = found.into_iter().find(|path| path.exists()) else { return Ok(None) };
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let root = scratch.join("nginx");
    std::fs::create_dir_all(root.join("tmp"))?;
    let (root, config) = (root.display().to_string(), scratch.join("nginx.conf"));
    let text = format!(
        "daemon off; worker_processes auto; pid {root}/pid; error_log {root}/error.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log {root}/access.log; client_max_body_size 0; proxy_request_buffering off; proxy_buffering off;\n\
         client_body_temp_path {root}/tmp; proxy_temp_path {root}/tmp; fastcgi_temp_path {root}/tmp; uwsgi_temp_path {root}/tmp;\n\
         scgi_temp_path {root}/tmp; keepalive_requests 1000000000;\n\
         upstream up {{ server {upstream}; keepalive {CONNECTIONS}; keepalive_requests 1000000000; }}\n\
         server {{ listen {free}; location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n"
    );
    std::fs::write(&config, text)?;
    let child = Command::new(program).args(["-p", &root, "-c"]).arg(&config).stdout(Stdio::null()).spawn()?;
    let running = Running { child, address: free };
    eventually(|| std::net::TcpStream::connect(free).ok()).await?;
    Ok(Some(running))
}
