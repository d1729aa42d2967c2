//! GET requests: `Limit=5&Filters.0.Name=Status&Filters.0.Values.0=RUNNING`. Lists are `Name.<index>`, objects
//! `Name.Field`, nested freely; every value arrives as a string and is converted to its field's type.

use std::collections::BTreeMap;

use serde::de::value::{Error, MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::{RequestFault, fault};

/// Deepest nesting of a key; the API's own objects reach five.
const MAX_DEPTH: usize = 16;

/// Reads a raw query string. Unknown fields are ignored.
pub fn decode_query<T: DeserializeOwned>(query: &str) -> Result<T, RequestFault> {
    let malformed = |_| RequestFault::NotAnObject;
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).map_err(malformed)?;
    let mut root = Node::Branch(BTreeMap::new());
    for (key, value) in pairs {
        root.insert(&key, value)?;
    }
    serde_path_to_error::deserialize(root).map_err(|error| {
        let path = error.path().to_string();
        fault(&path, &error.into_inner().to_string())
    })
}

#[derive(Debug)]
enum Node {
    Leaf(String),
    Branch(BTreeMap<String, Node>),
}

impl Node {
    fn insert(&mut self, key: &str, value: String) -> Result<(), RequestFault> {
        let invalid = |reason: &str| RequestFault::Invalid { field: key.to_owned(), reason: reason.to_owned() };
        if key.split('.').count() > MAX_DEPTH {
            return Err(invalid("nested too deeply"));
        }
        let mut node = self;
        for part in key.split('.') {
            let Node::Branch(children) = node else {
                return Err(invalid("both a value and an object"));
            };
            node = children.entry(part.to_owned()).or_insert_with(|| Node::Branch(BTreeMap::new()));
        }
        match node {
            Node::Branch(children) if children.is_empty() => {
                *node = Node::Leaf(value);
                Ok(())
            }
            _ => Err(invalid("given twice")),
        }
    }

    fn leaf(self, wanted: &'static str) -> Result<String, Error> {
        match self {
            Node::Leaf(text) => Ok(text),
            Node::Branch(_) => Err(Error::invalid_type(Unexpected::Map, &wanted)),
        }
    }

    /// The children in the order of their indices.
    fn into_list(self) -> Result<Vec<Node>, Error> {
        let Node::Branch(children) = self else {
            return Err(Error::invalid_type(Unexpected::Str("a single value"), &"a list"));
        };
        let indexed = children.into_iter().map(|(index, node)| match index.parse::<u32>() {
            Ok(index) => Ok((index, node)),
            Err(_) => Err(Error::custom(format_args!("invalid list index `{index}`"))),
        });
        let sorted: BTreeMap<u32, Node> = indexed.collect::<Result<_, _>>()?;
        Ok(sorted.into_values().collect())
    }
}

impl<'de> IntoDeserializer<'de> for Node {
    type Deserializer = Node;

    fn into_deserializer(self) -> Node {
        self
    }
}

impl<'de> Deserializer<'de> for Node {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Node::Leaf(text) => visitor.visit_string(text),
            Node::Branch(children) => visitor.visit_map(MapDeserializer::new(children.into_iter())),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.leaf("a boolean")?.as_str() {
            "true" | "True" => visitor.visit_bool(true),
            "false" | "False" => visitor.visit_bool(false),
            other => Err(Error::invalid_value(Unexpected::Str(other), &"true or false")),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let text = self.leaf("an integer")?;
        match text.parse() {
            Ok(number) => visitor.visit_i64(number),
            Err(_) => Err(Error::invalid_value(Unexpected::Str(&text), &"an integer")),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(SeqDeserializer::new(self.into_list()?.into_iter()))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct
        tuple tuple_struct map struct enum identifier ignored_any
    }
}
