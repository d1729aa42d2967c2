//! Files in a sandbox: what a path may be, and how an entry is described.

use chrono::{DateTime, Utc};

/// Linux limits: a path with its final NUL has 4096 bytes, a name 255.
const MAX_PATH: usize = 4095;
const MAX_NAME: usize = 255;

/// A path of a request: absolute, or under the home of the call's user (relative, or with a leading `~`).
///
/// Any name that UTF-8 can spell is allowed; the sandbox resolves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath(String);

/// Why a text cannot be a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    #[error("must not be empty")]
    Empty,
    #[error("must not contain a NUL byte")]
    Nul,
    #[error("is not UTF-8: names in other encodings cannot be spelled here")]
    NotUtf8,
    #[error("must have at most 4095 bytes, and 255 between two slashes")]
    TooLong,
    #[error("`~` stands for the own home only; a name that begins with it is written `./~name`")]
    ForeignHome,
    #[error("must name a file or directory: not `/`, `~`, `.` or `..`")]
    NoEntry,
    #[error("must name a file: it ends with a slash")]
    TrailingSlash,
}

impl FilePath {
    /// # Errors
    /// [`InvalidPath`], of which the last two are left to [`entry`](Self::entry) and [`file`](Self::file).
    pub fn parse(text: &str) -> Result<Self, InvalidPath> {
        if text.is_empty() {
            return Err(InvalidPath::Empty);
        }
        if text.contains('\0') {
            return Err(InvalidPath::Nul);
        }
        // What decoders put in the place of bytes that are no text.
        if text.contains(char::REPLACEMENT_CHARACTER) {
            return Err(InvalidPath::NotUtf8);
        }
        if text.len() > MAX_PATH || text.split('/').any(|name| name.len() > MAX_NAME) {
            return Err(InvalidPath::TooLong);
        }
        match text.strip_prefix('~') {
            Some(rest) if !rest.is_empty() && !rest.starts_with('/') => Err(InvalidPath::ForeignHome),
            _ => Ok(Self(text.to_owned())),
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory an entry is in, and its name there.
    ///
    /// # Errors
    /// The path names no entry of a directory.
    pub fn entry(&self) -> Result<(String, &str), InvalidPath> {
        let path = self.0.trim_end_matches('/');
        let (directory, name) = match path.rfind('/') {
            Some(slash) => (&path[..=slash], &path[slash + 1..]),
            None => ("", path),
        };
        if matches!(name, "" | "." | "..") || path == "~" {
            return Err(InvalidPath::NoEntry);
        }
        Ok((directory_of(directory), name))
    }

    /// As [`entry`](Self::entry), for what shall be a file.
    ///
    /// # Errors
    /// The path names no entry, or a directory.
    pub fn file(&self) -> Result<(String, &str), InvalidPath> {
        if self.0.len() > 1 && self.0.ends_with('/') {
            return Err(InvalidPath::TrailingSlash);
        }
        self.entry()
    }
}

/// What stands before a name, without the slashes at its end; the home for nothing.
fn directory_of(prefix: &str) -> String {
    match (prefix, prefix.trim_end_matches('/')) {
        ("", _) => ".".to_owned(),
        (_, "") => "/".to_owned(),
        (_, directory) => directory.to_owned(),
    }
}

/// The directory that a directory is in, as far as the text tells.
#[must_use]
pub fn parent_directory(directory: &str) -> Option<String> {
    if matches!(directory, "/" | "." | "~") {
        return None;
    }
    Some(directory_of(directory.rfind('/').map_or("", |slash| &directory[..=slash])))
}

/// The path of a name in a directory.
#[must_use]
pub fn join(directory: &str, name: &str) -> String {
    if directory.ends_with('/') { format!("{directory}{name}") } else { format!("{directory}/{name}") }
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    File,
    Directory,
    Symlink,
    /// A device, pipe or socket.
    Other,
}

/// An entry of a directory; of a link, the link itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    pub name: String,
    pub path: String,
    pub kind: FileKind,
    /// In bytes.
    pub size: u64,
    /// The permissions as a number, setuid, setgid and sticky bits included.
    pub mode: u32,
    /// As `ls -l` shows them.
    pub permissions: String,
    pub owner: String,
    pub group: String,
    pub modified_at: Option<DateTime<Utc>>,
    pub link: Option<Link>,
}

/// Where a symbolic link leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Fully resolved; the link's own path where it leads nowhere.
    pub target: String,
    /// `None` where it leads nowhere.
    pub kind: Option<FileKind>,
}

/// Permissions in the notation of Go's `fs.FileMode` (PROTOCOLS D.6) as `ls -l` shows them, and as a number.
/// `None` when they are not in that notation.
#[must_use]
pub fn from_go_permissions(text: &str) -> Option<(String, u32)> {
    let split = text.len().checked_sub(9).filter(|at| text.is_char_boundary(*at))?;
    let (flags, bits) = text.split_at(split);
    let mut mode = 0;
    for (bit, (is, letter)) in (0..9).rev().zip(bits.chars().zip("rwxrwxrwx".chars())) {
        match is {
            '-' => {}
            is if is == letter => mode |= 1 << bit,
            _ => return None,
        }
    }
    let mut kind = '-';
    for flag in flags.chars() {
        match flag {
            'd' => kind = 'd',
            'L' => kind = 'l',
            'p' => kind = 'p',
            'S' => kind = 's',
            'D' => kind = 'b',
            'c' => kind = 'c',
            'u' => mode |= 0o4000,
            'g' => mode |= 0o2000,
            't' => mode |= 0o1000,
            _ => {}
        }
    }
    Some((ls_permissions(kind, mode), mode))
}

