//! The operations themselves, blocking.

use std::fs;
use std::io;
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};

use envd_proto::filesystem::EntryInfo;

use super::entry::describe;
use super::error::FsError;
use crate::envd::users::{Names, User};

/// Describes one path.
///
/// # Errors
/// `NotFound`.
pub fn stat(path: &Path, names: &Names) -> Result<EntryInfo, FsError> {
    describe(path, names)
        .map_err(|error| FsError::new(&format!("file not found: lstat {}", path.display()), "reading file", &error))
}

/// Makes a directory and the missing ones above it.
///
/// # Errors
/// `AlreadyExists`, `Invalid` when something else is there.
pub fn make_dir(path: &Path, user: &User) -> Result<(), FsError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            Err(FsError::AlreadyExists(format!("directory already exists: {}", path.display())))
        }
        Ok(_) => Err(FsError::Invalid(format!("path already exists but it is not a directory: {}", path.display()))),
        Err(_) => ensure_dirs(path, user).map_err(|error| match error.kind() {
            io::ErrorKind::NotADirectory => {
                FsError::Invalid(format!("path already exists but it is not a directory: {}", path.display()))
            }
            _ => FsError::internal("creating directory", &error),
        }),
    }
}

/// Makes a directory and the missing ones above it, each the user's and 0755.
///
/// # Errors
/// One of them cannot be made.
pub fn ensure_dirs(path: &Path, user: &User) -> io::Result<()> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    for directory in missing.into_iter().rev() {
        match fs::create_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
            result => {
                result?;
                give(directory, user)?;
            }
        }
    }
    match path.is_dir() {
        true => Ok(()),
        false => Err(io::ErrorKind::NotADirectory.into()),
    }
}

/// Gives a path to a user, itself and not what it leads to.
///
/// # Errors
/// It is gone, or the file system has no owners.
pub fn give(path: &Path, user: &User) -> io::Result<()> {
    lchown(path, Some(user.uid), Some(user.gid))
}

/// Renames, replacing what a rename replaces; makes the directories above the destination.
///
/// # Errors
/// `NotFound` for the source.
pub fn rename(source: &Path, destination: &Path, user: &User) -> Result<(), FsError> {
    if let Err(error) = fs::symlink_metadata(source) {
        let missing = format!("source file not found: lstat {}", source.display());
        return Err(FsError::new(&missing, "reading source", &error));
    }
    if let Some(parent) = destination.parent() {
        ensure_dirs(parent, user).map_err(|error| FsError::internal("creating directory", &error))?;
    }
    fs::rename(source, destination).map_err(|error| FsError::internal("renaming", &error))
}

/// Removes a path and everything under it; nothing there is no error.
///
/// # Errors
/// Something cannot be removed. The root directory is refused.
pub fn remove(path: &Path) -> Result<(), FsError> {
    if path.file_name().is_none() {
        return Err(FsError::Internal(format!(
            "error removing file or directory: {} may not be removed",
            path.display()
        )));
    }
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(FsError::internal("removing file or directory", &error))
        }
        _ => Ok(()),
    }
}

/// What is under a directory, each directory before its content and names in order; the directory itself is not
/// listed. A link to a directory is followed when it is the path asked for, and nowhere else.
///
/// # Errors
/// `NotFound`, `Invalid` for what is no directory, `Precondition` for links that lead in circles.
pub fn list(path: &Path, depth: u32, names: &Names) -> Result<Vec<EntryInfo>, FsError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(FsError::Invalid(format!("path is not a directory: {}", path.display()))),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(FsError::Precondition(format!("cyclic symlink or chain >255 links at {}", path.display())));
        }
        Err(error) => {
            return Err(FsError::new(&format!("path not found: stat {}", path.display()), "reading directory", &error));
        }
    }
    let mut entries = Vec::new();
    walk(path, depth.max(1), names, &mut entries).map_err(|error| FsError::internal("reading directory", &error))?;
    Ok(entries)
}

fn walk(directory: &Path, depth: u32, names: &Names, entries: &mut Vec<EntryInfo>) -> io::Result<()> {
    for path in sorted(directory)? {
        // It may have gone meanwhile.
        let Ok(entry) = describe(&path, names) else {
            continue;
        };
        let descend = depth > 1 && entry.symlink_target.is_none() && path.is_dir();
        entries.push(entry);
        if descend {
            let _gone_meanwhile = walk(&path, depth - 1, names, entries);
        }
    }
    Ok(())
}

fn sorted(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn caller() -> User {
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        User { name: "user".into(), uid, gid, groups: vec![gid], home: "/".into(), foreign: false }
    }

    #[test]
    fn listings_are_in_order_and_as_deep_as_asked() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let root = directory.path();
        ensure_dirs(&root.join("b/c/d"), &caller())?;
        fs::write(root.join("a"), "")?;
        symlink("b", root.join("link"))?;
        let names = Names::default();
        let list = |path: &str, depth| -> anyhow::Result<Vec<String>> {
            let entries = super::list(&root.join(path), depth, &names)?;
            let prefix = format!("{}/", root.display());
            Ok(entries.iter().map(|entry| entry.path.replace(&prefix, "")).collect())
        };
        assert_eq!(list("", 0)?, ["a", "b", "link"]);
        assert_eq!(list("", 2)?, ["a", "b", "b/c", "link"]);
        assert_eq!(list("", 9)?, ["a", "b", "b/c", "b/c/d", "link"]);
        assert_eq!(list("link", 2)?, ["link/c", "link/c/d"]);
        Ok(())
    }

    #[test]
    fn mistakes_are_told_apart() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = |name: &str| directory.path().join(name);
        let names = Names::default();
        fs::write(path("file"), "")?;
        symlink("loop", path("loop"))?;
        assert!(matches!(make_dir(directory.path(), &caller()), Err(FsError::AlreadyExists(_))));
        assert!(matches!(make_dir(&path("file"), &caller()), Err(FsError::Invalid(_))));
        assert!(matches!(make_dir(&path("file/under"), &caller()), Err(FsError::Invalid(_))));
        assert!(matches!(list(&path("file"), 1, &names), Err(FsError::Invalid(_))));
        assert!(matches!(list(&path("absent"), 1, &names), Err(FsError::NotFound(_))));
        assert!(matches!(list(&path("loop"), 1, &names), Err(FsError::Precondition(_))));
        assert!(matches!(stat(&path("absent"), &names), Err(FsError::NotFound(_))));
        assert!(matches!(rename(&path("absent"), &path("x"), &caller()), Err(FsError::NotFound(_))));
        assert!(matches!(remove(Path::new("/")), Err(FsError::Internal(_))));
        remove(&path("absent"))?;
        rename(&path("file"), &path("new/dir/file"), &caller())?;
        remove(&path("new"))?;
        assert!(!path("new").exists());
        Ok(())
    }
}
