//! What survives the emulator: tools, API keys and the account made on first start, in one file that
//! is replaced as a whole.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ags_client::types::SandboxTool;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// An API key of the E2B endpoint. Kept in clear: this is a stand-in on a developer's machine, and
/// the file is for its owner only.
#[derive(Clone, Serialize, Deserialize)]
pub struct ApiKey {
    pub id: String,
    pub name: String,
    pub key: String,
    pub created_at: DateTime<Utc>,
}

/// The account made when none was configured.
#[derive(Clone, Serialize, Deserialize)]
pub struct MadeAccount {
    pub secret_id: String,
    pub secret_key: String,
}

/// The file's content.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Saved {
    pub account: Option<MadeAccount>,
    pub tools: Vec<SandboxTool>,
    pub api_keys: Vec<ApiKey>,
}

/// The file.
pub struct File {
    path: PathBuf,
}

impl File {
    /// The file in this directory, which is made when absent.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn within(state_dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(state_dir)?;
        Ok(Self { path: state_dir.join("emulator.json") })
    }

    /// # Errors
    /// The file is there but cannot be read or understood.
    pub fn load(&self) -> io::Result<Saved> {
        match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let text = format!("{} is damaged: {error}", self.path.display());
                io::Error::new(io::ErrorKind::InvalidData, text)
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Saved::default()),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file, so that nobody sees half of it.
    ///
    /// # Errors
    /// The disk does not take it; the previous content stays.
    pub fn save(&self, saved: &Saved) -> io::Result<()> {
        let next = self.path.with_extension("json.next");
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
        file.write_all(&serde_json::to_vec_pretty(saved)?)?;
        std::fs::rename(&next, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::within(&dir.path().join("new")).unwrap();
        assert!(file.load().unwrap().tools.is_empty());
        let tool = SandboxTool { tool_id: "sdt-1".into(), ..Default::default() };
        file.save(&Saved { tools: vec![tool.clone()], ..Default::default() }).unwrap();
        assert_eq!(file.load().unwrap().tools, [tool]);
        let mode = std::fs::metadata(&file.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn damage_is_said() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("emulator.json"), "{").unwrap();
        let error = File::within(dir.path()).unwrap().load().err().expect("an error");
        assert!(error.to_string().contains("damaged"), "{error}");
    }
}
