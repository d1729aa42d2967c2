//! Terminals over the wire.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::client::{Client, Ran};
use crate::harness::Machine;

fn terminal(cols: u32, rows: u32) -> Value {
    json!({
        "process": {"cmd": "/bin/sh", "args": ["-i"], "envs": {"TERM": "dumb", "PS1": "ready>"}},
        "pty": {"size": {"cols": cols, "rows": rows}},
    })
}

async fn typed(client: &Client, pid: u64, text: &str) -> anyhow::Result<()> {
    let input = json!({"process": {"pid": pid}, "input": {"pty": STANDARD.encode(text)}});
    assert_eq!(client.call("process.Process/SendInput", input).await?, Ok(json!({})));
    Ok(())
}

#[tokio::test]
async fn a_terminal_is_one_and_has_a_size() -> anyhow::Result<()> {
    for machine in Machine::all().await {
        let instance = machine.instance("terminal").await?;
        let client = Client::new(&instance);
        let mut frames = client.stream("process.Process/Start", terminal(91, 31)).await?;
        let pid = frames.started().await?;
        let mut said = Ran::default();
        typed(&client, pid, "stty size; test -t 0 && test -O $(tty) && echo o''wn\n").await?;
        frames.until(&mut said, "31 91").await?;
        if machine.isolated() {
            frames.until(&mut said, "own").await?;
        }
        let resize = json!({"process": {"pid": pid}, "pty": {"size": {"cols": 40, "rows": 12}}});
        assert_eq!(client.call("process.Process/Update", resize).await?, Ok(json!({})));
        let nothing = client.call("process.Process/Update", json!({"process": {"pid": pid}})).await?;
        assert_eq!(nothing, Ok(json!({})));
        typed(&client, pid, "stty size\n").await?;
        frames.until(&mut said, "12 40").await?;

        let refused = client.call("process.Process/CloseStdin", json!({"process": {"pid": pid}})).await?;
        assert_eq!(refused.map_err(|(code, _)| code), Err("failed_precondition".into()));
        let stdin = json!({"process": {"pid": pid}, "input": {"stdin": "YQ=="}});
        let refused = client.call("process.Process/SendInput", stdin).await?;
        assert_eq!(refused.map_err(|(code, _)| code), Err("internal".into()));

        typed(&client, pid, "exit 5\n").await?;
        assert_eq!(frames.finish().await?.end["exitCode"], 5);
        instance.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn control_characters_are_signals() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let instance = machine.instance("ctrl").await?;
    let client = Client::new(&instance);
    let mut frames = client.stream("process.Process/Start", terminal(80, 24)).await?;
    let pid = frames.started().await?;
    let mut said = Ran::default();
    // The shell in front says so once it is in the foreground: a Ctrl+C before that would miss it.
    typed(&client, pid, "sh -c 'echo go; sleep 60'\n").await?;
    frames.until(&mut said, "go\r\n").await?;
    typed(&client, pid, "\u{3}echo aw''ake\n").await?;
    frames.until(&mut said, "awake").await?;
    typed(&client, pid, "\u{4}").await?;
    assert_eq!(frames.finish().await?.end["exited"], true);
    instance.stop().await;
    Ok(())
}
