//! `process.Process` over the wire.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, start};
use crate::harness::Machine;

const START: &str = "process.Process/Start";

#[tokio::test]
async fn a_command_is_streamed_frame_by_frame() -> anyhow::Result<()> {
    for machine in Machine::all().await {
        let instance = machine.instance("echo").await?;
        let mut frames = Client::new(&instance).stream(START, start("echo hi")).await?;
        assert!(frames.started().await? > 0);
        assert_eq!(frames.message().await?, json!({"event": {"data": {"stdout": "aGkK"}}}));
        let end = json!({"event": {"end": {"exited": true, "status": "exit status 0"}}});
        assert_eq!(frames.message().await?, end);
        assert_eq!(frames.frame().await?, Some((2, json!({}))));
        assert_eq!(frames.frame().await?, None);
        instance.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn ends_are_told_as_envd_tells_them() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let instance = machine.instance("ends").await?;
    let client = Client::new(&instance);

    let failed = client.run("echo no >&2; exit 3").await?;
    let expected = json!({"exitCode": 3, "exited": true, "status": "exit status 3", "error": "exit status 3"});
    assert_eq!((failed.end, failed.stderr), (expected, b"no\n".to_vec()));

    let unknown = client.stream(START, json!({"process": {"cmd": "no-such-thing"}})).await?.finish().await?;
    assert_eq!(unknown.end["exitCode"], 127);

    let killed = client.run("kill -9 $$").await?;
    let expected = json!({"exitCode": -1, "status": "signal: killed", "error": "signal: killed"});
    assert_eq!(killed.end, expected);
    instance.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_mistake_travels_in_the_last_frame() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let instance = machine.instance("wrong").await?;
    let client = Client::new(&instance);
    let refused = async |client: &Client, message: Value| -> anyhow::Result<Value> {
        Ok(client.stream(START, message).await?.finish().await?.trailer["error"].take())
    };
    let nobody = refused(&client.user("nobody-here")?, start("true")).await?;
    assert_eq!(nobody, json!({"code": "unauthenticated", "message": "invalid username: 'nobody-here'"}));
    let cwd = refused(&client, json!({"process": {"cmd": "ls", "cwd": "/nowhere"}})).await?;
    assert_eq!(cwd, json!({"code": "invalid_argument", "message": "cwd '/nowhere' does not exist"}));
    let home = refused(&client, json!({"process": {"cmd": "ls", "cwd": "~root"}})).await?;
    assert_eq!(home["code"], "invalid_argument");
    let gone = client.stream("process.Process/Connect", json!({"process": {"pid": 999_999}})).await?.finish().await?;
    assert_eq!(gone.trailer["error"], json!({"code": "not_found", "message": "process with pid 999999 not found"}));
    let signal = client.call("process.Process/SendSignal", json!({"process": {"tag": "t"}, "signal": 9})).await?;
    assert_eq!(signal, Err(("not_found".into(), "process with tag t not found".into())));
    instance.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_environment_is_built_and_not_inherited() -> anyhow::Result<()> {
    for machine in Machine::all().await {
        let instance = machine.instance("env").await?;
        let client = Client::new(&instance);
        let request = json!({"process": {"cmd": "/usr/bin/env", "envs": {"WIDE": "of the request", "USER": "me"}}});
        let ran = client.stream(START, request).await?.finish().await?;
        let mut names: Vec<String> =
            ran.out().lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect();
        names.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(&name.as_str()));
        names.sort();
        assert_eq!(names, ["HOME", "LOGNAME", "PATH", "USER", "WIDE"]);
        assert!(ran.out().contains("WIDE=of the request\n") && ran.out().contains("USER=me\n"));
        let ran = client.run("echo $WIDE; pwd; cd; pwd").await?;
        let lines: Vec<String> = ran.out().lines().map(str::to_owned).collect();
        assert_eq!((lines[0].as_str(), &lines[1]), ("of the sandbox", &lines[2]));
        let envs = client.get("/envs").await?.json()?;
        assert_eq!(envs, json!({"WIDE": "of the sandbox"}));
        instance.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn input_reaches_a_process_until_it_is_closed() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let instance = machine.instance("stdin").await?;
    let client = Client::new(&instance);
    let request = json!({"process": {"cmd": "cat"}, "stdin": true, "tag": "cat"});
    let mut frames = client.stream(START, request).await?;
    let pid = frames.started().await?;
    let input = json!({"process": {"pid": pid}, "input": {"stdin": "YWJj"}});
    assert_eq!(client.call("process.Process/SendInput", input).await?, Ok(json!({})));
    assert_eq!(frames.message().await?["event"]["data"]["stdout"], "YWJj");
    let listed = client.call("process.Process/List", json!({})).await?;
    let expected = json!({"processes": [{"config": {"cmd": "cat"}, "pid": pid, "tag": "cat"}]});
    assert_eq!(listed, Ok(expected));

    let pty = json!({"process": {"pid": pid}, "input": {"pty": "YWJj"}});
    let refused = client.call("process.Process/SendInput", pty).await?;
    assert_eq!(refused.map_err(|(code, _)| code), Err("internal".into()));
    let resize = json!({"process": {"pid": pid}, "pty": {"size": {"cols": 1, "rows": 1}}});
    let refused = client.call("process.Process/Update", resize).await?;
    assert_eq!(refused.map_err(|(code, _)| code), Err("internal".into()));

    let closed = client.call("process.Process/CloseStdin", json!({"process": {"tag": "cat"}})).await?;
    assert_eq!(closed, Ok(json!({})));
    assert_eq!(frames.finish().await?.end["status"], "exit status 0");
    instance.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_process_without_stdin_reads_nothing() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let instance = machine.instance("null").await?;
    let client = Client::new(&instance);
    let mut frames = client.stream(START, start("cat; sleep 60")).await?;
    let pid = frames.started().await?;
    for _ in 0..2 {
        let closed = client.call("process.Process/CloseStdin", json!({"process": {"pid": pid}})).await?;
        assert_eq!(closed, Ok(json!({})));
    }
    let input = json!({"process": {"pid": pid}, "input": {"stdin": "YWJj"}});
    let refused = client.call("process.Process/SendInput", input).await?;
    let text = "error writing to stdin: stdin not enabled or closed";
    assert_eq!(refused, Err(("internal".into(), text.into())));
    let signal = json!({"process": {"pid": pid}, "signal": "SIGNAL_SIGTERM"});
    assert_eq!(client.call("process.Process/SendSignal", signal).await?, Ok(json!({})));
    let ran = frames.finish().await?;
    assert_eq!((ran.end["status"].as_str(), ran.trailer), (Some("signal: terminated"), json!({})));
    let again = json!({"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"});
    let gone = client.call("process.Process/SendSignal", again).await?;
    assert_eq!(gone, Err(("not_found".into(), format!("process with pid {pid} not found"))));
    instance.stop().await;
    Ok(())
}

#[tokio::test]
async fn other_signals_are_not_implemented() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let instance = machine.instance("signals").await?;
    let client = Client::new(&instance);
    let mut frames = client.stream(START, start("sleep 60")).await?;
    let pid = frames.started().await?;
    let refused = client.call("process.Process/SendSignal", json!({"process": {"pid": pid}, "signal": 1})).await?;
    assert_eq!(refused.map_err(|(code, _)| code), Err("unimplemented".into()));
    instance.stop().await;
    Ok(())
}

#[tokio::test]
async fn everybody_sees_what_comes_after_they_joined() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let instance = machine.instance("many").await?;
    let client = Client::new(&instance);
    let request = json!({"process": {"cmd": "cat"}});
    let mut first = client.stream(START, request).await?;
    let pid = first.started().await?;
    let send = async |text: &str| {
        client.call("process.Process/SendInput", json!({"process": {"pid": pid}, "input": {"stdin": text}})).await
    };
    send("YQ==").await?.ok();
    assert_eq!(first.message().await?["event"]["data"]["stdout"], "YQ==");
    let mut second = client.stream("process.Process/Connect", json!({"process": {"pid": pid}})).await?;
    assert_eq!(second.started().await?, pid);
    send("Yg==").await?.ok();
    assert_eq!(second.message().await?["event"]["data"]["stdout"], "Yg==");
    // Who leaves holds up nobody, and ends nothing.
    drop(first);
    send("Yw==").await?.ok();
    assert_eq!(second.message().await?["event"]["data"]["stdout"], "Yw==");
    client.call("process.Process/CloseStdin", json!({"process": {"pid": pid}})).await?.ok();
    assert_eq!(second.finish().await?.end["exited"], true);
    instance.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_deadline_of_the_call_is_the_life_of_the_process() -> anyhow::Result<()> {
    for machine in Machine::all().await {
        let instance = machine.instance("late").await?;
        let client = Client::new(&instance);
        let begun = Instant::now();
        let hurried = client.with("connect-timeout-ms", "300")?;
        let mut frames = hurried.stream(START, start("sleep 60")).await?;
        let pid = frames.started().await?;
        let late = frames.finish().await?;
        let expected = json!({"error": {"code": "deadline_exceeded", "message": "context deadline exceeded"}});
        assert_eq!(late.trailer, expected);
        assert!(begun.elapsed() < Duration::from_secs(5));
        let alive = client.run(&format!("while kill -0 {pid} 2>/dev/null; do sleep 0.01; done")).await?;
        assert_eq!(alive.end["exited"], true);
        instance.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn silence_is_broken_by_keepalives() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let instance = machine.instance("quiet").await?;
    let client = Client::new(&instance).with("keepalive-ping-interval", "1")?;
    let mut frames = client.stream(START, start("sleep 60")).await?;
    frames.started().await?;
    assert_eq!(frames.message().await?, json!({"event": {"keepalive": {}}}));
    instance.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_end_waits_for_whoever_holds_the_pipe() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let instance = machine.instance("holder").await?;
    let client = Client::new(&instance);
    let ran = client.run("(sleep 0.3; echo late) & echo early").await?;
    assert_eq!(ran.out(), "early\nlate\n");
    let mut frames = client.stream(START, start("sleep 60 & sleep 60")).await?;
    let pid = frames.started().await?;
    let signal = json!({"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"});
    client.call("process.Process/SendSignal", signal).await?.ok();
    assert_eq!(frames.finish().await?.end["status"], "signal: killed");
    instance.stop().await;
    Ok(())
}

#[tokio::test]
async fn bytes_come_back_as_they_were() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let instance = machine.instance("bytes").await?;
    let client = Client::new(&instance);
    let ran = client.run("head -c 8191 /dev/zero | tr '\\0' a; printf '\\342'").await?;
    assert_eq!((ran.stdout.len(), ran.stdout.last()), (8192, Some(&0xe2)));
    instance.stop().await;
    Ok(())
}

#[tokio::test]
async fn much_output_arrives_whole() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let instance = machine.instance("much").await?;
    let client = Client::new(&instance);
    let begun = Instant::now();
    let ran = client.run("head -c 33554432 /dev/zero").await?;
    eprintln!("32 MiB of output in {:?}", begun.elapsed());
    assert_eq!((ran.stdout.len(), ran.end["exited"].as_bool()), (32 << 20, Some(true)));
    instance.stop().await;
    Ok(())
}
