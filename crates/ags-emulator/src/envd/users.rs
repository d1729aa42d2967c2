//! Who may be asked for by name, and who owns what.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::instance::inside::{Isolation, Plan, USER_ID};
use crate::sys::Identity;

/// Who requests without a user name act as.
pub const DEFAULT_USER: &str = "user";

/// A user that processes run as and files belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, the primary one included.
    pub groups: Vec<u32>,
    pub home: PathBuf,
    /// Whether the daemon has to change identity to act as this user.
    pub foreign: bool,
}

impl User {
    /// What a process of this user has to become; `None`: what the daemon is.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.foreign.then(|| Identity { uid: self.uid, gid: self.gid, groups: self.groups.clone() })
    }
}

/// The users of an instance.
#[derive(Clone, Debug)]
pub enum Accounts {
    /// Those of `/etc/passwd`, which processes inside may change.
    System,
    /// `root` and `user`, where the machine's own accounts mean nothing.
    Fixed(Vec<User>),
}

impl Accounts {
    /// The accounts that a plan's isolation makes possible.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        let (root_home, user_home) = plan.homes();
        if plan.isolation == Isolation::Namespaces {
            return Self::System;
        }
        let real = uid.is_root();
        let (user_uid, user_gid) = if real { (USER_ID, USER_ID) } else { (uid.as_raw(), gid.as_raw()) };
        let account =
            |name: &str, uid, gid, home| User { name: name.into(), uid, gid, groups: vec![gid], home, foreign: real };
        Self::Fixed(vec![
            account("user", user_uid, user_gid, user_home),
            account("root", uid.as_raw(), gid.as_raw(), root_home),
        ])
    }

    /// The user of a name; `None`: there is no such user.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<User> {
        match self {
            Self::System => find_in(&read("/etc/passwd"), &read("/etc/group"), name),
            Self::Fixed(users) => users.iter().find(|user| user.name == name).cloned(),
        }
    }

    /// Names of ids, as of now.
    #[must_use]
    pub fn names(&self) -> Names {
        match self {
            Self::System => Names { users: ids(&read("/etc/passwd")), groups: ids(&read("/etc/group")) },
            Self::Fixed(users) => {
                // The first of two that share an id names it.
                let by = |id: fn(&User) -> u32| users.iter().rev().map(|user| (id(user), user.name.clone())).collect();
                Names { users: by(|user| user.uid), groups: by(|user| user.gid) }
            }
        }
    }
}

/// Names of user and group ids.
#[derive(Clone, Debug, Default)]
pub struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    /// The name, else the number.
    #[must_use]
    pub fn user(&self, uid: u32) -> String {
        self.users.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }

    /// The name, else the number.
    #[must_use]
    pub fn group(&self, gid: u32) -> String {
        self.groups.get(&gid).cloned().unwrap_or_else(|| gid.to_string())
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn ids(table: &str) -> HashMap<u32, String> {
    let entries = table.lines().rev().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((fields.nth(1)?.parse().ok()?, name))
    });
    entries.collect()
}

fn find_in(passwd: &str, group: &str, name: &str) -> Option<User> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let fields: Vec<&str> = line.split(':').collect();
    let (uid, gid) = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
    Some(User {
        name: name.into(),
        uid,
        gid,
        groups: groups_of(group, name, gid),
        home: fields.get(5).map(PathBuf::from)?,
        foreign: true,
    })
}

fn groups_of(group: &str, name: &str, primary: u32) -> Vec<u32> {
    let others = group.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let member = fields.get(3)?.split(',').any(|member| member == name);
        member.then(|| fields.get(2)?.parse().ok()).flatten()
    });
    std::iter::once(primary).chain(others.filter(|gid| *gid != primary)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/bash\n";
    const GROUP: &str = "root:x:0:\nsudo:x:27:alice,user\nuser:x:1000:user\nother:x:5:users\n";

    #[test]
    fn a_user_has_all_groups() {
        let user = find_in(PASSWD, GROUP, "user").map(|user| (user.uid, user.groups, user.home));
        assert_eq!(user, Some((1000, vec![1000, 27], "/home/user".into())));
        assert_eq!(find_in(PASSWD, GROUP, "use"), None);
        assert_eq!(find_in(PASSWD, GROUP, ""), None);
    }

    #[test]
    fn unknown_ids_are_numbers() {
        let names = Names { users: ids(PASSWD), groups: ids(GROUP) };
        assert_eq!((names.user(1000), names.user(7)), ("user".into(), "7".into()));
        assert_eq!(names.group(27), "sudo");
    }
}
