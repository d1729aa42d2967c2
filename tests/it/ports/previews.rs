//! Browsers' leave: links, cookies, and their end.

use futures_util::StreamExt;
use http::{StatusCode, header};
use serde_json::{Value, json};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Error, client::IntoClientRequest},
};

use super::web::{DOMAIN, PORT, Web, values};
use crate::harness::{self, Api, eventually};

/// A preview and the cookie that its link was exchanged for.
struct Opened {
    id: String,
    cookie: String,
}

async fn made(web: &Web) -> Value {
    web.preview(json!({"port": PORT, "ttl": "10m"})).await.expect(201)
}

/// Follows a link as a browser does; the answer to it.
async fn follow(web: &Web, url: &str) -> reqwest::Response {
    web.browser().build().unwrap().get(url).header("accept", "text/html").send().await.unwrap()
}

async fn opened(web: &Web) -> Opened {
    let preview = made(web).await;
    let answer = follow(web, preview["url"].as_str().unwrap()).await;
    assert_eq!(answer.status(), 303);
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    let pair = cookie.split(';').next().unwrap().to_owned();
    Opened { id: preview["id"].as_str().unwrap().to_owned(), cookie: pair }
}

fn with(web: &Web, opened: &Opened, rest: &str) -> reqwest::RequestBuilder {
    web.browser().build().unwrap().get(web.at(rest)).header("cookie", &opened.cookie)
}

