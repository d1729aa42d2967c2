//! The team of the local stack and its keys, fresh at every start.

use std::path::Path;

use anyhow::Context;
use secrecy::SecretString;

use crate::{
    app::{keys, teams},
    cli::Tools,
    config::{Config, Environment},
    domain::{
        credential::ApiKey,
        page::{MAX_LIMIT, PageRequest},
        scope::Scopes,
        team::{Grants, Quotas},
    },
    ids::TeamId,
    storage,
};

const TEAM: &str = "dev";
const TEAM_KEY: &str = "dev stack";
const ADMIN_KEY: &str = "dev stack, admin";

pub(super) struct Keys {
    pub team: SecretString,
    pub admin: SecretString,
}

/// Migrates the database, makes the team unless it is there, revokes the keys of the last start and mints new ones.
pub(super) async fn prepare(config_file: &Path) -> anyhow::Result<Keys> {
    let config = Config::load(&Environment::new([]), Some(config_file))?;
    let tools = Tools::connect(&config).await?;
    storage::migrate(&tools.pool).await.context("the database cannot be migrated: drop it with --fresh")?;
    let team = team(&tools).await?;
    revoke_old(&tools, &team).await?;
    let keys = Keys {
        team: mint(&tools, &team, TEAM_KEY, Scopes::team()).await?,
        admin: mint(&tools, &team, ADMIN_KEY, Scopes::all()).await?,
    };
    tools.pool.close().await;
    Ok(keys)
}

async fn team(tools: &Tools) -> anyhow::Result<TeamId> {
    if let Ok(team) = teams::get(&tools.pool, TEAM).await {
        return Ok(team.id);
    }
    let grants = Grants { role_arns: vec!["*".into()], mounts: vec!["*".into()], ..Grants::default() };
    Ok(teams::create(&tools.pool, &tools.ids, TEAM, &Quotas::default(), &grants).await?.id)
}

async fn mint(tools: &Tools, team: &TeamId, name: &str, scopes: Scopes) -> anyhow::Result<SecretString> {
    let wanted = keys::Wanted { name: name.to_owned(), scopes, expires_at: None, instance: None };
    Ok(tools.mint(team, &wanted).await?.secret)
}

async fn revoke_old(tools: &Tools, team: &TeamId) -> anyhow::Result<()> {
    let old = |key: &&ApiKey| key.revoked_at.is_none() && [TEAM_KEY, ADMIN_KEY].contains(&key.name.as_str());
    let mut request = PageRequest { limit: MAX_LIMIT, before: None };
    loop {
        let page = keys::list(&tools.pool, team, &request).await?;
        for key in page.items.iter().filter(old) {
            keys::revoke(&tools.pool, team, &key.id).await?;
        }
        request.before = page.next;
        if request.before.is_none() {
            return Ok(());
        }
    }
}
