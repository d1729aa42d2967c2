//! What requests and answers about files look like.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::{
    app::files::Written,
    domain::file::{FileInfo, FileKind},
    http::extract::{FromQuery, QueryReader},
};

/// Which file, and whose.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FileQuery {
    /// Absolute, or under the user's home (`notes.txt`, `~/notes.txt`). Percent-encoded like any query value: a plus sign
    /// is `%2B`.
    #[param(min_length = 1, max_length = 4095, example = "notes.txt")]
    pub path: String,
    /// The sandbox's user: relative paths are under its home, and it owns what is written. It does not limit what may be
    /// read or written: the sandbox's daemon runs as root. Default: `user` for code interpreters, else `root`, unless
    /// configured otherwise.
    #[param(example = "user")]
    pub user: Option<String>,
}

impl FromQuery for FileQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        Self { path: required_path(query), user: query.text("user") }
    }
}

/// Which directory, and how deep.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// The directory. Absolute, or under the user's home (`~` is the home itself).
    #[param(min_length = 1, max_length = 4095, example = "/tmp")]
    pub path: String,
    /// How many levels: 1 is what is in the directory itself.
    #[param(minimum = 1, maximum = 64, default = 1)]
    pub depth: Option<u32>,
    /// The sandbox's user, under whose home relative paths are.
    #[param(example = "user")]
    pub user: Option<String>,
}

impl FromQuery for ListQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        let max = crate::app::files::MAX_DEPTH;
        let depth = query.parsed::<u32>("depth");
        if depth.is_some_and(|depth| !(1..=max).contains(&depth)) {
            query.error("depth", format!("must lie between 1 and {max}"));
        }
        Self { path: required_path(query), depth, user: query.text("user") }
    }
}

pub(super) fn required_path(query: &mut QueryReader) -> String {
    query.text("path").unwrap_or_else(|| {
        query.error("path", "this parameter is required");
        String::new()
    })
}

/// A directory to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MakeDirectory {
    /// Absolute, or under the user's home. What is missing above it is made too.
    #[schema(min_length = 1, max_length = 4095, example = "data/in")]
    pub path: String,
    /// The sandbox's user, whom it shall belong to.
    #[schema(min_length = 1, max_length = 64, pattern = "^[^:\\x00-\\x1f\\x7f-\\x9f]+$")]
    pub user: Option<String>,
}

/// What to move where.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveFile {
    #[schema(min_length = 1, max_length = 4095, example = "draft.txt")]
    pub source: String,
    /// The new path itself, not a directory to move into. A file that is there is replaced; missing directories are made.
    #[schema(min_length = 1, max_length = 4095, example = "done/final.txt")]
    pub destination: String,
    /// The sandbox's user, under whose home relative paths are.
    #[schema(min_length = 1, max_length = 64, pattern = "^[^:\\x00-\\x1f\\x7f-\\x9f]+$")]
    pub user: Option<String>,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = FileType)]
pub enum FileTypeDto {
    File,
    Directory,
    Symlink,
    /// A device, pipe or socket.
    Other,
}

impl From<FileKind> for FileTypeDto {
    fn from(kind: FileKind) -> Self {
        match kind {
            FileKind::File => Self::File,
            FileKind::Directory => Self::Directory,
            FileKind::Symlink => Self::Symlink,
            FileKind::Other => Self::Other,
        }
    }
}

/// A file, directory or link. Everything but `target_type` and `symlink_target` is of a link itself.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FileInfo)]
pub struct FileInfoDto {
    #[schema(example = "notes.txt")]
    pub name: String,
    #[schema(example = "/home/user/notes.txt")]
    pub path: String,
    #[serde(rename = "type")]
    pub kind: FileTypeDto,
    /// Of a link: what it leads to; null when it leads nowhere.
    pub target_type: Option<FileTypeDto>,
    /// In bytes.
    #[schema(example = 5)]
    pub size: u64,
    /// The permission bits as an integer, setuid, setgid and sticky included: 420 is `0644`.
    #[schema(example = 420, maximum = 4095)]
    pub mode: u32,
    /// Type and permissions as `ls -l` shows them.
    #[schema(example = "-rw-r--r--")]
    pub permissions: String,
    /// A name, or a number where the sandbox has no name for it.
    #[schema(example = "user")]
    pub owner: String,
    /// A name, or a number where the sandbox has no name for it.
    #[schema(example = "user")]
    pub group: String,
    pub modified_at: Option<DateTime<Utc>>,
    /// Of a link: where it leads, fully resolved; its own path when it leads nowhere.
    pub symlink_target: Option<String>,
}

impl From<FileInfo> for FileInfoDto {
    fn from(info: FileInfo) -> Self {
        let (symlink_target, target_type) = info.link.map(|link| (link.target, link.kind)).unzip();
        Self {
            name: info.name,
            path: info.path,
            kind: info.kind.into(),
            target_type: target_type.flatten().map(FileTypeDto::from),
            size: info.size,
            mode: info.mode,
            permissions: info.permissions,
            owner: info.owner,
            group: info.group,
            modified_at: info.modified_at,
            symlink_target,
        }
    }
}

/// What is in a directory, each directory before its content and names in order.
#[derive(Debug, Serialize, ToSchema)]
pub struct FileList {
    pub items: Vec<FileInfoDto>,
}

/// A file that was written.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WrittenFile)]
pub struct WrittenDto {
    /// Absolute, links resolved.
    #[schema(example = "/home/user/notes.txt")]
    pub path: String,
    /// In bytes.
    #[schema(example = 5)]
    pub size: u64,
    /// Of the bytes that were received, in hex.
    #[schema(example = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")]
    pub sha256: String,
}

impl From<Written> for WrittenDto {
    fn from(written: Written) -> Self {
        Self { path: written.path, size: written.size, sha256: written.sha256 }
    }
}

/// Raw bytes: documentation only.
pub struct Bytes;

impl PartialSchema for Bytes {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::{KnownFormat, ObjectBuilder, SchemaFormat, schema::Type};
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
            .into()
    }
}

impl ToSchema for Bytes {
    fn name() -> std::borrow::Cow<'static, str> {
        "Bytes".into()
    }
}