fn ls_permissions(kind: char, mode: u32) -> String {
    let mut text = String::from(kind);
    for (class, (special, set, unset)) in
        [(0o4000, 's', 'S'), (0o2000, 's', 'S'), (0o1000, 't', 'T')].into_iter().enumerate()
    {
        let bits = mode >> (6 - 3 * class);
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> FilePath {
        FilePath::parse(text).unwrap()
    }

    #[test]
    fn what_cannot_be_a_path_is_told_apart() {
        let name = "x".repeat(256);
        let cases = [
            ("", InvalidPath::Empty),
            ("a\0b", InvalidPath::Nul),
            ("a\u{fffd}", InvalidPath::NotUtf8),
            ("~root/x", InvalidPath::ForeignHome),
            (name.as_str(), InvalidPath::TooLong),
        ];
        for (text, problem) in cases {
            assert_eq!(FilePath::parse(text), Err(problem), "{text:?}");
        }
        assert_eq!(FilePath::parse(&"x/".repeat(2048)), Err(InvalidPath::TooLong));
        for fine in ["/", "~", "~/a", "./~a", "a b", "it's \"\n%2F", "größe", &"é".repeat(127)] {
            assert_eq!(parse(fine).as_str(), fine);
        }
    }

    #[test]
    fn an_entry_has_a_directory_and_a_name() {
        let entry = |text: &str| parse(text).entry().map(|(directory, name)| (directory, name.to_owned()));
        let is = |directory: &str, name: &str| Ok((directory.to_owned(), name.to_owned()));
        assert_eq!(entry("a.txt"), is(".", "a.txt"));
        assert_eq!(entry("a/b"), is("a", "b"));
        assert_eq!(entry("a/b//"), is("a", "b"));
        assert_eq!(entry("/a"), is("/", "a"));
        assert_eq!(entry("//a"), is("/", "a"));
        assert_eq!(entry("~/a"), is("~", "a"));
        assert_eq!(entry("/a/../b"), is("/a/..", "b"));
        for nothing in ["/", "//", "~", "~/", ".", "..", "a/..", "/."] {
            assert_eq!(entry(nothing), Err(InvalidPath::NoEntry), "{nothing}");
        }
        assert_eq!(parse("a/").file().unwrap_err(), InvalidPath::TrailingSlash);
        assert_eq!(parse("/").file().unwrap_err(), InvalidPath::NoEntry);
    }

    #[test]
    fn directories_lead_up_to_a_root() {
        assert_eq!(parent_directory("a/b").as_deref(), Some("a"));
        assert_eq!(parent_directory("a").as_deref(), Some("."));
        assert_eq!(parent_directory("~/a").as_deref(), Some("~"));
        assert_eq!(parent_directory("/a").as_deref(), Some("/"));
        for root in ["/", ".", "~"] {
            assert_eq!(parent_directory(root), None);
        }
        assert_eq!(join("/", "a"), "/a");
        assert_eq!(join(".", "a"), "./a");
    }

    #[test]
    fn permissions_read_as_in_ls() {
        let read = |text| from_go_permissions(text).unwrap();
        assert_eq!(read("-rw-r--r--"), ("-rw-r--r--".into(), 0o644));
        assert_eq!(read("Lrwxrwxrwx"), ("lrwxrwxrwx".into(), 0o777));
        assert_eq!(read("dtrwxrwxrwx"), ("drwxrwxrwt".into(), 0o1777));
        assert_eq!(read("urwxr-xr-x"), ("-rwsr-xr-x".into(), 0o4755));
        assert_eq!(read("ugrw-r--r--"), ("-rwSr-Sr--".into(), 0o6644));
        assert_eq!(read("Dcrw-rw-rw-"), ("crw-rw-rw-".into(), 0o666));
        assert_eq!(read("Drw-rw----"), ("brw-rw----".into(), 0o660));
        for odd in ["", "rwx", "-rw-r--r-?", "äääääääää"] {
            assert_eq!(from_go_permissions(odd), None, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_parsed_panics(text in ".{0,40}") {
            if let Ok(path) = FilePath::parse(&text) {
                let _ = path.file();
            }
            let _ = from_go_permissions(&text);
        }

        #[test]
        fn directory_and_name_make_the_path_again(path in "/?([a-z.]{1,4}/{1,2}){0,3}[a-z]{1,4}") {
            let parsed = parse(&path);
            let (directory, name) = parsed.entry().unwrap();
            let normal = |text: &str| {
                let parts: Vec<_> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
                (text.starts_with('/'), parts.join("/"))
            };
            prop_assert_eq!(normal(&join(&directory, name)), normal(&path));
        }

        #[test]
        fn every_directory_has_a_root(path in "[~/]?([a-z.]{1,3}/){0,6}") {
            let mut directory = directory_of(&path);
            for _ in 0..20 {
                match parent_directory(&directory) {
                    Some(parent) => directory = parent,
                    None => return Ok(()),
                }
            }
            prop_assert!(false, "{path} has no root");
        }

        #[test]
        fn bits_and_letters_say_the_same(mode in 0u32..0o1000) {
            let letters: String = (0..9)
                .rev()
                .zip("rwxrwxrwx".chars())
                .map(|(bit, letter)| if mode & (1 << bit) != 0 { letter } else { '-' })
                .collect();
            let go = format!("-{letters}");
            prop_assert_eq!(from_go_permissions(&go), Some((go, mode)));
        }
    }
}
