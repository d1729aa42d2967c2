//! Starting: from an intent to a running instance, or to a failure that is said. Safe to be done again after a crash.

use std::time::Duration;

use ags_client::{AgsError, ErrorKind, Outcome, Stage, codes};
use tokio::time::{Instant, sleep_until};

use super::{admit, reload, stop};
use crate::{
    app::{App, lease},
    domain::{
        instance::{Instance, InstanceStatus, StopReason},
        tool::TIMEOUT_RANGE,
    },
    error::{Code, Error, Result},
    ids::InstanceId,
    storage::instances::{self, Ended, Launch},
    upstream::{SeenInstance, Start, Upstream},
};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// How often the cloud is asked when it fails in ways that leave the effect open.
const MAX_TRIES: u32 = 4;

/// Starts an instance whose intent was just written, whose claim the caller holds.
///
/// # Errors
/// What the cloud says, with the failed instance; `invalid_state` when it was stopped meanwhile.
pub async fn drive(app: App, id: InstanceId) -> Result<Instance> {
    lease::on_instance(&app, &id, run(&app, &id, false)).await
}

/// As [`drive`], for an intent whose first driver died: what that one may have started is looked up first.
///
/// # Errors
/// As [`drive`].
pub async fn follow_up(app: App, id: InstanceId) -> Result<Instance> {
    lease::on_instance(&app, &id, run(&app, &id, true)).await
}

async fn run(app: &App, id: &InstanceId, look_first: bool) -> Result<Instance> {
    let instance = reload(app, id).await?;
    let mut connection = app.pool.acquire().await?;
    let launch = instances::system_launch(&mut connection, id).await?.ok_or_else(|| Error::not_found("instance"))?;
    drop(connection);
    let left = app.config.instances.startup_timeout.saturating_sub(Duration::from_secs_f64(launch.age.max(0.0)));
    let starter = Starter {
        app,
        upstream: app.upstreams.get(&instance.upstream)?,
        instance: &instance,
        launch: &launch,
        resumed: look_first,
        end: Instant::now() + left,
    };
    match starter.start().await {
        Ok(running) => {
            admit::note_taken(app, &instance.upstream).await;
            Ok(running)
        }
        Err(Halt::Failed(error, last)) => {
            let error = starter.fail(error, last.as_deref()).await;
            Err(admit::with_limit(app, &instance.upstream, error).await)
        }
        Err(Halt::Unwanted) => starter.undo().await,
        Err(Halt::Draining) => {
            starter.release().await;
            Err(Error::new(Code::Unavailable, "The gateway is restarting. The instance is started by another replica."))
        }
        Err(Halt::Internal(error)) => Err(error),
    }
}

/// Why a start did not come to its end.
enum Halt {
    /// With the seen instance that is to be stopped, if there is one.
    Failed(Error, Option<String>),
    /// It was stopped meanwhile.
    Unwanted,
    Draining,
    /// The database failed: the reconciler takes over when the claim lapses.
    Internal(Error),
}

impl From<sqlx::Error> for Halt {
    fn from(error: sqlx::Error) -> Self {
        Self::Internal(error.into())
    }
}

struct Starter<'a> {
    app: &'a App,
    upstream: &'a Upstream,
    instance: &'a Instance,
    launch: &'a Launch,
    /// An earlier driver died.
    resumed: bool,
    /// When the startup timeout ends.
    end: Instant,
}

/// What an error of a start says about going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing was started.
    Fail,
    /// It may be under way: look, and ask again until the startup timeout.
    Patient,
    /// It may have been started: look, and ask a few times more.
    Few,
}

fn next(error: &AgsError) -> Next {
    let awaited = matches!(error.kind(), ErrorKind::Timeout(Stage::Answer, _));
    if error.is_code(codes::REQUEST_IN_PROGRESS) || awaited {
        Next::Patient
    } else if error.outcome() == Outcome::Unknown {
        Next::Few
    } else {
        Next::Fail
    }
}

