//! Changes under a directory by inotify, as Go's fsnotify reports them.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use envd_proto::filesystem::EventType;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

/// A change, named relative to the watched directory (`.` for itself).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub name: String,
    pub kind: EventType,
}

/// Watches one directory, or everything under it.
pub struct Watch {
    inotify: Inotify,
    root: PathBuf,
    recursive: bool,
    /// Watched directories, relative to the root, which is the empty path.
    directories: HashMap<WatchDescriptor, PathBuf>,
    /// Reported from a look into a new directory; inotify may report them again.
    anticipated: HashSet<PathBuf>,
}

impl Watch {
    /// Starts watching.
    ///
    /// # Errors
    /// The directory cannot be read, or the user has too many watches.
    pub fn new(root: &Path, recursive: bool) -> io::Result<Self> {
        let mut watch = Self {
            inotify: Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?,
            root: root.to_owned(),
            recursive,
            directories: HashMap::new(),
            anticipated: HashSet::new(),
        };
        watch.add(Path::new(""))?;
        if recursive {
            for directory in directories_under(root, Path::new("")) {
                let _gone_meanwhile = watch.add(&directory);
            }
        }
        Ok(watch)
    }

    /// A descriptor that is readable when there are changes.
    ///
    /// # Errors
    /// The process is out of descriptors.
    pub fn readiness(&self) -> io::Result<OwnedFd> {
        self.inotify.as_fd().try_clone_to_owned()
    }

    /// Adds everything that has changed since the last call; does not wait.
    ///
    /// # Errors
    /// The kernel gave up, or more has happened than its queue holds: what was added came before that.
    pub fn changes(&mut self, changes: &mut Vec<Change>) -> io::Result<()> {
        loop {
            let events = match self.inotify.read_events() {
                Err(Errno::EAGAIN) => return Ok(()),
                result => result?,
            };
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    return Err(io::Error::other("the queue of changes overflowed"));
                }
                self.translate(&event, changes);
            }
        }
    }

    fn add(&mut self, relative: &Path) -> io::Result<()> {
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        let descriptor = self.inotify.add_watch(&self.root.join(relative), flags)?;
        self.directories.insert(descriptor, relative.to_owned());
        Ok(())
    }

    fn translate(&mut self, event: &InotifyEvent, changes: &mut Vec<Change>) {
        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
            self.directories.remove(&event.wd);
            return;
        }
        let Some(directory) = self.directories.get(&event.wd) else {
            return;
        };
        let is_root = directory.as_os_str().is_empty();
        let path = match &event.name {
            Some(name) => directory.join(name),
            // Of the directories below, their own parents tell.
            None if is_root => PathBuf::from("."),
            None => return,
        };
        let Some(kind) = kind(event.mask) else {
            return;
        };
        // Whatever happens to an entry next, what was told of it beforehand has been settled.
        if self.anticipated.remove(&path) && kind == EventType::Create {
            return;
        }
        changes.push(Change { name: path.to_string_lossy().into_owned(), kind });
        let new_directory = kind == EventType::Create && event.mask.contains(AddWatchFlags::IN_ISDIR);
        if self.recursive && new_directory {
            self.look_into(&path, changes);
        }
    }

    /// Watches a directory that has just appeared, and reports what came into it before it was watched.
    fn look_into(&mut self, directory: &Path, changes: &mut Vec<Change>) {
        if self.add(directory).is_err() {
            return;
        }
        let Ok(entries) = std::fs::read_dir(self.root.join(directory)) else {
            return;
        };
        for entry in entries.flatten() {
            let path = directory.join(entry.file_name());
            self.anticipated.insert(path.clone());
            changes.push(Change { name: path.to_string_lossy().into_owned(), kind: EventType::Create });
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.look_into(&path, changes);
            }
        }
    }
}

fn kind(mask: AddWatchFlags) -> Option<EventType> {
    let any = |flags: AddWatchFlags| mask.intersects(flags);
    if any(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO) {
        Some(EventType::Create)
    } else if any(AddWatchFlags::IN_MODIFY) {
        Some(EventType::Write)
    } else if any(AddWatchFlags::IN_DELETE | AddWatchFlags::IN_DELETE_SELF) {
        Some(EventType::Remove)
    } else if any(AddWatchFlags::IN_MOVED_FROM | AddWatchFlags::IN_MOVE_SELF) {
        Some(EventType::Rename)
    } else if any(AddWatchFlags::IN_ATTRIB) {
        Some(EventType::Chmod)
    } else {
        None
    }
}

