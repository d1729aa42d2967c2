//! Entries of an instance's filesystem (PROTOCOLS D.6).
//!
//! Paths: absolute ones as they are, `~` and relative ones from the home of the call's user.

use std::time::Duration;

use chrono::{DateTime, Utc};
use envd_proto::filesystem as proto;

use crate::client::EnvdClient;
use crate::error::EnvdError;
use crate::rpc::Call;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    File,
    Directory,
    Symlink,
    /// What the daemon gives no type: sockets, pipes, devices, links that lead nowhere.
    Unspecified,
    /// A type this crate does not know, by its number.
    Unknown(i32),
}

/// One entry. For a symbolic link `kind` and `mode` are those of its target, `size` and `permissions` its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryInfo {
    pub name: String,
    pub kind: EntryKind,
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// As in `-rw-r--r--`, a link with a capital L.
    pub permissions: String,
    /// Names, or numbers where the instance has no name.
    pub owner: String,
    pub group: String,
    pub modified_at: Option<DateTime<Utc>>,
    /// Fully resolved; the link's own path where it leads nowhere.
    pub symlink_target: Option<String>,
}

impl EnvdClient {
    /// Does not follow a final link.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn stat(&self, path: &str, user: Option<&str>, deadline: Duration) -> Result<EntryInfo, EnvdError> {
        let call = Call { method: "/filesystem.Filesystem/Stat", user };
        let request = proto::StatRequest { path: path.to_owned() };
        let reply: proto::StatResponse = self.unary(call, deadline, &request).await?;
        entry(reply.entry.into_option())
    }

    /// What is in a directory and `depth` levels below (0 counts as 1), in pre-order, by name.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` if it is no directory; `FailedPrecondition` on a cycle of links;
    /// `ResourceExhausted` if the reply exceeds the transport's `max_message`.
    pub async fn list_dir(
        &self,
        path: &str,
        depth: u32,
        user: Option<&str>,
        deadline: Duration,
    ) -> Result<Vec<EntryInfo>, EnvdError> {
        let call = Call { method: "/filesystem.Filesystem/ListDir", user };
        let request = proto::ListDirRequest { path: path.to_owned(), depth };
        let reply: proto::ListDirResponse = self.unary(call, deadline, &request).await?;
        Ok(reply.entries.into_iter().map(entry_info).collect())
    }

    /// Creates missing parents as well.
    ///
    /// # Errors
    /// `AlreadyExists`; `InvalidArgument` if something else has that name.
    pub async fn make_dir(&self, path: &str, user: Option<&str>, deadline: Duration) -> Result<EntryInfo, EnvdError> {
        let call = Call { method: "/filesystem.Filesystem/MakeDir", user };
        let request = proto::MakeDirRequest { path: path.to_owned() };
        let reply: proto::MakeDirResponse = self.unary(call, deadline, &request).await?;
        entry(reply.entry.into_option())
    }

    /// rename(2): overwrites a file, creates missing parents of `destination`. Named apart from the keyword.
    ///
    /// # Errors
    /// `NotFound` if `source` is not there.
    pub async fn move_entry(
        &self,
        source: &str,
        destination: &str,
        user: Option<&str>,
        deadline: Duration,
    ) -> Result<EntryInfo, EnvdError> {
        let call = Call { method: "/filesystem.Filesystem/Move", user };
        let request = proto::MoveRequest { source: source.to_owned(), destination: destination.to_owned() };
        let reply: proto::MoveResponse = self.unary(call, deadline, &request).await?;
        entry(reply.entry.into_option())
    }

    /// Removes a file, or a directory with all that is in it. What is not there is removed already.
    pub async fn remove(&self, path: &str, user: Option<&str>, deadline: Duration) -> Result<(), EnvdError> {
        let call = Call { method: "/filesystem.Filesystem/Remove", user };
        let request = proto::RemoveRequest { path: path.to_owned() };
        let _: proto::RemoveResponse = self.unary(call, deadline, &request).await?;
        Ok(())
    }
}

fn entry(entry: Option<proto::EntryInfo>) -> Result<EntryInfo, EnvdError> {
    entry.map(entry_info).ok_or_else(|| EnvdError::protocol("a reply without its entry"))
}

pub(crate) fn entry_info(entry: proto::EntryInfo) -> EntryInfo {
    let modified_at = entry
        .modified_time
        .into_option()
        .and_then(|t| DateTime::from_timestamp(t.seconds, u32::try_from(t.nanos).ok()?));
    EntryInfo {
        name: entry.name,
        kind: kind(entry.r#type.to_i32()),
        path: entry.path,
        size: u64::try_from(entry.size).unwrap_or(0),
        mode: entry.mode,
        permissions: entry.permissions,
        owner: entry.owner,
        group: entry.group,
        modified_at,
        symlink_target: entry.symlink_target,
    }
}

fn kind(number: i32) -> EntryKind {
    match number {
        0 => EntryKind::Unspecified,
        1 => EntryKind::File,
        2 => EntryKind::Directory,
        3 => EntryKind::Symlink,
        other => EntryKind::Unknown(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buffa::MessageField;
    use buffa_types::google::protobuf::Timestamp;

    #[test]
    fn odd_values_of_the_wire_are_kept_or_left_out_never_invented() {
        let wire = proto::EntryInfo {
            r#type: buffa::EnumValue::Unknown(9),
            size: -1,
            modified_time: MessageField::some(Timestamp { seconds: i64::MAX, nanos: -1, ..Default::default() }),
            ..Default::default()
        };
        let entry = entry_info(wire);
        assert_eq!(entry.kind, EntryKind::Unknown(9));
        assert_eq!(entry.size, 0);
        assert_eq!(entry.modified_at, None);
    }

    #[test]
    fn time_is_kept_to_the_nanosecond() {
        let wire = proto::EntryInfo {
            r#type: proto::FileType::FILE_TYPE_SYMLINK.into(),
            modified_time: MessageField::some(Timestamp { seconds: 1, nanos: 5, ..Default::default() }),
            ..Default::default()
        };
        let entry = entry_info(wire);
        assert_eq!(entry.kind, EntryKind::Symlink);
        assert_eq!(entry.modified_at.map(|t| (t.timestamp(), t.timestamp_subsec_nanos())), Some((1, 5)));
    }
}
