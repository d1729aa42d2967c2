//! One terminal in several pages, and pages that come back.

use serde_json::json;

use super::desk::Desk;
use crate::harness::run;

#[test]
#[ignore = "needs chromium and xterm.js: scripts/test-browser"]
fn chromium_shares_a_terminal_between_pages_by_role() {
    run(async {
        let desk = Desk::start().await;
        let first = desk.shell("").await;
        let exec = first.eval("desk.state.exec").await.as_str().unwrap().to_owned();
        first.types("clear; echo from the first\n").await;
        first.has_line("from the first").await;
        let second = desk.open(&format!("&exec={exec}&protocol=text")).await;
        let viewer = desk.open(&format!("&exec={exec}&role=viewer")).await;
        for page in [&second, &viewer] {
            page.has_line("from the first").await;
        }
        second.focus().await;
        second.types("echo from the second: ü\n").await;
        first.has_line("from the second: ü").await;
        viewer.focus().await;
        viewer.types("x").await;
        viewer.until("desk.state.answers.length > 0").await;
        assert_eq!(viewer.eval("desk.state.answers").await, json!(["scope_missing"]));
        first.focus().await;
        first.types("vi -u NONE\n").await;
        first.until("desk.screen()[1] === '~'").await;
        first.types("itwo pages").await;
        for page in [&first, &second, &viewer] {
            page.until("desk.screen()[0] === 'two pages' && desk.screen()[1] === '~'").await;
            assert_eq!(page.screen().await, first.screen().await);
        }
        second.photograph("terminal-second").await;
        second.focus().await;
        second.types("\x1b:q!\n").await;
        for page in [&first, &second, &viewer] {
            page.ends_with(">").await;
        }
        first.focus().await;
        first.types("exit\n").await;
        for page in [&first, &second, &viewer] {
            page.until("desk.state.closes.length > 0").await;
            assert_eq!(page.eval("desk.state.closes").await, json!(["1000 the command has ended"]));
            assert_eq!(page.eval("desk.state.errors").await, json!([]));
        }
    });
}

#[test]
#[ignore = "needs chromium and xterm.js: scripts/test-browser"]
fn chromium_finds_its_terminal_again_after_a_reload_and_a_drop() {
    run(async {
        let desk = Desk::start().await;
        let page = desk.shell("").await;
        // Programs that ask the terminal what it is: its answers are not to be typed a second time.
        page.types("vi -u NONE\n").await;
        page.until("desk.screen()[1] === '~'").await;
        page.types(":q\n").await;
        page.ends_with(">").await;
        page.types("printf '\\e[c\\e[6n'; read -rs -t 1 -n 99; echo asked\n").await;
        page.has_line("asked").await;
        page.types("for i in $(seq 1 300); do echo \"line $i é\"; done\n").await;
        page.until("desk.screen().includes('line 300 é') && desk.screen().at(-1) === '>'").await;
        let before = page.everything().await;
        assert!(before.contains(&"line 1 é".to_owned()) && before.len() > 300);
        page.reload().await;
        page.focus().await;
        assert_eq!(page.everything().await, before, "drawn anew by what was printed");
        page.types("echo still here\n").await;
        page.has_line("still here").await;
        let typed = page.everything().await;
        assert_eq!(typed.iter().filter(|line| line.contains("still here")).count(), 2, "{typed:#?}");

        // In the middle of a program that fills the screen.
        page.types("vi -u NONE\n").await;
        page.until("desk.screen()[1] === '~'").await;
        page.types("iunsaved").await;
        page.until("desk.screen()[0] === 'unsaved'").await;
        let before = page.screen().await;
        page.reload().await;
        page.focus().await;
        assert_eq!(page.screen().await, before);
        page.photograph("terminal-reloaded").await;

        // A drop: on from the cursor.
        page.eval("desk.drop()").await;
        page.until("desk.state.closes.length === 1 && desk.ready").await;
        page.types(" and kept\x1b").await;
        page.until("desk.screen()[0] === 'unsaved and kept'").await;
        page.types(":q!\nexit\n").await;
        page.until("desk.state.exit !== null && desk.state.exit.exit_code === 0").await;
        assert_eq!(page.eval("desk.state.closes[0]").await, "4999 ", "what it was closed with is confirmed");
        assert_eq!(page.eval("desk.state.gaps").await, json!([]));
        assert_eq!(page.eval("desk.state.errors").await, json!([]));
    });
}
