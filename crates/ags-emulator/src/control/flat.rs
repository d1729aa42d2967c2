//! Parameters of a GET request (PROTOCOLS A.4): `Filters.0.Values.1=x`, every value a string, read
//! into the wire types by what their fields want.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

type Error = serde::de::value::Error;

/// Deeper nesting than any request of the API has.
const MAX_DEPTH: usize = 16;

/// Reads the raw query string into a request.
///
/// # Errors
/// A value does not fit its field, a required field is absent, or names contradict each other.
pub fn from_query<T: DeserializeOwned>(query: &str) -> Result<T, Error> {
    let mut root = Node::Branch(BTreeMap::new());
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let path: Vec<&str> = name.split('.').collect();
        if path.len() > MAX_DEPTH {
            return Err(Error::custom(format_args!("parameter `{name}` is nested too deeply")));
        }
        root.insert(&path, value.into_owned())
            .map_err(|()| Error::custom(format_args!("parameter `{name}` contradicts another")))?;
    }
    T::deserialize(root)
}

enum Node {
    Leaf(String),
    Branch(BTreeMap<String, Node>),
}

impl Node {
    fn insert(&mut self, path: &[&str], value: String) -> Result<(), ()> {
        let (Self::Branch(children), Some((first, rest))) = (self, path.split_first()) else {
            return Err(());
        };
        if rest.is_empty() {
            return match children.insert((*first).to_owned(), Self::Leaf(value)) {
                None => Ok(()),
                Some(_) => Err(()),
            };
        }
        children.entry((*first).to_owned()).or_insert_with(|| Self::Branch(BTreeMap::new())).insert(rest, value)
    }

    fn parsed<T: FromStr<Err: Display>>(self) -> Result<T, Error> {
        match self {
            Self::Leaf(text) => text.parse().map_err(|e| Error::custom(format_args!("`{text}`: {e}"))),
            Self::Branch(_) => Err(Error::custom("a single value was expected")),
        }
    }
}

impl IntoDeserializer<'_, Error> for Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! parse_scalars {
    ($($method:ident => $visit:ident),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.parsed()?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Node {
    type Error = Error;

    parse_scalars! {
        deserialize_bool => visit_bool,
        deserialize_i8 => visit_i8,
        deserialize_i16 => visit_i16,
        deserialize_i32 => visit_i32,
        deserialize_i64 => visit_i64,
        deserialize_u8 => visit_u8,
        deserialize_u16 => visit_u16,
        deserialize_u32 => visit_u32,
        deserialize_u64 => visit_u64,
        deserialize_f32 => visit_f32,
        deserialize_f64 => visit_f64,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Leaf(text) => visitor.visit_string(text),
            Self::Branch(children) => visitor.visit_map(MapDeserializer::new(children.into_iter())),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Self::Branch(children) = self else {
            return Err(Error::custom("a list was expected"));
        };
        let mut items: Vec<(usize, Node)> = children
            .into_iter()
            .map(|(index, node)| Ok((index.parse().map_err(Error::custom)?, node)))
            .collect::<Result<_, Error>>()?;
        items.sort_by_key(|(index, _)| *index);
        visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(|(_, node)| node)))
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct
        enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Filter {
        name: Option<String>,
        values: Vec<String>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Request {
        instance_ids: Option<Vec<String>>,
        limit: Option<i64>,
        memory: Option<bool>,
        filters: Vec<Filter>,
    }

    #[test]
    fn the_documented_query_is_read() {
        let query = "InstanceIds.0=a&InstanceIds.1=b&Limit=5&Filters.0.Name=Status\
                     &Filters.0.Values.0=RUNNING&Filters.0.Values.1=PAUSED&Memory=true&Other=1";
        let request: Request = from_query(query).unwrap();
        assert_eq!(request.instance_ids.as_deref(), Some(&["a".to_owned(), "b".to_owned()][..]));
        assert_eq!((request.limit, request.memory), (Some(5), Some(true)));
        assert_eq!(request.filters[0].values, ["RUNNING", "PAUSED"]);
    }

    #[test]
    fn ten_items_keep_their_order() {
        let query: Vec<String> = (0..12).map(|i| format!("InstanceIds.{i}=n{i}")).collect();
        let request: Request = from_query(&query.join("&")).unwrap();
        assert_eq!(request.instance_ids.unwrap()[10], "n10");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        for query in ["Limit=x", "Limit.0=1", "InstanceIds=a", "InstanceIds.x=a", "Limit=1&Limit.a=2"] {
            assert!(from_query::<Request>(query).is_err(), "{query}");
        }
        let deep = format!("{}=1", vec!["a"; 100].join("."));
        assert!(from_query::<Request>(&deep).is_err());
    }
}
