//! `/files` and what else is plain HTTP.

use std::io::{Read as _, Write as _};

use ags_emulator::instance::inside::Isolation;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::json;

use crate::client::{Answer, Client};
use crate::harness::Machine;

const RAW: &str = "application/octet-stream";

async fn get(client: &Client, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.request(request.body(Full::default())?).await
}

fn form(parts: &[(&str, &str)]) -> String {
    let mut body = String::new();
    for (filename, content) in parts {
        body += &format!(
            "--cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{filename}\"\r\n\
             Content-Type: text/plain\r\n\r\n{content}\r\n"
        );
    }
    body + "--cut--\r\n"
}

const FORM: &str = "multipart/form-data; boundary=cut";

#[tokio::test]
async fn a_file_goes_up_and_comes_down() -> anyhow::Result<()> {
    for machine in Machine::all().await {
        let instance = machine.instance("updown").await?;
        let client = Client::new(&instance);
        let home = client.run("pwd").await?.out().trim().to_owned();
        let written = client.post("/files?path=new/dir/a+b.txt", RAW, "content").await?;
        assert_eq!((written.status, written.header("content-type")), (StatusCode::OK, "text/plain; charset=utf-8"));
        let path = format!("{home}/new/dir/a b.txt");
        assert_eq!(written.json()?, json!([{"path": path, "name": "a b.txt", "type": "file"}]));
        let seen = client.run("stat -c '%a %s' 'new/dir/a b.txt'; stat -c %a new new/dir").await?;
        assert_eq!(seen.out(), "644 7\n755\n755\n");

        let read = client.get("/files?path=new/dir/a%20b.txt").await?;
        assert_eq!((read.status, read.text().as_str()), (StatusCode::OK, "content"));
        assert_eq!(read.header("content-disposition"), "inline; filename=\"a b.txt\"");
        assert_eq!(read.header("content-length"), "7");
        assert_eq!(read.header("vary"), "Accept-Encoding");
        instance.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn files_belong_to_who_is_named() -> anyhow::Result<()> {
    for machine in Machine::all().await.into_iter().filter(Machine::users_are_real) {
        let instance = machine.instance("owners").await?;
        let client = Client::new(&instance);
        let root_home = client.user("root")?.run("pwd").await?.out().trim().to_owned();
        client.post("/files?path=/tmp/owners/mine", RAW, "x").await?;
        client.post("/files?path=/tmp/owners/roots&username=root", RAW, "x").await?;
        client.post("/files?path=secret&username=root", RAW, "x").await?;
        let owners = client.run("stat -c '%u %g' /tmp/owners /tmp/owners/mine /tmp/owners/roots").await?;
        assert_eq!(owners.out(), "1000 1000\n1000 1000\n0 0\n", "{}", machine.launcher.isolation());
        let hidden = client.run(&format!("cat {root_home}/secret")).await?;
        assert_eq!(hidden.end["exitCode"], 1);
        client.user("root")?.run("rm -r /tmp/owners").await?;
        instance.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn forms_carry_paths_in_their_file_names() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let instance = machine.instance("forms").await?;
    let client = Client::new(&instance);
    let several = client.post("/files", FORM, form(&[("x1", "one"), ("/tmp/deep/x2", "two")])).await?;
    let paths: Vec<_> = several.json()?.as_array().into_iter().flatten().map(|file| file["path"].clone()).collect();
    assert_eq!(paths, ["/home/user/x1", "/tmp/deep/x2"]);
    assert_eq!(client.run("cat x1 /tmp/deep/x2").await?.out(), "onetwo");

    let twice = client.post("/files?path=/tmp/y", FORM, form(&[("a", "1"), ("b", "2")])).await?;
    assert_eq!(twice.status, StatusCode::BAD_REQUEST);
    assert!(twice.text().contains("you cannot upload multiple files to the same path"));
    let broken = client.post("/files?path=/tmp/y", FORM, "--cut\r\nnonsense").await?;
    assert_eq!(broken.status, StatusCode::BAD_REQUEST);
    instance.stop().await;
    Ok(())
}

#[tokio::test]
async fn mistakes_have_a_status_and_a_text() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let instance = machine.instance("mistakes").await?;
    let client = Client::new(&instance);
    let says = |answer: Answer| -> anyhow::Result<(u16, String)> {
        assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
        let body = answer.json()?;
        assert_eq!(body["code"], answer.status.as_u16());
        Ok((answer.status.as_u16(), body["message"].as_str().unwrap_or_default().to_owned()))
    };
    let told = says(client.get("/files?path=nothing").await?)?;
    assert_eq!(told, (404, "path '/home/user/nothing' does not exist".into()));
    let told = says(client.get("/files?path=/tmp").await?)?;
    assert_eq!(told, (400, "path '/tmp' is a directory".into()));
    let told = says(client.get("/files?path=~root/x").await?)?;
    assert_eq!(told, (400, "cannot expand user-specific home dir".into()));
    let told = says(client.get("/files?path=x&username=ghost").await?)?;
    assert_eq!(told.0, 401);
    let told = says(client.post("/files", RAW, "x").await?)?;
    assert_eq!(told, (400, "path query parameter is required for raw body upload".into()));
    let told = says(client.post("/files?path=x", "text/plain", "x").await?)?;
    assert_eq!(told, (400, "unsupported content type: text/plain".into()));
    let told = says(client.post("/files?path=/tmp", RAW, "x").await?)?;
    assert_eq!(told.0, 400);
    let told = says(client.with("content-encoding", "br")?.post("/files?path=x", RAW, "x").await?)?;
    assert_eq!(told.0, 400);
    let told = says(get(&client, "/files?path=/etc/passwd", &[("accept-encoding", "identity;q=0")]).await?)?;
    assert_eq!(told.0, 406);
    instance.stop().await;
    Ok(())
}

#[tokio::test]
async fn gzip_both_ways() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let instance = machine.instance("gzip").await?;
    let client = Client::new(&instance);
    let content: Vec<u8> = (0..1_000_000u32).flat_map(|number| (number % 251).to_le_bytes()).collect();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&content)?;
    let compressed = client.with("content-encoding", "gzip")?;
    let written = compressed.post("/files?path=g.bin", RAW, encoder.finish()?).await?;
    assert_eq!(written.status, StatusCode::OK, "{}", written.text());
    assert_eq!(client.run("stat -c %s g.bin").await?.out(), "4000000\n");

    let read = get(&client, "/files?path=g.bin", &[("accept-encoding", "gzip, deflate")]).await?;
    assert_eq!((read.header("content-encoding"), read.header("content-length")), ("gzip", ""));
    let mut decoded = Vec::new();
    GzDecoder::new(&read.body[..]).read_to_end(&mut decoded)?;
    assert!(decoded == content, "content survives");
    let ranged = [("accept-encoding", "gzip"), ("range", "bytes=4-7")];
    let part = get(&client, "/files?path=g.bin", &ranged).await?;
    assert_eq!((part.status, part.header("content-encoding")), (StatusCode::PARTIAL_CONTENT, ""));
    assert_eq!(part.body, content[4..8]);
    let pseudo = get(&client, "/files?path=/proc/version", &[("accept-encoding", "gzip")]).await?;
    let mut decoded = String::new();
    GzDecoder::new(&pseudo.body[..]).read_to_string(&mut decoded)?;
    assert!(decoded.starts_with("Linux"), "{decoded}");
    instance.stop().await;
    Ok(())
}

