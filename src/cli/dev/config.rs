//! The gateway's configuration in the local stack.

use std::net::SocketAddr;

use toml::{Table, Value};

use super::https::{self, Https};

/// Data-plane hosts of the emulator: `{port}-{instance}.ags.localhost`.
pub(super) const DOMAIN: &str = "ags.localhost";
/// Ports of sandboxes are below it.
const SANDBOX_DOMAIN: &str = "localhost";
pub(super) const REGION: &str = "ap-guangzhou";
pub(super) const SECRET_ID: &str = "AKIDagsemulatorlocal";
/// The tool of an instance that names none.
pub(super) const DEFAULT_TOOL: &str = "sandbox";
/// The emulator has these for every account.
const BUILT_IN_TOOLS: [&str; 2] = ["code-interpreter-v1", "base"];

const LOCAL_ORIGINS: [&str; 6] = [
    "http://localhost:*",
    "http://127.0.0.1:*",
    "http://[::1]:*",
    "https://localhost:*",
    "https://127.0.0.1:*",
    "https://[::1]:*",
];

/// The content of gateway.toml. Holds no secret: those are in the files it names.
pub(super) fn render(database_url: &str, emulator: SocketAddr, over_tls: Option<&Https>) -> anyhow::Result<String> {
    let origins = || Value::from(LOCAL_ORIGINS.map(Value::from).to_vec());
    let mut server = table([
        ("sandbox_domain", SANDBOX_DOMAIN.into()),
        ("cors_origins", origins()),
        ("websocket_origins", origins()),
        ("drain_timeout", "5s".into()),
    ]);
    if let Some(over_tls) = over_tls {
        let certificates = &over_tls.certificates;
        let files = table([
            ("cert_file", certificates.certificate.display().to_string().into()),
            ("key_file", certificates.key.display().to_string().into()),
        ]);
        server.insert("sandbox_domain".to_owned(), https::DOMAIN.into());
        server.insert("public_url".to_owned(), over_tls.url().into());
        server.insert("tls".to_owned(), files.into());
    }
    let credentials = table([("secret_id", SECRET_ID.into()), ("secret_key_file", "emulator.key".into())]);
    let upstream = table([
        ("region", REGION.into()),
        ("endpoint", format!("http://{emulator}").into()),
        ("domain", DOMAIN.into()),
        ("scheme", "http".into()),
        ("connect_to", emulator.to_string().into()),
        ("credentials", credentials.into()),
    ]);
    let shared = Value::from(BUILT_IN_TOOLS.map(Value::from).to_vec());
    let tools = table([("default_tool", DEFAULT_TOOL.into()), ("shared", shared)]);
    let whole = table([
        ("server", server.into()),
        ("database", table([("url", database_url.into())]).into()),
        ("auth", table([("secret_file", "auth.key".into())]).into()),
        ("tools", tools.into()),
        ("jobs", table([("claim", "5s".into()), ("missing_grace", "2s".into()), ("brake_count", 1_000.into())]).into()),
        ("upstreams", table([("local", upstream.into())]).into()),
    ]);
    Ok(format!("# Written by `ags-gateway dev` at every start.\n{}", toml::to_string(&whole)?))
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment};

    #[test]
    fn the_gateway_takes_it_and_no_stray_credential() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("gateway.toml");
        std::fs::write(directory.path().join("auth.key"), "0".repeat(64)).unwrap();
        std::fs::write(directory.path().join("emulator.key"), "local-key").unwrap();
        let database = "postgres://postgres@localhost/ags_gateway?host=/tmp/x";
        std::fs::write(&file, render(database, "127.0.0.1:4000".parse().unwrap(), None).unwrap()).unwrap();
        let stray = [("TENCENTCLOUD_SECRET_ID", "real"), ("TENCENTCLOUD_TOKEN", "real"), ("TENCENTCLOUD_REGION", "x")];
        let stray = stray.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = Config::load(&Environment::new(stray), Some(&file)).unwrap();
        let upstream = config.default_upstream();
        assert_eq!(upstream.endpoint.as_str(), "http://127.0.0.1:4000/");
        assert_eq!(upstream.connect_to.as_deref(), Some("127.0.0.1:4000"));
        assert_eq!((upstream.region.as_str(), upstream.credentials.secret_id.as_str()), (REGION, SECRET_ID));
        assert!(upstream.credentials.token.is_none());
        assert!(config.server.websocket_origins.iter().any(|origin| origin.matches("http://localhost:5173")));
    }
}
