//! Two versions side by side: a migration may only add what the version before it can do without, and this version may meet what
//! a later one has written.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use devstack::Child;
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::{
    AssertSqlSafe, Column, Either, Executor, PgPool, Row, SqlSafeStr, Statement, TypeInfo, postgres::PgTypeInfo,
};
use tempfile::TempDir;

use crate::{
    cloud::path,
    exec::Sandbox,
    harness::{Options, Stack, eventually, run},
};

/// A query of the version before, with what it was told of the database (`scripts/sqlx-prepare --freeze`).
#[derive(Deserialize)]
struct Query {
    query: String,
    describe: Described,
}

#[derive(Deserialize)]
struct Described {
    columns: Vec<Returned>,
    parameters: Parameters,
}

#[derive(Deserialize)]
struct Returned {
    name: String,
    type_info: String,
}

#[derive(Deserialize)]
struct Parameters {
    #[serde(rename = "Left")]
    types: Vec<String>,
}

fn before() -> Vec<Query> {
    serde_json::from_str(include_str!("rollout/queries.json")).expect("queries")
}

/// As the database calls a type that sqlx calls `TextArray`.
fn plain(name: &str) -> String {
    name.strip_suffix("Array").map_or_else(|| name.to_uppercase(), |of| format!("{}[]", of.to_uppercase()))
}

fn names(types: &[PgTypeInfo]) -> Vec<String> {
    types.iter().map(|kind| kind.name().to_owned()).collect()
}

#[test]
fn the_queries_of_the_version_before_mean_the_same() {
    run(async {
        let stack = Stack::with(Options::simulated()).await;
        let queries = before();
        assert!(queries.len() > 100);
        for Query { query, describe } in queries {
            let statement = stack.app.pool.prepare(AssertSqlSafe(query.clone()).into_sql_str()).await;
            let statement = statement.unwrap_or_else(|error| panic!("{error}:\n{query}"));
            let returned: Vec<(String, String)> = statement
                .columns()
                .iter()
                .map(|column| (column.name().to_owned(), column.type_info().name().to_owned()))
                .collect();
            let before: Vec<(String, String)> =
                describe.columns.into_iter().map(|column| (column.name, plain(&column.type_info))).collect();
            assert_eq!(returned, before, "{query}");
            let Some(Either::Left(parameters)) = statement.parameters() else { panic!("no parameters: {query}") };
            let before: Vec<String> = describe.parameters.types.iter().map(|kind| plain(kind)).collect();
            assert_eq!(names(parameters), before, "{query}");
        }
    });
}

/// Columns that an insertion has to name, by table.
async fn needed(pool: &PgPool) -> BTreeMap<String, BTreeSet<String>> {
    let rows = sqlx::query(
        "SELECT table_name::text, column_name::text FROM information_schema.columns
         WHERE table_schema = 'public' AND is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO'
           AND is_generated = 'NEVER'",
    );
    let mut needed = BTreeMap::<_, BTreeSet<_>>::new();
    for row in rows.fetch_all(pool).await.expect("columns") {
        needed.entry(row.get(0)).or_default().insert(row.get(1));
    }
    needed
}

/// The tables into which a query inserts, with the columns that it names.
fn insertions(query: &str) -> Vec<(String, BTreeSet<String>)> {
    let after = query.split("INSERT INTO ").skip(1);
    let parsed = after.filter_map(|rest| {
        let (head, rest) = rest.split_once('(')?;
        let (columns, _) = rest.split_once(')')?;
        let columns = columns.split(',').map(|column| column.trim().to_owned()).collect();
        // Without columns of its own, what is selected follows.
        let (table, names_columns) = (head.split_whitespace().next()?, !head.contains("SELECT"));
        names_columns.then(|| (table.to_owned(), columns))
    });
    parsed.collect()
}

