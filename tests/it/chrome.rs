//! A headless Chromium, driven over its DevTools protocol.

use std::{path::Path, process::Stdio, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    sync::Mutex,
};
use tokio_tungstenite::{connect_async, tungstenite::Message};

use crate::{harness::eventually, ws::Socket};

/// No page takes this long to show something.
const PATIENCE: Duration = Duration::from_secs(60);
const CONTROL: u32 = 2;

pub struct Chrome {
    link: Mutex<Link>,
    _process: Child,
    _profile: TempDir,
}

struct Link {
    socket: Socket,
    last: u64,
}

impl Chrome {
    pub async fn start() -> Self {
        let profile = tempfile::tempdir().expect("a directory");
        let process = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--hide-scrollbars",
            ])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-backgrounding-occluded-windows", "--disable-renderer-backgrounding"])
            .args(["--remote-debugging-port=0", "--window-size=900,600"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("chromium, which scripts/test-browser installs");
        let door = profile.path().join("DevToolsActivePort");
        let text = eventually(async || std::fs::read_to_string(&door).ok().filter(|text| text.lines().count() == 2));
        let text = text.await;
        let (port, path) = text.split_once('\n').expect("a port and a path");
        let (socket, _) = connect_async(format!("ws://127.0.0.1:{port}{path}")).await.expect("a way into chromium");
        Self { link: Mutex::new(Link { socket, last: 0 }), _process: process, _profile: profile }
    }

    /// A call of the protocol, of a page if there is a session.
    async fn call(&self, session: Option<&str>, method: &str, params: Value) -> Value {
        self.ask(session, method, params.clone()).await.unwrap_or_else(|error| panic!("{method} {params}: {error}"))
    }

    /// The same, with the browser's refusal.
    async fn ask(&self, session: Option<&str>, method: &str, params: Value) -> Result<Value, Value> {
        let mut link = self.link.lock().await;
        link.last += 1;
        let (id, mut call) = (link.last, json!({"id": link.last, "method": method, "params": params}));
        if let Some(session) = session {
            call["sessionId"] = json!(session);
        }
        link.socket.send(Message::text(call.to_string())).await.expect("chromium");
        loop {
            let Message::Text(text) = link.socket.next().await.expect("chromium").expect("chromium") else { continue };
            let mut answer: Value = serde_json::from_str(&text).expect("JSON");
            if answer["id"] == id {
                let error = answer["error"].take();
                return if error.is_null() { Ok(answer["result"].take()) } else { Err(error) };
            }
        }
    }

    pub async fn open(&self, url: &str) -> Page<'_> {
        let target = self.call(None, "Target.createTarget", json!({"url": url})).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = self.call(None, "Target.attachToTarget", attach).await;
        Page { chrome: self, session: attached["sessionId"].as_str().expect("a session").to_owned() }
    }
}

/// A page; many of its methods are about the terminal in it.
pub struct Page<'a> {
    chrome: &'a Chrome,
    session: String,
}

impl Page<'_> {
    async fn call(&self, method: &str, params: Value) -> Value {
        self.chrome.call(Some(&self.session), method, params).await
    }

    /// The value of an expression.
    pub async fn eval(&self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut answer = self.call("Runtime.evaluate", params).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer:#}");
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true, of whatever page stands here by then.
    pub async fn becomes(&self, condition: &str) {
        let params = json!({"expression": format!("Boolean({condition})"), "returnByValue": true});
        let met = async {
            loop {
                // While one page makes room for the next there is none to ask.
                let answer = self.chrome.ask(Some(&self.session), "Runtime.evaluate", params.clone()).await;
                if answer.is_ok_and(|answer| answer["result"]["value"] == true) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, met).await.is_err() {
            let shown =
                "typeof desk === 'object' ? JSON.stringify([desk.state, desk.screen()]) : document.body.innerText";
            panic!("never: {condition}\n{}", self.eval(shown).await);
        }
    }

    /// The same of a page with a terminal, once that is there.
    pub async fn until(&self, condition: &str) {
        self.becomes(&format!("typeof desk === 'object' && desk.ready && ({condition})")).await;
    }

    /// Waits until the screen shows a text.
    pub async fn shows(&self, text: &str) {
        self.until(&format!("desk.screen().join('\\n').includes({})", json!(text))).await;
    }

    /// Waits until the screen has such a line.
    pub async fn has_line(&self, line: &str) {
        self.until(&format!("desk.screen().includes({})", json!(line))).await;
    }

    /// Waits until the last line that is not empty is this.
    pub async fn ends_with(&self, line: &str) {
        let last = "desk.screen().filter(line => line !== '').at(-1)";
        self.until(&format!("{last} === {}", json!(line))).await;
    }

    /// What the screen shows, line by line.
    pub async fn screen(&self) -> Vec<String> {
        serde_json::from_value(self.eval("desk.screen()").await).expect("lines")
    }

    /// What can be scrolled to, and the screen.
    pub async fn everything(&self) -> Vec<String> {
        serde_json::from_value(self.eval("desk.everything()").await).expect("lines")
    }

    /// Types: ASCII key by key, the rest as an input method hands it over.
    pub async fn types(&self, text: &str) {
        for character in text.chars() {
            match character {
                '\n' => self.press("Enter", 13, "\r", 0).await,
                '\x1b' => self.press("Escape", 27, "", 0).await,
                ' '..='~' => {
                    let code =
                        if character.is_ascii_alphanumeric() { character.to_ascii_uppercase() as u32 } else { 0 };
                    self.press(&character.to_string(), code, &character.to_string(), 0).await;
                }
                other => drop(self.call("Input.insertText", json!({"text": other.to_string()})).await),
            }
        }
    }

    pub async fn control(&self, letter: char) {
        self.press(&letter.to_string(), letter.to_ascii_uppercase() as u32, "", CONTROL).await;
    }

    async fn press(&self, key: &str, code: u32, text: &str, modifiers: u32) {
        let event = |kind: &str| json!({"type": kind, "key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers, "text": text});
        self.call("Input.dispatchKeyEvent", event(if text.is_empty() { "rawKeyDown" } else { "keyDown" })).await;
        let mut up = event("keyUp");
        up["text"] = json!("");
        self.call("Input.dispatchKeyEvent", up).await;
    }

    pub async fn resize(&self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size).await;
    }

    pub async fn reload(&self) {
        self.eval("desk.ready = false").await;
        self.call("Page.reload", json!({})).await;
        self.until("true").await;
    }

    /// To the front, where keys go.
    pub async fn focus(&self) {
        self.call("Page.bringToFront", json!({})).await;
        self.eval("desk.terminal.focus()").await;
    }

    /// A picture of the page, in the target directory: for people.
    pub async fn photograph(&self, name: &str) {
        self.call("Page.bringToFront", json!({})).await;
        let picture = self.call("Page.captureScreenshot", json!({"format": "png"})).await;
        let picture = BASE64_STANDARD.decode(picture["data"].as_str().expect("a picture")).expect("base64");
        std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png")), picture).expect("a file");
    }
}
