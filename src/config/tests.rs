use std::io;

use super::*;

/// Variables and files of a test.
#[derive(Default)]
struct Fixed {
    variables: BTreeMap<String, String>,
    files: BTreeMap<String, String>,
}

impl Fixed {
    fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.variables.remove(name);
        self
    }

    fn file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.into(), text.into());
        self
    }

    fn load(&self) -> Result<Config, ConfigError> {
        Config::load(self, None)
    }

    fn load_file(&self, path: &str) -> Result<Config, ConfigError> {
        Config::load(self, Some(Path::new(path)))
    }

    fn problems(&self) -> Vec<String> {
        self.load().expect_err("the configuration must be refused").problems.iter().map(Problem::to_string).collect()
    }
}

impl Source for Fixed {
    fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        let found = self.files.get(&path.display().to_string());
        found.cloned().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such file"))
    }
}

const SECRET: &str = "an-auth-secret-of-more-than-32-bytes";

/// What production must give, by variables alone.
fn complete() -> Fixed {
    Fixed::default()
        .variable("DATABASE_URL", "postgres://gateway:pg-password@db/gateway")
        .variable("AGS_GATEWAY__AUTH__SECRET", SECRET)
        .variable("TENCENTCLOUD_SECRET_ID", "the-secret-id")
        .variable("TENCENTCLOUD_SECRET_KEY", "the-secret-key")
        .variable("TENCENTCLOUD_REGION", "ap-guangzhou")
}

#[test]
fn variables_alone_make_the_default_upstream() {
    let config = complete().variable("TENCENTCLOUD_ROLE_ARN", "qcs::cam::uin/1:roleName/r").load().unwrap();
    let upstream = config.default_upstream();
    assert_eq!(upstream.name, "default");
    assert_eq!(upstream.endpoint.as_str(), "https://ags.tencentcloudapi.com/");
    assert_eq!(upstream.domain, "ap-guangzhou.tencentags.com");
    assert_eq!(upstream.role_arn.as_deref(), Some("qcs::cam::uin/1:roleName/r"));
    assert_eq!(upstream.credentials.secret_id, "the-secret-id");
    assert!(upstream.envd_mount.is_none());
    assert_eq!(config.instances.timeout.as_secs(), 3_600);
    assert_eq!(config.exec.timeout.as_secs(), 60);
    assert_eq!(config.tools.probe.failure_threshold, 100);
    assert_eq!(config.files.max_upload, None);
    assert_eq!(config.server.metrics_listen, None);
}

#[test]
fn production_never_falls_back() {
    let problems = Fixed::default().problems();
    for key in [
        "auth.secret is required",
        "database.url is required",
        "upstreams.default.region is required",
        "upstreams.default.credentials.secret_id is required",
        "upstreams.default.credentials.secret_key is required",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(key)), "{key}: {problems:#?}");
    }
    assert_eq!(problems.len(), 5, "{problems:#?}");
    let emptied = complete()
        .variable("AGS_GATEWAY__UPSTREAM_DEFAULTS__ENDPOINT", "")
        .variable("AGS_GATEWAY__UPSTREAM_DEFAULTS__DOMAIN", "");
    let problems = emptied.problems();
    assert!(problems[0].starts_with("upstreams.default.endpoint is required"), "{problems:#?}");
    assert!(problems[1].starts_with("upstreams.default.domain is required"), "{problems:#?}");
}

#[test]
fn later_layers_win_and_say_where_from() {
    let toml = "[server]\nlisten = \"127.0.0.1:1\"\nmax_json_body = \"2MiB\"\n[jobs]\nreap_batch = 7\n";
    let source = complete().file("/etc/gateway.toml", toml).variable("AGS_GATEWAY__SERVER__LISTEN", "127.0.0.1:2");
    let config = source.load_file("/etc/gateway.toml").unwrap();
    assert_eq!(config.server.listen.port(), 2);
    assert_eq!(config.server.max_json_body, 2 << 20);
    assert_eq!(config.jobs.reap_batch, 7);
    let origin = |key: &str| config.entries().into_iter().find(|entry| entry.key == key).unwrap().origin;
    assert_eq!(origin("server.listen"), "AGS_GATEWAY__SERVER__LISTEN");
    assert_eq!(origin("server.max_json_body"), "/etc/gateway.toml");
    assert_eq!(origin("server.drain_timeout"), "default");
    assert_eq!(origin("database.url"), "DATABASE_URL");
}

#[test]
fn all_problems_are_told_together_with_key_and_origin() {
    let toml = "[servr]\nlisten = 1\n[server]\nlistn = \"x\"\nlisten = \"nowhere\"\n[instances]\ntimeout = \"5s\"\n";
    let source = complete()
        .file("/g.toml", toml)
        .variable("AGS_GATEWAY__EXEC__TIMEOUT", "soon")
        .variable("AGS_GATEWAY__EXEC__TIMEOOT", "1s")
        .variable("AGS_GATEWAY__SERVER__TRUSTED_PROXIES", "10.0.0.0/8,local")
        .variable("AGS_GATEWAY__JOBS", "x");
    let error = source.load_file("/g.toml").unwrap_err();
    let text = error.to_string();
    for expected in [
        "the configuration has 8 problems:",
        "servr.listen (from /g.toml) is not a key of the configuration",
        "server.listn (from /g.toml) is not a key of the configuration",
        "server.listen (from /g.toml) \"nowhere\" is not an address",
        "instances.timeout must be between 30s and 24h",
        "exec.timeout (from AGS_GATEWAY__EXEC__TIMEOUT) \"soon\" is not a duration",
        "exec.timeoot (from AGS_GATEWAY__EXEC__TIMEOOT) is not a key of the configuration",
        "server.trusted_proxies (from AGS_GATEWAY__SERVER__TRUSTED_PROXIES) \"local\" is not a network",
        "jobs (from AGS_GATEWAY__JOBS) is a section, not a value",
    ] {
        assert!(text.contains(expected), "{expected} missing in {text}");
    }
}

