//! The way into an instance, walked by `ags-emulator daemon` before it has a thread or a runtime:
//! new namespaces, an own root file system, and a supervisor that ends everything when told so.
//!
//! With namespaces there are three processes: a parent that waits outside, process 1 of the
//! instance, which reaps orphans and freezes, and the daemon. Process 1 dies with its parent, and with
//! process 1 the kernel kills the rest. Without namespaces the supervisor is the subreaper of all.

mod accounts;
mod rootfs;
mod supervise;

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use serde::{Deserialize, Serialize};

use crate::sys;
use supervise::Realm;

pub use supervise::{FREEZE, THAW};

/// Uid and gid of `user`, inside and, for root, outside.
pub const USER_ID: u32 = 1000;

/// How an instance is kept apart from the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Mount, PID, network, UTS and IPC namespaces made by root: both users are real.
    Namespaces,
    /// The same namespaces inside a user namespace: both users stand for the caller.
    UserNamespace,
    /// None: processes of the machine with a home directory of their own.
    None,
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Namespaces => "namespaces",
            Self::UserNamespace => "user namespace",
            Self::None => "none",
        })
    }
}

/// What the launcher tells the daemon, through a file that only the caller can read.
#[derive(Clone, Serialize, Deserialize)]
pub struct Plan {
    pub id: String,
    pub isolation: Isolation,
    pub state_dir: PathBuf,
    /// Paths of the machine that must not be seen inside.
    pub hidden: Vec<PathBuf>,
    /// Paths of the machine that stay visible, read-only, where their directory is replaced.
    pub exposed: Vec<PathBuf>,
    /// Content of `/etc/resolv.conf`; `None` keeps the machine's.
    pub resolv_conf: Option<String>,
    pub envs: BTreeMap<String, String>,
    pub command: Vec<String>,
    pub envd_version: String,
    /// What the daemon's callers have to show; `None`: nothing.
    pub token: Option<String>,
    /// Whether the code interpreter is served.
    pub code_interpreter: bool,
    /// Cores the instance is said to have; `None`: the machine's.
    pub cpu: Option<f64>,
    /// Bytes the instance is said to have; `None`: the machine's.
    pub memory: Option<u64>,
}

impl Plan {
    /// Home directories as processes see them: of `root` and of `user`.
    #[must_use]
    pub fn homes(&self) -> (PathBuf, PathBuf) {
        match self.isolation {
            Isolation::None => (self.state_dir.join(ROOT_HOME), self.state_dir.join(HOME).join("user")),
            _ => ("/root".into(), "/home/user".into()),
        }
    }
}

/// Directories of the instance in its state directory.
const HOME: &str = "home";
const ROOT_HOME: &str = "root-home";
/// Standard error of the daemon, where the launcher looks when it ends early.
pub const DAEMON_LOG: &str = "daemon.log";
/// Output of the tool's own command.
pub const MAIN_LOG: &str = "main.log";

/// What [`enter`] returns as.
pub enum Role {
    /// The instance is over; exit with this code.
    Supervisor(i32),
    /// Go on as the daemon inside.
    Daemon(Box<Inside>),
}

/// What the daemon is given.
pub struct Inside {
    pub plan: Plan,
    /// The daemon's end of the control link.
    pub control: OwnedFd,
    /// Where the output of the tool's command goes.
    pub main_log: std::fs::File,
    /// How isolated it is, for the launcher's log.
    pub report: String,
}

/// Enters the instance that the plan describes. Standard input is the control link, standard output
/// the command link.
///
/// # Errors
/// The machine does not allow the isolation that the plan asks for.
pub fn enter(plan: Plan) -> anyhow::Result<Role> {
    let (control, commands) = sys::take_stdio().context("standard input and output")?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    // A terminal's Ctrl-C is for the emulator, which then stops its instances in order.
    let _already_leader = nix::unistd::setsid();
    prepare_directories(&plan)?;
    match plan.isolation {
        Isolation::None => {
            prctl::set_child_subreaper(true).context("subreaper")?;
            let inside = Inside { main_log: open_log(&plan)?, plan, control, report: Isolation::None.to_string() };
            split(inside, commands, Realm::Descendants)
        }
        _ => enter_namespaces(plan, control, commands),
    }
}

