//! The types against the machine-readable description of API v2025-09-20: every object, every field, its type,
//! and whether it is required.

use std::collections::{BTreeMap, BTreeSet};

use ags_client::types::*;
use ags_client::{ACTIONS, Action};
use serde::de::value::Error;
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use serde::{Deserialize, Serialize, forward_to_deserialize_any};
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Api {
    version: String,
    service: String,
    actions: BTreeMap<String, ActionTypes>,
    objects: BTreeMap<String, Vec<Field>>,
}

#[derive(Deserialize, PartialEq, Debug)]
struct ActionTypes {
    input: String,
    output: String,
}

#[derive(Deserialize)]
struct Field {
    name: String,
    r#type: String,
    member: String,
    #[serde(default)]
    required: bool,
}

fn api() -> Api {
    serde_json::from_str(include_str!("../data/ags-api-v20250920.json")).unwrap()
}

/// One wire type, with its Rust face erased.
struct Type {
    fields: fn() -> &'static [&'static str],
    round_trip: fn(Value) -> Result<Value, serde_json::Error>,
}

fn erase<T: Serialize + DeserializeOwned>() -> Type {
    Type {
        fields: field_names::<T>,
        round_trip: |value| serde_json::from_value::<T>(value).and_then(serde_json::to_value),
    }
}

macro_rules! types {
    ($($name:literal: $type:ty,)+) => {
        BTreeMap::from([$(($name, erase::<$type>())),+])
    };
}

fn types() -> BTreeMap<&'static str, Type> {
    types! {
        "APIKeyInfo": ApiKeyInfo,
        "AcquireSandboxInstanceTokenRequest": AcquireSandboxInstanceTokenRequest,
        "AcquireSandboxInstanceTokenResponse": AcquireSandboxInstanceTokenResponse,
        "AgentBucketStorageSource": AgentBucketStorageSource,
        "CLSConfig": ClsConfig,
        "CfsStorageSource": CfsStorageSource,
        "CosStorageSource": CosStorageSource,
        "CreateAPIKeyRequest": CreateApiKeyRequest,
        "CreateAPIKeyResponse": CreateApiKeyResponse,
        "CreatePreCacheImageTaskRequest": CreatePreCacheImageTaskRequest,
        "CreatePreCacheImageTaskResponse": CreatePreCacheImageTaskResponse,
        "CreateSandboxToolRequest": CreateSandboxToolRequest,
        "CreateSandboxToolResponse": CreateSandboxToolResponse,
        "CustomConfiguration": CustomConfiguration,
        "CustomConfigurationDetail": CustomConfigurationDetail,
        "DNSConfig": DnsConfig,
        "DeleteAPIKeyRequest": DeleteApiKeyRequest,
        "DeleteAPIKeyResponse": DeleteApiKeyResponse,
        "DeleteSandboxToolRequest": DeleteSandboxToolRequest,
        "DeleteSandboxToolResponse": DeleteSandboxToolResponse,
        "DescribeAPIKeyListRequest": DescribeApiKeyListRequest,
        "DescribeAPIKeyListResponse": DescribeApiKeyListResponse,
        "DescribePreCacheImageTaskRequest": DescribePreCacheImageTaskRequest,
        "DescribePreCacheImageTaskResponse": DescribePreCacheImageTaskResponse,
        "DescribeSandboxInstanceListRequest": DescribeSandboxInstanceListRequest,
        "DescribeSandboxInstanceListResponse": DescribeSandboxInstanceListResponse,
        "DescribeSandboxToolListRequest": DescribeSandboxToolListRequest,
        "DescribeSandboxToolListResponse": DescribeSandboxToolListResponse,
        "EnvVar": EnvVar,
        "Filter": Filter,
        "HttpGetAction": HttpGetAction,
        "ImageStorageSource": ImageStorageSource,
        "LogConfiguration": LogConfiguration,
        "LogSources": LogSources,
        "MetadataVar": MetadataVar,
        "MountOption": MountOption,
        "NetworkConfiguration": NetworkConfiguration,
        "PauseSandboxInstanceRequest": PauseSandboxInstanceRequest,
        "PauseSandboxInstanceResponse": PauseSandboxInstanceResponse,
        "PortConfiguration": PortConfiguration,
        "ProbeConfiguration": ProbeConfiguration,
        "ResourceConfiguration": ResourceConfiguration,
        "ResumeSandboxInstanceRequest": ResumeSandboxInstanceRequest,
        "ResumeSandboxInstanceResponse": ResumeSandboxInstanceResponse,
        "SandboxInstance": SandboxInstance,
        "SandboxTool": SandboxTool,
        "StartSandboxInstanceRequest": StartSandboxInstanceRequest,
        "StartSandboxInstanceResponse": StartSandboxInstanceResponse,
        "StopSandboxInstanceRequest": StopSandboxInstanceRequest,
        "StopSandboxInstanceResponse": StopSandboxInstanceResponse,
        "StorageMount": StorageMount,
        "StorageSource": StorageSource,
        "Tag": Tag,
        "UpdateSandboxInstanceRequest": UpdateSandboxInstanceRequest,
        "UpdateSandboxInstanceResponse": UpdateSandboxInstanceResponse,
        "UpdateSandboxToolRequest": UpdateSandboxToolRequest,
        "UpdateSandboxToolResponse": UpdateSandboxToolResponse,
        "VPCConfig": VpcConfig,
    }
}

