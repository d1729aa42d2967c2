//! The data directory: whether it is usable, how it is made, and who may still be using it.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::Uid};

use super::{Account, Binaries, Door, Error, Options, Result, append_to, last_words};
use crate::{ProcessId, files};

const STALE_GRACE: Duration = Duration::from_secs(10);

/// The major version that made the data; `None` when there is none yet.
pub(super) fn check(data: &Path, account: &Account) -> Result<Option<u32>> {
    let shown = data.display();
    let owner = match fs::metadata(data) {
        Ok(metadata) if metadata.is_dir() => metadata.uid(),
        Ok(_) => return Err(Error(format!("{shown} is not a directory"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error(format!("{shown} cannot be looked at: {error}"))),
    };
    if owner != account.uid.as_raw() {
        let name = |uid| {
            let user = nix::unistd::User::from_uid(Uid::from_raw(uid)).ok().flatten();
            user.map_or_else(|| format!("uid {uid}"), |user| user.name)
        };
        return Err(Error(format!(
            "{shown} belongs to {}, but PostgreSQL would run as {}: remove it, or choose another --state",
            name(owner),
            name(account.uid.as_raw())
        )));
    }
    let version = match fs::read_to_string(data.join("PG_VERSION")) {
        Ok(text) => text.trim().parse().ok(),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(Error(format!("{shown} cannot be read: {error}")));
        }
        Err(_) => None,
    };
    version.map(Some).ok_or_else(|| {
        Error(format!("{shown} is not a PostgreSQL data directory (no valid PG_VERSION): drop it with --fresh"))
    })
}

/// Makes the data beside its place and moves it there, so that a killed start leaves nothing half-made.
pub(super) fn initialise(options: &Options, binaries: &Binaries, account: &Account) -> Result<()> {
    let failed = |error: io::Error| Error(format!("{} cannot be made: {error}", options.data.display()));
    let unfinished = beside(&options.data);
    files::remove_dir(&unfinished).map_err(failed)?;
    files::create_private_dir(&unfinished).map_err(failed)?;
    account.give(&unfinished).map_err(failed)?;
    let door = Door::open(&unfinished)?;
    let mut command = account.command(&binaries.initdb);
    command.arg("-D").arg(door.path()).args(["-U", super::SUPERUSER, "--auth=trust", "-E", "UTF8", "--no-locale"]);
    // Syncing costs seconds, and there is nothing yet that a crash of the machine could take.
    command.arg("--no-sync");
    command.stdout(Stdio::null()).stderr(append_to(&options.log)?);
    door.pass_to(&mut command);
    let status = command.status().map_err(failed)?;
    if !status.success() {
        return Err(Error(format!("initdb failed ({status}): {}", last_words(&options.log))));
    }
    fs::rename(&unfinished, &options.data).map_err(failed)
}

fn beside(data: &Path) -> PathBuf {
    let mut name = data.file_name().unwrap_or_default().to_owned();
    name.push(".unfinished");
    data.with_file_name(name)
}

/// Ends the server whose pid the data directory holds, when that process really works in it.
pub(super) fn end_stale_server(data: &Path) {
    let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else { return };
    let Some(pid) = text.lines().next().and_then(|line| line.trim().parse().ok()) else { return };
    let works_here = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| is_same(&cwd, data));
    if let (true, Some(process)) = (works_here, ProcessId::of(pid)) {
        process.end(Signal::SIGINT, STALE_GRACE);
    }
}

fn is_same(a: &Path, b: &Path) -> bool {
    match (fs::metadata(a), fs::metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}
