//! Streams that last: who holds them open, and the look whether they still may.
//!
//! A revocation is told to every replica by the database's own notifications ([`listen`]); whoever misses one sees it at the
//! next look.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use secrecy::ExposeSecret;
use sqlx::postgres::PgListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::App;
use crate::{
    auth::Caller,
    error::{Code, Error, Result},
    storage::{
        holders::{self, Holder},
        queue,
    },
};

/// How often it is looked. Without notifications, too, a revocation ends open streams within a second.
const LOOK: Duration = Duration::from_millis(500);
/// Before a listener that broke is made anew, and the longest of such pauses.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A holder's streams on this replica, ended together.
pub struct Hold {
    ended: CancellationToken,
}

impl Hold {
    /// Cancelled when the holder may go on no longer.
    #[must_use]
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }
}

/// A part in the watch over those who may go on, to be taken when a stream turns out to last.
#[derive(Clone)]
pub struct HoldLater {
    holder: Arc<Holder>,
    holders: Holders,
}

impl HoldLater {
    pub(super) fn new(holder: Holder, holders: &Holders) -> Self {
        Self { holder: Arc::new(holder), holders: holders.clone() }
    }

    #[must_use]
    pub fn hold(&self) -> Arc<Hold> {
        self.holders.hold(&self.holder)
    }
}

/// All holders of open streams. Clones share them.
#[derive(Clone, Default)]
pub struct Holders {
    all: Arc<Mutex<HashMap<Holder, Weak<Hold>>>>,
    /// Something was revoked.
    woken: Arc<Notify>,
}

impl Holders {
    #[must_use]
    pub fn hold(&self, holder: &Holder) -> Arc<Hold> {
        let mut holders = self.lock();
        if let Some(hold) = holders.get(holder).and_then(Weak::upgrade) {
            return hold;
        }
        let hold = Arc::new(Hold { ended: CancellationToken::new() });
        holders.insert(holder.clone(), Arc::downgrade(&hold));
        hold
    }

    /// For a stream that lasts as long as the caller's key.
    #[must_use]
    pub fn hold_key(&self, caller: &Caller) -> Arc<Hold> {
        self.hold(&Holder::of_key(caller.key_id.clone()))
    }

    /// Has it looked at once who may go on.
    pub fn look(&self) {
        self.woken.notify_one();
    }

    /// Those who hold something open; the others are forgotten.
    fn present(&self) -> Vec<(Holder, Arc<Hold>)> {
        let mut present = Vec::new();
        self.lock().retain(|holder, hold| match hold.upgrade() {
            Some(hold) => {
                present.push((holder.clone(), hold));
                true
            }
            None => false,
        });
        present
    }

    fn end(&self, holder: &Holder, hold: &Hold) {
        self.lock().remove(holder);
        hold.ended.cancel();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Holder, Weak<Hold>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one is told whose key ends while a call of it runs.
#[must_use]
pub fn ended() -> Error {
    Error::new(Code::Unauthenticated, "The key was revoked, or has expired, while the call ran.")
}

/// Ends streams whose instance, key or preview is over, until the drain. One query a look, none when nothing is open.
pub async fn watch(app: App) {
    let draining = app.lifecycle.draining();
    let due = || async {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = app.holders.woken.notified() => {}
        }
    };
    while draining.run_until_cancelled(due()).await.is_some() {
        if let Err(error) = look(&app).await {
            tracing::warn!(cause = ?error, "open streams could not be checked");
        }
    }
}

async fn look(app: &App) -> Result<()> {
    let present = app.holders.present();
    if present.is_empty() {
        return Ok(());
    }
    let all: Vec<Holder> = present.iter().map(|(holder, _)| holder.clone()).collect();
    let mut connection = app.pool.acquire().await?;
    for place in holders::system_ended(&mut connection, &all).await? {
        if let Some((holder, hold)) = present.get(place) {
            // Who is cut here is not let in again on what was believed a moment ago.
            app.auth.forget_all();
            app.ports.forget_all();
            tracing::info!(instance = holder.instance.as_ref().map(ToString::to_string), key = %holder.key, "open streams are ended");
            app.holders.end(holder, hold);
        }
    }
    Ok(())
}

/// Hears of what was revoked or changed, on whatever replica or at the command line, until the drain.
pub async fn listen(app: App) {
    let draining = app.lifecycle.draining();
    let mut pause = FIRST_PAUSE;
    while let Some(Err(error)) = draining.run_until_cancelled(hear(&app, &mut pause)).await {
        metrics::gauge!("ags_gateway_listening").set(0.0);
        tracing::warn!(%error, "notifications of the database are not heard; it is looked for changes meanwhile");
        draining.run_until_cancelled(tokio::time::sleep(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn hear(app: &App, pause: &mut Duration) -> sqlx::Result<()> {
    let mut listener = PgListener::connect(app.config.database.url.expose_secret()).await?;
    listener.listen_all([holders::CHANNEL, queue::CHANNEL]).await?;
    *pause = FIRST_PAUSE;
    metrics::gauge!("ags_gateway_listening").set(1.0);
    loop {
        // What was said before the listener was there, or while it was cut, was not heard.
        app.auth.forget_all();
        app.ports.forget_all();
        app.holders.look();
        app.lines.wake();
        loop {
            match listener.try_recv().await? {
                Some(told) if told.channel() == queue::CHANNEL => app.lines.wake(),
                Some(_) => break,
                None => {
                    tracing::warn!("the database's notifications were cut off; they are heard again");
                    break;
                }
            }
        }
    }
}
