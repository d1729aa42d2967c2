//! The strict reader of requests.

use ags_client::request::{RequestFault, decode, decode_query, decode_strict, unknown_field};
use ags_client::types::*;
use proptest::prelude::*;

fn create_tool(body: &str) -> Result<CreateSandboxToolRequest, RequestFault> {
    decode_strict(body.as_bytes())
}

#[test]
fn faults_name_the_field_and_the_code() {
    let cases = [
        (r#"{"ToolName":"n","ToolType":"custom"}"#, "NetworkConfiguration", "MissingParameter"),
        (
            r#"{"ToolName":"n","ToolType":"custom","NetworkConfiguration":{}}"#,
            "NetworkConfiguration.NetworkMode",
            "MissingParameter",
        ),
        (r#"{"ToolName":7}"#, "ToolName", "InvalidParameter"),
        (r#"{"ToolName":"n","Tags":[{"Key":"k"},{"Key":1}]}"#, "Tags[1].Key", "InvalidParameter"),
        (
            r#"{"ToolName":"n","ToolType":"x","NetworkConfiguration":{"NetworkMode":"PUBLIC"},"Tags":[["k","v"]]}"#,
            "Tags[0]",
            "InvalidParameter",
        ),
        (
            r#"{"ToolName":"n","ToolType":"x","NetworkConfiguration":{"NetworkMode":"PUBLIC"},"Toolname":1}"#,
            "Toolname",
            "UnknownParameter",
        ),
        (
            r#"{"ToolName":"n","ToolType":"x","NetworkConfiguration":{"NetworkMode":"PUBLIC"},"Tags":[{"Kee":1}]}"#,
            "Tags[0].Kee",
            "UnknownParameter",
        ),
    ];
    for (body, field, code) in cases {
        let fault = create_tool(body).unwrap_err();
        assert_eq!((fault.field(), fault.code()), (Some(field), code), "{body}: {fault}");
        assert!(fault.to_string().contains(field));
    }
}

#[test]
fn what_is_not_an_object_is_refused() {
    for body in ["[]", "null", "\"x\"", "{", "{\"ToolName\":", "\u{feff}{}", "[\"n\",\"x\"]"] {
        assert_eq!(create_tool(body), Err(RequestFault::NotAnObject), "{body}");
    }
    let trailing = decode::<StopSandboxInstanceRequest>(br#"{"InstanceId":"i"} {}"#);
    assert_eq!(trailing, Err(RequestFault::NotAnObject));
}

#[test]
fn an_empty_body_has_no_fields() {
    assert_eq!(decode::<DescribeApiKeyListRequest>(b""), Ok(DescribeApiKeyListRequest {}));
    assert_eq!(decode::<DescribeApiKeyListRequest>(b" \n"), Ok(DescribeApiKeyListRequest {}));
    let missing = RequestFault::Missing { field: "InstanceId".into() };
    assert_eq!(decode::<StopSandboxInstanceRequest>(b""), Err(missing));
}

#[test]
fn unknown_fields_may_be_tolerated_and_null_is_not_one() {
    let body = br#"{"InstanceId":"i","SnapshotId":null,"Memory":null}"#;
    let request: PauseSandboxInstanceRequest = decode(body).unwrap();
    assert_eq!(unknown_field(body, &request), None);
    let newer = br#"{"ToolId":"t","SnapshotId":"s"}"#;
    let request: StartSandboxInstanceRequest = decode(newer).unwrap();
    assert_eq!(unknown_field(newer, &request).as_deref(), Some("SnapshotId"));
}

#[test]
fn a_query_is_converted_by_the_types_of_its_fields() {
    let query = "InstanceIds.0=a&InstanceIds.1=b&Limit=5&Filters.0.Name=Status&Filters.0.Values.0=RUNNING\
                 &Filters.0.Values.1=PAUSED";
    let expected = DescribeSandboxInstanceListRequest {
        instance_ids: Some(vec!["a".into(), "b".into()]),
        limit: Some(5),
        filters: Some(vec![Filter { name: "Status".into(), values: vec!["RUNNING".into(), "PAUSED".into()] }]),
        ..Default::default()
    };
    assert_eq!(decode_query(query), Ok(expected));
}

#[test]
fn a_query_reaches_nested_objects_booleans_and_lists_beyond_ten() {
    let mut query = "ToolName=a+b%2Fc&ToolType=custom&NetworkConfiguration.NetworkMode=VPC&Persistent=true\
                     &CustomConfiguration.Probe.HttpGet.Port=8080"
        .to_owned();
    for i in 0..12 {
        query.push_str(&format!("&NetworkConfiguration.VpcConfig.SubnetIds.{i}=s{i}"));
    }
    let request: CreateSandboxToolRequest = decode_query(&query).unwrap();
    assert_eq!((request.tool_name.as_str(), request.persistent), ("a b/c", Some(true)));
    assert_eq!(request.custom_configuration.unwrap().probe.unwrap().http_get.unwrap().port, Some(8080));
    let subnets = request.network_configuration.vpc_config.unwrap().subnet_ids.unwrap();
    assert_eq!(subnets, (0..12).map(|i| format!("s{i}")).collect::<Vec<_>>());
}

#[test]
fn faults_of_a_query_name_the_field() {
    let list = |query| decode_query::<DescribeSandboxInstanceListRequest>(query).unwrap_err();
    let deep = format!("a{}=1", ".a".repeat(10_000));
    let cases = [
        ("Limit=five", "Limit"),
        ("Limit.0=5", "Limit"),
        ("InstanceIds=a", "InstanceIds"),
        ("InstanceIds.x=a", "InstanceIds"),
        ("Limit=5&Limit=6", "Limit"),
        ("Filters.0=a&Filters.0.Name=b", "Filters.0.Name"),
        (deep.as_str(), &deep[..deep.len() - 2]),
    ];
    for (query, field) in cases {
        let fault = list(query);
        assert_eq!((fault.field(), fault.code()), (Some(field), "InvalidParameter"), "{query}");
    }
    let missing = decode_query::<StopSandboxInstanceRequest>("").unwrap_err();
    assert_eq!(missing, RequestFault::Missing { field: "InstanceId".into() });
}

proptest! {
    #[test]
    fn reading_never_panics(text in any::<String>(), key in "[A-Za-z.0-9]{1,20}") {
        let _ = decode_strict::<CreateSandboxToolRequest>(text.as_bytes());
        let _ = decode_query::<CreateSandboxToolRequest>(&text);
        let _ = decode_query::<CreateSandboxToolRequest>(&format!("{key}={text}&Tags.{key}=1"));
    }

    #[test]
    fn a_written_request_is_read_strictly(id in any::<String>(), memory in any::<Option<bool>>()) {
        let request = PauseSandboxInstanceRequest { instance_id: id, memory };
        let body = serde_json::to_vec(&request).unwrap();
        prop_assert_eq!(decode_strict(&body), Ok(request));
    }
}
