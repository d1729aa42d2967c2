//! Settings of several layers as one tree; every leaf remembers where it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Value;

use super::Problem;

pub(super) const PREFIX: &str = "AGS_GATEWAY__";

/// What supplied a value. Ordered by precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    Default,
    File(PathBuf),
    WellKnown(String),
    Variable(String),
}

impl Origin {
    fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File(_) => 1,
            Self::WellKnown(_) => 2,
            Self::Variable(_) => 3,
        }
    }

    /// The directory that a relative path in this layer starts from.
    pub(super) fn directory(&self) -> Option<&Path> {
        match self {
            Self::File(path) => path.parent(),
            _ => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::WellKnown(name) | Self::Variable(name) => f.write_str(name),
        }
    }
}

#[derive(Clone)]
pub(super) struct Leaf {
    pub key: String,
    pub value: Value,
    pub origin: Origin,
}

#[derive(Clone)]
pub(super) enum Node {
    Table(Table),
    Leaf(Leaf),
}

pub(super) type Table = BTreeMap<String, Node>;

/// The layer of a TOML text. A syntax error names the line and never shows it: it may hold a secret.
pub(super) fn from_toml(text: &str, origin: &Origin) -> Result<Table, Problem> {
    let parsed: toml::Table = toml::from_str(text).map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        Problem::new("(file)", Some(origin), format!("line {line} is not valid TOML: {}", error.message().trim()))
    })?;
    Ok(table_of(parsed, "", origin))
}

fn table_of(parsed: toml::Table, parent: &str, origin: &Origin) -> Table {
    parsed
        .into_iter()
        .map(|(name, value)| {
            let key = join(parent, &name);
            let node = match value {
                Value::Table(inner) => Node::Table(table_of(inner, &key, origin)),
                value => Node::Leaf(Leaf { key, value, origin: origin.clone() }),
            };
            (name, node)
        })
        .collect()
}

pub(super) fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
}

/// The layer of the `AGS_GATEWAY__SECTION__KEY` variables.
pub(super) fn from_variables(variables: &BTreeMap<String, String>, problems: &mut Vec<Problem>) -> Table {
    let mut layer = Table::new();
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let segments: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
        let origin = Origin::Variable(name.clone());
        if segments.iter().any(String::is_empty) || !insert(&mut layer, &segments, value, &origin) {
            problems.push(Problem::new(&segments.join("."), Some(&origin), "is not a key of the configuration".into()));
        }
    }
    layer
}

/// Puts a text at a path; false when something else is in the way.
pub(super) fn insert(layer: &mut Table, path: &[String], value: &str, origin: &Origin) -> bool {
    let Some((last, parents)) = path.split_last() else {
        return false;
    };
    let mut table = layer;
    for name in parents {
        let node = table.entry(name.clone()).or_insert_with(|| Node::Table(Table::new()));
        let Node::Table(inner) = node else {
            return false;
        };
        table = inner;
    }
    if table.contains_key(last) {
        return false;
    }
    let leaf = Leaf { key: path.join("."), value: Value::String(value.to_owned()), origin: origin.clone() };
    table.insert(last.clone(), Node::Leaf(leaf));
    true
}

/// Lays `upper` over `base`. Of a value and its `_file` the upper layer's choice replaces the other kind below it.
pub(super) fn overlay(base: &mut Table, upper: Table, problems: &mut Vec<Problem>) {
    for (name, node) in upper {
        match (base.get_mut(&name), node) {
            (Some(Node::Table(below)), Node::Table(above)) => overlay(below, above, problems),
            (Some(Node::Table(_)), Node::Leaf(leaf)) => {
                problems.push(Problem::new(&leaf.key, Some(&leaf.origin), "is a section, not a value".into()));
            }
            (_, Node::Leaf(leaf)) => {
                replace_counterpart(base, &name, &leaf.origin);
                base.insert(name, Node::Leaf(leaf));
            }
            (_, table) => {
                base.insert(name, table);
            }
        }
    }
}

fn replace_counterpart(base: &mut Table, name: &str, origin: &Origin) {
    let counterpart = name.strip_suffix("_file").map_or_else(|| format!("{name}_file"), str::to_owned);
    if let Some(Node::Leaf(below)) = base.get(&counterpart)
        && below.origin.rank() < origin.rank()
    {
        base.remove(&counterpart);
    }
}
