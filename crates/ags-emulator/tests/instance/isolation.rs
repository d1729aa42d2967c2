//! What instances share with the machine and with each other: with isolation, nothing that can be written.

use std::collections::BTreeMap;
use std::time::Duration;

use ags_emulator::instance::{LaunchError, Probe};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::client::{Client, start};
use crate::harness::Machine;

async fn isolating() -> impl Iterator<Item = Machine> {
    Machine::all().await.into_iter().filter(Machine::isolated)
}

/// Serves one line on a port, over and over.
fn server(port: u16, line: &str) -> String {
    format!(
        "exec perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(LocalAddr => \"127.0.0.1\", \
         LocalPort => {port}, Listen => 9, ReuseAddr => 1) or die; \
         while (my $c = $s->accept) {{ print $c \"{line}\\n\"; close $c }}'"
    )
}

#[tokio::test]
async fn two_instances_listen_on_the_same_port() -> anyhow::Result<()> {
    for machine in isolating().await {
        let mut instances = Vec::new();
        for name in ["first", "second"] {
            let instance = machine.instance(name).await?;
            let client = Client::new(&instance);
            client.stream("process.Process/Start", start(&server(8000, name))).await?.started().await?;
            instances.push((name, instance));
        }
        for (name, instance) in &instances {
            let mut stream = loop {
                match instance.dial(8000).await {
                    Ok(stream) => break stream,
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            let mut line = String::new();
            stream.read_to_string(&mut line).await?;
            assert_eq!(line.trim(), *name);
        }
        for (_, instance) in instances {
            instance.stop().await;
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_daemon_answers_on_its_port_inside() -> anyhow::Result<()> {
    for machine in isolating().await {
        let instance = machine.instance("inside").await?;
        let client = Client::new(&instance);
        for address in ["127.0.0.1", "localhost"] {
            let ask =
                format!("exec 3<>/dev/tcp/{address}/49983; printf 'GET /health HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3");
            let answer = client.run(&ask).await?;
            assert!(answer.out().starts_with("HTTP/1.0 204"), "{answer:?}");
        }
        instance.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn what_is_written_stays_inside() -> anyhow::Result<()> {
    for machine in isolating().await {
        let kind = machine.launcher.isolation();
        let one = machine.instance("writer").await?;
        let two = machine.instance("reader").await?;
        let (one, two) = (Client::new(&one), Client::new(&two));
        let paths = ["/home/user/mark", "/tmp/ags-isolation-mark", "/var/tmp/ags-isolation-mark", "/dev/shm/mark"];
        for path in paths {
            let written = one.run(&format!("echo x >{path} && cat {path}")).await?;
            assert_eq!(written.out(), "x\n", "{path} with {kind}: {written:?}");
            assert!(!std::path::Path::new(path).exists(), "{path} with {kind}");
            assert_eq!(two.run(&format!("test -e {path}")).await?.end["exitCode"], 1, "{path} with {kind}");
        }
        if machine.users_are_real() {
            let system =
                one.user("root")?.run("echo x >/usr/ags-isolation-mark && rm /etc/hostname && ls /usr").await?;
            assert!(system.out().contains("ags-isolation-mark"), "{system:?}");
            assert!(!std::path::Path::new("/usr/ags-isolation-mark").exists());
            assert_eq!(two.run("cat /etc/hostname").await?.out(), "reader\n");
        }
        one.instance.stop().await;
        two.instance.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn the_machine_is_out_of_sight() -> anyhow::Result<()> {
    for machine in isolating().await {
        let kind = machine.launcher.isolation();
        let instance = machine.instance("blind").await?;
        let client = Client::new(&instance);
        let state = machine.state.path().display();
        assert_eq!(client.run(&format!("ls {state} 2>/dev/null")).await?.out(), "", "{kind}");
        let pids = client.run("ls /proc | grep -c '^[0-9]'").await?.out();
        assert!(pids.trim().parse::<u32>()? < 10, "{pids} processes with {kind}");
        assert_eq!(client.run("hostname 2>/dev/null || cat /proc/sys/kernel/hostname").await?.out(), "blind\n");
        let interfaces = client.run("tail -n +3 /proc/net/dev | cut -d: -f1").await?.out();
        assert_eq!(interfaces.trim(), "lo", "{kind}");
        let who = client.run("whoami; echo ~; grep -c . /etc/passwd >/dev/null && id -u").await?.out();
        assert_eq!(who, "user\n/home/user\n1000\n", "{kind}");
        let null = client.run("echo x >/dev/null && head -c 1 /dev/zero | wc -c").await?.out();
        assert_eq!(null, "1\n", "{kind}");
        instance.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn orphans_are_reaped_and_die_with_the_instance() -> anyhow::Result<()> {
    for machine in Machine::all().await {
        let instance = machine.instance("orphans").await?;
        let client = Client::new(&instance);
        let mark = format!("ags{}", std::process::id());
        let ran = client.run(&format!("(setsid bash -c 'exec -a {mark} sleep 61' >/dev/null 2>&1 &) ; true")).await?;
        assert_eq!(ran.end["exited"], true);
        let alive = || -> bool {
            let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
            let mut lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
            lines.any(|line| line.starts_with(mark.as_bytes()))
        };
        while !alive() {
            tokio::task::yield_now().await;
        }
        instance.stop().await;
        assert!(!alive(), "{}", machine.launcher.isolation());
    }
    Ok(())
}

#[tokio::test]
async fn frozen_processes_do_not_run() -> anyhow::Result<()> {
    for machine in Machine::all().await {
        let instance = machine.instance("frozen").await?;
        let client = Client::new(&instance);
        let mut frames = client.stream("process.Process/Start", start("while sleep 0.01; do echo tick; done")).await?;
        frames.started().await?;
        frames.message().await?;
        instance.pause()?;
        // What was under way when it froze may still arrive; then there is silence.
        let silent = async {
            loop {
                let next = tokio::time::timeout(Duration::from_millis(300), frames.message());
                if next.await.is_err() {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(5), silent).await?;
        instance.resume()?;
        frames.message().await?;
        instance.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn the_tools_command_runs_and_is_probed() -> anyhow::Result<()> {
    for machine in Machine::all().await {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let reply = "HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: 0\\r\\n\\r";
        let mut spec = machine.spec("tool");
        spec.envs = BTreeMap::from([("LINE".into(), "from the environment".into())]);
        spec.command = vec!["/bin/bash".into(), "-c".into()];
        spec.args = vec![format!("echo \"$LINE as $(whoami)\" >>/tmp/tool-$$.log; {}", server(port, reply))];
        spec.probe = Some(Probe {
            path: "/ready".into(),
            port,
            scheme: "HTTP".into(),
            ready_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            period: Duration::from_millis(20),
            success_threshold: 1,
            failure_threshold: 3,
        });
        let instance = machine.launch(spec).await?;
        let mut stream = instance.dial(port).await?;
        stream.write_all(b"x").await?;
        let said = Client::new(&instance).run("cat /tmp/tool-*.log; rm -f /tmp/tool-*.log").await?.out();
        let root = if machine.users_are_real() { "root" } else { "user" };
        if machine.isolated() {
            assert_eq!(said, format!("from the environment as {root}\n"));
        }
        instance.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_probe_that_never_succeeds_fails_the_instance() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let mut spec = machine.spec("never");
    spec.command = vec!["sleep".into(), "60".into()];
    spec.probe = Some(Probe {
        path: "/".into(),
        port: 1,
        scheme: "HTTP".into(),
        ready_timeout: Duration::from_millis(200),
        timeout: Duration::from_millis(50),
        period: Duration::from_millis(20),
        success_threshold: 1,
        failure_threshold: 3,
    });
    let error = machine.launch(spec).await.err().and_then(|error| error.downcast::<LaunchError>().ok());
    assert!(matches!(error, Some(LaunchError::Probe(_))), "{error:?}");
    let mut spec = machine.spec("unknown");
    spec.command = vec!["/no/such/program".into()];
    let error = machine.launch(spec).await.err().map(|error| format!("{error:#}"));
    assert!(error.as_deref().is_some_and(|error| error.contains("No such file")), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn a_command_that_nobody_hears_stalls_by_version() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    for (version, finishes) in [("0.5.14", false), ("0.5.19", true)] {
        let mut spec = machine.spec("unheard");
        spec.envd_version = version.into();
        let instance = machine.launch(spec).await?;
        let client = Client::new(&instance);
        let mut frames = client.stream("process.Process/Start", start("head -c 9999999 /dev/zero; touch done")).await?;
        let pid = frames.started().await?;
        drop(frames);
        if finishes {
            client.run("while ! test -e done; do sleep 0.01; done").await?;
        } else {
            let listener = client.stream("process.Process/Connect", json!({"process": {"pid": pid}})).await?;
            assert_eq!(listener.finish().await?.end["status"], "exit status 0", "whoever listens gets it going");
        }
        instance.stop().await;
    }
    Ok(())
}
