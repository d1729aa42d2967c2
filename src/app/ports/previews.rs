//! Previews: a signed link that a browser exchanges once for a cookie of its own.

use std::{sync::Arc, time::Duration};

use moka::future::Cache;
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};

use super::ENVD_PORT;
use crate::{
    app::{App, idempotency::Intent, instances},
    auth::{Caller, unauthenticated},
    domain::{
        credential::Digest,
        duration::Seconds,
        page::{Page, PageRequest},
        port::Port,
        preview::Preview,
        scope::Scope,
    },
    error::{Code, Error, Result},
    ids::{InstanceId, PreviewId},
    storage::{
        keys,
        previews::{self, NewPreview},
    },
};

/// How long a cookie is believed without asking the database.
const BELIEF: Duration = Duration::from_millis(900);
const REMEMBERED: u64 = 10_000;
const COOKIE_BYTES: usize = 32;

/// What a preview shall be for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub port: Port,
    pub ttl: Option<Seconds>,
}

/// A preview and the proof in its link.
pub struct Link {
    pub preview: Preview,
    /// `{id}.{signature}`: good for one exchange, on the host of the preview's port alone.
    pub token: SecretString,
}

/// Cookies that were seen.
#[derive(Clone)]
pub(super) struct Visits(Cache<Digest, Arc<Preview>>);

impl Visits {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(REMEMBERED).time_to_live(BELIEF).build())
    }

    pub(super) fn forget_all(&self) {
        self.0.invalidate_all();
    }
}

/// Makes a preview of a port of one of the caller's running instances.
///
/// # Errors
/// `invalid_state` without a `sandbox_domain` or when the instance does not run; `validation_failed`; `not_found`.
pub async fn create(app: &App, caller: &Caller, id: &InstanceId, wanted: Wanted, noted: Intent) -> Result<Link> {
    if app.config.server.sandbox_domain.is_none() {
        let detail = "Previews need a host of their own for each port. Operators set server.sandbox_domain.";
        return Err(Error::new(Code::InvalidState, detail));
    }
    if wanted.port.get() == ENVD_PORT {
        return Err(Error::field("port", "this one is for programs only: it takes commands and files"));
    }
    let ttl = lifetime(app, wanted.ttl)?;
    instances::running(app, caller, id).await?;
    let preview_id: PreviewId = app.ids.next();
    let new = NewPreview {
        id: &preview_id,
        team: caller.team_id(),
        key: &caller.key_id,
        instance: id,
        port: wanted.port.get(),
        ttl_seconds: ttl.as_secs_f64(),
        not_after: caller.key_expires_at,
    };
    caller.trail.note_target(preview_id.as_str());
    let mut tx = app.pool.begin().await?;
    let preview = previews::insert(&mut tx, &new).await?;
    caller.trail.intend(&mut tx).await?;
    noted.note(&mut tx, preview_id.as_str()).await?;
    tx.commit().await?;
    let token = format!("{preview_id}.{}", app.peppers.preview_signature(&place(&preview_id, id, wanted.port))).into();
    Ok(Link { preview, token })
}

fn lifetime(app: &App, wanted: Option<Seconds>) -> Result<Duration> {
    let config = &app.config.ports;
    let Some(wanted) = wanted else { return Ok(config.preview_ttl) };
    let (wanted, longest) = (Duration::from_secs(u64::from(wanted.0)), config.max_preview_ttl);
    if wanted.is_zero() || wanted > longest {
        return Err(Error::field("ttl", format!("must lie between 1 and {} seconds", longest.as_secs())));
    }
    Ok(wanted)
}

/// What a link is good for: signed, so that it cannot be moved to another host.
fn place(id: &PreviewId, instance: &InstanceId, port: Port) -> String {
    format!("{id} {instance} {port}")
}

/// A preview that the caller's team made of an instance.
///
/// # Errors
/// `not_found`.
pub async fn get(app: &App, caller: &Caller, id: &PreviewId) -> Result<Preview> {
    let mut connection = app.pool.acquire().await?;
    let found = previews::find(&mut connection, caller.team_id(), id).await?;
    let found = found.ok_or_else(|| Error::not_found("preview"))?;
    caller.require_instance(&found.instance_id).map(|()| found)
}

/// The live previews of an instance, newest first.
///
/// # Errors
/// `not_found`.
pub async fn list(app: &App, caller: &Caller, id: &InstanceId, page: &PageRequest) -> Result<Page<Preview>> {
    instances::get(app, caller, id).await?;
    let mut connection = app.pool.acquire().await?;
    Ok(previews::list(&mut connection, caller.team_id(), id, page).await?)
}

/// Revokes a preview: on this replica at once, on the others and for open streams within a second. Idempotent.
///
/// # Errors
/// `not_found`.
pub async fn revoke(app: &App, caller: &Caller, id: &InstanceId, preview: &PreviewId) -> Result<()> {
    instances::get(app, caller, id).await?;
    let mut tx = app.pool.begin().await?;
    if !previews::revoke(&mut tx, caller.team_id(), id, preview).await? {
        return Err(Error::not_found("preview"));
    }
    caller.trail.intend(&mut tx).await?;
    tx.commit().await?;
    app.ports.visits.forget_all();
    Ok(())
}

/// Exchanges a link for a cookie, once.
///
/// # Errors
/// `unauthenticated` when it is not one of ours for this host, was used before, or is over.
pub async fn open(app: &App, token: &str, instance: &InstanceId, port: Port) -> Result<(Preview, SecretString)> {
    let refused = || unauthenticated("The link was used before, has expired or was revoked. Ask for a new one.");
    let (id, signature) = token.split_once('.').ok_or_else(refused)?;
    let id: PreviewId = id.parse().map_err(|_| refused())?;
    if !app.peppers.signed_preview(&place(&id, instance, port), signature) {
        return Err(refused());
    }
    let cookie = random_cookie();
    let digests = app.peppers.cookie_digests(cookie.expose_secret());
    let digest = digests.first().ok_or_else(refused)?;
    let mut connection = app.pool.acquire().await?;
    let preview = previews::open(&mut connection, &id, digest).await?.ok_or_else(refused)?;
    Ok((preview, cookie))
}

/// The preview that a cookie stands for, while it and the key behind it are good.
///
/// # Errors
/// `unauthenticated`.
pub async fn visit(app: &App, cookie: &str) -> Result<Arc<Preview>> {
    let digests = app.peppers.cookie_digests(cookie);
    let refused = || unauthenticated("The preview has ended. Ask for a new link.");
    let current = *digests.first().ok_or_else(refused)?;
    let visits = &app.ports.visits.0;
    if let Some(preview) = visits.get(&current).await {
        return Ok(preview);
    }
    let look_up = async {
        let mut connection = app.pool.acquire().await?;
        let preview = previews::by_cookie(&mut connection, &digests).await?.ok_or_else(refused)?;
        let issuer = keys::with_team(&mut connection, &preview.team_id, &preview.key_id, Vec::new()).await?;
        let able = issuer.is_some_and(|issuer| issuer.key.scopes.contains(Scope::Ports));
        if able { Ok(Arc::new(preview)) } else { Err(refused()) }
    };
    visits.try_get_with(current, look_up).await.map_err(|shared: Arc<Error>| shared.copy())
}

fn random_cookie() -> SecretString {
    let mut bytes = [0_u8; COOKIE_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    hex::encode(bytes).into()
}
