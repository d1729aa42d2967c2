//! Large files, through a gateway that is a process of its own: its memory is what the kernel says.

use std::fs;

use bytes::Bytes;
use futures_util::stream;
use http::Method;
use nix::sys::signal::Signal;
use reqwest::{Body, Response};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::sandbox::noise;
use crate::{
    dev::{Dev, api},
    harness::{self, Api, read},
};

/// Larger than what the connections on the way hold.
const SMALL: usize = 16 << 20;
const LARGE: usize = 256 << 20;
const PIECE: usize = 64 << 10;
/// Of the gateway's memory, in KiB.
const MAX_GROWTH: u64 = 16 << 10;

/// Noise in which no two places are alike for long.
fn pieces(size: usize) -> impl Iterator<Item = Bytes> + Send + 'static {
    let noise = Bytes::from(noise(PIECE + 4096));
    (0..size / PIECE).map(move |number| {
        let start = number * 7 % 4096;
        noise.slice(start..start + PIECE)
    })
}

fn body(size: usize) -> Body {
    Body::wrap_stream(stream::iter(pieces(size).map(Ok::<_, std::convert::Infallible>)))
}

async fn digest(mut response: Response) -> String {
    let mut hasher = Sha256::new();
    while let Some(chunk) = response.chunk().await.expect("no broken stream") {
        hasher.update(&chunk);
    }
    hex::encode(hasher.finalize())
}

/// The most memory that a process has had so far, in KiB. The kernel notes it when memory is given back only, and counts
/// in steps per thread until then: a later answer can be a little smaller.
fn peak(pid: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A file of that size up and down, some that nobody reads, and an archive.
async fn transfers(api: &Api, base: &str, name: &str, size: usize) {
    let file = format!("{base}/files?path=/tmp/{name}/file");
    let expected = hex::encode(pieces(size).fold(Sha256::new(), Sha256::chain_update).finalize());
    let written = read(api.request(Method::PUT, &file).body(body(size))).await.expect(201);
    assert_eq!((&written["size"], &written["sha256"]), (&json!(size), &json!(expected)));
    // These are not read beyond their beginning: what feeds them must stop.
    let mut unread = Vec::new();
    for _ in 0..4 {
        let mut response = api.request(Method::GET, &file).send().await.unwrap();
        response.chunk().await.unwrap().expect("a beginning");
        unread.push(response);
    }
    assert_eq!(digest(api.request(Method::GET, &file).send().await.unwrap()).await, expected);
    let mut packed = api.request(Method::GET, &format!("{base}/archive?path=/tmp/{name}")).send().await.unwrap();
    let mut length = 0;
    while let Some(chunk) = packed.chunk().await.expect("a whole archive") {
        length += chunk.len();
    }
    assert!(length > size, "{length}");
}

#[test]
fn memory_does_not_grow_with_the_size() {
    harness::run(async {
        let dev = Dev::start().await;
        let variables = dev.ready().await;
        let (api, pid) = (api(&variables), &variables["AGS_GATEWAY_PID"]);
        let created = api.post("/v1/instances", &json!({"tool": "code-interpreter-v1"})).await.expect(201);
        let base = format!("/v1/instances/{}", created["id"].as_str().unwrap());
        // As many bytes in small files as in the large one: what an allocator takes for the traffic is in both.
        for number in 0..LARGE / SMALL {
            transfers(&api, &base, &format!("small-{number}"), SMALL).await;
        }
        let small = peak(pid);
        transfers(&api, &base, "large", LARGE).await;
        let growth = peak(pid).saturating_sub(small);
        assert!(growth < MAX_GROWTH, "{growth} KiB more than {small} KiB");
        dev.stop(Signal::SIGTERM).await;
    });
}