#[test]
fn a_link_is_exchanged_once_for_a_cookie_of_its_own_host() {
    harness::run(async {
        let web = Web::start().await.at_one_gateway();
        let preview = made(&web).await;
        let url = preview["url"].as_str().unwrap();
        assert!(url.starts_with(&web.at("/?ags_preview=prev")), "{url}");
        let answer = follow(&web, &url.replace("/?", "/a%20b?x=1&")).await;
        assert_eq!(answer.status(), 303);
        assert_eq!(answer.headers()["location"], "/a%20b?x=1");
        assert_eq!(answer.headers()["referrer-policy"], "no-referrer");
        let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
        for part in ["__Host-ags-preview=", "; Path=/", "; HttpOnly", "; SameSite=Lax", "; Secure"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        assert!(!cookie.contains("Domain"));
        let opened = Opened { id: String::new(), cookie: cookie.split(';').next().unwrap().to_owned() };
        let seen = web.seen(with(&web, &opened, "/a%20b").header("cookie", "mine=1")).await;
        assert_eq!(seen["target"], "/a%20b");
        assert_eq!(values(&seen, "cookie"), ["mine=1"]);
        // Once. Whoever has the cookie is let through all the same.
        let again = follow(&web, url).await;
        assert_eq!(again.status(), StatusCode::UNAUTHORIZED);
        assert!(again.text().await.unwrap().starts_with("<!doctype html>"));
        assert_eq!(with(&web, &opened, &url[web.at("").len()..]).send().await.unwrap().status(), 303);
    });
}

#[test]
fn only_the_name_that_no_neighbour_can_set_counts() {
    harness::run(async {
        let web = Web::start().await;
        let opened = opened(&web).await;
        web.seen(with(&web, &opened, "/")).await;
        let bare = opened.cookie.strip_prefix("__Host-").unwrap().to_owned();
        let bare = Opened { id: String::new(), cookie: bare };
        assert_eq!(with(&web, &bare, "/").send().await.unwrap().status(), 401);
    });
}

#[test]
fn a_link_or_cookie_is_good_for_its_port_alone() {
    harness::run(async {
        let web = Web::start().await;
        let preview = made(&web).await;
        let url = preview["url"].as_str().unwrap();
        let token = url.split_once("ags_preview=").unwrap().1;
        let at = |host: &str, cookie: &str| {
            let client =
                reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
            client.get(format!("{}/?ags_preview={token}", web.stack.url)).header("host", host).header("cookie", cookie)
        };
        let other = format!("{}-{}.{DOMAIN}:{}", PORT + 1, web.id, web.address().port());
        assert_eq!(at(&other, "").send().await.unwrap().status(), 401);
        let (id, _) = super::web::instance(&web.api()).await;
        let foreign = format!("{PORT}-{id}.{DOMAIN}:{}", web.address().port());
        assert_eq!(at(&foreign, "").send().await.unwrap().status(), 401);
        let forged = web.at(&format!("/?ags_preview={}", token.replace('.', ".0")));
        assert_eq!(follow(&web, &forged).await.status(), 401);
        // None of that has used it up.
        let opened = opened(&web).await;
        assert_eq!(follow(&web, url).await.status(), 303);
        let elsewhere = |host: &str| {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            client.get(&web.stack.url).header("host", host).header("cookie", &opened.cookie)
        };
        assert_eq!(elsewhere(&other).send().await.unwrap().status(), 401);
        assert_eq!(elsewhere(&foreign).send().await.unwrap().status(), 401);
        // On the API's origin no cookie is a credential.
        let api = Api::anonymous(&web.stack.url);
        let asked = api.request(http::Method::GET, &web.url("/")).header("cookie", &opened.cookie);
        harness::read(asked).await.problem(401, "unauthenticated");
    });
}

#[test]
fn previews_are_listed_and_a_revoked_one_ends_everywhere_with_what_is_open() {
    harness::run(async {
        let web = Web::start().await;
        let (_replica, replica_url) = web.stack.replica().await;
        let opened = opened(&web).await;
        let list = format!("/v1/instances/{}/previews", web.id);
        let listed = web.api().get(&list).await.expect(200);
        assert_eq!(listed["items"][0]["id"], opened.id);
        assert!(listed["items"][0]["opened_at"].is_string() && listed["items"][0].get("url").is_none());
        let on_replica = || {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            client.get(format!("{replica_url}/ticks")).header("host", web.host()).header("cookie", &opened.cookie)
        };
        let mut open = [
            with(&web, &opened, "/ticks").send().await.unwrap().bytes_stream(),
            on_replica().send().await.unwrap().bytes_stream(),
        ];
        for stream in &mut open {
            assert_eq!(stream.next().await.unwrap().unwrap(), "tick\n");
        }
        web.stack.team("other").await.delete(&format!("{list}/{}", opened.id)).await.problem(404, "not_found");
        for _ in 0..2 {
            web.api().delete(&format!("{list}/{}", opened.id)).await.expect(204);
        }
        let revoked = std::time::Instant::now();
        assert_eq!(with(&web, &opened, "/").send().await.unwrap().status(), 401);
        for mut stream in open {
            assert!(stream.next().await.unwrap().is_err());
        }
        assert!(revoked.elapsed().as_secs() < 3, "{:?}", revoked.elapsed());
        assert_eq!(on_replica().send().await.unwrap().status(), 401);
        assert_eq!(web.api().get(&list).await.expect(200)["items"], json!([]));
        web.api().delete(&format!("{list}/prev00000000000000000000000000")).await.problem(404, "not_found");
    });
}

#[test]
fn a_preview_ends_with_the_key_that_made_it() {
    harness::run(async {
        let web = Web::start().await;
        let wanted = json!({"name": "short", "scopes": ["ports"], "expires_in": "5m"});
        let minted = web.api().post("/v1/keys", &wanted).await.expect(201);
        let short = Api::new(&web.stack.url, minted["secret"].as_str().unwrap());
        let path = format!("/v1/instances/{}/previews", web.id);
        let preview = short.post(&path, &json!({"port": PORT, "ttl": "1h"})).await.expect(201);
        assert_eq!(preview["expires_at"], minted["expires_at"]);
        let answer = follow(&web, preview["url"].as_str().unwrap()).await;
        let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let opened = Opened { id: String::new(), cookie };
        let mut stream = with(&web, &opened, "/ticks").send().await.unwrap().bytes_stream();
        stream.next().await.unwrap().unwrap();
        let mut by_key = short.request(http::Method::GET, &web.url("/ticks")).send().await.unwrap().bytes_stream();
        by_key.next().await.unwrap().unwrap();
        web.api().delete(&format!("/v1/keys/{}", minted["id"].as_str().unwrap())).await.expect(204);
        assert!(stream.next().await.unwrap().is_err());
        assert!(by_key.next().await.unwrap().is_err());
        eventually(async || (with(&web, &opened, "/").send().await.unwrap().status() == 401).then_some(())).await;
    });
}

#[test]
fn other_pages_cannot_use_a_preview() {
    harness::run(async {
        let web = Web::start().await;
        let opened = opened(&web).await;
        let neighbour = format!("http://9000-{}.{DOMAIN}:{}", web.id, web.address().port());
        let refused = with(&web, &opened, "/").header("origin", &neighbour).send().await.unwrap();
        assert_eq!(refused.status(), 403);
        let own = format!("http://{}", web.host());
        assert_eq!(with(&web, &opened, "/").header("origin", &own).send().await.unwrap().status(), 200);
        let socket = async |origin: Option<&str>| {
            let mut request = web.at("/ws").replacen("http", "ws", 1).into_client_request().unwrap();
            request.headers_mut().insert(header::COOKIE, opened.cookie.parse().unwrap());
            if let Some(origin) = origin {
                request.headers_mut().insert(header::ORIGIN, origin.parse().unwrap());
            }
            client_async(request, web.connect().await).await.map(|_| ())
        };
        socket(Some(&own)).await.unwrap();
        for origin in [None, Some(neighbour.as_str()), Some("null")] {
            let Err(Error::Http(answer)) = socket(origin).await else { panic!("{origin:?} got through") };
            assert_eq!(answer.status(), 403);
        }
    });
}

#[test]
fn what_cannot_be_a_preview_is_refused() {
    harness::run(async {
        let web = Web::start().await;
        for (body, field) in [
            (json!({"port": 0}), "port"),
            (json!({"port": 65536}), "port"),
            (json!({"port": "80"}), "port"),
            (json!({"port": 49983}), "port"),
            (json!({"port": 80, "ttl": "25h"}), "ttl"),
            (json!({"port": 80, "ttl": 0}), "ttl"),
            (json!({"port": 80, "path": "/"}), "path"),
        ] {
            let problem = web.preview(body.clone()).await.problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["field"], field, "{body}");
        }
        let other = web.stack.team("other").await;
        let path = format!("/v1/instances/{}/previews", web.id);
        other.post(&path, &json!({"port": PORT})).await.problem(404, "not_found");
        web.api().delete(&format!("/v1/instances/{}", web.id)).await.expect(204);
        web.preview(json!({"port": PORT})).await.problem(409, "invalid_state");
    });
}

#[test]
fn a_preview_wakes_nothing() {
    harness::run(async {
        let web = Web::start().await.at_one_gateway();
        let opened = opened(&web).await;
        assert_eq!(with(&web, &opened, "/").send().await.unwrap().status(), 200);
        let (api, instance) = (web.api(), format!("/v1/instances/{}", web.id));
        api.post(&format!("{instance}/pause"), &json!({})).await.expect(200);
        let refused = with(&web, &opened, "/").header("x-sandbox-wake", "30s").send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::CONFLICT);
        assert_eq!(api.get(&instance).await.expect(200)["status"], "PAUSED");
        assert_eq!(web.stack.calls("ResumeSandboxInstance"), 0);
    });
}