impl Starter<'_> {
    async fn start(&self) -> Result<Instance, Halt> {
        let seen = match &self.instance.upstream_id {
            Some(id) => self.describe(id).await?,
            None => self.obtain().await?,
        };
        let seen = self.until_running(seen).await?;
        self.record_running(&seen).await
    }

    fn timeout(&self) -> Duration {
        let margin = self.app.config.instances.backstop_margin;
        backstop(Duration::from_secs(self.instance.timeout_seconds.into()), margin)
    }

    /// The instance in the cloud: the one that was started for this row before, or a new one.
    async fn obtain(&self) -> Result<SeenInstance, Halt> {
        let Some(tool) = self.launch.tool_upstream_id.as_deref() else {
            return Err(Halt::Internal(Error::internal("the tool has no id in the cloud")));
        };
        let (mut look, mut tries, mut pause) = (self.resumed, 0, FIRST_PAUSE);
        loop {
            tries += 1;
            let (next, error) = match self.look_or_send(tool, look).await? {
                Ok(seen) => return self.identified(seen).await,
                Err(fault) => fault,
            };
            if next == Next::Fail {
                return Err(Halt::Failed(error, None));
            }
            // What may run all the same is stopped by the reconciler, so that the caller may try again.
            if (next == Next::Few && tries >= MAX_TRIES) || Instant::now() + pause >= self.end {
                return Err(Halt::Failed(error.retryable(true), None));
            }
            tracing::warn!(instance = %self.instance.id, %error, tries, "a start without an answer is looked into");
            look = true;
            self.pause(&mut pause).await?;
        }
    }

    /// One step: a look where one is due, and a start where that found nothing. A look that fails is no reason to start.
    async fn look_or_send(&self, tool: &str, look: bool) -> Result<Result<SeenInstance, (Next, Error)>, Halt> {
        let deployment = &self.app.deployment;
        if look {
            match self.upstream.find_instance(deployment, tool, &self.instance.id).await {
                Ok(Some(seen)) => return Ok(Ok(seen)),
                Ok(None) => {}
                Err(error) => {
                    let next = if self.resumed { Next::Patient } else { Next::Few };
                    return Ok(Err((next, error.into())));
                }
            }
        }
        self.check_wanted().await?;
        if Instant::now() >= self.end {
            let error = did_not_start("its start was cut off, and the time for it is up");
            return Ok(Err((Next::Fail, error)));
        }
        let (instance, spec, timeout) = (self.instance, &self.launch.spec, self.timeout());
        Ok(match self.upstream.start(&Start { deployment, instance, spec, tool, timeout }).await {
            Ok(reply) => {
                tracing::debug!(instance = %instance.id, request_id = reply.request_id, "started");
                Ok(reply.value)
            }
            Err(error) => Err((next(&error), start_error(error))),
        })
    }

    /// Writes down which instance of the cloud it is.
    async fn identified(&self, seen: SeenInstance) -> Result<SeenInstance, Halt> {
        let mut connection = self.app.pool.acquire().await?;
        instances::system_identify(&mut connection, &self.instance.id, &seen.id, None).await?;
        Ok(seen)
    }

    async fn describe(&self, id: &str) -> Result<SeenInstance, Halt> {
        let unknown = SeenInstance {
            id: id.to_owned(),
            status: InstanceStatus::Starting,
            stop_reason: None,
            expires_at: None,
            stamp: None,
            team: None,
        };
        match self.upstream.describe_instance(&self.app.deployment, id).await {
            Ok(seen) => Ok(seen.unwrap_or(unknown)),
            Err(error) => {
                tracing::warn!(instance = %self.instance.id, %error, "the instance's state could not be read");
                Ok(unknown)
            }
        }
    }

    async fn until_running(&self, mut seen: SeenInstance) -> Result<SeenInstance, Halt> {
        let mut pause = FIRST_PAUSE;
        loop {
            match &seen.status {
                InstanceStatus::Running => return Ok(seen),
                InstanceStatus::Failed | InstanceStatus::Stopped | InstanceStatus::Stopping => {
                    return Err(Halt::Failed(
                        did_not_start("it ended, or its probe gave up, while it was starting"),
                        None,
                    ));
                }
                _ => {}
            }
            if Instant::now() + pause >= self.end {
                let seconds = self.app.config.instances.startup_timeout.as_secs();
                let error = did_not_start(&format!("it was not RUNNING after {seconds} s"));
                return Err(Halt::Failed(error, Some(seen.id)));
            }
            self.pause(&mut pause).await?;
            self.check_wanted().await?;
            seen = self.describe(&seen.id).await?;
        }
    }

    async fn pause(&self, pause: &mut Duration) -> Result<(), Halt> {
        let draining = self.app.lifecycle.draining();
        let slept = draining.run_until_cancelled(sleep_until(Instant::now() + *pause)).await;
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        slept.ok_or(Halt::Draining)
    }

    async fn check_wanted(&self) -> Result<(), Halt> {
        let mut connection = self.app.pool.acquire().await?;
        match instances::system_status(&mut connection, &self.instance.id).await? {
            Some(InstanceStatus::Starting) => Ok(()),
            _ => Err(Halt::Unwanted),
        }
    }

    async fn record_running(&self, seen: &SeenInstance) -> Result<Instance, Halt> {
        let mut connection = self.app.pool.acquire().await?;
        let started = instances::system_started(&mut connection, &self.instance.id, seen.expires_at).await?;
        drop(connection);
        if !started {
            return Err(Halt::Unwanted);
        }
        metrics::counter!("ags_gateway_instances_started_total").increment(1);
        reload(self.app, &self.instance.id).await.map_err(Halt::Internal)
    }

    /// Records a failed start. What may run in the cloud all the same is stopped, now or by the reconciler.
    async fn fail(&self, error: Error, leftover: Option<&str>) -> Error {
        let upstream = error.inner().upstream.clone();
        let chain = describe_chain(&error);
        let ended = Ended {
            status: InstanceStatus::Failed,
            reason: StopReason::Error,
            detail: Some(error.detail()),
            error: Some(&chain),
            request_id: upstream.as_ref().and_then(|upstream| upstream.request_id.as_deref()),
        };
        let recorded = async {
            let mut connection = self.app.pool.acquire().await?;
            let id = &self.instance.id;
            instances::system_ended(&mut connection, id, &[InstanceStatus::Starting], &ended).await
        };
        match recorded.await {
            Ok(true) => {}
            Ok(false) => return self.undo().await.err().unwrap_or(error),
            Err(failure) => return Error::from(failure),
        }
        tracing::warn!(instance = %self.instance.id, error = chain, "an instance did not start");
        metrics::counter!("ags_gateway_instance_start_failures_total").increment(1);
        if let Some(id) = leftover
            && let Err(error) = self.upstream.stop(id, self.upstream.config.attempt_timeout).await
        {
            tracing::warn!(instance = %self.instance.id, %error, "left to the reconciler to stop");
        }
        match reload(self.app, &self.instance.id).await {
            Ok(failed) => error.with_sandbox(failed.reference()),
            Err(error) => error,
        }
    }

    /// The instance was stopped while it was starting: now that it is known in the cloud, it is stopped there.
    async fn undo(&self) -> Result<Instance> {
        let instance = reload(self.app, &self.instance.id).await?;
        if instance.status == InstanceStatus::Stopping {
            stop::finish(self.app, &instance).await?;
        }
        let instance = reload(self.app, &self.instance.id).await?;
        let detail = "The instance was stopped while it was starting.";
        Err(Error::new(Code::InvalidState, detail).with_sandbox(instance.reference()))
    }

    /// Lets another replica go on at once.
    async fn release(&self) {
        let released = async {
            let mut connection = self.app.pool.acquire().await?;
            instances::system_renew(&mut connection, &self.instance.id, 0.0).await
        };
        if let Err(error) = released.await {
            tracing::warn!(instance = %self.instance.id, %error, "the claim is left to lapse");
        }
    }
}

