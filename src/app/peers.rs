//! Other replicas: requests that they answer better.

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use super::App;
use crate::{
    error::{Code, Error, Result},
    ids::ExecId,
    storage::{execs, replicas::Replica},
};

/// The way to other replicas. Clones share its connections.
#[derive(Clone)]
pub struct Peers(Client<HttpConnector, Body>);

impl Default for Peers {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(std::time::Duration::from_secs(3)));
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }
}

impl Peers {
    /// Sends a request to another replica. Neither body is held back. `None` when there is nobody at its address (any
    /// more): then nothing of the body was taken.
    ///
    /// # Errors
    /// `unavailable` when the replica does not answer.
    pub async fn send(&self, request: Request<Body>) -> Result<Option<Response<Incoming>>> {
        match self.0.request(request).await {
            Ok(response) => Ok(Some(response)),
            Err(error) if error.is_connect() => Ok(None),
            Err(error) => Err(gone().with_source(error)),
        }
    }
}

/// The error when the replica that follows a command cannot be asked.
#[must_use]
pub fn gone() -> Error {
    let detail = "The replica of the gateway that follows this command does not answer. Try again.";
    Error::new(Code::Unavailable, detail)
}

/// The replica that follows a command, if it is another one that can be reached.
///
/// # Errors
/// When the database fails.
pub async fn follower(app: &App, id: &ExecId) -> Result<Option<Replica>> {
    if app.execs.follows(id).await {
        return Ok(None);
    }
    let mut connection = app.pool.acquire().await?;
    let owner = execs::system_owner(&mut connection, id).await?;
    Ok(owner.filter(|owner| owner.id != app.execs.replica() && owner.url.is_some()))
}
