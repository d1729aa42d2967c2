//! Signals by name.

use std::{fmt, str::FromStr};

/// Names that `kill -s` knows on Linux, without `SIG`.
const NAMES: [&str; 30] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "SYS",
];

/// What envd writes of a process that a signal ended: the texts of Go's `syscall.Signal` (PROTOCOLS D.5).
const TEXTS: [(&str, &str); 15] = [
    ("hangup", "HUP"),
    ("interrupt", "INT"),
    ("quit", "QUIT"),
    ("illegal instruction", "ILL"),
    ("trace/breakpoint trap", "TRAP"),
    ("aborted", "ABRT"),
    ("bus error", "BUS"),
    ("floating point exception", "FPE"),
    ("killed", "KILL"),
    ("user defined signal 1", "USR1"),
    ("segmentation fault", "SEGV"),
    ("user defined signal 2", "USR2"),
    ("broken pipe", "PIPE"),
    ("alarm clock", "ALRM"),
    ("terminated", "TERM"),
];

/// No such signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a signal's name, such as SIGINT or SIGTERM")]
pub struct UnknownSignal;

/// A signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(&'static str);

impl Signal {
    pub const KILL: Self = Self("KILL");
    pub const TERM: Self = Self("TERM");

    /// The name without `SIG`, as `kill -s` takes it.
    #[must_use]
    pub const fn short(self) -> &'static str {
        self.0
    }

    /// The name of the signal in envd's `signal: killed`; one without a name here is passed on as it is.
    #[must_use]
    pub fn name_of_status(status: &str) -> Option<String> {
        let text = status.strip_prefix("signal: ")?;
        let text = text.strip_suffix(" (core dumped)").unwrap_or(text);
        let known = TEXTS.iter().find(|(words, _)| *words == text);
        Some(known.map_or_else(|| text.to_owned(), |(_, name)| format!("SIG{name}")))
    }
}

impl FromStr for Signal {
    type Err = UnknownSignal;

    fn from_str(text: &str) -> Result<Self, UnknownSignal> {
        let upper = text.to_ascii_uppercase();
        let short = upper.strip_prefix("SIG").unwrap_or(&upper);
        NAMES.iter().find(|name| **name == short).map(|name| Self(name)).ok_or(UnknownSignal)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIG{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_with_and_without_their_prefix() {
        for text in ["SIGINT", "INT", "sigint", "int"] {
            assert_eq!(text.parse::<Signal>().map(|signal| signal.to_string()).as_deref(), Ok("SIGINT"));
        }
        for text in ["", "SIG", "9", "SIGRTMIN", "INT; rm -rf /", "SIGSIGINT"] {
            assert_eq!(text.parse::<Signal>(), Err(UnknownSignal), "{text}");
        }
    }

    #[test]
    fn the_daemons_words_become_names() {
        assert_eq!(Signal::name_of_status("signal: killed").as_deref(), Some("SIGKILL"));
        assert_eq!(Signal::name_of_status("signal: segmentation fault (core dumped)").as_deref(), Some("SIGSEGV"));
        assert_eq!(Signal::name_of_status("signal: signal 37").as_deref(), Some("signal 37"));
        assert_eq!(Signal::name_of_status("exit status 1"), None);
    }
}
