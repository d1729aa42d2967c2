//! Teams: the tenants, their quotas, and what of the central credentials' power they are lent.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::TeamId;

/// Limits of one team.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Quotas {
    /// Live instances at once, paused and starting ones included.
    pub max_instances: u32,
    /// Longest timeout an instance may be given, seconds.
    pub max_lifetime_seconds: u32,
    /// Running commands at once.
    pub max_execs: u32,
    /// API requests per second.
    pub requests_per_second: u32,
    /// Instance-seconds that may be used per UTC day; null for no limit.
    pub instance_seconds_per_day: Option<u64>,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            max_instances: 100,
            max_lifetime_seconds: 86_400,
            max_execs: 500,
            requests_per_second: 200,
            instance_seconds_per_day: None,
        }
    }
}

/// What a team may ask the central credentials to do on its behalf. `"*"` in a list grants all of that kind,
/// but for auth modes, which are always named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Grants {
    /// CAM role ARNs that tools may carry.
    pub role_arns: Vec<String>,
    /// Storage that tools may mount: `cos:<bucket>`, `cfs:<file system>`, `image:<reference>`, `agent_bucket:<library>`.
    pub mounts: Vec<String>,
    /// Network modes: `PUBLIC`, `SANDBOX`, `VPC`.
    pub networks: Vec<String>,
    /// Names of the configured upstreams.
    pub upstreams: Vec<String>,
    /// Instance auth modes: `DEFAULT`, `TOKEN`, `PUBLIC`, `NONE`.
    pub auth_modes: Vec<String>,
    /// Whether it may obtain the cloud's own access tokens of its instances.
    pub tokens: bool,
    /// Whether it may adopt tools that were made in the cloud's console.
    pub imports: bool,
}

impl Default for Grants {
    fn default() -> Self {
        Self {
            role_arns: Vec::new(),
            mounts: Vec::new(),
            networks: vec!["PUBLIC".into(), "SANDBOX".into()],
            upstreams: vec!["*".into()],
            auth_modes: vec!["DEFAULT".into(), "TOKEN".into()],
            tokens: false,
            imports: false,
        }
    }
}

impl Grants {
    #[must_use]
    pub fn allows_role(&self, role_arn: &str) -> bool {
        listed(&self.role_arns, role_arn)
    }

    #[must_use]
    pub fn allows_mount(&self, source: &str) -> bool {
        listed(&self.mounts, source)
    }

    #[must_use]
    pub fn allows_network(&self, mode: &str) -> bool {
        listed(&self.networks, mode)
    }

    #[must_use]
    pub fn allows_upstream(&self, name: &str) -> bool {
        listed(&self.upstreams, name)
    }

    /// Auth modes take no wildcard: `NONE` opens every port to the world.
    #[must_use]
    pub fn allows_auth_mode(&self, mode: &str) -> bool {
        self.auth_modes.iter().any(|granted| granted == mode)
    }
}

fn listed(granted: &[String], wanted: &str) -> bool {
    granted.iter().any(|one| one == "*" || one == wanted)
}

/// A team.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Team {
    pub id: TeamId,
    pub name: String,
    pub quotas: Quotas,
    pub grants: Grants,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_never_grants_an_auth_mode() {
        let grants = Grants { auth_modes: vec!["*".into()], role_arns: vec!["*".into()], ..Grants::default() };
        assert!(!grants.allows_auth_mode("NONE"));
        assert!(grants.allows_role("qcs::cam::uin/1:roleName/x"));
        assert!(!Grants::default().allows_role("qcs::cam::uin/1:roleName/x"));
    }
}
