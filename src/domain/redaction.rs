//! Command lines and code as they may be written down: what looks like a secret stands as `[redacted]`.
//!
//! It knows secrets by their names (assignments, flags, fields of JSON, headers), by their places (userinfo of a URL, after
//! `Bearer`) and by the shapes of well-known tokens. It rather hides too much than too little; a secret that is neither
//! named nor of a known shape cannot be told from any other word.

use std::{borrow::Cow, fmt, ops::Range, sync::LazyLock};

use regex::{Captures, Regex};

use super::exec::Command;
use crate::telemetry::redact::REDACTED;

/// Stands for a secret until all were looked for: a character of no text's own.
const HIDDEN: &str = "\u{f8ff}";
/// Characters that are kept of a text.
pub const MAX_RECORDED: usize = 4096;
/// Bytes of a text that are looked at.
const MAX_READ: usize = 64 << 10;

/// Whatever a name contains of these (without `-`, `_` and `.`, in lower case), its value is a secret.
const TELLING: [&str; 19] = [
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "apikey",
    "accesskey",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "masterkey",
    "accountkey",
    "sharedkey",
    "credential",
    "authorization",
    "authentication",
    "connectionstring",
    "signature",
];
/// A part of a name between `-`, `_` and `.` that says the same.
const TELLING_PARTS: [&str; 13] =
    ["auth", "pass", "pwd", "pw", "pat", "key", "sig", "sas", "otp", "jwt", "cookie", "cookies", "bearer"];

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant pattern")
}

/// A word of a shell, its quoted parts included.
const WORD: &str = r#"(?:"(?:[^"\\]|\\[\s\S])*"?|'[^']*'?|\\[\s\S]|[^\s"'\\;&|<>()])+"#;

static PRIVATE_KEY: LazyLock<Regex> =
    LazyLock::new(|| regex(r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)"));
static HEADER: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?i)\b(?:(?:proxy-)?authorization|(?:set-)?cookie|[a-z][a-z0-9-]*-(?:key|token|secret|auth|signature)[a-z0-9-]*)[ \t]*:[ \t]*",
    )
});
/// `"name": value`, `["name"] = value`, also within a quoted text.
static FIELD: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r#"(\\*["']([A-Za-z_][\w.-]*)\\*["']\s*\]?\s*[:=]\s*)((?:[A-Za-z]{0,2}(?:\\+"[\s\S]*?\\+"|\\+'[\s\S]*?\\+'|"(?:[^"\\]|\\[\s\S])*"?|'(?:[^'\\]|\\[\s\S])*'?))|[^\s,}\]]+)"#,
    )
});
/// `NAME=value`, `name = value`, `name: value`, `--name=value`.
static ASSIGNMENT: LazyLock<Regex> =
    LazyLock::new(|| regex(&format!(r"(([A-Za-z_][\w.-]*)(?:[ \t]*(?::=|=|:)[ \t]*))({WORD})")));
/// `--name value`.
static FLAG: LazyLock<Regex> = LazyLock::new(|| regex(&format!(r"((?:^|\s)--?([A-Za-z][\w.-]*)\s+)({WORD})")));
/// `-u name:password`, as curl takes it.
static USER: LazyLock<Regex> =
    LazyLock::new(|| regex(&format!(r"((?:^|\s)(?:-u|-U|--user|--proxy-user)(?:\s+|=)?)({WORD})")));
