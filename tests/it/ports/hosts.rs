//! Hosts below the sandbox domain, and those that are not.

use http::Method;

use super::web::{DOMAIN, PORT, Web};
use crate::harness::{self, Api, Options, Stack, read};

#[test]
fn a_host_below_the_domain_is_never_the_api() {
    harness::run(async {
        let web = Web::start().await;
        let asked = |host: String, path: &str| {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            client.get(web.api().url(path)).header("host", host).bearer_auth(web.api().key())
        };
        // The API's own paths are the server's here.
        let seen = web.seen(asked(web.host(), "/v1/me")).await;
        assert_eq!(seen["target"], "/v1/me");
        let upper = format!("{PORT}-{}.{}", web.id.to_uppercase(), DOMAIN.to_uppercase());
        assert_eq!(web.seen(asked(upper, "/healthz")).await["target"], "/healthz");
        for host in [format!("x.{DOMAIN}"), format!("a.{PORT}-{}.{DOMAIN}", web.id), format!("{}.{DOMAIN}", web.id)] {
            read(asked(host, "/healthz")).await.problem(404, "not_found");
        }
        for host in [DOMAIN.to_owned(), "localhost".to_owned(), format!("{PORT}-{}.elsewhere", web.id)] {
            assert_eq!(read(asked(host, "/healthz")).await.expect(200)["status"], "ok");
        }
    });
}

#[test]
fn an_api_that_was_put_below_the_domain_is_found() {
    harness::run(async {
        let options = Options::simulated()
            .with("SERVER__SANDBOX_DOMAIN", DOMAIN)
            .with("SERVER__PUBLIC_URL", format!("https://api.{DOMAIN}"));
        let stack = Stack::with(options).await;
        let anybody = Api::anonymous(&stack.url);
        let asked = |host: String| anybody.request(Method::GET, "/healthz").header("host", host);
        read(asked(format!("api.{DOMAIN}"))).await.expect(200);
        read(asked(format!("apis.{DOMAIN}"))).await.problem(404, "not_found");
    });
}

#[test]
fn without_a_domain_there_are_no_hosts_and_no_previews() {
    harness::run(async {
        let options = Options::simulated().with("TOOLS__SHARED", "code-interpreter-v1");
        let stack = Stack::with(options).await;
        let (id, _) = super::web::instance(&stack.api()).await;
        let found = stack.api().get(&format!("/v1/instances/{id}/url")).await.expect(200);
        assert!(found["host_url"].is_null());
        let body = serde_json::json!({"port": PORT});
        stack.api().post(&format!("/v1/instances/{id}/previews"), &body).await.problem(409, "invalid_state");
    });
}
