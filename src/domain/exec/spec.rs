//! What a caller asks to be run.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::error::FieldError;

const SHELL: &str = "/bin/bash";
const MAX_TAG: usize = 128;
const MAX_USER: usize = 64;
/// What a terminal's programs expect; the official SDKs set the same.
const TERMINAL_ENV: [(&str, &str); 3] = [("TERM", "xterm-256color"), ("LANG", "C.UTF-8"), ("LC_ALL", "C.UTF-8")];

/// A command: a line for the shell, or a program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Command {
    /// Run as `/bin/bash -l -c`.
    Line(String),
    /// Run as it is.
    Argv(Vec<String>),
}

impl Command {
    /// What a terminal runs when nothing is asked for.
    #[must_use]
    pub fn login_shell() -> Self {
        Self::Argv([SHELL, "-i", "-l"].map(str::to_owned).to_vec())
    }

    /// The program and its arguments.
    #[must_use]
    pub fn program(&self) -> (String, Vec<String>) {
        match self {
            Self::Line(line) => (SHELL.to_owned(), vec!["-l".to_owned(), "-c".to_owned(), line.clone()]),
            Self::Argv(argv) => {
                let mut argv = argv.iter().cloned();
                (argv.next().unwrap_or_default(), argv.collect())
            }
        }
    }
}

struct CommandVisitor;

impl<'de> de::Visitor<'de> for CommandVisitor {
    type Value = Command;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a shell line, or a list of a program and its arguments")
    }

    fn visit_str<E: de::Error>(self, line: &str) -> Result<Command, E> {
        Ok(Command::Line(line.to_owned()))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut sequence: A) -> Result<Command, A::Error> {
        let mut argv = Vec::new();
        while let Some(argument) = sequence.next_element()? {
            argv.push(argument);
        }
        Ok(Command::Argv(argv))
    }
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CommandVisitor)
    }
}

impl utoipa::PartialSchema for Command {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Type};
        let text = || ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
        OneOfBuilder::new()
            .item(text())
            .item(ArrayBuilder::new().items(text()).min_items(Some(1)))
            .description(Some("A line for `/bin/bash -l -c`, or a program and its arguments."))
            .into()
    }
}

impl utoipa::ToSchema for Command {
    fn name() -> std::borrow::Cow<'static, str> {
        "Command".into()
    }
}

/// Size of a terminal in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PtySize {
    #[schema(minimum = 1, maximum = 65535)]
    pub cols: u16,
    #[schema(minimum = 1, maximum = 65535)]
    pub rows: u16,
}

impl PtySize {
    /// What is wrong with it; `prefix` is the path of the field it stands in, with its dot.
    #[must_use]
    pub fn problems(self, prefix: &str) -> Vec<FieldError> {
        let zero =
            |name: &str, value: u16| (value == 0).then(|| problem(format!("{prefix}{name}"), "must be at least 1"));
        zero("cols", self.cols).into_iter().chain(zero("rows", self.rows)).collect()
    }
}

/// What to run, and how. Not `Debug`: the environment holds secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Spec {
    pub command: Command,
    /// `None`: the default of the tool's type.
    pub user: Option<String>,
    /// Absolute, `~`, or relative to the user's home.
    pub cwd: Option<String>,
    /// On top of the instance's own.
    pub env: BTreeMap<String, String>,
    /// `None`: the default of the transport.
    pub timeout: Option<Duration>,
    /// Whether it gets a pipe to read from; without, its input is empty.
    pub stdin: bool,
    pub pty: Option<PtySize>,
    pub background: bool,
    /// Its output and its exit code go to files in the sandbox, from where they are read.
    pub durable: bool,
    /// In the background it counts as use of its instance while it runs.
    pub keep_alive: bool,
    pub tag: Option<String>,
    /// Bytes per stream kept for a waiting answer.
    pub output_limit: Option<u64>,
}

/// What the configuration allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_timeout: Duration,
    pub max_output_limit: u64,
}

impl Limits {
    /// What is beyond them.
    pub fn problems(&self, timeout: Option<Duration>, output_limit: Option<u64>) -> impl Iterator<Item = FieldError> {
        let timeout = match timeout {
            Some(Duration::ZERO) => Some(problem("timeout", "must be at least one second")),
            Some(timeout) if timeout > self.max_timeout => {
                Some(problem("timeout", format!("may be at most {} s", self.max_timeout.as_secs())))
            }
            _ => None,
        };
        let output = output_limit.is_some_and(|limit| limit > self.max_output_limit);
        let output = output.then(|| problem("output_limit", format!("may be at most {} bytes", self.max_output_limit)));
        timeout.into_iter().chain(output)
    }
}

/// What no process can have in its environment.
pub fn env_problems(env: &BTreeMap<String, String>) -> impl Iterator<Item = FieldError> + '_ {
    env.iter().filter_map(|(name, value)| {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Some(problem("env", "a variable's name may not be empty, nor contain `=` or a NUL character"));
        }
        nul(format!("env.{name}"), value)
    })
}

fn problem(field: impl Into<String>, message: impl Into<String>) -> FieldError {
    FieldError { field: field.into(), message: message.into() }
}

fn nul(field: impl Into<String>, text: &str) -> Option<FieldError> {
    text.contains('\0').then(|| problem(field, "may not contain a NUL character"))
}

impl Spec {
    /// To run a command as nothing more is asked for.
    #[must_use]
    pub fn of(command: Command) -> Self {
        Self {
            command,
            user: None,
            cwd: None,
            env: BTreeMap::new(),
            timeout: None,
            stdin: false,
            pty: None,
            background: false,
            durable: false,
            keep_alive: false,
            tag: None,
            output_limit: None,
        }
    }

