//! JSON of ours in the database, which a later version may have written: what this one does not know of it is passed over,
//! though the same in a request is refused.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};
use sqlx::{Decode, Postgres, Type, error::BoxDynError, postgres::PgValueRef, types::Json};

/// A `jsonb` as a type of the domain.
#[derive(Clone, Debug)]
pub struct Stored<T>(pub T);

impl<T> Type<Postgres> for Stored<T> {
    fn type_info() -> <Postgres as sqlx::Database>::TypeInfo {
        <Json<Value> as Type<Postgres>>::type_info()
    }

    fn compatible(kind: &<Postgres as sqlx::Database>::TypeInfo) -> bool {
        <Json<Value> as Type<Postgres>>::compatible(kind)
    }
}

impl<'r, T: DeserializeOwned> Decode<'r, Postgres> for Stored<T> {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let Json(value) = <Json<Value> as Decode<Postgres>>::decode(value)?;
        Ok(Self(read(value)?))
    }
}

fn read<T: DeserializeOwned>(mut value: Value) -> Result<T, serde_json::Error> {
    loop {
        let error = match serde_path_to_error::deserialize(&value) {
            Ok(known) => return Ok(known),
            Err(error) => error,
        };
        let passed_over = unknown_field(error.inner()).is_some_and(|field| remove(&mut value, error.path(), &field));
        if !passed_over {
            return Err(error.into_inner());
        }
    }
}

/// The field that an error is about, when serde does not know it.
fn unknown_field(error: &serde_json::Error) -> Option<String> {
    let text = error.to_string();
    let (field, _) = text.strip_prefix("unknown field `")?.split_once('`')?;
    Some(field.to_owned())
}

/// Removes a field of the object at a path. `false` when there is none: serde names the field itself in the path, or its parent.
fn remove(value: &mut Value, path: &Path, field: &str) -> bool {
    let segments: Vec<&Segment> = path.iter().collect();
    let parents = segments.split_last().map(|(_, parents)| parents);
    [Some(segments.as_slice()), parents].into_iter().flatten().any(|segments| {
        let object = at(value, segments).and_then(Value::as_object_mut);
        object.is_some_and(|object| object.remove(field).is_some())
    })
}

fn at<'a>(value: &'a mut Value, segments: &[&Segment]) -> Option<&'a mut Value> {
    segments.iter().try_fold(value, |value, segment| match segment {
        Segment::Seq { index } => value.get_mut(*index),
        Segment::Map { key } | Segment::Enum { variant: key } => value.get_mut(key.as_str()),
        Segment::Unknown => None,
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        name: String,
        #[serde(default)]
        inner: Vec<Inner>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "snake_case")]
    enum Inner {
        Plain { size: u32 },
    }

    #[test]
    fn what_is_not_known_is_passed_over_wherever_it_stands() {
        let written = json!({
            "name": "a", "later": {"name": 1}, "inner": [{"plain": {"size": 1}}, {"plain": {"size": 2, "later": [], "more": 1}}],
        });
        let read: Outer = read(written).unwrap();
        assert_eq!(read, Outer { name: "a".into(), inner: vec![Inner::Plain { size: 1 }, Inner::Plain { size: 2 }] });
    }

    #[test]
    fn what_is_wrong_or_missing_is_still_an_error() {
        for written in [
            json!({"later": 1}),
            json!({"name": 1, "later": 1}),
            json!({"name": "a", "inner": [{"new": {}}]}),
            json!([]),
        ] {
            assert!(read::<Outer>(written.clone()).is_err(), "{written}");
        }
    }
}
