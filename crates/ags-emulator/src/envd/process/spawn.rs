//! Turns a request into a running process.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};
use pty_process::{OwnedReadPty, OwnedWritePty};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::envd::users::User;
use crate::sys;

/// Group that terminals belong to.
const TTY_GROUP: u32 = 5;

/// Makes the process the kernel's first choice when memory is short, before the daemon, and becomes the command.
const WRAPPER: &str = r#"echo 100 2>/dev/null >/proc/$$/oom_score_adj; exec "$@""#;

/// What to start.
pub struct Spec {
    pub command: String,
    pub args: Vec<String>,
    /// Everything the process sees; nothing is inherited.
    pub envs: HashMap<OsString, OsString>,
    pub cwd: PathBuf,
    pub user: User,
    pub stdio: Wanted,
}

/// How the process is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Pipes { stdin: bool },
    Terminal(Size),
}

/// Of a terminal, in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub cols: u16,
    pub rows: u16,
}

/// A process that has just been started.
pub struct Spawned {
    pub child: Child,
    pub pid: u32,
    pub ends: Ends,
}

/// Our ends of what the process is connected to.
pub enum Ends {
    Pipes { stdin: Option<ChildStdin>, stdout: ChildStdout, stderr: ChildStderr },
    Terminal { output: OwnedReadPty, input: OwnedWritePty },
}

/// Starts a process. A command that does not exist still starts: the shell in front of it answers 127.
///
/// # Errors
/// The working directory cannot be entered, or the machine is out of processes, terminals or memory.
pub fn spawn(spec: Spec) -> io::Result<Spawned> {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(WRAPPER).arg("/bin/sh");
    command.arg(&spec.command).args(&spec.args);
    command.env_clear().envs(&spec.envs).current_dir(&spec.cwd);
    let terminal = match spec.stdio {
        Wanted::Pipes { stdin } => {
            command.stdin(if stdin { Stdio::piped() } else { Stdio::null() });
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            None
        }
        Wanted::Terminal(size) => Some(connect_terminal(&mut command, size, &spec.user)?),
    };
    sys::isolate_child(&mut command, spec.user.identity(), terminal.is_some());
    let mut child = command.spawn()?;
    let pid = child.id().ok_or(io::ErrorKind::NotFound)?;
    let ends = match terminal {
        Some((output, input)) => Ends::Terminal { output, input },
        None => Ends::Pipes {
            stdin: child.stdin.take(),
            stdout: child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?,
            stderr: child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?,
        },
    };
    Ok(Spawned { child, pid, ends })
}

fn connect_terminal(command: &mut Command, size: Size, user: &User) -> io::Result<(OwnedReadPty, OwnedWritePty)> {
    // Another process started meanwhile must not inherit either side, or the terminal would never end.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags | OFlag::O_NONBLOCK)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave = nix::fcntl::open(ptsname_r(&master)?.as_str(), flags, Mode::empty())?;
    if user.foreign {
        nix::unistd::fchown(&slave, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(TTY_GROUP)))?;
    }
    command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
    let terminal = sys::terminal(master).map_err(io::Error::other)?;
    terminal.resize(pty_process::Size::new(size.rows, size.cols)).map_err(io::Error::other)?;
    Ok(terminal.into_split())
}