fn enter_namespaces(plan: Plan, control: OwnedFd, commands: OwnedFd) -> anyhow::Result<Role> {
    unshare(plan.isolation)?;
    if let ForkResult::Parent { child } = sys::fork().context("fork")? {
        drop((control, commands));
        return Ok(Role::Supervisor(wait_for(child)));
    }
    prctl::set_pdeathsig(Signal::SIGKILL).context("parent death signal")?;
    let main_log = open_log(&plan)?;
    nix::unistd::sethostname(&plan.id).context("host name")?;
    sys::raise_loopback().context("loopback interface")?;
    let report = rootfs::build(&plan)?;
    sys::drop_host_capabilities();
    let inside = Inside { plan, control, main_log, report };
    split(inside, commands, Realm::PidNamespace)
}

fn unshare(isolation: Isolation) -> anyhow::Result<()> {
    let mut flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if isolation == Isolation::UserNamespace {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    nix::sched::unshare(flags).context("new namespaces")?;
    if isolation == Isolation::UserNamespace {
        std::fs::write("/proc/self/setgroups", "deny").context("setgroups")?;
        std::fs::write("/proc/self/uid_map", format!("{USER_ID} {uid} 1")).context("uid map")?;
        std::fs::write("/proc/self/gid_map", format!("{USER_ID} {gid} 1")).context("gid map")?;
    }
    Ok(())
}

/// Forks into the supervisor and the daemon.
fn split(inside: Inside, commands: OwnedFd, realm: Realm) -> anyhow::Result<Role> {
    let supervisor = supervise::Supervisor::new(realm, commands)?;
    match sys::fork().context("fork")? {
        ForkResult::Parent { child } => {
            drop(inside);
            Ok(Role::Supervisor(supervisor.run(child)))
        }
        ForkResult::Child => {
            prctl::set_pdeathsig(Signal::SIGKILL).context("parent death signal")?;
            supervisor.leave_to_child()?;
            Ok(Role::Daemon(Box::new(inside)))
        }
    }
}

/// Opens the log of the tool's command while the state directory is still visible.
fn open_log(plan: &Plan) -> anyhow::Result<std::fs::File> {
    std::fs::File::options().create(true).append(true).open(plan.state_dir.join(MAIN_LOG)).context("main log")
}

fn wait_for(child: Pid) -> i32 {
    loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, code)) => return code,
            Ok(WaitStatus::Signaled(..)) => return 0,
            Err(nix::errno::Errno::EINTR) | Ok(_) => {}
            Err(_) => return 1,
        }
    }
}

/// Makes the directories that become the instance's writable places.
fn prepare_directories(plan: &Plan) -> anyhow::Result<()> {
    let state = &plan.state_dir;
    for name in ["rootfs", HOME, ROOT_HOME, "tmp", "var-tmp"] {
        std::fs::create_dir_all(state.join(name)).context("state directory")?;
    }
    for (name, mode) in [(HOME, 0o755), (ROOT_HOME, 0o700), ("tmp", 0o1777), ("var-tmp", 0o1777)] {
        set_mode(&state.join(name), mode)?;
    }
    let home = state.join(HOME).join("user");
    std::fs::create_dir_all(&home)?;
    copy_skeleton(&home);
    copy_skeleton(&state.join(ROOT_HOME));
    if nix::unistd::geteuid().is_root() && plan.isolation != Isolation::UserNamespace {
        give_to_user(&home)?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .with_context(|| format!("mode of {}", path.display()))
}

/// What a new account starts with. Machines without a skeleton have none, and need none.
fn copy_skeleton(home: &Path) {
    let Ok(entries) = std::fs::read_dir("/etc/skel") else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let _best_effort = std::fs::copy(entry.path(), home.join(entry.file_name()));
        }
    }
}

fn give_to_user(home: &Path) -> anyhow::Result<()> {
    let own = |path: &Path| std::os::unix::fs::lchown(path, Some(USER_ID), Some(USER_ID));
    own(home)?;
    for entry in std::fs::read_dir(home)? {
        own(&entry?.path())?;
    }
    Ok(())
}