fn directories_under(root: &Path, relative: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root.join(relative)) else {
        return Vec::new();
    };
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories
        .flat_map(|entry| {
            let path = relative.join(entry.file_name());
            let below = directories_under(root, &path);
            std::iter::once(path).chain(below)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(changes: &[Change]) -> Vec<(&str, EventType)> {
        changes.iter().map(|change| (change.name.as_str(), change.kind)).collect()
    }

    fn seen_by(watch: &mut Watch) -> io::Result<Vec<Change>> {
        let mut changes = Vec::new();
        watch.changes(&mut changes).map(|()| changes)
    }

    #[test]
    fn changes_are_told_in_order_and_once() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = |name: &str| directory.path().join(name);
        let mut watch = Watch::new(directory.path(), false)?;
        assert_eq!(seen_by(&mut watch)?, []);
        fs::write(path("a"), "text")?;
        fs::rename(path("a"), path("b"))?;
        fs::set_permissions(path("b"), fs::metadata(path("b"))?.permissions())?;
        fs::remove_file(path("b"))?;
        fs::create_dir(path("dir"))?;
        fs::write(path("dir/unseen"), "")?;
        let expected = [
            ("a", EventType::Create),
            ("a", EventType::Write),
            ("a", EventType::Rename),
            ("b", EventType::Create),
            ("b", EventType::Chmod),
            ("b", EventType::Remove),
            ("dir", EventType::Create),
        ];
        assert_eq!(names(&seen_by(&mut watch)?), expected);
        assert_eq!(seen_by(&mut watch)?, []);
        Ok(())
    }

    #[test]
    fn new_directories_are_watched_with_what_is_in_them() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("old"))?;
        let mut watch = Watch::new(directory.path(), true)?;
        fs::write(path("old/file"), "")?;
        fs::create_dir_all(path("new/deep"))?;
        fs::write(path("new/deep/early"), "")?;
        let seen = seen_by(&mut watch)?;
        assert_eq!(
            names(&seen),
            [
                ("old/file", EventType::Create),
                ("new", EventType::Create),
                ("new/deep", EventType::Create),
                ("new/deep/early", EventType::Create),
            ]
        );
        fs::write(path("new/deep/late"), "")?;
        assert_eq!(names(&seen_by(&mut watch)?), [("new/deep/late", EventType::Create)]);
        fs::remove_file(path("new/deep/early"))?;
        fs::write(path("new/deep/early"), "")?;
        let again = [("new/deep/early", EventType::Remove), ("new/deep/early", EventType::Create)];
        assert_eq!(names(&seen_by(&mut watch)?), again, "what was found in a new directory is told of again");
        Ok(())
    }

    #[test]
    fn a_directory_that_was_renamed_is_watched_under_its_new_name() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = |name: &str| directory.path().join(name);
        fs::create_dir_all(path("old/deep"))?;
        let mut watch = Watch::new(directory.path(), true)?;
        fs::rename(path("old"), path("new"))?;
        let seen = seen_by(&mut watch)?;
        assert_eq!(names(&seen)[..2], [("old", EventType::Rename), ("new", EventType::Create)]);
        fs::write(path("new/deep/file"), "")?;
        assert_eq!(names(&seen_by(&mut watch)?), [("new/deep/file", EventType::Create)]);
        Ok(())
    }

    #[test]
    fn a_queue_that_overflowed_is_an_error_after_what_came_before() -> io::Result<()> {
        let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")?;
        let limit: usize = limit.trim().parse().map_err(io::Error::other)?;
        let directory = tempfile::tempdir()?;
        let mut watch = Watch::new(directory.path(), false)?;
        for turn in 0..=limit {
            fs::File::create(directory.path().join(turn.to_string()))?;
        }
        let mut changes = Vec::new();
        assert!(watch.changes(&mut changes).is_err());
        assert_eq!(changes.len(), limit);
        Ok(())
    }
}
