//! What arrives on either side, to the byte.

use http::Method;

use super::web::{PORT, Web, values};
use crate::harness::{self, Options, read};

#[test]
fn methods_paths_and_queries_arrive_as_they_were_sent() {
    harness::run(async {
        let web = Web::start().await;
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "BREW"] {
            let seen = web.seen(web.request(method.parse().unwrap(), "/m")).await;
            assert_eq!(seen["method"], method);
        }
        let head = web.request(Method::HEAD, "/m").send().await.unwrap();
        assert_eq!(head.status(), 200);
        for target in [
            "/",
            "//",
            "/a//b/",
            "/a%2Fb%20c",
            "/%E4%BD%A0",
            "/a+b?c=d+e&f=%26&&g",
            "/?",
            "/.%2e/x",
            "/x;y=1,2",
            "/a'b(c)*!~",
            "/?q=%zz",
            "/%",
            "/ports/80/x",
        ] {
            let text = format!("GET {target} HTTP/1.1\nHost: HOST\nAuthorization: KEY\nConnection: close\n\n");
            let answer = web.wire(&text).await;
            let shown: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
            assert_eq!(shown["target"], target);
            let below = format!("GET {} HTTP/1.1\nHost: x\nAuthorization: KEY\nConnection: close\n\n", web.url(target));
            let answer = web.wire(&below).await;
            let shown: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
            assert_eq!(shown["target"], target);
        }
        assert_eq!(web.seen(web.get("")).await["target"], "/");
    });
}

