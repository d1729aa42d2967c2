//! The state directory: what is kept between runs, and the lock that makes one supervisor its owner.

use std::{
    fs::{self, File},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use devstack::{ProcessId, files};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::signal::Signal,
};
use rand::Rng;
use serde::{Deserialize, Serialize};

const LEFTOVER_GRACE: Duration = Duration::from_secs(5);
const MAX_LOG_BYTES: u64 = 32 << 20;
const SECRET_BYTES: usize = 32;

/// What `--fresh` drops. Never the directory itself: it may be one that holds other things too.
const KEPT: [&str; 8] =
    ["postgres", "postgres.unfinished", "emulator", "logs", "tls", "gateway.toml", "emulator.key", "auth.key"];

/// A process of the stack that may outlive a killed supervisor for a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub name: String,
    pub process: ProcessId,
}

/// An opened state directory.
pub(super) struct State {
    directory: PathBuf,
    _lock: Flock<File>,
}

impl State {
    /// Takes the directory over: locks it, ends what a killed supervisor left running, forgets its dev.env.
    pub(super) fn open(directory: &Path, fresh: bool) -> anyhow::Result<Self> {
        let unusable = || format!("{} cannot be used as state directory", directory.display());
        files::create_private_dir(directory).with_context(unusable)?;
        let directory = directory.canonicalize().with_context(unusable)?;
        let lock = lock(&directory)?;
        let state = Self { directory, _lock: lock };
        state.end_leftovers();
        state.forget_run()?;
        if fresh {
            state.drop_kept()?;
        }
        files::create_private_dir(&state.path("logs"))?;
        for log in ["postgres", "emulator", "gateway"] {
            state.turn_log(log)?;
        }
        Ok(state)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.path("logs").join(format!("{name}.log"))
    }

    /// A secret of 64 hex digits that is made once and kept.
    pub(super) fn secret(&self, file: &str) -> anyhow::Result<String> {
        let path = self.path(file);
        if let Ok(kept) = fs::read_to_string(&path)
            && !kept.trim().is_empty()
        {
            return Ok(kept.trim().to_owned());
        }
        let mut bytes = [0; SECRET_BYTES];
        rand::rng().fill_bytes(&mut bytes);
        let made = hex::encode(bytes);
        files::write_private(&path, &format!("{made}\n"))
            .with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(made)
    }

    /// Notes what runs, for the case that this process is killed.
    pub(super) fn record(&self, running: &[Record]) -> anyhow::Result<()> {
        Ok(files::write_private(&self.path("run.json"), &serde_json::to_string(running)?)?)
    }

    /// Removes what describes a running stack.
    pub(super) fn forget_run(&self) -> anyhow::Result<()> {
        for name in ["dev.env", "run.json", "gateway.ready", "emulator.ready"] {
            files::remove_file(&self.path(name))?;
        }
        Ok(())
    }

    fn end_leftovers(&self) {
        let text = fs::read_to_string(self.path("run.json")).unwrap_or_default();
        // A record that cannot be read was not finished; PostgreSQL and the kernel's farewell cover that instant.
        let records: Vec<Record> = serde_json::from_str(&text).unwrap_or_default();
        for Record { name, process } in records {
            if process.is_alive() {
                println!("ending {name} (pid {}), left behind by a killed run", process.pid);
                let signal = if name == "postgres" { Signal::SIGINT } else { Signal::SIGTERM };
                process.end(signal, LEFTOVER_GRACE);
            }
        }
    }

    fn drop_kept(&self) -> anyhow::Result<()> {
        for name in KEPT {
            let path = self.path(name);
            let removed = if path.is_dir() { files::remove_dir(&path) } else { files::remove_file(&path) };
            removed.with_context(|| format!("{} cannot be dropped", path.display()))?;
        }
        Ok(())
    }

    fn turn_log(&self, name: &str) -> anyhow::Result<()> {
        let log = self.log(name);
        if fs::metadata(&log).is_ok_and(|found| found.len() > MAX_LOG_BYTES) {
            fs::rename(&log, log.with_extension("log.old"))?;
        }
        Ok(())
    }
}

/// Held until this process ends, however it ends.
fn lock(directory: &Path) -> anyhow::Result<Flock<File>> {
    let path = directory.join("lock");
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = file.with_context(|| format!("{} cannot be written", path.display()))?;
    let mut holder = String::new();
    file.read_to_string(&mut holder)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            lock.set_len(0)?;
            lock.rewind()?;
            write!(lock, "{}", std::process::id())?;
            Ok(lock)
        }
        Err((_, Errno::EWOULDBLOCK)) => {
            bail!("a stack runs in {} already (pid {holder}): stop it, or choose another --state", directory.display())
        }
        Err((_, error)) => Err(error).with_context(|| format!("{} cannot be locked", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::{fs::PermissionsExt, process::CommandExt},
        process::Command,
    };

    use super::*;

    #[test]
    fn two_supervisors_on_one_directory_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let first = State::open(directory.path(), false).unwrap();
        let error = State::open(directory.path(), false).err().unwrap().to_string();
        assert!(error.contains(&format!("already (pid {})", std::process::id())), "{error}");
        drop(first);
        State::open(directory.path(), false).unwrap();
    }

    #[test]
    fn secrets_are_kept_until_a_fresh_start_and_others_files_always() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("mine.txt"), "mine").unwrap();
        let open = |fresh| State::open(directory.path(), fresh).unwrap().secret("auth.key").unwrap();
        let first = open(false);
        assert_eq!(first.len(), 64);
        assert_eq!(open(false), first);
        assert_ne!(open(true), first);
        let mode = fs::metadata(directory.path().join("auth.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_to_string(directory.path().join("mine.txt")).unwrap(), "mine");
    }

    #[test]
    fn what_a_killed_run_left_is_ended_and_its_dev_env_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let mut left = Command::new("sleep").arg("300").process_group(0).spawn().unwrap();
        let process = ProcessId::of(left.id().cast_signed()).unwrap();
        let state = State::open(directory.path(), false).unwrap();
        state.record(&[Record { name: "gateway".into(), process: process.clone() }]).unwrap();
        fs::write(state.path("dev.env"), "AGS_GATEWAY_KEY=old").unwrap();
        drop(state);
        let state = State::open(directory.path(), false).unwrap();
        assert!(!process.is_alive());
        assert!(!state.path("dev.env").exists());
        assert!(!left.wait().unwrap().success());
    }
}
