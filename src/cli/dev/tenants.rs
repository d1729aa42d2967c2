//! The team of the local stack and its keys, fresh at every start.

use std::path::Path;

use anyhow::Context;
use secrecy::SecretString;

use crate::{
    app::{idempotency::Intent, keys, teams},
    cli::Tools,
    config::{Config, Environment},
    domain::{
        credential::{ApiKey, KeyKind, SigningPair},
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
const PAIR: &str = "dev stack, signing";

#[derive(Default)]
pub(super) struct Keys {
    pub team: SecretString,
    pub admin: SecretString,
    /// For the face of the cloud's own API.
    pub pair: SigningPair,
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
        pair: mint_pair(&tools, &team).await?,
    };
    tools.pool.close().await;
    Ok(keys)
}

async fn team(tools: &Tools) -> anyhow::Result<TeamId> {
    if let Ok(team) = teams::get(&tools.pool, TEAM).await {
        if !(team.grants.tokens && team.grants.imports) {
            // Made by a version that knew no such grants.
            let lend = |_: &mut Quotas, grants: &mut Grants| (grants.tokens, grants.imports) = (true, true);
            teams::update(&tools.pool, &team.id, &tools.trail("update_team"), lend).await?;
        }
        return Ok(team.id);
    }
    let all = || vec!["*".to_owned()];
    let grants = Grants { role_arns: all(), mounts: all(), tokens: true, imports: true, ..Grants::default() };
    // The stack is one developer's, who may try it out as hard as the machine allows.
    let quotas = Quotas { requests_per_second: 100_000, ..Quotas::default() };
    let (trail, noted) = (tools.trail("create_team"), Intent::default());
    Ok(teams::create(&tools.pool, &tools.ids, TEAM, &quotas, &grants, &trail, &noted).await?.id)
}

async fn mint(tools: &Tools, team: &TeamId, name: &str, scopes: Scopes) -> anyhow::Result<SecretString> {
    let wanted = wanted(name, scopes, KeyKind::Api);
    tools.mint(team, &wanted).await?.secret.into_key().context("a key was minted")
}

async fn mint_pair(tools: &Tools, team: &TeamId) -> anyhow::Result<SigningPair> {
    let wanted = wanted(PAIR, Scopes::team(), KeyKind::Tencent);
    tools.mint(team, &wanted).await?.secret.into_pair().context("a pair was minted")
}

fn wanted(name: &str, scopes: Scopes, kind: KeyKind) -> keys::Wanted {
    keys::Wanted { name: name.to_owned(), scopes, expires_at: None, instance: None, kind }
}

async fn revoke_old(tools: &Tools, team: &TeamId) -> anyhow::Result<()> {
    let old = |key: &&ApiKey| key.revoked_at.is_none() && [TEAM_KEY, ADMIN_KEY, PAIR].contains(&key.name.as_str());
    let mut request = PageRequest { limit: MAX_LIMIT, before: None };
    loop {
        let page = keys::list(&tools.pool, team, None, &request).await?;
        for key in page.items.iter().filter(old) {
            keys::revoke(&tools.pool, team, &key.id, &tools.trail("delete_key")).await?;
        }
        request.before = page.next;
        if request.before.is_none() {
            return Ok(());
        }
    }
}