#[test]
fn secrets_come_by_value_or_by_file_never_both() {
    let by_file = complete()
        .without("AGS_GATEWAY__AUTH__SECRET")
        .file("/etc/gateway.toml", "[auth]\nsecret_file = \"auth.key\"\n")
        .file("/etc/auth.key", "an-auth-secret-of-more-than-32-bytes\n");
    use secrecy::ExposeSecret;
    let config = by_file.load_file("/etc/gateway.toml").unwrap();
    assert_eq!(config.auth.secret.expose_secret(), SECRET);

    let both = complete().variable("AGS_GATEWAY__AUTH__SECRET_FILE", "/x").problems();
    assert_eq!(both.len(), 1);
    assert!(both[0].contains("AGS_GATEWAY__AUTH__SECRET_FILE) are both set"), "{both:#?}");
    let both = complete().variable("TENCENTCLOUD_SECRET_KEY_FILE", "/x").problems();
    assert!(both[0].contains("are both set"), "{both:#?}");

    let overridden = complete().file("/g.toml", "[auth]\nsecret_file = \"/gone\"\n").load_file("/g.toml").unwrap();
    assert_eq!(overridden.auth.secret.expose_secret(), SECRET);
}

#[test]
fn no_message_shows_a_secret() {
    let source = complete()
        .variable("AGS_GATEWAY__AUTH__SECRET", "short-secret")
        .variable("DATABASE_URL", "mysql://u:pg-password@h/d")
        .file("/g.toml", "[auth]\nprevious_secret = \"unterminated-secret\n");
    let text = format!("{:?} {0}", source.load_file("/g.toml").unwrap_err());
    assert!(text.contains("auth.secret is shorter than 32 bytes"), "{text}");
    assert!(text.contains("line 2 is not valid TOML"), "{text}");
    let config = complete().variable("TENCENTCLOUD_TOKEN", "the-token").load().unwrap();
    let text = format!("{text} {config:?} {:?}", config.entries());
    for secret in ["short-secret", "pg-password", "unterminated-secret", "the-secret-key", "the-token", SECRET] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert!(text.contains("[redacted]"));
}

#[test]
fn upstreams_inherit_defaults_but_never_half_of_an_account() {
    let toml = r#"
        [tools]
        default_upstream = "local"
        [upstream_defaults]
        qps = 5
        [upstream_defaults.envd_mount]
        name = "envd"
        image = "registry.example.com/envd:v1"
        [upstreams.local]
        region = "ap-shanghai"
        endpoint = "127.0.0.1:4000"
        scheme = "http"
        domain = "ags.localhost:4000"
        connect_to = "127.0.0.1:4000"
        envd_mount.read_only = true
        credentials.secret_id = "local-id"
        credentials.secret_key_file = "local.key"
        [upstreams.cloud]
    "#;
    let source = complete()
        .file("/s/g.toml", toml)
        .file("/s/local.key", "local-key")
        .variable("TENCENTCLOUD_TOKEN", "the-token")
        .variable("AGS_GATEWAY__UPSTREAMS__CLOUD__QPS", "9");
    let config = source.load_file("/s/g.toml").unwrap();
    let local = config.default_upstream();
    assert_eq!(local.endpoint.as_str(), "http://127.0.0.1:4000/");
    assert_eq!(local.domain, "ags.localhost:4000");
    assert_eq!(local.qps, 5);
    assert!(local.credentials.token.is_none());
    assert_eq!(local.credentials.files.secret_key.as_deref(), Some(Path::new("/s/local.key")));
    let mount = local.envd_mount.as_ref().unwrap();
    assert!(mount.read_only && mount.mount_path == "/nix" && !mount.for_all);
    let cloud = &config.upstreams["cloud"];
    assert_eq!((cloud.qps, cloud.region.as_str()), (9, "ap-guangzhou"));
    assert!(cloud.credentials.token.is_some());
}

#[test]
fn several_upstreams_need_a_default() {
    let source = complete().file("/g.toml", "[upstreams.a]\n[upstreams.b]\n");
    let text = source.load_file("/g.toml").unwrap_err().to_string();
    assert!(text.contains("tools.default_upstream is required: one of a, b"), "{text}");
}

#[test]
fn every_key_that_is_read_is_documented() {
    let findings = Rc::new(RefCell::new(Findings::default()));
    let source = complete();
    let table = layered(&source, None, &mut Vec::new());
    Config::read(Section::root(Reader { source: &source, findings: Rc::clone(&findings) }, table));
    let mut section = String::new();
    let mut documented = std::collections::BTreeSet::new();
    for line in DEFAULT_FILE.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ") {
            documented.insert(format!("{section}.{key}"));
        }
    }
    let read = findings.borrow();
    assert!(read.known.len() > 80);
    for key in &read.known {
        let key = key.replace("upstreams.default.", "upstream_defaults.");
        assert!(documented.contains(&key), "{key} is not in default.toml");
    }
}
