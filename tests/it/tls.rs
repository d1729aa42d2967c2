//! HTTPS that ends at the gateway.

use std::{fs, sync::Arc};

use futures_util::{SinkExt, StreamExt};
use http::{Method, StatusCode, Version};
use nix::sys::signal::Signal;
use reqwest::{Certificate, Client, ClientBuilder};
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use crate::{
    dev::{Dev, api},
    exec::Sandbox,
    harness::{Api, Options, Program, Stack, run},
    ports::web::{PORT, Web, values},
};

/// A certificate for this host, which vouches for itself.
struct Identity {
    certificate: rcgen::Certificate,
    directory: TempDir,
}

impl Identity {
    fn new() -> Self {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("cert.pem"), cert.pem()).unwrap();
        fs::write(directory.path().join("key.pem"), signing_key.serialize_pem()).unwrap();
        Self { certificate: cert, directory }
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn options(&self, options: Options) -> Options {
        options
            .with("SERVER__TLS__LISTEN", "127.0.0.1:0")
            .with("SERVER__TLS__CERT_FILE", self.file("cert.pem"))
            .with("SERVER__TLS__KEY_FILE", self.file("key.pem"))
    }

    fn client(&self) -> ClientBuilder {
        let certificate = Certificate::from_der(self.certificate.der()).unwrap();
        Client::builder().no_proxy().tls_certs_only([certificate])
    }

    /// For what is no HTTP client.
    fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.certificate.der().to_vec())).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = builder.with_safe_default_protocol_versions().unwrap();
        TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
    }
}

#[test]
fn both_versions_of_http_and_sockets_go_over_tls_and_ports_learn_of_it() {
    run(async {
        let identity = Identity::new();
        let web = Web::with(identity.options(Options::default())).await;
        let program = Program::start(&web.stack).await;
        let base = program.tls_url.as_deref().unwrap();
        let clients = [
            (identity.client().http1_only().build().unwrap(), Version::HTTP_11),
            (identity.client().build().unwrap(), Version::HTTP_2),
        ];
        for (client, version) in clients {
            let api = Api::new(base, &web.stack.key).through(client);
            let me = api.request(Method::GET, "/v1/me").send().await.unwrap();
            assert_eq!((me.status(), me.version()), (StatusCode::OK, version));
            let port = format!("/v1/instances/{}/ports/{PORT}/", web.id);
            let seen = web.seen(api.request(Method::GET, &port)).await;
            assert_eq!(values(&seen, "x-forwarded-proto"), ["https"]);
            let url = api.get(&format!("/v1/instances/{}/url?port={PORT}", web.id)).await.expect(200);
            assert!(url["url"].as_str().unwrap().starts_with(base), "{url}");
            let host = url["host_url"].as_str().unwrap();
            assert!(host.starts_with(&format!("https://{PORT}-{}.", web.id)), "{url}");
        }

        let stream = TcpStream::connect(base.strip_prefix("https://").unwrap()).await.unwrap();
        let stream = identity.connector().connect("localhost".try_into().unwrap(), stream).await.unwrap();
        let path = format!("wss{}/v1/instances/{}/exec/ws", base.strip_prefix("https").unwrap(), web.id);
        let mut request = path.into_client_request().unwrap();
        request.headers_mut().insert("authorization", format!("Bearer {}", web.stack.key).parse().unwrap());
        let (mut socket, _) = client_async(request, stream).await.unwrap();
        socket.send(Message::text(json!({"type": "start", "cmd": "echo over tls"}).to_string())).await.unwrap();
        let mut said = String::new();
        while let Some(Ok(message)) = socket.next().await {
            said.push_str(message.to_text().unwrap_or_default());
        }
        assert!(said.contains("over tls") && said.contains("\"exit\""), "{said}");

        // Who speaks plainly to it gets nothing, and who does not know the certificate neither.
        let plain = Client::builder().no_proxy().build().unwrap();
        assert!(plain.get(base.replace("https", "http")).send().await.is_err());
        assert!(plain.get(base).send().await.is_err());
        assert!(program.child.stop(Signal::SIGTERM, std::time::Duration::from_secs(60)).await.success());
    });
}

