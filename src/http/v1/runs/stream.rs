//! A run as a stream of events.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use serde::Serialize;
use tokio::{sync::mpsc, time::sleep};

use super::{dto::RunDto, whole};
use crate::{
    app::{
        self, App,
        exec::{
            Source,
            log::{Batch, Look},
        },
        runs::Live,
    },
    auth::Caller,
    domain::{
        code::CodeEvent,
        run::{Run, RunStatus},
    },
    error::{Code, Error},
    http::v1::{
        code::{dto::EventDto, encode},
        exec::{Encoder, Frames, Framing, MAX_BATCH, put_event},
    },
};

/// Pieces that wait for the client. While there are so many, the command is held up.
const IN_FLIGHT: usize = 4;
/// Before a command's output is looked for again whose follower has changed, or which is about to be started.
const RETRY: Duration = Duration::from_millis(50);

/// Why there is nothing more to tell.
enum Halt {
    /// The client went.
    Gone,
    Failed(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The events of a run as a body. The run goes on when it is dropped.
pub fn body(app: &App, caller: &Arc<Caller>, run: Run, framing: Framing) -> Body {
    let (out, pieces) = mpsc::channel(IN_FLIGHT);
    // It may have ended before it is looked for.
    let live = app.runs.get(&run.id);
    let feed = Feed { app: app.clone(), caller: Arc::clone(caller), framing, out };
    let draining = app.lifecycle.draining();
    app.lifecycle.spawn("run-stream", async move {
        // A stream that is cut has no end: whoever reads it reads the run.
        match draining.run_until_cancelled(feed.tell(run, live)).await {
            Some(Err(Halt::Failed(error))) => tracing::info!(%error, "the stream of a run is cut"),
            Some(Ok(()) | Err(Halt::Gone)) | None => {}
        }
    });
    Body::from_stream(stream::unfold(pieces, |mut pieces: mpsc::Receiver<Bytes>| async move {
        let piece = pieces.recv().await?;
        Some((Ok::<_, Infallible>(piece), pieces))
    }))
}

/// The run, as it is now.
#[derive(Serialize)]
struct RunEvent {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    run: RunDto,
}

struct Feed {
    app: App,
    caller: Arc<Caller>,
    framing: Framing,
    out: mpsc::Sender<Bytes>,
}

impl Feed {
    async fn tell(self, run: Run, live: Option<Arc<Live>>) -> Result<(), Halt> {
        if !run.status.is_final() {
            self.run(RunDto::bare(run.clone())).await?;
        }
        let run = self.until(run, |status| !matches!(status, RunStatus::Starting | RunStatus::Uploading)).await?;
        match live {
            Some(live) if run.code => self.code(&live).await?,
            _ if run.code || run.status.is_final() => {}
            _ => self.command(&run).await?,
        }
        let run = self.until(run, RunStatus::is_final).await?;
        self.run(whole(&self.app, &self.caller, run).await?.without_output()).await
    }

    /// Tells every change until one that is `enough`, or the last, which is left to be told.
    async fn until(&self, mut run: Run, enough: fn(RunStatus) -> bool) -> Result<Run, Halt> {
        while !enough(run.status) && !run.status.is_final() {
            let was = run.status;
            let changed = app::runs::wait(&self.app, &self.caller, &run.id, None, move |status| status != was);
            run = self.alive(changed).await??;
            if !run.status.is_final() {
                self.run(RunDto::bare(run.clone())).await?;
            }
        }
        Ok(run)
    }

    /// Tells what the code does.
    async fn code(&self, live: &Live) -> Result<(), Halt> {
        for number in 0.. {
            let Some(event) = self.alive(live.code.event(number)).await? else { break };
            let is_last = matches!(event, CodeEvent::Exit(_));
            self.send(encode(self.framing, &EventDto::from(event))).await?;
            if is_last {
                break;
            }
        }
        Ok(())
    }

    /// Tells what the command does, whoever follows it.
    async fn command(&self, run: &Run) -> Result<(), Halt> {
        let mut encoder = Encoder::new(self.framing, run.exec_id.clone(), None, None);
        loop {
            let after = Some(*encoder.cursor()).filter(|cursor| cursor.epoch > 0);
            let found =
                app::exec::output(&self.app, &self.caller, &run.instance_id, &run.exec_id, after.as_ref()).await;
            match found {
                Ok(source) => {
                    if self.output(source, &mut encoder).await? {
                        return Ok(());
                    }
                }
                Err(error) if error.code() == Code::NotFound => {}
                Err(error) => return Err(error.into()),
            }
            // It is about to be started, or to be followed by another replica; or it is over without it.
            if app::runs::get(&self.app, &self.caller, &run.id).await?.status != RunStatus::Executing {
                return Ok(());
            }
            self.alive(sleep(RETRY)).await?;
        }
    }

    /// Whether the command's end was told.
    async fn output(&self, mut source: Source, encoder: &mut Encoder) -> Result<bool, Halt> {
        let mut batch = Batch::default();
        while self.alive(source.next(MAX_BATCH, &mut batch)).await?? == Look::Taken {
            let mut frames = Frames::default();
            encoder.batch(&batch, &mut frames);
            self.send(frames.bytes.freeze()).await?;
            if batch.exit.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn run(&self, run: RunDto) -> Result<(), Halt> {
        // A plain struct: it always serialises.
        let json = serde_json::to_vec(&RunEvent { kind: "run", run }).unwrap_or_default();
        self.event("run", &json).await
    }

    async fn event(&self, name: &str, json: &[u8]) -> Result<(), Halt> {
        let mut bytes = BytesMut::new();
        put_event(self.framing, name, json, None, &mut bytes);
        self.send(bytes.freeze()).await
    }

    async fn send(&self, bytes: Bytes) -> Result<(), Halt> {
        // A piece of a character makes no frame.
        if bytes.is_empty() {
            return Ok(());
        }
        self.out.send(bytes).await.map_err(|_| Halt::Gone)
    }

    /// Does `work`, with signs of life meanwhile.
    async fn alive<T>(&self, work: impl Future<Output = T>) -> Result<T, Halt> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = self.out.closed() => return Err(Halt::Gone),
                () = sleep(self.app.config.exec.keepalive) => self.event("keepalive", br#"{"type":"keepalive"}"#).await?,
            }
        }
    }
}
