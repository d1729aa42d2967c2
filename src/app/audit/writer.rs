//! The one task that writes the history of this replica.

use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Note, Sums};
use crate::{
    domain::audit::{AuditEvent, RunEnd},
    storage::{
        audit,
        usage::{self, Addition},
    },
};

/// Notes that are written at once.
const BATCH: usize = 500;
/// How long the first of them waits for others: the database's work comes after that of the requests, and together.
const GATHER: Duration = Duration::from_millis(20);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Classes of SQLSTATE that say that it is the values, or the statement, that cannot be taken.
const FINAL: [&str; 4] = ["21", "22", "23", "42"];

pub(super) struct Writer {
    pool: PgPool,
}

#[derive(Default)]
struct Batch {
    events: Vec<AuditEvent>,
    ends: Vec<RunEnd>,
    used: Sums,
}

impl Batch {
    fn of(notes: impl IntoIterator<Item = Note>) -> Self {
        let mut batch = Self::default();
        for note in notes {
            match note {
                Note::Event(event) => batch.events.push(*event),
                Note::End(end) => batch.ends.push(*end),
                Note::Used(used) => *batch.used.entry(used.0).or_default() += used.1,
            }
        }
        batch
    }
}

impl Writer {
    pub(super) fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    pub(super) async fn run(self, mut notes: mpsc::Receiver<Note>, closing: CancellationToken) {
        let mut taken = Vec::with_capacity(BATCH);
        loop {
            let count = tokio::select! {
                biased;
                count = notes.recv_many(&mut taken, BATCH) => count,
                () = closing.cancelled() => {
                    notes.close();
                    notes.recv_many(&mut taken, BATCH).await
                }
            };
            if count == 0 {
                return;
            }
            closing.run_until_cancelled(tokio::time::sleep(GATHER)).await;
            while taken.len() < BATCH
                && let Ok(note) = notes.try_recv()
            {
                taken.push(note);
            }
            if !self.write_all(std::mem::take(&mut taken), &closing).await && closing.is_cancelled() {
                // There is no time left to wait for the database.
                notes.close();
                while let Some(note) = notes.recv().await {
                    report_lost(&note);
                }
            }
        }
    }

    /// Writes notes, however long the database is away. What it refuses is written one by one, so that one note that cannot
    /// be written is lost alone. False when the database is away still.
    async fn write_all(&self, notes: Vec<Note>, closing: &CancellationToken) -> bool {
        match self.persist(&Batch::of(notes.iter().cloned()), closing).await {
            Ok(()) => return true,
            Err(error) if !is_final(&error) => {
                notes.iter().for_each(report_lost);
                return false;
            }
            Err(_) => {}
        }
        for note in notes {
            if let Err(error) = self.persist(&Batch::of([note.clone()]), closing).await {
                tracing::error!(%error, "the history could not be written");
                report_lost(&note);
            }
        }
        true
    }

    /// # Errors
    /// When the database refuses it for good, or is away when the process ends.
    async fn persist(&self, batch: &Batch, closing: &CancellationToken) -> sqlx::Result<()> {
        let mut pause = FIRST_PAUSE;
        loop {
            let Err(error) = self.write(batch).await else { return Ok(()) };
            if is_final(&error) || closing.is_cancelled() {
                return Err(error);
            }
            tracing::warn!(%error, "the history could not be written; it is tried again");
            metrics::counter!("ags_gateway_audit_retries_total").increment(1);
            closing.run_until_cancelled(tokio::time::sleep(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn write(&self, batch: &Batch) -> sqlx::Result<()> {
        let mut tx = self.pool.begin().await?;
        if !batch.events.is_empty() {
            audit::system_record(&mut tx, &batch.events).await?;
        }
        if !batch.ends.is_empty() {
            audit::system_ended(&mut tx, &batch.ends).await?;
        }
        if !batch.used.is_empty() {
            let additions: Vec<Addition> =
                batch.used.iter().map(|(by, used)| Addition { by: by.clone(), used: *used }).collect();
            usage::system_add(&mut tx, &additions).await?;
        }
        tx.commit().await
    }
}

fn is_final(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| FINAL.iter().any(|class| code.starts_with(class)))
}

/// What is not written is counted, and stands in the log as a whole.
pub(super) fn report_lost(note: &Note) {
    metrics::counter!("ags_gateway_audit_dropped_total").increment(1);
    let note = match note {
        Note::Event(event) => serde_json::to_string(event),
        Note::End(end) => serde_json::to_string(end),
        Note::Used(used) => serde_json::to_string(used),
    };
    tracing::error!(note = note.unwrap_or_default(), "a part of the history was not stored");
}