/// The fields of a type as serde knows them, also those a value would leave out.
fn field_names<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Probe<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Probe<'_> {
        type Error = Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::custom("not a struct"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Error> {
            *self.0 = fields;
            Err(Error::custom("all is known"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut fields: &'static [&'static str] = &["not a struct"];
    assert!(T::deserialize(Probe(&mut fields)).is_err());
    fields
}

/// `RequestId` belongs to the envelope.
fn own_fields(fields: &[Field]) -> impl Iterator<Item = &Field> {
    fields.iter().filter(|field| field.name != "RequestId")
}

/// An object with every field set, built from the API file alone.
fn full_object(api: &Api, name: &str) -> Map<String, Value> {
    own_fields(&api.objects[name]).map(|field| (field.name.clone(), full_value(api, field))).collect()
}

fn full_value(api: &Api, field: &Field) -> Value {
    const TIMES: [&str; 4] = ["CreateTime", "UpdateTime", "ExpiresAt", "CreatedAt"];
    let one = match field.member.as_str() {
        "string" if TIMES.contains(&field.name.as_str()) => json!("2026-01-01T00:05:00.094Z"),
        "string" => json!(format!("any {}", field.name)),
        "bool" => json!(true),
        "int64" => json!(-7),
        "uint64" => json!(u64::MAX),
        object => Value::Object(full_object(api, object)),
    };
    if field.r#type == "list" { json!([one]) } else { one }
}

/// Values of JSON types other than the field's own.
fn wrong_values(field: &Field) -> impl Iterator<Item = Value> {
    let all = [
        ("string", json!("text")),
        ("int", json!(7)),
        ("fraction", json!(1.5)),
        ("bool", json!(true)),
        ("list", json!([7])),
        ("object", json!({"FromTheFuture": 7})),
    ];
    all.into_iter().filter(|(kind, _)| *kind != field.r#type).map(|(_, value)| value)
}

#[test]
fn every_object_is_there_and_has_exactly_its_fields() {
    let (api, types) = (api(), types());
    let described: BTreeSet<&str> = api.objects.keys().map(String::as_str).collect();
    assert_eq!(described, types.keys().copied().collect());
    for (name, fields) in &api.objects {
        let described: BTreeSet<&str> = own_fields(fields).map(|field| field.name.as_str()).collect();
        let known = (types[name.as_str()].fields)().iter().copied().collect();
        assert_eq!(described, known, "{name}");
    }
}

#[test]
fn full_objects_survive_unchanged() {
    let (api, types) = (api(), types());
    for name in api.objects.keys() {
        let full = Value::Object(full_object(&api, name));
        let back = (types[name.as_str()].round_trip)(full.clone());
        assert_eq!(back.unwrap_or_else(|error| panic!("{name}: {error}")), full, "{name}");
    }
}

#[test]
fn wrong_types_are_refused() {
    let (api, types) = (api(), types());
    for (name, fields) in &api.objects {
        for field in own_fields(fields) {
            for wrong in wrong_values(field) {
                let mut object = full_object(&api, name);
                object.insert(field.name.clone(), wrong.clone());
                let read = (types[name.as_str()].round_trip)(object.into());
                assert!(read.is_err(), "{name}.{} accepts {wrong}", field.name);
            }
        }
    }
}

/// The file says what is required of requests and of shared objects; it is silent about responses, whose fields
/// may be required here.
#[test]
fn only_what_is_required_must_be_there() {
    let (api, types) = (api(), types());
    for (name, fields) in api.objects.iter().filter(|(name, _)| !name.ends_with("Response")) {
        for field in own_fields(fields) {
            let mut object = full_object(&api, name);
            object.remove(&field.name);
            let absent = (types[name.as_str()].round_trip)(object.clone().into());
            assert_eq!(absent.is_err(), field.required, "{name}.{} absent", field.name);
            object.insert(field.name.clone(), Value::Null);
            let null = (types[name.as_str()].round_trip)(object.into());
            assert_eq!(null.is_err(), field.required, "{name}.{} null", field.name);
        }
    }
}

#[test]
fn unknown_fields_are_ignored() {
    for (name, object) in types() {
        let mut full = full_object(&api(), name);
        let expected = Value::Object(full.clone());
        full.insert("FromTheFuture".into(), json!({"a": [1]}));
        assert_eq!((object.round_trip)(full.into()).unwrap(), expected, "{name}");
    }
}

fn action_types<A: Action>() -> (&'static str, ActionTypes) {
    let short = |path: &str| path.rsplit("::").next().unwrap_or_default().replace("ApiKey", "APIKey");
    let input = short(std::any::type_name::<A>());
    let output = short(std::any::type_name::<A::Output>());
    (A::NAME, ActionTypes { input, output })
}

#[test]
fn every_action_has_its_request_and_response() {
    let api = api();
    assert_eq!((api.service.as_str(), api.version.as_str()), (ags_client::SERVICE, ags_client::VERSION));
    let known = BTreeMap::from([
        action_types::<AcquireSandboxInstanceTokenRequest>(),
        action_types::<CreateApiKeyRequest>(),
        action_types::<CreatePreCacheImageTaskRequest>(),
        action_types::<CreateSandboxToolRequest>(),
        action_types::<DeleteApiKeyRequest>(),
        action_types::<DeleteSandboxToolRequest>(),
        action_types::<DescribeApiKeyListRequest>(),
        action_types::<DescribePreCacheImageTaskRequest>(),
        action_types::<DescribeSandboxInstanceListRequest>(),
        action_types::<DescribeSandboxToolListRequest>(),
        action_types::<PauseSandboxInstanceRequest>(),
        action_types::<ResumeSandboxInstanceRequest>(),
        action_types::<StartSandboxInstanceRequest>(),
        action_types::<StopSandboxInstanceRequest>(),
        action_types::<UpdateSandboxInstanceRequest>(),
        action_types::<UpdateSandboxToolRequest>(),
    ]);
    let described: BTreeMap<&str, ActionTypes> =
        api.actions.into_iter().map(|(name, types)| (&*name.leak(), types)).collect();
    assert_eq!(known, described);
    assert!(ACTIONS.iter().eq(described.keys()));
}