#[tokio::test]
async fn ranges_and_conditions() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let instance = machine.instance("ranges").await?;
    let client = Client::new(&instance);
    client.post("/files?path=digits", RAW, "0123456789").await?;
    let path = "/files?path=digits";
    let part = get(&client, path, &[("range", "bytes=-3")]).await?;
    assert_eq!((part.status, part.text().as_str()), (StatusCode::PARTIAL_CONTENT, "789"));
    assert_eq!(part.header("content-range"), "bytes 7-9/10");
    let beyond = get(&client, path, &[("range", "bytes=10-")]).await?;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(beyond.header("content-range"), "bytes */10");
    let modified = part.header("last-modified").to_owned();
    let same = get(&client, path, &[("if-modified-since", &modified)]).await?;
    assert_eq!((same.status, same.body), (StatusCode::NOT_MODIFIED, Bytes::new()));
    let later = get(&client, path, &[("if-unmodified-since", "Mon, 02 Jan 2006 15:04:05 GMT")]).await?;
    assert_eq!(later.status, StatusCode::PRECONDITION_FAILED);
    instance.stop().await;
    Ok(())
}

#[tokio::test]
async fn parts_become_one_file() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let instance = machine.instance("compose").await?;
    let client = Client::new(&instance);
    client.run("printf one >1; printf two >2; mkdir d").await?;
    let compose =
        async |wish: serde_json::Value| client.post("/files/compose", "application/json", wish.to_string()).await;
    let whole = compose(json!({"source_paths": ["1", "2"], "destination": "w/whole"})).await?;
    assert_eq!(whole.json()?, json!({"path": "/home/user/w/whole", "name": "whole", "type": "file"}));
    assert_eq!(client.run("cat w/whole; ls; stat -c '%a %U' w/whole").await?.out(), "onetwod\nw\n644 user\n");
    let missing = compose(json!({"source_paths": ["1"], "destination": "x"})).await?;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert_eq!(missing.json()?["message"], "source file not found: /home/user/1");
    for wish in [
        json!({"source_paths": [], "destination": "x"}),
        json!({"source_paths": ["d"], "destination": "x"}),
        json!({"source_paths": ["w/whole"], "destination": "w/whole"}),
        json!({"destination": "x"}),
    ] {
        assert_eq!(compose(wish).await?.status, StatusCode::BAD_REQUEST);
    }
    instance.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_full_disk_says_so() -> anyhow::Result<()> {
    for machine in Machine::all().await.into_iter().filter(|m| m.launcher.isolation() == Isolation::Namespaces) {
        let instance = machine.instance("full").await?;
        let client = Client::new(&instance);
        let content = vec![0; 1 << 20];
        client.user("root")?.run("mkdir /small && mount -t tmpfs -o size=256k tmpfs /small").await?;
        let full = client.post("/files?path=/small/file", RAW, content).await?;
        assert_eq!(full.status, StatusCode::INSUFFICIENT_STORAGE);
        assert_eq!(full.json()?, json!({"code": 507, "message": "not enough disk space available"}));
        instance.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_daemon_with_a_token_wants_it_or_a_signature() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let mut spec = machine.spec("token");
    spec.envd_token = Some("0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0".into());
    let instance = machine.launch(spec).await?;
    let client = Client::new(&instance);
    let trusted = client.with("x-access-token", "0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0")?;
    let text = "unauthorized access, please provide a valid access token or method signing if supported";
    let refused = client.post("/process.Process/List", "application/json", "{}").await?;
    assert_eq!((refused.status, refused.json()?), (StatusCode::UNAUTHORIZED, json!({"code": 401, "message": text})));
    assert_eq!(client.get("/envs").await?.status, StatusCode::UNAUTHORIZED);
    assert_eq!(client.get("/health").await?.status, StatusCode::NO_CONTENT);
    assert_eq!(trusted.get("/envs").await?.status, StatusCode::OK);
    trusted.post("/files?path=hello.txt&username=user", RAW, "hello").await?;

    let path = "/files?path=hello.txt&username=user";
    let says = async |client: &Client, query: &str| -> anyhow::Result<(u16, serde_json::Value)> {
        let answer = client.get(&format!("{path}{query}")).await?;
        Ok((answer.status.as_u16(), answer.json().unwrap_or_default()["message"].take()))
    };
    let signature = "v1_gUtH%2Fs9YCJWgCizjfUxuWfhFE4QSydOWEIIvfLwDr6E";
    assert_eq!(says(&client, &format!("&signature={signature}")).await?.0, 200);
    assert_eq!(says(&client, "").await?, (401, json!("missing signature query parameter")));
    assert_eq!(says(&client, "&signature=v1_x").await?, (401, json!("invalid signature")));
    let expired = format!("&signature={}&signature_expiration=1", "v1_x");
    assert_eq!(says(&client, &expired).await?, (401, json!("invalid signature")));
    let wrong = client.with("x-access-token", "guess")?;
    assert_eq!(says(&wrong, "").await?, (401, json!("access token present in header but does not match")));
    instance.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_daemon_says_how_it_is() -> anyhow::Result<()> {
    for machine in Machine::all().await {
        let mut spec = machine.spec("figures");
        (spec.cpu, spec.memory) = (Some(1.0), Some(1 << 30));
        let instance = machine.launch(spec).await?;
        let client = Client::new(&instance);
        let health = client.get("/health").await?;
        assert_eq!((health.status, health.header("cache-control")), (StatusCode::NO_CONTENT, "no-store"));
        let metrics = client.get("/metrics").await?.json()?;
        assert_eq!((&metrics["cpu_count"], &metrics["mem_total"]), (&json!(1), &json!(1 << 30)));
        for name in ["ts", "cpu_used_pct", "mem_used", "mem_used_mib", "mem_cache", "disk_used", "disk_total"] {
            assert!(metrics[name].is_number(), "{name} in {metrics}");
        }
        let preflight = Request::options("/files").header("origin", "https://example.org");
        let preflight = preflight.header("access-control-request-method", "POST").body(Full::default())?;
        assert_eq!(client.request(preflight).await?.header("access-control-allow-origin"), "*");
        assert_eq!(client.post("/init", "application/json", "{}").await?.status, StatusCode::NOT_FOUND);
        instance.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_long_file_streams() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let instance = machine.instance("long").await?;
    let client = Client::new(&instance);
    let content = Bytes::from(vec![7; 64 << 20]);
    let written = client.post("/files?path=long", RAW, content.clone()).await?;
    assert_eq!(written.status, StatusCode::OK, "{}", written.text());
    let read = client.get("/files?path=long").await?;
    assert!(read.body == content, "content survives");
    let peak = client.run("grep -h VmHWM /proc/2/status | grep -o '[0-9]*'").await?;
    if machine.isolated() {
        let peak: u64 = peak.out().trim().parse()?;
        assert!(peak < 48 << 10, "the daemon took {peak} KiB");
    }
    instance.stop().await;
    Ok(())
}
