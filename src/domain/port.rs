//! A port of an instance as it is named in paths and host names. Both are taken apart before anything else is decided.

use std::{fmt, num::NonZeroU16, str::FromStr};

use crate::ids::InstanceId;

/// A TCP port, 1-65535, in its only spelling: decimal digits without sign or leading zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(NonZeroU16);

/// The text is not a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a number between 1 and 65535, without sign or leading zero")]
pub struct InvalidPort;

impl Port {
    #[must_use]
    pub fn new(number: u16) -> Option<Self> {
        NonZeroU16::new(number).map(Self)
    }

    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl From<NonZeroU16> for Port {
    fn from(number: NonZeroU16) -> Self {
        Self(number)
    }
}

impl FromStr for Port {
    type Err = InvalidPort;

    fn from_str(text: &str) -> Result<Self, InvalidPort> {
        let plain =
            (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        if !plain {
            return Err(InvalidPort);
        }
        text.parse().map(Self).map_err(|_| InvalidPort)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a host name is to the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SandboxHost {
    /// Not below the domain: the API's own, whatever it is called.
    Other,
    /// `{port}-{instance}.{domain}`; the cloud's own clients put the region in between, `{port}-{instance}.{region}.{domain}`.
    Port(Port, InstanceId),
    /// `api.{domain}`, `api.{region}.{domain}`: where clients of E2B look for its API.
    Api,
    /// Below the domain without naming a port of an instance: never the API.
    Unknown,
}

impl SandboxHost {
    /// Reads a `Host` or `:authority`, with or without a port. `domain` is in lower case and without a trailing dot.
    #[must_use]
    pub fn read(authority: &str, domain: &str) -> Self {
        let name = without_port(authority);
        let name = name.strip_suffix('.').unwrap_or(name);
        let Some(label) = label_below(name, domain) else { return Self::Other };
        // An id is lower case; browsers write hosts that way, other programs may not.
        let label = label.to_ascii_lowercase();
        let label =
            label.split_once('.').filter(|(_, rest)| is_region(rest)).map_or(label.as_str(), |(first, _)| first);
        let named = label.split_once('-').and_then(|(port, id)| Some((port.parse().ok()?, id.parse().ok()?)));
        match named {
            Some((port, id)) => Self::Port(port, id),
            None if label == "api" => Self::Api,
            None => Self::Unknown,
        }
    }
}

/// Whether a label is like `ap-guangzhou`: no label of a port is.
fn is_region(label: &str) -> bool {
    let parts = label.split_once('-');
    parts.is_some_and(|(area, place)| {
        area.len() == 2
            && area.bytes().all(|byte| byte.is_ascii_lowercase())
            && place.starts_with(|first: char| first.is_ascii_lowercase())
            && place.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    })
}

/// What stands before `.{domain}`.
fn label_below<'a>(name: &'a str, domain: &str) -> Option<&'a str> {
    let (split, bytes) = (name.len().checked_sub(domain.len())?, name.as_bytes());
    let below = bytes[split..].eq_ignore_ascii_case(domain.as_bytes()) && bytes[..split].ends_with(b".");
    if below { name.get(..split - 1) } else { None }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, ids::Ids};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn id() -> InstanceId {
        Ids::new(Arc::new(clock::System)).next()
    }

    #[test]
    fn ports_have_one_spelling() {
        assert_eq!("80".parse(), Ok(Port::new(80).unwrap()));
        assert_eq!("65535".parse::<Port>().unwrap().get(), 65_535);
        for bad in ["", "0", "00", "080", "+80", "-80", " 80", "80 ", "65536", "99999", "8e1", "0x50", "abc", "８０"]
        {
            assert_eq!(bad.parse::<Port>(), Err(InvalidPort), "{bad:?}");
        }
    }

    #[test]
    fn hosts_below_the_domain_are_sandboxes_or_nothing() {
        let id = id();
        let port = SandboxHost::Port(Port::new(8080).unwrap(), id.clone());
        for host in ["8080-{}.localhost", "8080-{}.localhost:9000", "8080-{}.LocalHost.", "8080-{}.localhost.:9000"] {
            assert_eq!(SandboxHost::read(&host.replace("{}", id.as_str()), "localhost"), port, "{host}");
        }
        for region in ["ap-guangzhou", "na-siliconvalley", "ap-shanghai-fsi", "EU-frankfurt"] {
            let host = format!("8080-{}.{region}.localhost:9000", id.as_str());
            assert_eq!(SandboxHost::read(&host, "localhost"), port, "{host}");
        }
        let upper = format!("8080-{}.localhost", id.as_str().to_ascii_uppercase());
        assert_eq!(SandboxHost::read(&upper, "localhost"), port);
        for label in [
            "0-{}",
            "080-{}",
            "+80-{}",
            "65536-{}",
            "-{}",
            "80-",
            "80{}",
            "a.80-{}",
            "80-{}.a",
            "apis",
            "a.api",
            "80-{}.ap-",
            "80-{}.ap",
            "80-{}.ap-1",
            "80-{}.a.ap-guangzhou",
            "a.80-{}.ap-guangzhou",
            "ap-guangzhou",
            "80-{}x",
            "",
        ] {
            let host = format!("{}.localhost", label.replace("{}", id.as_str()));
            assert_eq!(SandboxHost::read(&host, "localhost"), SandboxHost::Unknown, "{host}");
        }
    }

    #[test]
    fn one_name_is_left_to_an_api() {
        for host in ["api.localhost", "API.localhost:80", "api.ap-guangzhou.localhost"] {
            assert_eq!(SandboxHost::read(host, "localhost"), SandboxHost::Api, "{host}");
        }
    }

    #[test]
    fn other_hosts_are_the_apis_own() {
        let id = id();
        for host in
            ["localhost", "localhost:80", "127.0.0.1:80", "[::1]:80", "", "xlocalhost", "80-{}.localhost.example"]
        {
            let host = host.replace("{}", id.as_str());
            assert_eq!(SandboxHost::read(&host, "localhost"), SandboxHost::Other, "{host}");
        }
    }

    proptest! {
        #[test]
        fn every_port_of_every_instance_is_found(port in 1_u16.., domain in "[a-z]{1,9}(\\.[a-z]{1,9}){0,2}", own in prop::option::of(1_u16..)) {
            let id = id();
            let own = own.map(|own| format!(":{own}")).unwrap_or_default();
            let read = SandboxHost::read(&format!("{port}-{id}.{domain}{own}"), &domain);
            prop_assert_eq!(read, SandboxHost::Port(Port::new(port).unwrap(), id));
        }

        #[test]
        fn reading_never_panics_and_believes_only_what_it_would_write(host in "\\PC{0,80}") {
            if let SandboxHost::Port(port, id) = SandboxHost::read(&host, "localhost") {
                let name = format!("{port}-{id}.localhost");
                prop_assert!(host.to_ascii_lowercase().starts_with(&name));
            }
        }

        #[test]
        fn a_spelling_that_is_read_is_the_one_that_is_written(text in "[+-]?[0-9]{0,7}") {
            if let Ok(port) = text.parse::<Port>() {
                prop_assert_eq!(port.to_string(), text);
            }
        }
    }
}
