use proptest::prelude::*;

use super::*;

fn text(text: &str) -> String {
    Excerpt::of_text(text).written()
}

fn command(command: &Command) -> String {
    Excerpt::of_command(command).written()
}

const SECRET: &str = "hunter2-Zq9";

#[test]
fn what_is_named_or_placed_as_a_secret_is_hidden() {
    for line in [
        "TOKEN=hunter2-Zq9 ./run",
        "export OPENAI_API_KEY='hunter2-Zq9'; ./run",
        "env DB_PASSWORD=\"a b hunter2-Zq9\" ./run",
        "DB_PASSWORD=a,hunter2-Zq9 ./run",
        "PASSWORD=abc\"def hunter2-Zq9\"x ./run",
        "PASSWORD=a\\ hunter2-Zq9 ./run",
        "accessKey=hunter2-Zq9 ./run",
        "a=SECRET=hunter2-Zq9",
        "tool --password hunter2-Zq9 --verbose",
        "tool --api-key=hunter2-Zq9",
        "tool -token 'x hunter2-Zq9'",
        "curl -u me:hunter2-Zq9 https://example.com",
        "curl -ume:hunter2-Zq9 https://example.com",
        "curl --user=me:hunter2-Zq9 https://example.com",
        "mysql -phunter2-Zq9 db",
        "sshpass -p hunter2-Zq9 ssh host",
        "git clone https://me:hunter2-Zq9@example.com/x.git",
        "git clone https://hunter2-Zq9@example.com/x.git",
        "psql postgres://me:p/hunter2-Zq9@db/x",
        "curl -H 'Authorization: Bearer hunter2-Zq9' https://example.com",
        "curl -H \"Authorization: Token token=\\\"hunter2-Zq9\\\"\" https://example.com",
        "curl -H \"X-Api-Key: a hunter2-Zq9\"",
        "curl -H 'Cookie: a=\"1\"; b=hunter2-Zq9'",
        "echo Authorization: Basic a hunter2-Zq9",
        "bash -c \"curl -H \\\"Authorization: Bearer x hunter2-Zq9\\\" https://example.com\"",
        "curl -d '{\"user\": \"me\", \"password\": \"x hunter2-Zq9\"}'",
        "curl -d \"{\\\"password\\\":\\\"x hunter2-Zq9\\\"}\"",
        "curl 'https://example.com/?a=1&access_token=hunter2-Zq9&b=2'",
        "password: hunter2-Zq9",
        "os.environ['TOKEN'] = 'hunter2-Zq9'",
        "headers = {'Authorization': f'Bearer x hunter2-Zq9'}",
        "password = \"hunter2-Zq9\"",
        "client(api_key=\"hunter2-Zq9\", timeout=3)",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2-Zq9\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nhunter2-Zq9",
    ] {
        let hidden = text(line);
        assert!(!hidden.contains(SECRET) && hidden.contains(REDACTED), "{line:?} → {hidden:?}");
    }
}

#[test]
fn tokens_of_known_shapes_are_hidden_wherever_they_stand() {
    for token in [
        format!("agsk_{}", "0f".repeat(32)),
        format!("e2b_{}", "0f".repeat(32)),
        "AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE".to_owned(),
        "AKIAIOSFODNN7EXAMPLE".to_owned(),
        "sk-proj-abcdefghijklmnop".to_owned(),
        "ghp_0123456789abcdefghij".to_owned(),
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln".to_owned(),
    ] {
        assert_eq!(text(&format!("echo ({token}) done")), format!("echo ({REDACTED}) done"));
    }
}

#[test]
fn what_is_no_secret_stays_readable() {
    for line in [
        "ls -la /tmp",
        "git commit --author='A B' -m 'x: y'",
        "docker run -p 8080:80 --user 1000 image",
        "pip install numpy==1.26 && python main.py --epochs 3",
        "curl -fsS https://example.com:8443/a?b=c -H 'Accept: text/html'",
        "for i in 1 2 3; do echo \"$i: x\"; done",
    ] {
        assert_eq!(text(line), line);
    }
    let hidden = text("TOKEN=x python main.py --epochs 3");
    assert_eq!(hidden, format!("TOKEN={REDACTED} python main.py --epochs 3"));
    assert_eq!(
        text("curl -H 'Authorization: Bearer abc' https://h/x"),
        format!("curl -H 'Authorization: {REDACTED}' https://h/x")
    );
}

