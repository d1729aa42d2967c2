//! Tokens for what runs in an instance (PROTOCOLS B.7), and the pre-cache of images (B.9).

use ags_client::types::{
    AcquireSandboxInstanceTokenRequest, AcquireSandboxInstanceTokenResponse, CreatePreCacheImageTaskRequest,
    CreatePreCacheImageTaskResponse, DescribePreCacheImageTaskRequest, DescribePreCacheImageTaskResponse,
};
use axum::{Json, extract::State};

use super::{Call, instances::named};
use crate::{
    app::{self, App},
    domain::{instance::InstanceStatus, scope::Scope},
    error::Result,
};

/// The gateway's own tokens, good at `{port}-{instance}.{sandbox_domain}` for as long as the instance and the key are.
pub(super) async fn acquire(
    State(app): State<App>,
    call: Call<AcquireSandboxInstanceTokenRequest>,
) -> Result<Json<AcquireSandboxInstanceTokenResponse>> {
    call.require(&[Scope::Ports, Scope::Exec, Scope::FilesRead, Scope::FilesWrite])?;
    let id = named(&call.caller, &call.request.instance_id)?;
    // What starts may be asked for its token already: clients do so at once.
    let instance = match app::instances::get(&app, &call.caller, &id).await? {
        starting if starting.status == InstanceStatus::Starting => starting,
        _ => app::instances::running(&app, &call.caller, &id).await?.instance,
    };
    let pass = app.auth.passes.issue(&call.caller, &id).await?;
    let end = call.caller.key_expires_at.map_or(instance.expires_at, |key| key.min(instance.expires_at));
    Ok(Json(AcquireSandboxInstanceTokenResponse {
        token: pass.access.into(),
        expires_at: Some(end),
        traffic_token: Some(pass.traffic.into()),
    }))
}

pub(super) async fn precache(
    State(app): State<App>,
    call: Call<CreatePreCacheImageTaskRequest>,
) -> Result<Json<CreatePreCacheImageTaskResponse>> {
    call.require(&[Scope::Admin])?;
    Ok(Json(app::images::precache(&app, None, &call.request).await?))
}

pub(super) async fn precached(
    State(app): State<App>,
    call: Call<DescribePreCacheImageTaskRequest>,
) -> Result<Json<DescribePreCacheImageTaskResponse>> {
    call.require(&[Scope::Admin])?;
    Ok(Json(app::images::precached(&app, None, &call.request).await?))
}
