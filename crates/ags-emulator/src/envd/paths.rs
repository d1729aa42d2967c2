//! What a path in a request means (`PROTOCOLS` D.7).

use std::path::{Component, Path, PathBuf};

/// A path that means nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("cannot expand user-specific home dir")]
    ForeignHome,
    #[error("invalid path: it contains a NUL byte")]
    Nul,
}

/// Resolves a path of a request: `~` is the user's home, an absolute path is taken verbatim, a relative one
/// is joined to the home and cleaned. Empty: the default working directory if there is one, else the home.
///
/// # Errors
/// The home of another user is asked for, or the path holds a NUL byte.
pub fn resolve(path: &str, home: &Path, default_workdir: Option<&str>) -> Result<PathBuf, PathError> {
    let path = match default_workdir {
        Some(workdir) if path.is_empty() => workdir,
        _ => path,
    };
    if path.contains('\0') {
        return Err(PathError::Nul);
    }
    if path.starts_with('/') {
        return Ok(PathBuf::from(path));
    }
    match path.strip_prefix('~') {
        None => Ok(clean(&home.join(path))),
        Some(rest) if rest.is_empty() || rest.starts_with('/') => Ok(clean(&home.join(rest.trim_start_matches('/')))),
        Some(_) => Err(PathError::ForeignHome),
    }
}

/// Removes `.`, `..` and doubled slashes without looking at the file system.
#[must_use]
pub fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if cleaned.parent().is_some() => {
                cleaned.pop();
            }
            Component::ParentDir if cleaned.has_root() => {}
            other => cleaned.push(other),
        }
    }
    cleaned
}

/// The last component, `/` for the root, as `EntryInfo.name` has it.
#[must_use]
pub fn base_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resolved(path: &str) -> Result<String, PathError> {
        resolve(path, Path::new("/home/user"), None).map(|path| path.display().to_string())
    }

    #[test]
    fn paths_mean_what_the_specification_says() {
        assert_eq!(resolved(""), Ok("/home/user".into()));
        assert_eq!(resolved("~"), Ok("/home/user".into()));
        assert_eq!(resolved("~/a"), Ok("/home/user/a".into()));
        assert_eq!(resolved("~//a/"), Ok("/home/user/a".into()));
        assert_eq!(resolved("~root"), Err(PathError::ForeignHome));
        assert_eq!(resolved("a/~"), Ok("/home/user/a/~".into()));
        assert_eq!(resolved("/a/../b//c"), Ok("/a/../b//c".into()));
        assert_eq!(resolved("../b/./c"), Ok("/home/b/c".into()));
        assert_eq!(resolved("../../../.."), Ok("/".into()));
        assert_eq!(resolved("a\0b"), Err(PathError::Nul));
        let workdir = resolve("", Path::new("/home/user"), Some("/code"));
        assert_eq!(workdir, Ok("/code".into()));
        let workdir = resolve("a", Path::new("/home/user"), Some("/code"));
        assert_eq!(workdir, Ok("/home/user/a".into()));
    }

    proptest! {
        #[test]
        fn relative_paths_become_clean_absolute_ones(path in "[a-z./]{0,20}") {
            let resolved = resolve(&path, Path::new("/home/user"), None);
            prop_assume!(!path.starts_with('/'));
            let resolved = resolved.map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert!(resolved.is_absolute());
            let text = resolved.display().to_string();
            prop_assert!(!text.contains("//"));
            prop_assert!(!text.split('/').any(|part| part == "." || part == ".."));
        }

        #[test]
        fn absolute_paths_are_left_alone(path in "/[a-z./~]{0,20}") {
            prop_assert_eq!(resolve(&path, Path::new("/h"), Some("/w")), Ok(PathBuf::from(&path)));
        }
    }
}
