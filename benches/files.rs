//! Files up and down through the gateway, against the same bytes without it: straight to the sandbox's daemon, and through a
//! bare hyper-util proxy. Prints numbers, asserts nothing.
//!
//! ```text
//! cargo build --release --workspace --bins && cargo bench --bench files [-- --mib N --rounds N]
//! ```
//!
//! Everything runs as processes of its own: the stack of `ags-gateway dev`, and the proxy (this program with `bare`). The
//! ways take turns, so that a busy machine is busy for all of them.

#[path = "support/measure.rs"]
mod measure;
#[path = "support/role.rs"]
mod role;
#[path = "support/stack.rs"]
mod stack;
#[path = "support/wait.rs"]
mod wait;

use std::{convert::Infallible, time::Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use envd_client::ENVD_PORT;
use futures_util::{StreamExt, stream};
use http::{HeaderName, HeaderValue, Method, header};
use secrecy::ExposeSecret;

use self::{
    measure::{Process, Spent, median, option},
    role::{Running, bare},
    stack::Stack,
};

const PIECE: usize = 256 << 10;
const TOKEN: HeaderName = HeaderName::from_static("x-access-token");

fn main() -> Result<()> {
    // Clients cannot be made without; false where there is one already.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((role, rest)) if role == "bare" => runtime.block_on(bare(rest)),
        _ => runtime.block_on(compare()),
    }
}

/// One way to the file.
struct Way {
    name: &'static str,
    base: String,
    /// Path of the request, and what it needs.
    path: String,
    upload: Method,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// What the way leads through.
    process: Option<Process>,
}

async fn compare() -> Result<()> {
    let (size, rounds) = (option("--mib", 1024)? << 20, option("--rounds", 3)?);
    let stack = Stack::start().await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let instance = stack.instance().await?;
    let endpoint = instance.transport.endpoint();
    let emulator = endpoint.connect_to.as_ref().context("connect_to")?.to_string();
    let host = endpoint.authority(&instance.upstream_id, ENVD_PORT)?.to_string();
    let token = instance.token.expose_secret();
    let proxy = Running::role(&["bare", &emulator, header::HOST.as_str(), &host, TOKEN.as_str(), token])?;

    let daemon = |name, base, headers, process| Way {
        name,
        base,
        path: "/files?path=/tmp/bench&username=user".to_owned(),
        upload: Method::POST,
        headers,
        process,
    };
    let direct = vec![(header::HOST, HeaderValue::from_str(&host)?), (TOKEN, HeaderValue::from_str(token)?)];
    let ways = [
        daemon("straight", format!("http://{emulator}"), direct, None),
        daemon("bare proxy", format!("http://{}", proxy.address), Vec::new(), Some(proxy.process())),
        Way {
            name: "gateway",
            base: stack.url()?.to_owned(),
            path: format!("/v1/instances/{}/files?path=/tmp/bench", instance.id),
            upload: Method::PUT,
            headers: vec![(header::AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {}", stack.key()?))?)],
            process: Some(stack.gateway()?),
        },
    ];
    println!("{} MiB, {rounds} rounds; medians", size >> 20);
    for up in [true, false] {
        let mut results: Vec<Vec<Taken>> = ways.iter().map(|_| Vec::new()).collect();
        // One round for nothing: connections, caches, allocators.
        for round in 0..=rounds {
            for (way, results) in ways.iter().zip(&mut results) {
                let taken = transfer(&client, way, size, up).await?;
                if round > 0 {
                    results.push(taken);
                }
            }
        }
        report(if up { "up" } else { "down" }, &ways, &results, size);
    }
    Ok(())
}

/// What one transfer took, and the process on the way.
#[derive(Clone, Copy)]
struct Taken {
    seconds: f64,
    spent: Spent,
}

async fn transfer(client: &reqwest::Client, way: &Way, size: usize, up: bool) -> Result<Taken> {
    let begun = way.process.as_ref().map(Process::begin).transpose()?;
    let since = Instant::now();
    if up {
        send(client, way, size).await?
    } else {
        receive(client, way, size).await?
    }
    let seconds = since.elapsed().as_secs_f64();
    Ok(Taken { seconds, spent: begun.map(|begun| begun.end()).transpose()?.unwrap_or_default() })
}

fn report(direction: &str, ways: &[Way], results: &[Vec<Taken>], size: usize) {
    let rate = |taken: &Vec<Taken>| (size >> 20) as f64 / median(taken.iter().map(|taken| taken.seconds));
    let rates: Vec<f64> = results.iter().map(rate).collect();
    for ((way, rate), taken) in ways.iter().zip(&rates).zip(results) {
        let cpu = median(taken.iter().map(|taken| taken.spent.cpu_seconds));
        let growth = taken.iter().map(|taken| taken.spent.growth).max().unwrap_or_default();
        println!(
            "{direction:5} {:12} {rate:6.0} MiB/s   {cpu:5.2} s of CPU   at most {growth} KiB more memory   {:3.0} % of the bare proxy",
            way.name,
            100.0 * rate / rates[1]
        );
    }
}

async fn send(client: &reqwest::Client, way: &Way, size: usize) -> Result<()> {
    let piece = Bytes::from(vec![0xa5; PIECE]);
    let pieces = stream::iter((0..size / PIECE).map(move |_| Ok::<_, Infallible>(piece.clone())));
    let request = request(client, way, way.upload.clone())
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .body(reqwest::Body::wrap_stream(pieces));
    let response = request.send().await?;
    let status = response.status();
    let text = response.text().await?;
    ensure!(status.is_success(), "{}: {status} {text}", way.name);
    Ok(())
}

async fn receive(client: &reqwest::Client, way: &Way, size: usize) -> Result<()> {
    let request = request(client, way, Method::GET).header(header::ACCEPT_ENCODING, "identity");
    let mut pieces = request.send().await?.error_for_status()?.bytes_stream();
    let mut received = 0;
    while let Some(piece) = pieces.next().await {
        received += piece?.len();
    }
    ensure!(received == size, "{}: {received} bytes", way.name);
    Ok(())
}

fn request(client: &reqwest::Client, way: &Way, method: Method) -> reqwest::RequestBuilder {
    way.headers.iter().fold(client.request(method, format!("{}{}", way.base, way.path)), |request, (name, value)| {
        request.header(name, value)
    })
}
