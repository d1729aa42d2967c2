//! Signed grants: what a caller may do, said in a text that this deployment alone can make.
//!
//! A resume token lets its holder attach again to one command. A replica grant lets one replica act for a caller at another.
//! Neither is stored; the key of the caller must still be valid when it is used, and neither is ever wider than that key.

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use super::{Caller, Redeemed, unauthenticated};
use crate::{
    clock::SharedClock,
    domain::{credential::Peppers, scope::Scopes},
    error::Result,
    ids::{ExecId, InstanceId, KeyId, TeamId},
    storage::keys,
};

const RESUME_FOR: Duration = Duration::from_secs(24 * 3600);
const REPLICA_FOR: Duration = Duration::from_secs(30);
const RESUME: &str = "resume-token";
const REPLICA: &str = "replica-grant";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    team: TeamId,
    key: KeyId,
    instance: Option<InstanceId>,
    exec: Option<ExecId>,
    scopes: Vec<String>,
    /// The replica that it is for.
    at: Option<String>,
    expires: DateTime<Utc>,
}

/// Makes and checks grants.
#[derive(Clone)]
pub struct Grants {
    pool: PgPool,
    peppers: Arc<Peppers>,
    clock: SharedClock,
    replica: Arc<str>,
}

impl Grants {
    /// `replica`: what this process is called.
    #[must_use]
    pub fn new(pool: PgPool, peppers: Arc<Peppers>, clock: SharedClock, replica: &str) -> Self {
        Self { pool, peppers, clock, replica: replica.into() }
    }

    /// A token to attach to a command with, as this caller could: for a day, as long as its key lives.
    #[must_use]
    pub fn resume(&self, caller: &Caller, instance: &InstanceId, exec: &ExecId) -> String {
        let claims = self.claims(caller, RESUME_FOR);
        self.sign(RESUME, &Claims { instance: Some(instance.clone()), exec: Some(exec.clone()), ..claims })
    }

    /// A grant to act for a caller at another replica, at once.
    #[must_use]
    pub fn replica(&self, caller: &Caller, replica: &str) -> String {
        let claims = self.claims(caller, REPLICA_FOR);
        let instance = caller.only_instance.clone();
        self.sign(REPLICA, &Claims { instance, at: Some(replica.to_owned()), ..claims })
    }

    fn claims(&self, caller: &Caller, lasts: Duration) -> Claims {
        Claims {
            team: caller.team_id().clone(),
            key: caller.key_id.clone(),
            instance: None,
            exec: None,
            scopes: caller.scopes.to_names(),
            at: None,
            expires: self.clock.now() + lasts,
        }
    }

    fn sign(&self, purpose: &str, claims: &Claims) -> String {
        // A plain struct of texts: it always serialises.
        let body = serde_json::to_vec(claims).unwrap_or_default();
        let mac = self.peppers.sign(purpose, &body);
        format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(body), BASE64_URL_SAFE_NO_PAD.encode(mac))
    }

    /// Who holds a resume token, and for which command.
    ///
    /// # Errors
    /// `unauthenticated` when it was not made here, has expired, or its caller's key was revoked.
    pub async fn redeem_resume(&self, token: &str) -> Result<Redeemed> {
        self.redeem(RESUME, token, "The resume token is not valid (any more). Attach with a ticket or a key.").await
    }

    /// Whom another replica acts for.
    ///
    /// # Errors
    /// `unauthenticated` as above, or when it is for another replica.
    pub async fn redeem_replica(&self, grant: &str) -> Result<Caller> {
        let redeemed = self.redeem(REPLICA, grant, "The grant of the other replica is not valid (any more).").await?;
        Ok(Caller { by_replica: true, ..redeemed.caller })
    }

    async fn redeem(&self, purpose: &str, text: &str, refusal: &str) -> Result<Redeemed> {
        let refused = || unauthenticated(refusal);
        let claims = self.verify(purpose, text).ok_or_else(refused)?;
        let mut connection = self.pool.acquire().await?;
        let issuer = keys::with_team(&mut connection, &claims.team, &claims.key, Vec::new()).await?;
        let issuer = issuer.ok_or_else(refused)?;
        let granted = Scopes::from_names(&claims.scopes);
        let mut caller = Caller::of_key(issuer.key, issuer.team);
        caller.scopes = granted.iter().filter(|scope| caller.scopes.contains(*scope)).collect();
        caller.only_instance = claims.instance.or(caller.only_instance);
        Ok(Redeemed { caller, exec: claims.exec })
    }

    fn verify(&self, purpose: &str, text: &str) -> Option<Claims> {
        let (body, mac) = text.split_once('.')?;
        let body = BASE64_URL_SAFE_NO_PAD.decode(body).ok()?;
        let mac = BASE64_URL_SAFE_NO_PAD.decode(mac).ok()?;
        if !self.peppers.verify(purpose, &body, &mac) {
            return None;
        }
        let claims: Claims = serde_json::from_slice(&body).ok()?;
        let here = claims.at.as_deref().is_none_or(|at| at == &*self.replica);
        (claims.expires > self.clock.now() && here).then_some(claims)
    }
}
