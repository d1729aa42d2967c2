//! A real browser. Not by default: `scripts/test` installs one and asks for it.

use serde_json::json;

use super::web::{PORT, Web};
use crate::{chrome::Chrome, harness};

#[test]
#[ignore = "needs chromium: cargo test --test it -- --ignored chromium"]
fn chromium_opens_a_preview_whose_page_speaks_web_socket() {
    harness::run(async {
        let web = Web::start().await;
        let preview = web.preview(json!({"port": PORT})).await.expect(201);
        let url = preview["url"].as_str().unwrap().replace("/?", "/page?");
        let chrome = Chrome::start().await;
        let page = chrome.open(&url).await;
        page.becomes("document.querySelector('#state')?.textContent === 'echoed: hello from the page'").await;
    });
}
