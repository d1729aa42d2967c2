//! A sandbox, and the page that shows terminals in it, served as a site of its own.

use std::path::PathBuf;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    chrome::{Chrome, Page},
    exec::Sandbox,
    harness::{Api, Options},
};

const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");

pub struct Desk {
    pub sandbox: Sandbox,
    pub chrome: Chrome,
    site: String,
}

/// The frontend's own server: it holds the key and gives its pages tickets.
#[derive(Clone)]
struct Site {
    api: Api,
    instance: String,
}

#[derive(Deserialize)]
struct Ticket {
    exec: Option<String>,
}

/// Where `scripts/test-browser` puts xterm.js.
fn modules() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../browser/node_modules/@xterm")
}

async fn module(Path(path): Path<String>) -> Response {
    let kind = if path.ends_with(".css") { "text/css" } else { "text/javascript" };
    match tokio::fs::read(modules().join(&path)).await {
        Ok(content) => ([(header::CONTENT_TYPE, kind)], content).into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn ticket(State(site): State<Site>, Query(query): Query<Ticket>) -> Json<Value> {
    let wanted = json!({"instance_id": site.instance, "exec_id": query.exec});
    Json(site.api.post("/v1/tickets", &wanted).await.expect(201))
}

impl Desk {
    pub async fn start() -> Self {
        assert!(modules().exists(), "xterm.js is missing: run scripts/test-browser");
        let options = Options::default().with("SERVER__WEBSOCKET_ORIGINS", "http://127.0.0.1:*");
        let sandbox = Sandbox::with(options, json!({})).await;
        let site = Site { api: sandbox.api.clone(), instance: sandbox.id.clone() };
        let router = Router::new()
            .route("/", get(|| async { Html(PAGE) }))
            .route("/page.js", get(|| async { ([(header::CONTENT_TYPE, "text/javascript")], SCRIPT) }))
            .route("/modules/{*path}", get(module))
            .route("/ticket", post(ticket))
            .with_state(site);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let site = format!("http://{}", listener.local_addr().expect("its address"));
        let lifecycle = &sandbox.stack.app.lifecycle;
        let served = lifecycle.draining().run_until_cancelled_owned(axum::serve(listener, router).into_future());
        lifecycle.spawn("test-site", served);
        Self { sandbox, chrome: Chrome::start().await, site }
    }

    /// A page with a terminal, in a tab of its own. `query`: `&name=value`, on top of where the sandbox is.
    pub async fn open(&self, query: &str) -> Page<'_> {
        let (gateway, instance) = (self.sandbox.api.url(""), &self.sandbox.id);
        let page = self.chrome.open(&format!("{}/?gateway={gateway}&instance={instance}{query}", self.site)).await;
        page.until("true").await;
        page.focus().await;
        page
    }

    /// A page with a new shell that prompts.
    pub async fn shell(&self, query: &str) -> Page<'_> {
        let page = self.open(query).await;
        page.until("desk.screen().some(line => line !== '')").await;
        page.types("PS1='> '; clear\n").await;
        page.until("desk.screen()[0] === '>'").await;
        page
    }
}