#[test]
fn what_concerns_one_connection_goes_no_further() {
    harness::run(async {
        let web = Web::start().await;
        let text = "GET /x HTTP/1.1\nHost: HOST\nAuthorization: KEY\nConnection: close, X-Secret\nX-Secret: 1\n\
                    Keep-Alive: timeout=1\nProxy-Authorization: Basic x\nTE: gzip, trailers\nX-Kept: yes\n\
                    Cookie: a=1; ags-preview=x\nX-Real-IP: 1.2.3.4\nForwarded: for=1.2.3.4\n\
                    X-Forwarded-For: 1.2.3.4\nX-Forwarded-Proto: https\nX-Forwarded-Host: evil.example\n\n";
        let answer = web.wire(text).await;
        let seen: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        for gone in ["x-secret", "keep-alive", "proxy-authorization", "authorization", "x-real-ip", "forwarded"] {
            assert!(values(&seen, gone).is_empty(), "{gone}: {seen:#}");
        }
        assert_eq!(values(&seen, "te"), ["trailers"]);
        assert_eq!(values(&seen, "x-kept"), ["yes"]);
        assert_eq!(values(&seen, "cookie"), ["a=1"]);
        assert_eq!(values(&seen, "x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(values(&seen, "x-forwarded-proto"), ["http"]);
        assert_eq!(values(&seen, "x-forwarded-host"), [web.host()]);
        assert_eq!(values(&seen, "host"), [format!("{PORT}-{}.ags.localhost", web.upstream_id)]);
        assert_eq!(values(&seen, "x-request-id").len(), 1);
    });
}

#[test]
fn a_trusted_proxy_is_believed_and_named() {
    harness::run(async {
        let web = Web::with(Options::default().with("SERVER__TRUSTED_PROXIES", "127.0.0.0/8")).await;
        let request = web.get("/").header("x-forwarded-for", "198.51.100.7").header("x-forwarded-proto", "https");
        let seen = web.seen(request.header("x-forwarded-host", "public.example")).await;
        assert_eq!(values(&seen, "x-forwarded-for"), ["198.51.100.7, 127.0.0.1"]);
        assert_eq!(values(&seen, "x-forwarded-proto"), ["https"]);
        assert_eq!(values(&seen, "x-forwarded-host"), ["public.example"]);
        assert_eq!(values(&seen, "x-forwarded-prefix"), [web.url("")]);
    });
}

#[test]
fn on_the_apis_origin_nothing_of_a_sandbox_can_run_or_set_anything() {
    harness::run(async {
        let web = Web::start().await;
        let answer = web.get("/oddities").header("cookie", "session=1").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let headers = answer.headers();
        for gone in [
            "set-cookie",
            "x-hop",
            "keep-alive",
            "proxy-authenticate",
            "x-access-token",
            "e2b-traffic-access-token",
            "alt-svc",
            "access-control-allow-origin",
            "clear-site-data",
        ] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        let policies: Vec<_> = headers.get_all("content-security-policy").iter().collect();
        assert_eq!(policies.len(), 1);
        assert!(policies[0].to_str().unwrap().starts_with("sandbox; default-src 'none'"));
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["content-disposition"], "attachment");
        assert_eq!(headers["x-kept"], "yes");
        assert_eq!(headers.get_all("x-twice").iter().count(), 2);
        let seen = web.seen(web.get("/").header("cookie", "session=1")).await;
        assert!(values(&seen, "cookie").is_empty());
    });
}

#[test]
fn on_its_own_host_a_server_is_itself_but_for_foreign_cookies() {
    harness::run(async {
        let web = Web::start().await;
        let client = web.browser().build().unwrap();
        let answer = client.get(web.at("/oddities")).bearer_auth(web.api().key()).send().await.unwrap();
        let headers = answer.headers();
        let cookies: Vec<_> = headers.get_all("set-cookie").iter().map(|cookie| cookie.to_str().unwrap()).collect();
        assert_eq!(cookies, ["a=1; Path=/; HttpOnly", "b=2; Secure"]);
        assert_eq!(headers["content-security-policy"], "default-src *");
        assert_eq!(headers["content-disposition"], "inline");
        for gone in ["x-hop", "x-access-token", "e2b-traffic-access-token", "alt-svc"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
    });
}

#[test]
fn redirects_lead_back_to_where_the_client_is() {
    harness::run(async {
        let web = Web::start().await;
        let client = web.browser().build().unwrap();
        for (to, by_path, by_host) in [
            ("/next?x=1", web.url("/next?x=1"), "/next?x=1".to_owned()),
            ("http://HOST/next", web.url("/next"), web.at("/next")),
            ("https://elsewhere.example/", "https://elsewhere.example/".into(), "https://elsewhere.example/".into()),
        ] {
            let query = super::web::query(&[("to", to)]);
            let location = async |url: String| {
                let answer = client.get(url).bearer_auth(web.api().key()).send().await.unwrap();
                answer.headers()["location"].to_str().unwrap().to_owned()
            };
            assert_eq!(location(web.api().url(&web.url(&format!("/redirect{query}")))).await, by_path);
            assert_eq!(location(web.at(&format!("/redirect{query}"))).await, by_host);
        }
    });
}

#[test]
fn a_page_of_the_own_host_looks_like_one_to_the_server() {
    harness::run(async {
        let web = Web::start().await;
        let client = web.browser().build().unwrap();
        let posted = |origin: String| client.post(web.at("/")).bearer_auth(web.api().key()).header("origin", origin);
        let seen = web.seen(posted(format!("http://{}", web.host()))).await;
        let host = values(&seen, "host")[0].to_owned();
        assert_eq!(values(&seen, "origin"), [format!("http://{host}")]);
        assert_eq!(values(&seen, "x-forwarded-host"), [host.as_str()]);
        let seen = web.seen(posted("https://elsewhere.example".into())).await;
        assert_eq!(values(&seen, "origin"), ["https://elsewhere.example"]);
    });
}

#[test]
fn cross_origin_pages_are_as_configured_for_the_api() {
    harness::run(async {
        let web = Web::with(Options::default().with("SERVER__CORS_ORIGINS", "https://app.example.com")).await;
        let answer = web.get("/oddities").header("origin", "https://app.example.com").send().await.unwrap();
        assert_eq!(answer.headers()["access-control-allow-origin"], "https://app.example.com");
        let answer = web.get("/oddities").header("origin", "https://other.example.com").send().await.unwrap();
        assert!(!answer.headers().contains_key("access-control-allow-origin"));
        read(web.get("/")).await.expect(200);
    });
}
