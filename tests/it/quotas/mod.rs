//! Quotas that hold across replicas.

mod daily;
mod line;
mod rates;
mod slots;

use serde_json::{Value, json};

use crate::harness::{Api, Stack};

/// Changes quotas of the team of a key.
async fn limit(stack: &Stack, api: &Api, quotas: Value) {
    let me = api.get("/v1/me").await.expect(200);
    let path = format!("/v1/teams/{}", me["team"]["id"].as_str().unwrap());
    stack.admin().patch(&path, &json!({"quotas": quotas})).await.expect(200);
}
