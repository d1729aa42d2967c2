//! `teams create|list`: for whoever holds the database's credentials.

use std::io;

use clap::{Args, Subcommand};

use super::{ConfigFile, Tools, print_table};
use crate::{
    app::{idempotency::Intent, teams},
    config::Environment,
    domain::{
        page::{MAX_LIMIT, PageRequest},
        team::{Grants, Quotas},
    },
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
    /// Create a team with default quotas and grants.
    Create {
        /// 1 to 50 characters, unique.
        name: String,
    },
    /// List all teams, newest first.
    List,
}

pub(super) async fn run(arguments: Arguments, environment: &Environment) -> anyhow::Result<()> {
    let tools = Tools::connect(&arguments.config.load(environment)?).await?;
    match arguments.action {
        Action::Create { name } => {
            let (quotas, grants) = (Quotas::default(), Grants::default());
            let team = teams::create(
                &tools.pool,
                &tools.ids,
                &name,
                &quotas,
                &grants,
                &tools.trail("create_team"),
                &Intent::default(),
            )
            .await?;
            println!("{}", team.id);
        }
        Action::List => {
            let mut rows = vec![["ID", "NAME", "CREATED"].map(str::to_owned).to_vec()];
            let mut request = PageRequest { limit: MAX_LIMIT, before: None };
            loop {
                let page = teams::list(&tools.pool, &request).await?;
                let cells = |team: crate::domain::team::Team| {
                    vec![team.id.to_string(), team.name, team.created_at.to_rfc3339()]
                };
                rows.extend(page.items.into_iter().map(cells));
                request.before = page.next;
                if request.before.is_none() {
                    break;
                }
            }
            print_table(&mut io::stdout(), &rows)?;
        }
    }
    Ok(())
}
