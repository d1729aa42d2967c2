//! A short directory for the socket: its path is bounded to 107 bytes, that of the data is not.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{Account, Error, Result};
use crate::files;

/// Removed when dropped.
#[derive(Debug)]
pub(super) struct SocketDir(PathBuf);

impl SocketDir {
    /// The directory that belongs to this data, of mode 0700 and owned by the server's account: who may enter it may
    /// connect.
    pub(super) fn create(data: &Path, account: &Account) -> Result<Self> {
        let path = path_for(data);
        let failed = |error: io::Error| Error(format!("{} cannot be made: {error}", path.display()));
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => account.give(&path).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        let found = fs::symlink_metadata(&path).map_err(failed)?;
        let private = found.is_dir() && found.permissions().mode() & 0o077 == 0 && found.uid() == account.uid.as_raw();
        if !private {
            return Err(Error(format!("{} is somebody else's: remove it", path.display())));
        }
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SocketDir {
    fn drop(&mut self) {
        // What cannot be removed is found and used by the next start.
        let _ = files::remove_dir(&self.0);
    }
}

fn path_for(data: &Path) -> PathBuf {
    let whole = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    let digest = Sha256::digest(whole.as_os_str().as_encoded_bytes());
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Path::new("/tmp").join(format!("ags-gateway-{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_short_whatever_the_data_and_differs_by_it() {
        let deep = PathBuf::from("/x".repeat(500));
        let socket = path_for(&deep).join(".s.PGSQL.5432");
        assert!(socket.as_os_str().len() < 108, "{socket:?}");
        assert_ne!(path_for(&deep), path_for(Path::new("/y")));
        assert_eq!(path_for(Path::new("/y")), path_for(Path::new("/y")));
    }
}
