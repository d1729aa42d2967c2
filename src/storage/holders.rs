//! Who holds streams open, and whether they may go on.

use sqlx::PgConnection;

use crate::ids::{InstanceId, KeyId, PreviewId};

/// On it the database says that a credential, or what it may do, was changed (see the migration `notify_access`).
pub const CHANNEL: &str = "ags_gateway_access";

/// Who holds a stream open: by a key, or by a preview that the key made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Set: the stream ends when this instance does not run.
    pub instance: Option<InstanceId>,
    pub key: KeyId,
    pub preview: Option<PreviewId>,
}

impl Holder {
    /// Of a stream that lasts as long as a key.
    #[must_use]
    pub fn of_key(key: KeyId) -> Self {
        Self { instance: None, key, preview: None }
    }
}

/// The places in `holders` of those who may go on no longer: the instance does not run, the key or the preview is over.
///
/// # Errors
/// When the database fails.
pub async fn system_ended(connection: &mut PgConnection, holders: &[Holder]) -> sqlx::Result<Vec<usize>> {
    let text = |id: Option<String>| id.unwrap_or_default();
    let instances: Vec<String> =
        holders.iter().map(|holder| text(holder.instance.as_ref().map(ToString::to_string))).collect();
    let keys: Vec<String> = holders.iter().map(|holder| holder.key.to_string()).collect();
    let previews: Vec<String> =
        holders.iter().map(|holder| text(holder.preview.as_ref().map(ToString::to_string))).collect();
    let places = sqlx::query_scalar!(
        r#"SELECT h.place AS "place!"
           FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS h (instance, key, preview, place)
           WHERE (h.instance <> '' AND NOT EXISTS (SELECT FROM instances i WHERE i.id = h.instance AND i.status = 'RUNNING'))
              OR NOT EXISTS (SELECT FROM api_keys k WHERE k.id = h.key AND k.revoked_at IS NULL
                                                      AND (k.expires_at IS NULL OR k.expires_at > now()))
              OR (h.preview <> '' AND NOT EXISTS (SELECT FROM previews p WHERE p.id = h.preview
                                                      AND p.revoked_at IS NULL AND p.expires_at > now()))"#,
        &instances,
        &keys,
        &previews,
    )
    .fetch_all(connection)
    .await?;
    Ok(places.into_iter().filter_map(|place| usize::try_from(place - 1).ok()).collect())
}
