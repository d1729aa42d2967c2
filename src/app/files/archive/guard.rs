//! Sees to it that nothing of an archive lands outside the directory it is unpacked in.
//!
//! No name leads up or away, and none leads through a symbolic link: neither one that the archive itself has brought, nor one
//! that was there before. Links themselves may point anywhere: a link that is only kept does no harm.

use std::collections::HashSet;

use super::{
    refused,
    tape::{Kind, Member},
};
use crate::{
    app::files::{Files, not_a_directory},
    domain::file::{FileKind, FilePath, join},
    error::{Code, Error, Result},
};

/// Links of one archive: each is remembered.
const MAX_LINKS: usize = 100_000;
/// Directories that are remembered at a time.
const MAX_DIRECTORIES: usize = 50_000;

/// What is known of the directories an archive goes to.
pub struct Guard<'a> {
    files: &'a Files,
    root: &'a str,
    /// Directories that were there, and such as were not: they can be nobody's link.
    directories: HashSet<String>,
    fresh: HashSet<String>,
    links: HashSet<String>,
}

impl<'a> Guard<'a> {
    pub fn new(files: &'a Files, root: &'a str) -> Self {
        let (directories, fresh, links) = Default::default();
        Self { files, root, directories, fresh, links }
    }

    /// The clean name under which a member may be written; `None` for the directory itself.
    ///
    /// # Errors
    /// `validation_failed` for a name that leads elsewhere; `not_a_directory` where a file is in the way.
    pub async fn admit(&mut self, member: &Member) -> Result<Option<String>> {
        let Some(name) = clean(&member.name).map_err(|why| refused(&member.name, why))? else { return Ok(None) };
        for (end, _) in name.match_indices('/') {
            self.pass(&member.name, &name[..end]).await?;
        }
        match &member.kind {
            Kind::Directory => self.pass(&member.name, &name).await?,
            // Some `tar` make links last, over what has come in their place.
            Kind::File { .. } if self.links.contains(&name) => {
                return Err(refused(&name, "is a file that comes after a symbolic link of the same name"));
            }
            Kind::File { .. } => {}
            Kind::Symlink { target } => self.remember_link(&name, target)?,
        }
        Ok(Some(name))
    }

    fn remember_link(&mut self, name: &str, target: &str) -> Result<()> {
        if target.is_empty() || target.contains('\0') || target.len() > 4095 {
            return Err(refused(name, "is a link with a target that cannot be one"));
        }
        if self.links.len() == MAX_LINKS {
            let detail = format!("An archive may have up to {MAX_LINKS} symbolic links.");
            let limit = MAX_LINKS as u64;
            return Err(Error::new(Code::BodyTooLarge, detail).with_limit("archive_links", limit, limit));
        }
        self.directories.remove(name);
        self.fresh.remove(name);
        self.links.insert(name.to_owned());
        Ok(())
    }

    /// Looks whether a directory on the way is one, and no link.
    async fn pass(&mut self, member: &str, directory: &str) -> Result<()> {
        if self.links.contains(directory) {
            return Err(refused(member, "leads through a symbolic link of the same archive"));
        }
        if self.directories.contains(directory) || self.fresh.contains(directory) {
            return Ok(());
        }
        if self.directories.len() + self.fresh.len() >= MAX_DIRECTORIES {
            self.directories.clear();
            self.fresh.clear();
        }
        let in_fresh = directory.rfind('/').is_some_and(|slash| self.fresh.contains(&directory[..slash]));
        let path = join(self.root, directory);
        let found = if in_fresh { None } else { self.files.find(&path).await? };
        match found.map(|info| info.kind) {
            Some(FileKind::Directory) => self.directories.insert(directory.to_owned()),
            // Made by `tar`, now.
            None => self.fresh.insert(directory.to_owned()),
            Some(FileKind::Symlink) => return Err(refused(member, "leads through a symbolic link in the sandbox")),
            Some(_) => return Err(not_a_directory(&path)),
        };
        Ok(())
    }
}

/// A name without empty parts and dots; `None` where nothing is left.
fn clean(name: &str) -> Result<Option<String>, &'static str> {
    if name.starts_with('/') {
        return Err("has an absolute name");
    }
    let mut cleaned = String::with_capacity(name.len());
    for part in name.split('/') {
        match part {
            "" | "." => continue,
            ".." => return Err("has a name that leads up (`..`)"),
            _ => {}
        }
        if !cleaned.is_empty() {
            cleaned.push('/');
        }
        cleaned.push_str(part);
    }
    if cleaned.is_empty() {
        return Ok(None);
    }
    // Nothing else that the sandbox could not be asked about.
    FilePath::parse(&format!("/{cleaned}")).map_err(|_| "has a name that is too long or has bytes that no name has")?;
    Ok(Some(cleaned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_cleaned_or_refused() {
        let cases = [
            ("a/b", Some("a/b")),
            ("./a//b/", Some("a/b")),
            ("./", None),
            (".", None),
            ("...", Some("...")),
            ("~root/-x", Some("~root/-x")),
        ];
        for (name, cleaned) in cases {
            assert_eq!(clean(name), Ok(cleaned.map(str::to_owned)), "{name}");
        }
        for name in ["/a", "..", "a/../b", "../a", "a/..", "//a", "a\0b"] {
            assert!(clean(name).is_err(), "{name:?}");
        }
        assert!(clean(&"x".repeat(256)).is_err());
    }

    proptest! {
        #[test]
        fn what_is_left_stays_below(name in "[a./~]{0,12}|\\PC{0,40}") {
            if let Ok(Some(cleaned)) = clean(&name) {
                prop_assert!(!cleaned.starts_with('/') && !cleaned.ends_with('/'));
                prop_assert!(cleaned.split('/').all(|part| !matches!(part, "" | "." | "..")));
                prop_assert_eq!(clean(&cleaned), Ok(Some(cleaned)));
            }
        }
    }
}
