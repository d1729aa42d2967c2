//! A file, directory or link as `EntryInfo` describes it.

use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use buffa::MessageField;
use buffa_types::google::protobuf::Timestamp;
use envd_proto::filesystem as wire;

use crate::envd::paths::base_name;
use crate::envd::users::Names;

/// Describes a path without following it: size and permissions are a link's own, type and mode its target's.
///
/// # Errors
/// There is nothing, or it may not be looked at.
pub fn describe(path: &Path, names: &Names) -> io::Result<wire::EntryInfo> {
    let own = fs::symlink_metadata(path)?;
    let is_link = own.is_symlink();
    let seen = if is_link { fs::metadata(path).ok() } else { Some(own.clone()) };
    Ok(wire::EntryInfo {
        name: base_name(path),
        r#type: seen.as_ref().map_or(wire::FileType::Unspecified, kind).into(),
        path: path.to_string_lossy().into_owned(),
        size: own.size().cast_signed(),
        mode: seen.as_ref().map_or(0, |metadata| metadata.mode() & 0o777),
        permissions: permissions(own.file_type(), own.mode()),
        owner: names.user(own.uid()),
        group: names.group(own.gid()),
        modified_time: MessageField::some(modified(&own)),
        symlink_target: is_link.then(|| target(path)),
        ..Default::default()
    })
}

/// `FILE_TYPE_FILE` or `FILE_TYPE_DIRECTORY`; anything else is unspecified.
#[must_use]
pub fn kind(metadata: &Metadata) -> wire::FileType {
    if metadata.is_dir() {
        wire::FileType::Directory
    } else if metadata.is_file() {
        wire::FileType::File
    } else {
        wire::FileType::Unspecified
    }
}

fn modified(metadata: &Metadata) -> Timestamp {
    Timestamp {
        seconds: metadata.mtime(),
        nanos: i32::try_from(metadata.mtime_nsec()).unwrap_or_default(),
        ..Default::default()
    }
}

/// Where a link leads in the end, else the link itself.
fn target(path: &Path) -> String {
    fs::canonicalize(path).as_deref().unwrap_or(path).to_string_lossy().into_owned()
}

/// Type and permissions as Go's `fs.FileMode` prints them.
fn permissions(kind: FileType, mode: u32) -> String {
    let mut text = String::new();
    let flags = [
        (kind.is_dir(), 'd'),
        (kind.is_symlink(), 'L'),
        (kind.is_block_device() || kind.is_char_device(), 'D'),
        (kind.is_fifo(), 'p'),
        (kind.is_socket(), 'S'),
        (mode & libc::S_ISUID != 0, 'u'),
        (mode & libc::S_ISGID != 0, 'g'),
        (kind.is_char_device(), 'c'),
        (mode & libc::S_ISVTX != 0, 't'),
    ];
    text.extend(flags.iter().filter(|(set, _)| *set).map(|(_, letter)| letter));
    if text.is_empty() {
        text.push('-');
    }
    for (bit, letter) in (0..9).rev().zip("rwxrwxrwx".chars()) {
        text.push(if mode & (1 << bit) != 0 { letter } else { '-' });
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn permissions_read_as_in_go() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "12345")?;
        fs::set_permissions(path("file"), fs::Permissions::from_mode(0o644))?;
        fs::create_dir(path("dir"))?;
        fs::set_permissions(path("dir"), fs::Permissions::from_mode(0o1777))?;
        symlink("file", path("link"))?;
        symlink("nowhere", path("dangling"))?;
        let names = Names::default();
        let entry = |name: &str| describe(&path(name), &names);

        let file = entry("file")?;
        assert_eq!((file.permissions.as_str(), file.mode, file.size), ("-rw-r--r--", 0o644, 5));
        assert_eq!(file.r#type, wire::FileType::File);
        assert_eq!(entry("dir")?.permissions, "dtrwxrwxrwx");
        let link = entry("link")?;
        assert_eq!((link.permissions.as_str(), link.mode, link.size), ("Lrwxrwxrwx", 0o644, 4));
        assert_eq!(link.r#type, wire::FileType::File);
        let real = path("file").canonicalize()?;
        assert_eq!(link.symlink_target.as_deref(), real.to_str());
        let dangling = entry("dangling")?;
        assert_eq!(dangling.r#type, wire::FileType::Unspecified);
        assert_eq!(dangling.mode, 0);
        assert_eq!(dangling.symlink_target.as_deref(), path("dangling").to_str());
        assert_eq!(entry("absent").err().map(|error| error.kind()), Some(io::ErrorKind::NotFound));
        Ok(())
    }
}
