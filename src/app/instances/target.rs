//! The way into a running instance.

use std::sync::Arc;

use envd_client::{CodeClient, EnvdClient, EnvdError, TrafficToken};

use super::wake::wake_if_asked;
use crate::{
    access::{Access, Token},
    app::App,
    auth::Caller,
    domain::instance::{Instance, InstanceStatus},
    error::{Code, Error, Result},
    ids::{InstanceId, TeamId},
    storage::instances,
    upstream::{Upstream, error::in_instance},
};

/// Auth mode in which the cloud asks for no token.
const OPEN: &str = "NONE";
const CODE_INTERPRETER: &str = "code-interpreter";

/// A running instance of the caller's team, and what is needed to call into it.
#[derive(Clone)]
pub struct Target {
    pub instance: Instance,
    upstream: Arc<Upstream>,
    upstream_id: String,
    access: Access,
}

/// Which side a call failed on.
enum Failed {
    /// The cloud gave no token.
    Token(Error),
    Sandbox(EnvdError),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Token(error)
    }
}

impl From<EnvdError> for Failed {
    fn from(error: EnvdError) -> Self {
        Self::Sandbox(error)
    }
}

/// The instance, if it is one of the caller's and runs; a paused one is woken, if the caller asked for that.
///
/// # Errors
/// `not_found`; `invalid_state` with the sandbox's state when it is not RUNNING.
pub async fn running(app: &App, caller: &Caller, id: &InstanceId) -> Result<Target> {
    caller.require_instance(id)?;
    wake_if_asked(app, caller, id).await?;
    running_of(app, caller.team_id(), id).await
}

/// As [`running`], for a team whose caller was looked at already.
///
/// # Errors
/// `not_found`, `invalid_state`.
pub async fn running_of(app: &App, team: &TeamId, id: &InstanceId) -> Result<Target> {
    let mut connection = app.pool.acquire().await?;
    let found = instances::find(&mut connection, team, id).await?;
    drop(connection);
    let instance = found.ok_or_else(|| Error::not_found("instance"))?;
    if instance.status != InstanceStatus::Running {
        return Err(not_running(&instance));
    }
    Target::of(app, instance)
}

fn not_running(instance: &Instance) -> Error {
    let why = instance.stop_reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let advice = match instance.status {
        InstanceStatus::Starting | InstanceStatus::Resuming => "Wait until it is RUNNING.",
        InstanceStatus::Pausing | InstanceStatus::Paused => "Resume it first (`POST …/resume`), or say `?wake=30s`.",
        InstanceStatus::Stopping | InstanceStatus::Stopped | InstanceStatus::Failed => "Start a new one.",
        _ => "It must be RUNNING.",
    };
    let detail = format!("The instance is {}{why}. {advice}", instance.status);
    let passing = matches!(instance.status, InstanceStatus::Starting | InstanceStatus::Resuming);
    Error::new(Code::InvalidState, detail).retryable(passing).with_sandbox(instance.reference())
}

impl Target {
    /// The way into an instance, in whatever state it is.
    ///
    /// # Errors
    /// `invalid_state` when the cloud has not made it yet; when its upstream is not configured any more.
    pub fn of(app: &App, instance: Instance) -> Result<Self> {
        let Some(upstream_id) = instance.upstream_id.clone() else { return Err(not_running(&instance)) };
        let upstream = Arc::clone(app.upstreams.get(&instance.upstream)?);
        Ok(Self { upstream, upstream_id, access: app.access.clone(), instance })
    }

    /// A client with the present token. For calls whose body can be sent once only; others use [`call`](Self::call).
    ///
    /// # Errors
    /// When the cloud gives no token.
    pub async fn envd(&self) -> Result<EnvdClient> {
        let token = self.token().await?;
        self.envd_with(token.as_deref()).map_err(|error| self.error(error))
    }

    #[must_use]
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    #[must_use]
    pub fn upstream_id(&self) -> &str {
        &self.upstream_id
    }