    /// Everything that is wrong with it.
    #[must_use]
    pub fn problems(&self, limits: &Limits) -> Vec<FieldError> {
        let mut problems = self.command_problems();
        problems.extend(env_problems(&self.env));
        problems.extend(self.text_problems());
        problems.extend(limits.problems(self.timeout, self.output_limit));
        if let Some(pty) = self.pty {
            problems.extend(pty.problems("pty."));
            if self.durable {
                problems.push(problem("durable", "is not to be had for a terminal, whose output is no file"));
            }
        }
        problems
    }

    fn command_problems(&self) -> Vec<FieldError> {
        match &self.command {
            Command::Line(line) if line.is_empty() => vec![problem("cmd", "may not be empty")],
            Command::Line(line) => nul("cmd", line).into_iter().collect(),
            Command::Argv(argv) if argv.first().is_none_or(String::is_empty) => {
                vec![problem("cmd", "must name a program first")]
            }
            Command::Argv(argv) => {
                argv.iter().enumerate().filter_map(|(index, one)| nul(format!("cmd[{index}]"), one)).collect()
            }
        }
    }

    fn text_problems(&self) -> impl Iterator<Item = FieldError> {
        let user = self.user.as_deref().and_then(|user| {
            let fits = (1..=MAX_USER).contains(&user.len()) && !user.contains(|c: char| c == ':' || c.is_control());
            (!fits).then(|| problem("user", format!("must be a user's name of up to {MAX_USER} characters")))
        });
        let cwd = self.cwd.as_deref().and_then(|cwd| match cwd {
            "" => Some(problem("cwd", "may not be empty")),
            cwd => nul("cwd", cwd),
        });
        let tag = self.tag.as_deref().and_then(|tag| {
            let fits = (1..=MAX_TAG).contains(&tag.chars().count()) && !tag.contains(char::is_control);
            (!fits).then(|| problem("tag", format!("must have 1 to {MAX_TAG} printable characters")))
        });
        user.into_iter().chain(cwd).chain(tag)
    }

    /// The environment of the process: what its terminal needs, then the instance's, then the request's; later wins.
    #[must_use]
    pub fn environment(&self, instance: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let terminal = self.pty.map(|_| TERMINAL_ENV.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let own = instance.iter().chain(&self.env).map(|(name, value)| (name.clone(), value.clone()));
        terminal.into_iter().flatten().chain(own).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { max_timeout: Duration::from_secs(100), max_output_limit: 1000 };

    fn line(text: &str) -> Spec {
        Spec::of(Command::Line(text.into()))
    }

    fn fields(spec: &Spec) -> Vec<String> {
        spec.problems(&LIMITS).into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn a_line_goes_to_the_shell_and_a_list_as_it_is() {
        assert_eq!(
            Command::Line("echo $HOME".into()).program(),
            ("/bin/bash".into(), vec!["-l".into(), "-c".into(), "echo $HOME".into()])
        );
        assert_eq!(Command::Argv(vec!["ls".into(), "-l".into()]).program(), ("ls".into(), vec!["-l".into()]));
    }

    #[test]
    fn every_field_at_fault_is_named() {
        assert!(fields(&line("true")).is_empty());
        let mut bad = line("a\0b");
        bad.user = Some("a:b".into());
        bad.cwd = Some("/a\0".into());
        bad.env = [("A".to_owned(), "x\0".to_owned()), ("B=".to_owned(), String::new())].into();
        bad.timeout = Some(Duration::from_secs(101));
        bad.tag = Some(String::new());
        bad.pty = Some(PtySize { cols: 0, rows: 1 });
        bad.output_limit = Some(1001);
        bad.durable = true;
        let expected = ["cmd", "env.A", "env", "user", "cwd", "tag", "timeout", "output_limit", "pty.cols", "durable"];
        assert_eq!(fields(&bad), expected);
    }

    #[test]
    fn commands_must_be_something() {
        for command in [Command::Line(String::new()), Command::Argv(vec![]), Command::Argv(vec![String::new()])] {
            assert_eq!(fields(&Spec::of(command)), ["cmd"]);
        }
        let argv = Command::Argv(vec!["printf".into(), "a\0".into()]);
        assert_eq!(fields(&Spec::of(argv)), ["cmd[1]"]);
    }

    #[test]
    fn the_requests_environment_wins() {
        let mut spec = line("true");
        spec.env = [("A".to_owned(), "request".to_owned())].into();
        let instance = [("A".to_owned(), "instance".to_owned()), ("B".to_owned(), "instance".to_owned())].into();
        let env = spec.environment(&instance);
        assert_eq!((env["A"].as_str(), env["B"].as_str(), env.len()), ("request", "instance", 2));
        spec.pty = Some(PtySize { cols: 80, rows: 24 });
        spec.env.insert("TERM".into(), "dumb".into());
        assert_eq!(spec.environment(&instance)["TERM"], "dumb");
        assert_eq!(spec.environment(&instance)["LANG"], "C.UTF-8");
    }

    proptest! {
        #[test]
        fn commands_read_as_they_are_stored(line in "\\PC{0,20}", argv in prop::collection::vec("\\PC{0,9}", 0..4)) {
            for command in [Command::Line(line), Command::Argv(argv)] {
                let text = serde_json::to_string(&command).unwrap();
                prop_assert_eq!(serde_json::from_str::<Command>(&text).unwrap(), command);
            }
        }
    }
}
