//! Requests that teams may make still.

use sqlx::PgConnection;

use crate::ids::TeamId;

/// What one replica let through of a team's requests since it last said so.
pub struct Spent {
    pub team: TeamId,
    pub rate: u32,
    pub requests: u64,
}

/// What all replicas together have left of a team's requests.
pub struct Left {
    pub team: TeamId,
    pub tokens: f64,
}

/// Takes what was spent off the teams' budgets, and answers what is left of each.
///
/// # Errors
/// When the database fails.
pub async fn system_report(connection: &mut PgConnection, spent: &[Spent]) -> sqlx::Result<Vec<Left>> {
    let teams: Vec<String> = spent.iter().map(|one| one.team.to_string()).collect();
    let rates: Vec<f64> = spent.iter().map(|one| one.rate.into()).collect();
    let requests: Vec<f64> = spent.iter().map(|one| one.requests as f64).collect();
    let left = sqlx::query_as!(
        Left,
        r#"INSERT INTO request_budgets AS kept (team_id, rate, tokens, updated_at)
           SELECT team_id, rate, rate - requests, clock_timestamp()
           FROM unnest($1::text[], $2::float8[], $3::float8[]) AS spent (team_id, rate, requests)
           -- Two replicas take the rows in one order.
           ORDER BY team_id
           ON CONFLICT (team_id) DO UPDATE
           SET rate = excluded.rate, updated_at = greatest(kept.updated_at, excluded.updated_at),
               tokens = least(excluded.rate, kept.tokens + excluded.rate * greatest(0,
                              extract(epoch FROM excluded.updated_at - kept.updated_at)::float8))
                        - (excluded.rate - excluded.tokens)
           RETURNING team_id AS "team: _", tokens"#,
        &teams,
        &rates,
        &requests,
    )
    .fetch_all(connection)
    .await?;
    Ok(left)
}
