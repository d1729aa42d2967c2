//! A run, from its reader's side and from that of the task that reads the interpreter.

use std::time::Duration;

use envd_client::{CodeEvent as WireEvent, CodeStream};
use futures_util::StreamExt;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use crate::{
    app::exec::CodePermit,
    domain::code::{CodeError, CodeEvent, CodeExit, CodeReason, Shown},
};

/// Code that runs. Dropping it interrupts the code.
pub struct Run {
    events: mpsc::Receiver<CodeEvent>,
    interrupt: Option<oneshot::Sender<()>>,
}

impl Run {
    /// The next event; `None` after the exit. Can be dropped at any point.
    pub async fn next(&mut self) -> Option<CodeEvent> {
        self.events.recv().await
    }

    /// Interrupts the code. Its exit tells so; without effect once it has ended.
    pub fn interrupt(&mut self) {
        if let Some(interrupt) = self.interrupt.take() {
            // The reader may have seen the end just now.
            let _ended = interrupt.send(());
        }
    }
}

/// The other side of a [`Run`].
pub(super) struct Reader {
    stream: CodeStream,
    events: mpsc::Sender<CodeEvent>,
    interrupted: oneshot::Receiver<()>,
    began: Instant,
    timeout: Duration,
    execution_count: Option<u64>,
    _permit: CodePermit,
}

pub(super) fn pair(
    stream: CodeStream,
    timeout: Duration,
    receiver: mpsc::Receiver<CodeEvent>,
    sender: mpsc::Sender<CodeEvent>,
    permit: CodePermit,
) -> (Run, Reader) {
    let (interrupt, interrupted) = oneshot::channel();
    let reader = Reader {
        stream,
        events: sender,
        interrupted,
        began: Instant::now(),
        timeout,
        execution_count: None,
        _permit: permit,
    };
    (Run { events: receiver, interrupt: Some(interrupt) }, reader)
}

impl Reader {
    /// Hands the events on until the end. Answers how and when it ended.
    pub(super) async fn read(mut self) -> (CodeReason, Duration) {
        let Some((reason, error)) = self.follow().await else { return (CodeReason::Interrupted, self.began.elapsed()) };
        let Self { stream, events, began, execution_count, .. } = self;
        // Interrupts what still runs, before anybody is told that it has ended.
        drop(stream);
        let duration = began.elapsed();
        let exit = CodeExit { execution_count, reason, error, duration };
        // Nobody is left to be told.
        let _left = events.send(CodeEvent::Exit(exit)).await;
        (reason, duration)
    }

    /// Why it ended; `None` when nobody wants to know.
    async fn follow(&mut self) -> Option<(CodeReason, Option<String>)> {
        let Self { stream, events, interrupted, began, timeout, execution_count, .. } = self;
        let mut deadline = std::pin::pin!(sleep_until(*began + *timeout));
        let mut interruptible = true;
        loop {
            let step = async {
                let Ok(room) = events.reserve().await else { return None };
                Some((room, stream.next().await))
            };
            let (room, event) = tokio::select! {
                biased;
                () = events.closed() => return None,
                told = &mut *interrupted, if interruptible => {
                    // A reader that is gone has closed the queue too.
                    interruptible = false;
                    if told.is_err() {
                        continue;
                    }
                    return Some((CodeReason::Interrupted, Some("The code was interrupted.".to_owned())));
                }
                () = &mut deadline => {
                    let text = format!("The code was interrupted after {} s.", timeout.as_secs());
                    return Some((CodeReason::Timeout, Some(text)));
                }
                step = step => step?,
            };
            match event {
                Some(Ok(WireEvent::End)) => return Some((CodeReason::Finished, None)),
                Some(Ok(event)) => {
                    if let WireEvent::Started { execution_count: count } = event {
                        *execution_count = Some(count);
                    }
                    if let Some(event) = known(event) {
                        room.send(event);
                    }
                }
                Some(Err(error)) => {
                    tracing::info!(%error, "the events of a run broke off");
                    return Some((CodeReason::Lost, Some("The connection to the interpreter broke.".to_owned())));
                }
                None => return Some((CodeReason::Lost, Some("The interpreter told no end.".to_owned()))),
            }
        }
    }
}

/// The interpreter's event in our terms; `None` for signs of life and what this version does not know.
fn known(event: WireEvent) -> Option<CodeEvent> {
    Some(match event {
        WireEvent::Started { execution_count } => CodeEvent::Started { execution_count },
        WireEvent::Stdout(text) => CodeEvent::Stdout(text),
        WireEvent::Stderr(text) => CodeEvent::Stderr(text),
        WireEvent::Result(result) => {
            CodeEvent::Result(Shown { is_main_result: result.is_main_result, formats: result.formats })
        }
        WireEvent::Error { name, value, traceback } => CodeEvent::Error(CodeError { name, value, traceback }),
        WireEvent::Keepalive | WireEvent::End | WireEvent::Unknown { .. } => return None,
    })
}