/// The timeout given to the cloud for a life of `life`: later than the gateway's own end, and what the cloud accepts.
pub(super) fn backstop(life: Duration, margin: Duration) -> Duration {
    let (shortest, longest) = TIMEOUT_RANGE.into_inner();
    (life + margin).clamp(Duration::from_secs(shortest.into()), Duration::from_secs(longest.into()))
}

fn did_not_start(why: &str) -> Error {
    let detail = format!(
        "The instance did not start: {why}. Does the image hold a program that answers the tool's probe, can the image be \
         pulled (address, `image_registry_type`, the role's permission), do its resources suffice, and does the probe wait long \
         enough (`probe.ready_timeout_ms`)?"
    );
    Error::new(Code::InstanceStartFailed, detail)
}

/// What the cloud's refusal of a start means to the caller.
fn start_error(error: AgsError) -> Error {
    if matches!(error.code(), Some(codes::RESOURCE_NOT_FOUND | codes::SANDBOX_TOOL_NOT_FOUND)) {
        let upstream = (error.code().map(str::to_owned), error.request_id().map(str::to_owned));
        let detail = "The tool is gone in the cloud. Delete it and create it anew.";
        return Error::new(Code::InstanceStartFailed, detail).with_upstream(upstream.0, upstream.1).with_source(error);
    }
    error.into()
}

/// For operators: the error with all its sources.
fn describe_chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backstop_is_later_and_stays_in_the_clouds_range() {
        let seconds = Duration::from_secs;
        assert_eq!(backstop(seconds(600), seconds(300)), seconds(900));
        assert_eq!(backstop(seconds(86_400), seconds(300)), seconds(86_400));
        assert_eq!(backstop(seconds(5), seconds(1)), seconds(30));
    }
}