#[test]
fn a_list_of_words_is_hidden_word_by_word() {
    let argv = |words: &[&str]| command(&Command::Argv(words.iter().map(|&word| word.to_owned()).collect()));
    assert_eq!(argv(&["echo", "a b", ""]), "echo \"a b\" \"\"");
    assert!(!argv(&["curl", "-H", "Authorization: Basic \"q\" hunter2-Zq9"]).contains(SECRET));
    assert!(!argv(&["tool", "--password", "a \"b\" hunter2-Zq9"]).contains(SECRET));
    assert!(!argv(&["env", "TOKEN=a' hunter2-Zq9", "x"]).contains(SECRET));
}

#[test]
fn long_texts_are_cut_at_a_word() {
    let long = "word ".repeat(MAX_READ);
    let kept = text(&long);
    assert_eq!(kept.chars().count(), MAX_RECORDED + 1);
    assert!(kept.ends_with('…'));
    // A secret of which only the beginning would be read.
    let cut = format!("{} agsk_{}", "x".repeat(MAX_READ - 10), "0f".repeat(32));
    assert!(!text(&cut).contains("agsk"));
    assert!(!text("a\0b").contains('\0'));
}

fn names() -> impl Strategy<Value = String> {
    let telling = prop::sample::select(vec!["TOKEN", "Password", "api_key", "client-secret", "accessKey", "AUTH"]);
    ("([A-Z]{1,6}_)?", telling).prop_map(|(before, name)| format!("{before}{name}"))
}

proptest! {
    #[test]
    fn it_takes_any_text(line in "\\PC{0,200}|[\\s\\S]{0,100}|[\"'\\\\=: a-z-]{0,100}") {
        let hidden = text(&line);
        prop_assert!(hidden.chars().count() <= MAX_RECORDED + 1);
    }

    #[test]
    fn a_named_value_never_gets_through(
        before in "[a-z ./-]{0,30}", name in names(), sign in "=|='|=\"| = |: |:",
        value in "[A-Za-z0-9.,/+_%!~#@^*-]{0,20}", after in "( [a-z ./-]{0,30})?",
    ) {
        let end = if sign.ends_with('\'') { "'" } else if sign.ends_with('"') { "\"" } else { "" };
        let hidden = text(&format!("{before} {name}{sign}{value}{SECRET}{value}{end}{after}"));
        prop_assert!(!hidden.contains(SECRET), "{hidden}");
    }

    #[test]
    fn a_flags_value_never_gets_through(
        name in names(), gap in " |=|  ", quote in "|'|\"", value in "[A-Za-z0-9.,/+_%!~#@^*-]{0,20}", after in "( [a-z ./-]{0,30})?",
    ) {
        let hidden = text(&format!("tool --{name}{gap}{quote}{value}{SECRET}{quote}{after}"));
        prop_assert!(!hidden.contains(SECRET), "{hidden}");
    }

    #[test]
    fn userinfo_never_gets_through(
        user in "[a-z0-9._-]{0,8}", value in "[A-Za-z0-9.,+_%!~*:-]{0,12}", path in "(/[a-z0-9@/]{0,12})?",
    ) {
        let hidden = text(&format!("git clone https://{user}:{value}{SECRET}@example.com{path}"));
        prop_assert!(!hidden.contains(SECRET), "{hidden}");
    }

    #[test]
    fn a_header_never_gets_through(
        quote in "'|\"", name in "Authorization|authorization|Cookie|X-Api-Key|X-Auth-Token|Private-Token",
        value in "[A-Za-z0-9.,/+_%!~=; -]{0,20}",
    ) {
        let hidden = text(&format!("curl -H {quote}{name}: {value}{SECRET}{quote} https://example.com"));
        prop_assert!(!hidden.contains(SECRET), "{hidden}");
        prop_assert!(hidden.ends_with("https://example.com"), "{hidden}");
    }

    #[test]
    fn plain_words_are_left_alone(words in prop::collection::vec("[a-z]{1,3}[0-9]{0,3}", 0..10)) {
        let line = words.join(" ");
        prop_assert_eq!(text(&line), line);
    }
}