#[test]
fn what_the_version_before_inserts_is_enough() {
    run(async {
        let stack = Stack::with(Options::simulated()).await;
        let needed = needed(&stack.app.pool).await;
        let mut seen = 0;
        for Query { query, .. } in before() {
            for (table, named) in insertions(&query) {
                let Some(needed) = needed.get(&table) else { panic!("no table {table}: {query}") };
                assert!(needed.is_subset(&named), "{table} needs {needed:?}: {query}");
                seen += 1;
            }
        }
        assert!(seen > 15, "{seen}");
    });
}

/// As a later version leaves the database behind: columns, fields and states that this one does not know.
const LATER: &str = r#"
    INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
    VALUES (29990101000000, 'later', true, '', 0);
    ALTER TABLE teams ADD COLUMN later text NOT NULL DEFAULT 'x';
    ALTER TABLE api_keys ADD COLUMN later text NOT NULL DEFAULT 'x';
    ALTER TABLE tools ADD COLUMN later text NOT NULL DEFAULT 'x';
    ALTER TABLE instances ADD COLUMN later text NOT NULL DEFAULT 'x';
    ALTER TABLE execs ADD COLUMN later text NOT NULL DEFAULT 'x';
    ALTER TABLE audit_events ADD COLUMN later text;
    UPDATE teams SET grants = grants || '{"later": 1}';
    UPDATE tools SET spec = spec || '{"later": {"a": [1]}}';
    UPDATE instances SET spec = spec || '{"later": 1}', idle = '{"after_seconds": 600, "action": "stop", "later": 1}';
"#;

#[test]
fn this_version_works_beside_a_later_one() {
    run(async {
        let sandbox = Sandbox::start().await;
        let stack = &sandbox.stack;
        sandbox.run("echo before").await;
        stack.sql(LATER).await;
        // The one that runs, and one that is started again: by what a deployment does first.
        let migrated = stack.command(&["migrate"]).output().expect("a program");
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
        let directory = TempDir::new().expect("a directory");
        let ready = directory.path().join("ready");
        let started = Child::spawn(stack.program(&ready), Signal::SIGKILL).await.expect("a program");
        let told = eventually(async || {
            assert!(started.exit_status().is_none(), "it has ended");
            std::fs::read_to_string(&ready).ok().and_then(|text| serde_json::from_str::<Value>(&text).ok())
        })
        .await;
        for api in [sandbox.api.clone(), sandbox.api.at(told["url"].as_str().expect("a URL"))] {
            api.get("/readyz").await.expect(200);
            let here = api.get(&format!("/v1/instances/{}", sandbox.id)).await;
            let here = here.expect(200);
            assert_eq!((&here["status"], &here["idle"]["after_seconds"]), (&json!("RUNNING"), &json!(600)));
            api.get("/v1/tools").await.expect(200);
            api.get("/v1/instances").await.expect(200);
            let run = api.post(&sandbox.path("exec"), &json!({"cmd": "echo beside"})).await.expect(200);
            assert_eq!(run["stdout"], "beside\n");
            let another = api.post("/v1/instances", &json!({"tool": "shell"})).await.expect(201);
            api.delete(&path(&another)).await.expect(204);
        }
        started.stop(Signal::SIGTERM, Duration::from_secs(30)).await;
        stack.sql("UPDATE instances SET status = 'HIBERNATED' WHERE status = 'RUNNING'").await;
        let there = sandbox.api.get(&format!("/v1/instances/{}", sandbox.id)).await.expect(200);
        assert_eq!(there["status"], "HIBERNATED");
    });
}

#[test]
fn what_is_neither_this_versions_nor_a_later_one_is_refused() {
    run(async {
        let stack = Stack::with(Options::simulated()).await;
        let stray = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                     VALUES (20260101000000, 'stray', true, '', 0)";
        stack.sql(stray).await;
        let migrated = stack.command(&["migrate"]).output().expect("a program");
        let said = String::from_utf8_lossy(&migrated.stderr);
        assert!(!migrated.status.success() && said.contains("20260101000000"), "{said}");
    });
}
