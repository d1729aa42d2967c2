//! Whole lists, also while they change.

use std::sync::{Arc, Mutex};

use ags_client::types::*;
use futures_util::TryStreamExt;
use serde_json::{Value, json};

use crate::server::{Answer, Received, Server, error, ok};

fn page(all: &[usize], received: &Received) -> Answer {
    let request = received.json();
    let number = |name: &str| usize::try_from(request[name].as_u64().unwrap()).unwrap();
    let tools: Vec<Value> = all
        .iter()
        .skip(number("Offset"))
        .take(number("Limit"))
        .map(|n| json!({"ToolId": format!("sdt-{n}")}))
        .collect();
    ok(json!({"SandboxToolSet": tools, "TotalCount": all.len()}))
}

async fn server_of(count: usize) -> Server {
    let all: Vec<usize> = (0..count).collect();
    Server::start(Box::new(move |received| page(&all, received))).await
}

async fn ids(server: &Server) -> Vec<String> {
    let tools = server.client().list_all(DescribeSandboxToolListRequest::default()).await.unwrap();
    tools.into_iter().map(|tool| tool.tool_id).collect()
}

fn expected(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|n| format!("sdt-{n}")).collect()
}

#[tokio::test]
async fn all_pages_are_read_in_as_few_calls_as_possible() {
    for (count, calls) in [(0, 1), (1, 1), (99, 1), (100, 1), (101, 2), (250, 3)] {
        let server = server_of(count).await;
        assert_eq!(ids(&server).await, expected(0..count));
        assert_eq!(server.count(), calls, "calls for {count} entries");
    }
}

#[tokio::test]
async fn entries_that_slide_to_an_earlier_page_are_found_once() {
    let all: Arc<Mutex<Vec<usize>>> = Arc::new(Mutex::new((0..250).collect()));
    let listed = all.clone();
    let server = Server::start(Box::new(move |received| {
        let mut all = listed.lock().unwrap();
        let answer = page(&all, received);
        all.retain(|n| *n >= 30);
        answer
    }))
    .await;
    let mut found = ids(&server).await;
    found.sort_by_key(|id| id["sdt-".len()..].parse::<usize>().unwrap());
    assert_eq!(found, expected(0..250), "the 30 were there when the first page was read");
}

#[tokio::test]
async fn entries_pushed_to_a_later_page_are_not_repeated() {
    let all: Arc<Mutex<Vec<usize>>> = Arc::new(Mutex::new((100..250).collect()));
    let listed = all.clone();
    let server = Server::start(Box::new(move |received| {
        let mut all = listed.lock().unwrap();
        let answer = page(&all, received);
        if all[0] == 100 {
            all.splice(0..0, 0..20);
        }
        answer
    }))
    .await;
    assert_eq!(ids(&server).await, expected(100..250));
}

#[tokio::test]
async fn a_list_that_ignores_the_offset_ends() {
    let instance = json!({"InstanceId": "i", "ToolId": "t", "ToolName": "t", "Status": "UNHEALTHY"});
    let all = ok(json!({"InstanceSet": [instance], "TotalCount": 500}));
    let Answer::Reply(status, body) = all else { panic!("a reply") };
    let server = Server::start(Box::new(move |_| Answer::Reply(status, body.clone()))).await;
    let instances = server.client().list_all(DescribeSandboxInstanceListRequest::default()).await.unwrap();
    assert_eq!((instances.len(), server.count()), (1, 2));
}

#[tokio::test]
async fn pages_are_asked_for_as_they_are_needed_and_an_error_ends_the_list() {
    let all: Vec<usize> = (0..150).collect();
    let mut calls = 0;
    let server = Server::start(Box::new(move |received| {
        calls += 1;
        if calls == 1 { page(&all, received) } else { error("InvalidParameter") }
    }))
    .await;
    let tools = server.client().list(DescribeSandboxToolListRequest::default());
    let mut tools = std::pin::pin!(tools);
    for _ in 0..100 {
        assert!(tools.try_next().await.unwrap().is_some());
    }
    assert_eq!(server.count(), 1);
    assert_eq!(tools.try_next().await.unwrap_err().code(), Some("InvalidParameter"));
    assert!(tools.try_next().await.unwrap().is_none());
}
