//! One-use tickets with which browsers open WebSockets.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};
use sqlx::PgPool;

use super::{Caller, unauthenticated};
use crate::{
    domain::{credential::Peppers, scope::Scopes},
    error::{Code, Error, Result},
    ids::{ExecId, InstanceId},
    storage::{keys, tickets},
};

const TICKET_BYTES: usize = 24;

/// What a ticket is for.
#[derive(Clone, Debug)]
pub struct TicketGrant {
    pub instance: InstanceId,
    pub exec: Option<ExecId>,
    pub scopes: Scopes,
}

/// A ticket just made.
pub struct Ticket {
    pub ticket: SecretString,
    pub expires_at: DateTime<Utc>,
}

/// A ticket that was handed in.
#[derive(Clone, Debug)]
pub struct Redeemed {
    /// The issuer, narrowed to the ticket's scopes and instance.
    pub caller: Caller,
    pub exec: Option<ExecId>,
}

/// Issues and redeems tickets.
#[derive(Clone)]
pub struct Tickets {
    pool: PgPool,
    peppers: Arc<Peppers>,
    ttl: Duration,
}

impl Tickets {
    #[must_use]
    pub fn new(pool: PgPool, peppers: Arc<Peppers>, ttl: Duration) -> Self {
        Self { pool, peppers, ttl }
    }

    /// Makes a ticket, never wider than its issuer.
    ///
    /// # Errors
    /// `scope_missing` when the issuer lacks a wanted scope; `not_found` when it is bound to another instance.
    pub async fn issue(&self, caller: &Caller, grant: &TicketGrant) -> Result<Ticket> {
        caller.require_instance(&grant.instance)?;
        if let Some(scope) = grant.scopes.beyond(&caller.scopes).next() {
            return Err(Error::new(Code::ScopeMissing, format!("Your key does not have the scope `{scope}` itself.")));
        }
        let ticket = random_ticket();
        let digest = self.peppers.ticket_digest(ticket.expose_secret());
        let mut connection = self.pool.acquire().await?;
        let expires_at = tickets::insert(
            &mut connection,
            &tickets::NewTicket {
                digest: &digest,
                team: caller.team_id(),
                key: &caller.key_id,
                instance: &grant.instance,
                exec: grant.exec.as_ref(),
                scopes: &grant.scopes,
                ttl_seconds: self.ttl.as_secs_f64(),
            },
        )
        .await?;
        Ok(Ticket { ticket, expires_at })
    }

    /// Uses a ticket up.
    ///
    /// # Errors
    /// `unauthenticated` when it is unknown, used, expired, or its issuer's key was revoked.
    pub async fn redeem(&self, ticket: &str) -> Result<Redeemed> {
        let refused = || unauthenticated("The ticket is unknown, expired or was used before. Ask for a new one.");
        let digests = self.peppers.ticket_digests(ticket);
        let mut connection = self.pool.acquire().await?;
        let taken = tickets::take(&mut connection, &digests).await?.ok_or_else(refused)?;
        let issuer = keys::with_team(&mut connection, &taken.team_id, &taken.key_id, Vec::new()).await?;
        let issuer = issuer.ok_or_else(refused)?;
        let mut caller = Caller::of_key(issuer.key, issuer.team);
        caller.scopes = taken.scopes.iter().filter(|scope| caller.scopes.contains(*scope)).collect();
        caller.only_instance = Some(taken.instance_id);
        Ok(Redeemed { caller, exec: taken.exec_id })
    }
}

fn random_ticket() -> SecretString {
    let mut bytes = [0_u8; TICKET_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    hex::encode(bytes).into()
}