#[test]
fn whoever_hangs_up_under_tls_has_gone_too() {
    run(async {
        let identity = Identity::new();
        let sandbox = Sandbox::with(identity.options(Options::default()), json!({})).await;
        let program = Program::start(&sandbox.stack).await;
        let base = program.tls_url.as_deref().unwrap();
        for (client, number) in [(identity.client().http1_only(), 4731), (identity.client(), 4732)] {
            let there = Api::new(base, &sandbox.stack.key).through(client.build().unwrap());
            let command = format!("sleep {number}");
            let (exec, spec) = (sandbox.path("exec"), json!({"cmd": command}));
            tokio::select! {
                answer = there.post(&exec, &spec) => panic!("it ended: {answer:?}"),
                () = sandbox.until_runs(&command, true) => {}
            }
            sandbox.until_runs(&command, false).await;
        }
    });
}

#[test]
fn a_certificate_that_does_not_fit_is_said_before_anything_listens() {
    run(async {
        let (identity, other) = (Identity::new(), Identity::new());
        let stack = Stack::with(Options::simulated()).await;
        let refused = |cert: String, key: String| {
            let mut command = stack.command(&["serve"]);
            command.env("AGS_GATEWAY__SERVER__TLS__LISTEN", "127.0.0.1:0");
            command.env("AGS_GATEWAY__SERVER__TLS__CERT_FILE", cert).env("AGS_GATEWAY__SERVER__TLS__KEY_FILE", key);
            let output = command.output().unwrap();
            assert!(!output.status.success());
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        };
        let said = refused(identity.file("cert.pem"), other.file("key.pem"));
        assert!(said.contains("is not the key of"), "{said}");
        let said = refused(identity.file("key.pem"), identity.file("cert.pem"));
        assert!(said.contains("holds no certificate"), "{said}");
        assert!(!said.contains("PRIVATE KEY"), "{said}");
        let said = refused(identity.file("cert.pem"), identity.file("cert.pem"));
        assert!(said.contains("is no private key in PEM"), "{said}");
        let mut command = stack.command(&["check-config"]);
        command.env("AGS_GATEWAY__SERVER__TLS__LISTEN", "127.0.0.1:0");
        command.env("AGS_GATEWAY__SERVER__TLS__CERT_FILE", identity.file("cert.pem"));
        let checked = command.env("AGS_GATEWAY__SERVER__TLS__KEY_FILE", other.file("key.pem")).output().unwrap();
        assert!(!checked.status.success() && String::from_utf8_lossy(&checked.stderr).contains("is not the key of"));
        let said = refused(identity.file("missing.pem"), String::new());
        assert!(said.contains("missing.pem cannot be read") && said.contains("needs cert_file and key_file"), "{said}");
    });
}

#[test]
fn a_local_stack_serves_https_on_names_below_localhost() {
    run(async {
        let dev = Dev::over_tls().await;
        let variables = dev.ready().await;
        let url = &variables["AGS_GATEWAY_URL"];
        assert!(url.starts_with("https://127.0.0.1:"), "{url}");
        let domain = &variables["E2B_DOMAIN"];
        let (name, port) = domain.split_once(':').unwrap();
        assert_eq!((name, Some(port)), ("sandbox.localhost", url.rsplit(':').next()));
        let authority = fs::read(&variables["NODE_EXTRA_CA_CERTS"]).unwrap();
        let bundle = fs::read(&variables["SSL_CERT_FILE"]).unwrap();
        assert!(bundle.starts_with(&authority));
        let roots = Certificate::from_pem(&authority).unwrap();
        let address = url.strip_prefix("https://").unwrap().parse().unwrap();
        let client = Client::builder().no_proxy().tls_certs_only([roots]).resolve(&format!("api.{name}"), address);
        let there = api(&variables).through(client.build().unwrap());
        there.get("/v1/me").await.expect(200);
        let e2b = there.at(&format!("https://api.{domain}"));
        let sandboxes = e2b.request(Method::GET, "/v2/sandboxes").header("x-api-key", &variables["E2B_API_KEY"]);
        assert_eq!(sandboxes.send().await.unwrap().status(), 200);
        // The plain port is still there, for what runs on this host.
        api(&variables).at(&variables["AGS_GATEWAY_HTTP_URL"]).get("/v1/me").await.expect(200);
        dev.stop(Signal::SIGTERM).await;
    });
}
