//! Who calls, and what they may.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::Trail;
use crate::{
    domain::{
        credential::ApiKey,
        scope::{Scope, Scopes},
        team::Team,
    },
    error::{Code, Error, Result},
    ids::{InstanceId, KeyId, TeamId},
};

/// An authenticated caller: a key (or a ticket made from one) of a team.
#[derive(Clone, Debug)]
pub struct Caller {
    pub team: Team,
    pub key_id: KeyId,
    pub key_name: String,
    pub key_prefix: String,
    pub key_expires_at: Option<DateTime<Utc>>,
    pub scopes: Scopes,
    /// Set: this caller may touch that instance alone.
    pub only_instance: Option<InstanceId>,
    /// Another replica acts for it.
    pub by_replica: bool,
    /// Set: the present request wakes the paused instance that it goes into, and waits so long for it.
    pub wake: Option<Duration>,
    /// What the present request leaves in the history.
    pub trail: Trail,
}

impl Caller {
    #[must_use]
    pub fn of_key(key: ApiKey, team: Team) -> Self {
        Self {
            team,
            key_id: key.id,
            key_name: key.name,
            key_prefix: key.prefix,
            key_expires_at: key.expires_at,
            scopes: key.scopes,
            only_instance: key.instance_id,
            by_replica: false,
            wake: None,
            trail: Trail::default(),
        }
    }

    /// This caller, in one request.
    #[must_use]
    pub fn within(&self, trail: &Trail) -> Self {
        trail.note_caller(self);
        if self.by_replica {
            trail.kept_elsewhere();
        }
        Self { trail: trail.clone(), ..self.clone() }
    }

    #[must_use]
    pub fn team_id(&self) -> &TeamId {
        &self.team.id
    }

    /// # Errors
    /// `scope_missing` when the credential has none of the scopes.
    pub fn require_any(&self, scopes: &[Scope]) -> Result<()> {
        if scopes.iter().any(|scope| self.scopes.contains(*scope)) {
            return Ok(());
        }
        let names: Vec<String> = scopes.iter().map(|scope| format!("`{scope}`")).collect();
        Err(Error::new(Code::ScopeMissing, format!("This needs a key with the scope {}.", names.join(" or "))))
    }

    /// Whether this caller may touch the instance at all, as far as its credential is bound to one.
    ///
    /// # Errors
    /// `not_found` for any other instance than the bound one.
    pub fn require_instance(&self, instance: &InstanceId) -> Result<()> {
        match &self.only_instance {
            Some(only) if only != instance => Err(Error::not_found("instance")),
            _ => Ok(()),
        }
    }

    /// Whether this caller may do what is not about one instance.
    ///
    /// # Errors
    /// `scope_missing` for a credential that is bound to one instance.
    pub fn require_unbound(&self) -> Result<()> {
        match &self.only_instance {
            Some(only) => {
                Err(Error::new(Code::ScopeMissing, format!("This credential is limited to instance {only}.")))
            }
            None => Ok(()),
        }
    }
}
