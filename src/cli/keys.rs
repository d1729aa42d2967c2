//! `keys create|list|rotate|revoke`: for whoever holds the database's credentials. How the first key comes to be.

use std::io;

use clap::{Args, Subcommand, ValueEnum};
use secrecy::ExposeSecret;

use super::{ConfigFile, Tools, print_table};
use crate::{
    app::{
        keys::{self, Secret},
        teams,
    },
    config::Environment,
    domain::{
        credential::{ApiKey, KeyKind},
        duration::Seconds,
        page::{MAX_LIMIT, PageRequest},
        scope::{Scope, Scopes},
    },
    ids::{KeyId, TeamId},
};

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Mint a key and print its secret, this once.
    Create {
        /// Id or name of the team.
        #[arg(long)]
        team: String,
        #[arg(long)]
        name: String,
        /// Comma-separated, e.g. `instances:write,exec`; without it every scope of a team, that is all but `admin`.
        #[arg(long, value_delimiter = ',', value_parser = scope)]
        scopes: Vec<Scope>,
        /// What speaks with it: `api`, or `tencent` for a pair that signs requests to the cloud's own API.
        #[arg(long, default_value = "api")]
        kind: Kind,
        /// Life of the key, e.g. `720h`; without it the key does not expire.
        #[arg(long, value_parser = Seconds::parse)]
        expires_in: Option<Seconds>,
    },
    /// List a team's keys, newest first, revoked ones included.
    List {
        /// Id or name of the team.
        #[arg(long)]
        team: String,
        /// Only live keys that were not used for so long, e.g. `720h`.
        #[arg(long, value_parser = Seconds::parse)]
        unused_for: Option<Seconds>,
    },
    /// Give a key a new secret and print it, this once.
    Rotate {
        /// Id or name of the team.
        #[arg(long)]
        team: String,
        key: String,
        /// How long the old secret stays valid.
        #[arg(long, default_value = "1h", value_parser = Seconds::parse)]
        grace: Seconds,
    },
    /// Revoke a key, and those that were minted with it.
    Revoke {
        /// Id or name of the team.
        #[arg(long)]
        team: String,
        key: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Api,
    Tencent,
}

impl From<Kind> for KeyKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Api => Self::Api,
            Kind::Tencent => Self::Tencent,
        }
    }
}

fn scope(text: &str) -> Result<Scope, String> {
    let all = || Scope::ALL.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(", ");
    text.parse().map_err(|_| format!("the scopes are {}", all()))
}

pub(super) async fn run(arguments: Arguments, environment: &Environment) -> anyhow::Result<()> {
    let tools = Tools::connect(&arguments.config.load(environment)?).await?;
    match arguments.action {
        Action::Create { team, name, scopes, kind, expires_in } => {
            let team = tools.team(&team).await?;
            let scopes = if scopes.is_empty() { Scopes::team() } else { scopes.into_iter().collect() };
            let expires_at = keys::expiry(tools.clock.now(), expires_in)?;
            teams::check_name("name", &name)?;
            let wanted = keys::Wanted { name, scopes, expires_at, instance: None, kind: kind.into() };
            show(&tools.mint(&team, &wanted).await?);
        }
        Action::List { team, unused_for } => list(&tools, &tools.team(&team).await?, unused_for).await?,
        Action::Rotate { team, key, grace } => {
            let (team, trail) = (tools.team(&team).await?, tools.trail("rotate_key"));
            show(&keys::rotate(&tools.pool, tools.minting(), &team, &key_id(&key)?, grace, &trail).await?);
        }
        Action::Revoke { team, key } => {
            let revoked =
                keys::revoke(&tools.pool, &tools.team(&team).await?, &key_id(&key)?, &tools.trail("delete_key"))
                    .await?;
            println!("{revoked} revoked");
        }
    }
    Ok(())
}

fn key_id(text: &str) -> anyhow::Result<KeyId> {
    text.parse().map_err(|_| anyhow::anyhow!("{text:?} is not the id of a key (key…)"))
}

/// The id for people on stderr, the secret for pipes on stdout.
fn show(minted: &keys::Minted) {
    eprintln!("{} {:?}, scopes {}", minted.key.id, minted.key.name, minted.key.scopes.to_names().join(","));
    match &minted.secret {
        Secret::Key(secret) => println!("{}", secret.expose_secret()),
        Secret::Pair(pair) => {
            println!("TENCENTCLOUD_SECRET_ID={}", pair.secret_id);
            println!("TENCENTCLOUD_SECRET_KEY={}", pair.secret_key.expose_secret());
        }
    }
}

async fn list(tools: &Tools, team: &TeamId, unused: Option<Seconds>) -> anyhow::Result<()> {
    let mut rows = vec![["ID", "PREFIX", "NAME", "STATE", "LAST USED", "SCOPES"].map(str::to_owned).to_vec()];
    let mut request = PageRequest { limit: MAX_LIMIT, before: None };
    loop {
        let page = keys::list(&tools.pool, team, unused, &request).await?;
        rows.extend(page.items.iter().map(|key| row(key, tools.clock.now())));
        request.before = page.next;
        if request.before.is_none() {
            break;
        }
    }
    print_table(&mut io::stdout(), &rows)?;
    Ok(())
}

fn row(key: &ApiKey, now: chrono::DateTime<chrono::Utc>) -> Vec<String> {
    let state = match (key.revoked_at, key.expires_at) {
        (Some(_), _) => "revoked".to_owned(),
        (None, Some(end)) if end <= now => "expired".to_owned(),
        (None, Some(end)) => format!("until {}", end.to_rfc3339()),
        (None, None) => "valid".to_owned(),
    };
    let used = key.last_used_at.map_or_else(|| "never".to_owned(), |time| time.to_rfc3339());
    vec![key.id.to_string(), key.prefix.clone(), key.name.clone(), state, used, key.scopes.to_names().join(",")]
}

impl Tools {
    fn minting(&self) -> keys::Mint<'_> {
        keys::Mint { ids: &self.ids, peppers: &self.peppers, seals: &self.seals }
    }

    async fn team(&self, id_or_name: &str) -> anyhow::Result<TeamId> {
        let team = teams::get(&self.pool, id_or_name).await;
        Ok(team.map_err(|error| anyhow::anyhow!("team {id_or_name:?}: {}", error.detail()))?.id)
    }

    pub(super) async fn mint(&self, team: &TeamId, wanted: &keys::Wanted) -> anyhow::Result<keys::Minted> {
        let mut tx = self.pool.begin().await?;
        let minted = keys::mint(&mut tx, self.minting(), team, None, wanted).await?;
        keys::intend(&mut tx, &self.trail("create_key"), team, &minted.key.id).await?;
        tx.commit().await?;
        Ok(minted)
    }
}
