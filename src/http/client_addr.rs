//! Who is at the other end, behind the proxies that configuration trusts.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request};
use http::{Extensions, HeaderMap, request::Parts};

use crate::config::Cidr;

/// The client's address: the peer's, or the last one in `X-Forwarded-For` that is not a trusted proxy, when the peer is one.
#[must_use]
pub fn of(request: &Request, trusted: &[Cidr]) -> Option<IpAddr> {
    seen_by(request.extensions(), request.headers(), trusted)
}

/// As [`of`], of a request that was taken apart.
#[must_use]
pub fn of_parts(parts: &Parts, trusted: &[Cidr]) -> Option<IpAddr> {
    seen_by(&parts.extensions, &parts.headers, trusted)
}

fn seen_by(extensions: &Extensions, headers: &HeaderMap, trusted: &[Cidr]) -> Option<IpAddr> {
    let ConnectInfo(peer) = extensions.get::<ConnectInfo<SocketAddr>>()?;
    Some(forwarded(peer.ip(), headers, trusted))
}

/// Whether a request comes straight from a proxy that configuration trusts: what it says of the client is believed.
#[must_use]
pub fn through_trusted(peer: IpAddr, trusted: &[Cidr]) -> bool {
    trusted.iter().any(|network| network.contains(peer))
}

fn forwarded(peer: IpAddr, headers: &HeaderMap, trusted: &[Cidr]) -> IpAddr {
    let is_trusted = |address: &IpAddr| through_trusted(*address, trusted);
    let mut client = peer;
    let hops = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = hops.flat_map(|line| line.split(',')).map(str::trim).collect();
    for hop in hops.into_iter().rev() {
        if !is_trusted(&client) {
            break;
        }
        let Ok(address) = hop.parse() else { break };
        client = address;
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded_for: &str) -> String {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let headers = [("x-forwarded-for", forwarded_for)]
            .into_iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        forwarded(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(client("203.0.113.9", "198.51.100.1"), "203.0.113.9");
        assert_eq!(client("10.0.0.1", "198.51.100.1"), "198.51.100.1");
        // What the client wrote itself stands before what the proxies added.
        assert_eq!(client("10.0.0.1", "1.2.3.4, 198.51.100.1, 10.0.0.2"), "198.51.100.1");
        assert_eq!(client("10.0.0.1", "junk"), "10.0.0.1");
    }
}