/// `-pPASSWORD`, as the clients of MySQL and sshpass take it.
static SHORT_PASSWORD: LazyLock<Regex> = LazyLock::new(|| regex(&format!(r"((?:^|\s)-p\s*)({WORD})")));
static SHORT_PASSWORD_PROGRAM: LazyLock<Regex> = LazyLock::new(|| regex(r"\b(?:mysql\w*|mariadb\w*|sshpass)\b"));
static USERINFO: LazyLock<Regex> =
    LazyLock::new(|| regex(r#"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/?#"'<>]*|[^\s/?#"'<>@:]*:[^\s"'<>@]*)@"#));
static SCHEME: LazyLock<Regex> = LazyLock::new(|| regex(r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=-]{6,}"));
/// Shapes of tokens: the gateway's own, the cloud's, and those that are most often pasted.
static SHAPE: LazyLock<Regex> = LazyLock::new(|| {
    regex(concat!(
        r"\b(?:agsk_|e2b_)[0-9A-Za-z]{8,}|\bAKID[0-9A-Za-z]{12,}|\b(?:AKIA|ASIA)[0-9A-Z]{12,}",
        r"|\bsk-[0-9A-Za-z_-]{12,}|\bgh[a-z]_[0-9A-Za-z]{16,}|\bgithub_pat_[0-9A-Za-z_]{16,}|\bglpat-[0-9A-Za-z_-]{12,}",
        r"|\bxox[a-z]-[0-9A-Za-z-]{8,}|\bhf_[0-9A-Za-z]{16,}|\bnpm_[0-9A-Za-z]{16,}|\bAIza[0-9A-Za-z_-]{20,}",
        r"|\beyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]+(?:\.[0-9A-Za-z_-]*)?",
    ))
});

/// Whether what has this name is a secret.
fn tells(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let joined: String = lower.chars().filter(|c| !matches!(c, '-' | '_' | '.')).collect();
    TELLING.iter().any(|word| joined.contains(word))
        || lower.split(['-', '_', '.']).any(|part| TELLING_PARTS.contains(&part))
}

/// The beginning of what was started, as it came. It is looked through for secrets when it is [written](Self::written), and
/// nobody has to wait for that.
pub struct Excerpt {
    read: String,
    /// There was more.
    cut: bool,
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It may hold secrets.
        f.debug_struct("Excerpt").finish_non_exhaustive()
    }
}

impl Excerpt {
    #[must_use]
    pub fn of_command(command: &Command) -> Self {
        match command {
            Command::Line(line) => Self::of_text(line),
            Command::Argv(argv) => Self::of_text(&argv.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")),
        }
    }

    /// Of a shell line, or of code.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        let (read, cut) = beginning(text);
        Self { read: read.to_owned(), cut }
    }

    /// As it may be written down: at most [`MAX_RECORDED`] characters of it.
    #[must_use]
    pub fn written(&self) -> String {
        let hidden = hide(&self.read);
        // A NUL is no part of any text that the database takes.
        let mut kept: String =
            hidden.chars().take(MAX_RECORDED).map(|c| if c == '\0' { '\u{fffd}' } else { c }).collect();
        if self.cut || hidden.chars().nth(MAX_RECORDED).is_some() {
            kept.push('…');
        }
        kept
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_alphanumeric() || "_-./:=@%+,~".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    let escaped = word.replace('\\', r"\\").replace('"', "\\\"");
    format!("\"{escaped}\"").into()
}

/// The part that is looked at: whole words, so that no secret is cut into something that cannot be told for one.
fn beginning(text: &str) -> (&str, bool) {
    if text.len() <= MAX_READ {
        return (text, false);
    }
    let head = &text[..text.floor_char_boundary(MAX_READ)];
    (&head[..head.rfind(char::is_whitespace).unwrap_or(0)], true)
}

fn hide(text: &str) -> String {
    let text = text.replace(HIDDEN, "");
    let text = PRIVATE_KEY.replace_all(&text, HIDDEN);
    let text = hide_headers(&text);
    let text = named(&FIELD, &text);
    let text = named(&ASSIGNMENT, &text);
    let text = named(&FLAG, &text);
    let text = USER.replace_all(&text, |found: &Captures<'_>| match found[2].contains(':') {
        true => format!("{}{HIDDEN}", &found[1]),
        false => found[0].to_owned(),
    });
    let text = match SHORT_PASSWORD_PROGRAM.is_match(&text) {
        true => SHORT_PASSWORD.replace_all(&text, format!("${{1}}{HIDDEN}").as_str()),
        false => text,
    };
    let text = USERINFO.replace_all(&text, format!("${{1}}{HIDDEN}@").as_str());
    let text = SCHEME.replace_all(&text, format!("${{1}}{HIDDEN}").as_str());
    SHAPE.replace_all(&text, HIDDEN).replace(HIDDEN, REDACTED)
}

/// Hides the third group where the second one, a name, tells that it is a secret. What does not tell is looked at again from
/// behind its name on: its value may be the name of the next.
fn named(pattern: &Regex, text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), 0);
    while let Some(found) = pattern.captures_at(text, rest) {
        let group = |index: usize| found.get(index).map_or(0..0, |group| group.range());
        let (name, value) = (group(2), group(3));
        if text[value.start..].starts_with(HIDDEN) {
            let end = value.start + HIDDEN.len();
            out.push_str(&text[rest..end]);
            rest = end;
        } else if tells(&text[name.clone()]) {
            out.push_str(&text[rest..value.start]);
            out.push_str(HIDDEN);
            rest = value.end;
        } else {
            out.push_str(&text[rest..name.end]);
            rest = name.end;
        }
    }
    out.push_str(&text[rest..]);
    out
}

/// Hides the values of headers: up to the quote that began before the name, else to the end of the line.
fn hide_headers(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), 0);
    while let Some(name) = HEADER.find_at(text, rest) {
        let value = header_value(text, name.range());
        out.push_str(&text[rest..value.start]);
        out.push_str(HIDDEN);
        rest = value.end;
    }
    out.push_str(&text[rest..]);
    out
}

fn header_value(text: &str, name: Range<usize>) -> Range<usize> {
    let before = &text[..name.start];
    let after = &text[name.end..];
    let line = || after.find('\n').unwrap_or(after.len());
    let length = match before.chars().next_back() {
        Some(quote @ ('"' | '\'')) => {
            let escaped = before.chars().rev().nth(1) == Some('\\');
            end_of_quoted(after, quote, escaped).unwrap_or(after.len())
        }
        _ => line(),
    };
    name.end..name.end + length
}

/// Where a quoted text ends: at its quote, behind a backslash if its beginning was.
fn end_of_quoted(text: &str, quote: char, escaped: bool) -> Option<usize> {
    let mut behind_backslash = false;
    for (place, c) in text.char_indices() {
        if c == quote && behind_backslash == escaped {
            return Some(place);
        }
        behind_backslash = c == '\\' && (escaped || !behind_backslash);
    }
    None
}

#[cfg(test)]
mod tests;
