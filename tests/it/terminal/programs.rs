//! Full-screen programs, sizes, keys and characters.

use serde_json::json;

use super::desk::Desk;
use crate::harness::run;

/// Characters of two, three and four bytes; the last are wide.
const TEXT: &str = "héllo wörld ← 你好 🚀";

#[test]
#[ignore = "needs chromium and xterm.js: scripts/test-browser"]
fn chromium_shows_full_screen_programs_and_what_they_are_told() {
    run(async {
        let desk = Desk::start().await;
        let page = desk.shell("").await;
        page.types("vi -u NONE notes\n").await;
        page.until("desk.screen().filter(line => line === '~').length > 15").await;
        page.types("i").await;
        page.types(TEXT).await;
        page.types("\nline two\x1b").await;
        page.until(&format!("desk.screen()[0] === {} && desk.screen()[1] === 'line two'", json!(TEXT))).await;
        page.photograph("terminal-vi").await;
        page.types(":wq\n").await;
        page.until("desk.screen()[1] === '> '.trim() || desk.screen().includes('>')").await;
        let read = format!("/v1/instances/{}/files?path=notes", desk.sandbox.id);
        let written = desk.sandbox.api.request(http::Method::GET, &read).send().await.unwrap().text().await.unwrap();
        assert_eq!(written, format!("{TEXT}\nline two\n"));

        page.types("clear; seq 1 1000 | less\n").await;
        page.until("desk.screen()[0] === '1' && desk.screen()[22] === '23'").await;
        page.types(" ").await;
        page.until("desk.screen()[0] === '24'").await;
        page.types("G").await;
        page.until("desk.screen()[22] === '1000'").await;
        page.types("q").await;

        page.types("clear; top -d 0.2\n").await;
        page.shows("load average").await;
        page.shows("PID").await;
        page.photograph("terminal-top").await;
        page.types("q").await;
        page.ends_with(">").await;
        assert_eq!(page.eval("desk.state.errors").await, json!([]));
    });
}

#[test]
#[ignore = "needs chromium and xterm.js: scripts/test-browser"]
fn chromium_resizes_interrupts_and_sees_the_end() {
    run(async {
        let desk = Desk::start().await;
        let page = desk.shell("").await;
        page.resize(1100, 700).await;
        page.until("desk.terminal.cols > 100 && desk.terminal.rows > 30").await;
        page.types("stty size\n").await;
        let size = page.eval("`${desk.terminal.rows} ${desk.terminal.cols}`").await;
        page.shows(size.as_str().unwrap()).await;
        page.types("vi -u NONE\n").await;
        page.until("desk.screen()[desk.terminal.rows - 2] === '~'").await;
        page.resize(700, 400).await;
        page.until("desk.terminal.rows < 30 && desk.screen()[desk.terminal.rows - 2] === '~'").await;
        page.types(":q\n").await;
        page.ends_with(">").await;

        page.types("clear; sleep 4841\n").await;
        desk.sandbox.until_runs("sleep 4841", true).await;
        page.control('c').await;
        page.shows("^C").await;
        page.types("echo code $?\n").await;
        page.shows("code 130").await;
        desk.sandbox.until_runs("sleep 4841", false).await;
        page.types("exit 7\n").await;
        page.until("desk.state.exit !== null && desk.state.closes.length > 0").await;
        assert_eq!(page.eval("desk.state.exit.exit_code").await, 7);
        assert_eq!(page.eval("desk.state.closes").await, json!(["1000 the command has ended"]));
        assert_eq!(page.eval("desk.state.errors").await, json!([]));
    });
}

#[test]
#[ignore = "needs chromium and xterm.js: scripts/test-browser"]
fn chromium_gets_characters_whole_however_they_are_cut() {
    // Byte by byte with time between, then so much at once that frames end within characters.
    const PROGRAM: &str = "
import sys, time
for byte in '<é你🚀>\\n'.encode():
    sys.stdout.buffer.write(bytes([byte])); sys.stdout.flush(); time.sleep(0.03)
for number in range(3000):
    print(number, 'é你🚀' * 7)
";
    run(async {
        let desk = Desk::start().await;
        let file = format!("/v1/instances/{}/files?path=cut.py", desk.sandbox.id);
        crate::harness::read(desk.sandbox.api.request(http::Method::PUT, &file).body(PROGRAM)).await.expect(201);
        for query in ["", "&protocol=text"] {
            let page = desk.shell(query).await;
            page.types("python3 cut.py; echo done\n").await;
            page.until("desk.screen().includes('done')").await;
            let all = page.everything().await;
            let from = all.iter().position(|line| line == "<é你🚀>").expect("the first line");
            for number in 0..3000 {
                assert_eq!(all[from + 1 + number], format!("{number} {}", "é你🚀".repeat(7)));
            }
            assert_eq!(page.eval("desk.state.errors").await, json!([]));
        }
    });
}
