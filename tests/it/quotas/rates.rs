//! Requests per second.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::HeaderMap;
use serde_json::json;

use super::limit;
use crate::harness::{Answer, Api, Options, Stack, eventually, run};

/// How many of many requests are let through.
async fn let_through(apis: &[Api], each: usize) -> (u32, Vec<Answer>) {
    let asked = apis.iter().flat_map(|api| (0..each).map(move |_| api.get("/v1/instances?limit=1")));
    let (good, refused): (Vec<Answer>, Vec<Answer>) =
        join_all(asked).await.into_iter().partition(|answer| answer.status == 200);
    (u32::try_from(good.len()).unwrap(), refused)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers[name].to_str().unwrap()
}

/// The number that a structured field has for a parameter.
fn parameter(field: &str, name: &str) -> u64 {
    field.split(';').find_map(|part| part.strip_prefix(&format!("{name}="))).unwrap().parse().unwrap()
}

#[test]
fn every_answer_tells_where_the_team_stands() {
    run(async {
        let stack = Stack::with(Options::simulated()).await;
        let api = stack.team("red").await;
        limit(&stack, &api, json!({"requests_per_second": 50})).await;
        let answer = eventually(async || {
            let answer = api.get("/v1/me").await;
            text(&answer.headers, "ratelimit-policy").contains("q=50;").then_some(answer)
        })
        .await;
        assert_eq!(text(&answer.headers, "ratelimit-policy"), "\"requests\";q=50;w=1");
        let field = text(&answer.headers, "ratelimit");
        assert!(field.starts_with("\"requests\";r=") && parameter(field, "r") < 50, "{field}");
        assert!(parameter(field, "t") >= 1);
        // To what is refused, too, but not to strangers.
        assert!(api.get("/v1/teams").await.headers.contains_key("ratelimit"));
        let stranger = Api::anonymous(&stack.url).get("/v1/me").await;
        assert!(!stranger.headers.contains_key("ratelimit"));
    });
}

#[test]
fn a_team_gets_no_more_from_two_replicas_than_from_one() {
    run(async {
        let stack = Stack::with(Options::simulated()).await;
        let (_app, url) = stack.replica().await;
        let api = stack.team("red").await.at(&stack.url);
        let rate = 40;
        limit(&stack, &api, json!({"requests_per_second": rate})).await;
        eventually(async || {
            let policies = [api.get("/v1/me").await, api.at(&url).get("/v1/me").await];
            policies.iter().all(|answer| text(&answer.headers, "ratelimit-policy").contains("q=40;")).then_some(())
        })
        .await;
        let (began, mut let_by, mut refused) = (Instant::now(), 0, Vec::new());
        let apis = [api.clone(), api.at(&url)];
        while began.elapsed() < Duration::from_secs(4) {
            let (good, bad) = let_through(&apis, 10).await;
            let_by += good;
            refused.extend(bad);
        }
        // A second's worth at once and the rate from then on; twice a second's worth for what both let by before they heard of
        // each other, which is made up for later.
        let most = f64::from(rate) * (began.elapsed().as_secs_f64() + 1.0 + 2.0);
        assert!(f64::from(let_by) <= most, "{let_by} of at most {most}");
        let problem = refused.pop().expect("some were refused");
        let wait: u64 = text(&problem.headers, "retry-after").parse().unwrap();
        assert!((1..=5).contains(&wait), "{wait}");
        assert_eq!(parameter(text(&problem.headers, "ratelimit"), "r"), 0);
        let problem = problem.problem(429, "rate_limited");
        assert_eq!(
            (&problem["limit"]["name"], &problem["limit"]["value"]),
            (&json!("requests_per_second"), &json!(rate))
        );
        // Another team is not held up.
        stack.team("blue").await.get("/v1/me").await.expect(200);
    });
}

#[test]
fn what_one_replica_lets_through_the_other_hears_of() {
    run(async {
        let stack = Stack::with(Options::simulated()).await;
        let (_app, url) = stack.replica().await;
        let api = stack.team("red").await.at(&stack.url);
        limit(&stack, &api, json!({"requests_per_second": 10})).await;
        let there = api.at(&url);
        eventually(async || (there.get("/v1/me").await.status == 200).then_some(())).await;
        // So far in debt that no time of this test makes up for it.
        stack.sql("UPDATE request_budgets SET tokens = -1000000").await;
        for api in [&api, &there] {
            eventually(async || (api.get("/v1/me").await.status == 429).then_some(())).await;
        }
        stack.sql("UPDATE request_budgets SET tokens = 10").await;
        for api in [&api, &there] {
            eventually(async || (api.get("/v1/me").await.status == 200).then_some(())).await;
        }
    });
}