    /// The present token; none for an instance that asks for none.
    ///
    /// # Errors
    /// When the cloud gives no token.
    pub async fn token(&self) -> Result<Option<Arc<Token>>> {
        if self.instance.auth_mode == OPEN {
            return Ok(None);
        }
        let token = self.access.token(&self.upstream, &self.upstream_id).await;
        token.map(Some).map_err(|error| if error.code() == Code::NotFound { self.gone(error) } else { error })
    }

    /// It is the sandbox that is not there, not what was asked for in it.
    fn gone(&self, error: Error) -> Error {
        let detail = "The cloud does not know the sandbox any more: its end will be recorded soon.";
        let mut gone = Error::new(Code::UpstreamError, detail).with_sandbox(self.instance.reference());
        if let Some(upstream) = error.inner().upstream.clone() {
            gone = gone.with_upstream(upstream.code, upstream.request_id);
        }
        gone.with_source(error)
    }

    /// Forgets a token that was refused.
    pub async fn reject(&self, token: &Arc<Token>) {
        tracing::info!(instance = %self.instance.id, "the token was refused, renewing it");
        self.access.reject(&self.upstream, &self.upstream_id, token).await;
    }

    fn envd_with(&self, token: Option<&Token>) -> Result<EnvdClient, EnvdError> {
        EnvdClient::new(self.upstream.data.clone(), &self.upstream_id, token.map(|token| &token.access))
    }

    fn code_with(&self, token: Option<&Token>) -> Result<CodeClient, EnvdError> {
        let header = self.upstream.config.traffic_token_header.as_str();
        let traffic = token.and_then(|token| token.traffic.as_ref()).map(|token| TrafficToken { header, token });
        let access = token.map(|token| &token.access);
        CodeClient::new(self.upstream.data.clone(), &self.upstream_id, access, traffic)
    }

    /// Makes a call; when the token is refused, once more with a fresh one.
    ///
    /// # Errors
    /// What the sandbox or the way to it says, with the sandbox's state.
    pub async fn call<T, F>(&self, make: impl Fn(EnvdClient) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, EnvdError>>,
    {
        let call = self.with_token(|token| {
            // Boxed: what waits for it holds it several times.
            let made = self.envd_with(token.as_deref()).map(|envd| Box::pin(make(envd)));
            async move { made?.await }
        });
        call.await.map_err(|failed| match failed {
            Failed::Token(error) => error,
            Failed::Sandbox(error) => self.error(error),
        })
    }

    /// Makes a call to the code interpreter; when the token is refused, once more with a fresh one.
    ///
    /// # Errors
    /// Those of the way to the sandbox, and within them what the interpreter says.
    pub async fn call_code<T, F>(&self, make: impl Fn(CodeClient) -> F) -> Result<Result<T, EnvdError>>
    where
        F: Future<Output = Result<T, EnvdError>>,
    {
        let call = self.with_token(|token| {
            let made = self.code_with(token.as_deref()).map(|code| Box::pin(make(code)));
            async move { made?.await }
        });
        match call.await {
            Ok(value) => Ok(Ok(value)),
            Err(Failed::Sandbox(error)) => Ok(Err(error)),
            Err(Failed::Token(error)) => Err(error),
        }
    }

    async fn with_token<T, F>(&self, make: impl Fn(Option<Arc<Token>>) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, EnvdError>>,
    {
        let token = self.token().await?;
        match (make(token.clone()).await, token) {
            (Ok(value), _) => Ok(value),
            (Err(error), Some(token)) if error.token_rejected() => {
                // Boxed: what is rare does not make what is moved for each call larger.
                Box::pin(async {
                    self.reject(&token).await;
                    Ok(make(self.token().await?).await?)
                })
                .await
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    /// Whether the cloud serves a code interpreter in it.
    #[must_use]
    pub fn interprets_code(&self) -> bool {
        self.instance.tool_type == CODE_INTERPRETER
    }

    /// The error for a call into this instance that failed.
    #[must_use]
    pub fn error(&self, error: EnvdError) -> Error {
        in_instance(&self.instance, error)
    }

    /// Whom commands and files belong to when the request does not say.
    #[must_use]
    pub fn default_user<'a>(&self, app: &'a App) -> &'a str {
        let exec = &app.config.exec;
        if self.interprets_code() { &exec.code_interpreter_user } else { &exec.user }
    }
}
