//! Outbound network of an instance by a user-mode stack, where one is installed.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use super::inside::Isolation;

/// How long the program may take until the interface inside is up.
const READY_LIMIT: Duration = Duration::from_secs(5);

/// The address inside at which both programs answer DNS queries.
const RESOLVER: &str = "10.0.2.3";

/// An installed program that connects a network namespace to the machine's network.
#[derive(Clone, Debug)]
pub enum Stack {
    Pasta(PathBuf),
    Slirp4netns(PathBuf),
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pasta(_) => "pasta",
            Self::Slirp4netns(_) => "slirp4netns",
        })
    }
}

impl Stack {
    /// Looks for a program in a search path.
    #[must_use]
    pub fn find(search_path: &OsStr) -> Option<Self> {
        let find = |name: &str| {
            std::env::split_paths(search_path).map(|directory| directory.join(name)).find(|path| path.is_file())
        };
        // The pasta of Debian 12 cannot enter the namespaces of root's processes.
        find("slirp4netns").map(Self::Slirp4netns).or_else(|| find("pasta").map(Self::Pasta))
    }

    /// `/etc/resolv.conf` for the inside.
    #[must_use]
    pub fn resolv_conf(&self) -> String {
        format!("nameserver {RESOLVER}\n")
    }

    /// Connects the namespaces of a process. The network lasts as long as the returned value.
    ///
    /// # Errors
    /// The program does not start or reports no success in time.
    pub async fn attach(&self, pid: u32, isolation: Isolation) -> io::Result<Helper> {
        tokio::time::timeout(READY_LIMIT, self.start(pid, isolation))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn start(&self, pid: u32, isolation: Isolation) -> io::Result<Helper> {
        let mut command = self.command(pid, isolation);
        command.stderr(Stdio::null()).kill_on_drop(true);
        match self {
            Self::Pasta(_) => {
                // It goes on in the foreground and gives no sign; the interface appears at once.
                command.stdin(Stdio::null()).stdout(Stdio::null());
                let mut child = command.spawn()?;
                tokio::select! {
                    up = wait_for_interface(pid) => up?,
                    status = child.wait() => return Err(io::Error::other(format!("pasta ended with {}", status?))),
                }
                Ok(Helper::new(child))
            }
            Self::Slirp4netns(_) => {
                command.stdin(Stdio::piped()).stdout(Stdio::piped());
                let mut child = command.spawn()?;
                let mut ready = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
                ready.read_u8().await?;
                Ok(Helper::new(child))
            }
        }
    }

    fn command(&self, pid: u32, isolation: Isolation) -> Command {
        let pid = pid.to_string();
        match self {
            Self::Pasta(program) => {
                let mut command = Command::new(program);
                command.args(["--config-net", "--foreground", "--quiet"]);
                command.args(["--no-map-gw", "--dns-forward", RESOLVER]);
                // No port of the machine is reachable inside, and none inside from the machine.
                command.args(["-t", "none", "-u", "none", "-T", "none", "-U", "none"]);
                if isolation == Isolation::Namespaces {
                    command.args(["--runas", "0", "--netns-only"]);
                }
                command.arg(pid);
                command
            }
            Self::Slirp4netns(program) => {
                let mut command = Command::new(program);
                command.args(["--configure", "--mtu=65520", "--disable-host-loopback"]);
                // Standard input is held open by the emulator: the program ends with it.
                command.args(["--exit-fd=0", "--ready-fd=1"]);
                if isolation == Isolation::UserNamespace {
                    command.arg(format!("--userns-path=/proc/{pid}/ns/user"));
                }
                command.args([pid.as_str(), "tap0"]);
                command
            }
        }
    }
}

/// Waits until the process sees an interface besides loopback.
async fn wait_for_interface(pid: u32) -> io::Result<()> {
    loop {
        let table = tokio::fs::read_to_string(format!("/proc/{pid}/net/dev")).await?;
        if has_interface(&table) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn has_interface(table: &str) -> bool {
    let mut names = table.lines().skip(2).filter_map(|line| line.split(':').next());
    names.any(|name| name.trim() != "lo")
}

/// The running program; dropping it ends the network.
pub struct Helper {
    _child: Child,
}

impl Helper {
    fn new(child: Child) -> Self {
        Self { _child: child }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_alone_is_no_network() {
        let lo = "Inter-|\n face |\n    lo:  0 0\n";
        assert!(!has_interface(lo));
        assert!(has_interface(&format!("{lo}  eth0: 0 0\n")));
    }
}
