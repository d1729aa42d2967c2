//! Tools, as E2B's templates.

use axum::extract::State;
use serde::Serialize;

use super::dto::{Size, Time};
use crate::{
    app::{App, tools},
    domain::{
        page::{MAX_LIMIT, PageRequest},
        scope::scope,
        tool::{Tool, ToolStatus},
    },
    error::Result,
    http::extract::{Authorized, Json, Path},
    ids::ToolId,
    storage::tools::ToolFilter,
};

/// A template.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    #[serde(rename = "templateID")]
    template: ToolId,
    /// A tool is not built: it is its own only build.
    #[serde(rename = "buildID")]
    build: ToolId,
    #[serde(flatten)]
    size: Size,
    public: bool,
    aliases: Vec<String>,
    names: Vec<String>,
    created_at: Time,
    updated_at: Time,
    created_by: Option<()>,
    last_spawned_at: Option<Time>,
    spawn_count: u32,
    build_count: u32,
    envd_version: String,
    build_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
}

impl Template {
    fn of(app: &App, tool: Tool) -> Self {
        let upstream = app.upstreams.get(&tool.upstream);
        Self {
            size: Size::of_tool(&tool),
            public: tool.is_shared(),
            envd_version: upstream.map(|upstream| upstream.config.envd_version.clone()).unwrap_or_default(),
            build_status: match tool.status {
                ToolStatus::Active => "ready",
                ToolStatus::Creating => "building",
                _ => "error",
            },
            template: tool.id.clone(),
            build: tool.id,
            aliases: vec![tool.name.clone()],
            names: vec![tool.name],
            created_at: Time(tool.created_at),
            updated_at: Time(tool.updated_at),
            created_by: None,
            last_spawned_at: None,
            spawn_count: 0,
            build_count: 1,
            description: tool.spec.description,
        }
    }
}

/// All tools that the caller may use.
pub async fn list(State(app): State<App>, caller: Authorized<scope::ToolsRead>) -> Result<Json<Vec<Template>>> {
    let (mut templates, mut page) = (Vec::new(), PageRequest { limit: MAX_LIMIT, before: None });
    loop {
        let found = tools::list(&app, &caller, &ToolFilter::default(), &page).await?;
        templates.extend(found.items.into_iter().map(|tool| Template::of(&app, tool)));
        match found.next {
            Some(next) => page.before = Some(next),
            None => return Ok(Json(templates)),
        }
    }
}

/// The tool of a name.
#[derive(Serialize)]
pub struct Alias {
    #[serde(rename = "templateID")]
    template: ToolId,
    public: bool,
}

/// Whether there is a tool of a name.
pub async fn alias(
    State(app): State<App>,
    caller: Authorized<scope::ToolsRead>,
    Path(alias): Path<String>,
) -> Result<Json<Alias>> {
    let tool = tools::usable(&app, &caller, &alias).await?;
    Ok(Json(Alias { public: tool.is_shared(), template: tool.id }))
}
