//! Previews: leave for a browser to see one port of one instance for a while.

use chrono::{DateTime, Utc};

use crate::ids::{InstanceId, KeyId, PreviewId, TeamId};

/// A preview's row, without its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    pub id: PreviewId,
    pub team_id: TeamId,
    /// The key that asked for it: it ends with that key.
    pub key_id: KeyId,
    pub instance_id: InstanceId,
    pub port: u16,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    /// When a browser exchanged the link.
    pub opened_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
}
