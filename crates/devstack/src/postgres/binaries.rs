//! Where PostgreSQL's programs are: on the PATH, or where Debian puts them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::Error;

const DEBIAN: &str = "/usr/lib/postgresql";
const USUAL_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// `initdb` and `postgres` of one installation.
#[derive(Clone, Debug)]
pub struct Binaries {
    pub initdb: PathBuf,
    pub postgres: PathBuf,
    pub major: u32,
}

/// There is no installation, or none of the version that the data needs.
#[derive(Debug)]
pub struct Missing {
    wanted: Option<u32>,
    installed: Vec<u32>,
}

impl Missing {
    pub(super) fn explain(self, data: &Path) -> Error {
        let data = data.display();
        Error(match (self.wanted, self.installed.as_slice()) {
            (Some(wanted), [_, ..]) => format!(
                "{data} was made by PostgreSQL {wanted}, but only {} is installed: install postgresql-{wanted}, or drop \
                 the data with --fresh",
                self.installed.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
            ),
            _ => format!(
                "PostgreSQL is missing: neither the PATH nor {DEBIAN} has initdb and postgres; install it, e.g. `apt-get \
                 install postgresql`"
            ),
        })
    }
}

impl Binaries {
    /// The installation of this major version, or the first of the PATH, or Debian's newest.
    ///
    /// # Errors
    /// [`Missing`] with what there is.
    pub fn find(wanted: Option<u32>) -> Result<Self, Missing> {
        let all: Vec<Self> = directories().iter().filter_map(|directory| Self::in_directory(directory)).collect();
        let installed = all.iter().map(|found| found.major).collect();
        all.into_iter()
            .find(|found| wanted.is_none_or(|major| found.major == major))
            .ok_or(Missing { wanted, installed })
    }

    fn in_directory(directory: &Path) -> Option<Self> {
        let (initdb, postgres) = (directory.join("initdb"), directory.join("postgres"));
        if !initdb.is_file() || !postgres.is_file() {
            return None;
        }
        // Through links: initdb looks for its postgres next to itself.
        let (initdb, postgres) = (initdb.canonicalize().ok()?, postgres.canonicalize().ok()?);
        let output = Command::new(&postgres).arg("--version").output().ok()?;
        let major = major_of(&String::from_utf8_lossy(&output.stdout))?;
        Some(Self { initdb, postgres, major })
    }
}

/// The major version in `postgres (PostgreSQL) 15.18 (Debian …)`.
#[must_use]
pub fn major_of(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..end].parse().ok()
}

#[expect(clippy::disallowed_methods, reason = "the search path is where programs are found, not configuration")]
fn directories() -> Vec<PathBuf> {
    let path = env::var("PATH").unwrap_or_else(|_| USUAL_PATH.to_owned());
    let mut directories: Vec<PathBuf> = env::split_paths(&path).collect();
    let mut debian: Vec<(u32, PathBuf)> = fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    debian.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    directories.extend(debian.into_iter().map(|(_, path)| path));
    directories
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_every_distribution_writes_them() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(major_of("mysqld 8.0"), None);
    }

    #[test]
    fn what_is_missing_is_said_with_the_way_out() {
        let other = Missing { wanted: Some(9), installed: vec![15, 17] }.explain(Path::new("/state/postgres"));
        assert_eq!(
            other.to_string(),
            "/state/postgres was made by PostgreSQL 9, but only 15, 17 is installed: install postgresql-9, or drop the \
             data with --fresh"
        );
        let none = Missing { wanted: None, installed: vec![] }.explain(Path::new("/state/postgres"));
        assert!(none.to_string().contains("apt-get install postgresql"));
    }
}
