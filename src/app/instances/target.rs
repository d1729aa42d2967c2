//! The way into a running instance.

use std::sync::Arc;

use envd_client::{EnvdClient, EnvdError};

use crate::{
    access::{Access, Token},
    app::App,
    auth::Caller,
    domain::instance::{Instance, InstanceStatus},
    error::{Code, Error, Result},
    ids::InstanceId,
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

/// The instance, if it is one of the caller's and runs.
///
/// # Errors
/// `not_found`; `invalid_state` with the sandbox's state when it is not RUNNING.
pub async fn running(app: &App, caller: &Caller, id: &InstanceId) -> Result<Target> {
    caller.require_instance(id)?;
    let mut connection = app.pool.acquire().await?;
    let found = instances::find(&mut connection, caller.team_id(), id).await?;
    drop(connection);
    let instance = found.ok_or_else(|| Error::not_found("instance"))?;
    match (&instance.status, instance.upstream_id.clone()) {
        (InstanceStatus::Running, Some(upstream_id)) => Ok(Target {
            upstream: Arc::clone(app.upstreams.get(&instance.upstream)?),
            upstream_id,
            access: app.access.clone(),
            instance,
        }),
        _ => Err(not_running(&instance)),
    }
}

fn not_running(instance: &Instance) -> Error {
    let advice = match instance.status {
        InstanceStatus::Starting | InstanceStatus::Resuming => "Wait until it is RUNNING.",
        InstanceStatus::Pausing | InstanceStatus::Paused => "Resume it first.",
        InstanceStatus::Stopping | InstanceStatus::Stopped | InstanceStatus::Failed => "Start a new one.",
        _ => "It must be RUNNING.",
    };
    let detail = format!("The instance is {}. {advice}", instance.status);
    let passing = matches!(instance.status, InstanceStatus::Starting | InstanceStatus::Resuming);
    Error::new(Code::InvalidState, detail).retryable(passing).with_sandbox(instance.reference())
}

impl Target {
    /// A client with the present token. For calls whose body can be sent once only; others use [`call`](Self::call).
    ///
    /// # Errors
    /// When the cloud gives no token.
    pub async fn envd(&self) -> Result<EnvdClient> {
        Ok(self.client().await?.0)
    }

    async fn client(&self) -> Result<(EnvdClient, Option<Arc<Token>>)> {
        let token = if self.instance.auth_mode == OPEN {
            None
        } else {
            Some(self.access.token(&self.upstream, &self.upstream_id).await?)
        };
        let access = token.as_ref().map(|token| &token.access);
        let client = EnvdClient::new(self.upstream.data.clone(), &self.upstream_id, access);
        Ok((client.map_err(|error| self.error(error))?, token))
    }

    /// Makes a call; when the token is refused, once more with a fresh one.
    ///
    /// # Errors
    /// What the sandbox or the way to it says, with the sandbox's state.
    pub async fn call<T, F>(&self, make: impl Fn(EnvdClient) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, EnvdError>>,
    {
        let (client, token) = self.client().await?;
        match (make(client).await, token) {
            (Ok(value), _) => Ok(value),
            (Err(error), Some(token)) if error.token_rejected() => {
                tracing::info!(instance = %self.instance.id, "the token was refused, renewing it");
                self.access.reject(&self.upstream, &self.upstream_id, &token).await;
                let (client, _) = self.client().await?;
                make(client).await.map_err(|error| self.error(error))
            }
            (Err(error), _) => Err(self.error(error)),
        }
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
        if self.instance.tool_type == CODE_INTERPRETER { &exec.code_interpreter_user } else { &exec.user }
    }
}
