//! Those who sign their requests instead of showing a key (TC3).

use std::sync::Arc;

use secrecy::SecretString;
use sqlx::PgPool;

use super::Caller;
use crate::{
    domain::seal::Seals,
    error::{Error, Result},
    storage::{keys, signing},
};

/// Finds whose a signature would have to be.
#[derive(Clone)]
pub struct Signers {
    pool: PgPool,
    seals: Arc<Seals>,
}

/// Whoever signs with a pair, and what with.
pub struct Signer {
    pub caller: Caller,
    pub secret_key: SecretString,
}

impl Signers {
    #[must_use]
    pub fn new(pool: PgPool, seals: Arc<Seals>) -> Self {
        Self { pool, seals }
    }

    /// The keys under which secrets are kept.
    #[must_use]
    pub fn seals(&self) -> &Seals {
        &self.seals
    }

    /// Who signs with the pair of this id; `None` when there is none, or its key is over. The caller is only who signed if
    /// the signature fits.
    ///
    /// # Errors
    /// When the database fails; `internal` when the key that the secret was sealed under is gone.
    pub async fn find(&self, secret_id: &str) -> Result<Option<Signer>> {
        let mut connection = self.pool.acquire().await?;
        let Some(row) = signing::system_find(&mut connection, secret_id).await? else { return Ok(None) };
        let Some(found) = keys::with_team(&mut connection, &row.team_id, &row.key_id, Vec::new()).await? else {
            return Ok(None);
        };
        let lost = || Error::internal("the secret of a signing key was sealed under a secret that is not configured");
        let unsealed = self.seals.open(secret_id, &row.sealed).ok_or_else(lost)?;
        if unsealed.stale {
            let sealed = self.seals.seal(secret_id, &unsealed.secret);
            signing::system_reseal(&mut connection, secret_id, &row.sealed, &sealed).await?;
        }
        Ok(Some(Signer { caller: Caller::of_key(found.key, found.team), secret_key: unsealed.secret }))
    }

    /// Notes that a key has signed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn used(&self, caller: &Caller) -> Result<()> {
        Ok(keys::touch(&mut *self.pool.acquire().await?, &caller.key_id).await?)
    }
}
