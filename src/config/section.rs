//! Typed reading of one section. A bad value is recorded and replaced by a stand-in, so that all are found in one go.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;
use toml::Value;

use super::tree::{Leaf, Node, Table, join};
use super::{Entry, Problem, Source, parse};
use crate::telemetry::redact::REDACTED;

/// A secret and the file it was read from.
pub(super) struct Secret {
    pub value: SecretString,
    pub file: Option<PathBuf>,
}

/// What reading has found so far, shared by all sections.
#[derive(Default)]
pub(super) struct Findings {
    pub problems: Vec<Problem>,
    pub entries: Vec<Entry>,
    pub known: BTreeSet<String>,
}

#[derive(Clone)]
pub(super) struct Reader<'a> {
    pub source: &'a dyn Source,
    pub findings: Rc<RefCell<Findings>>,
}

pub(super) struct Section<'a> {
    reader: Reader<'a>,
    path: String,
    table: Table,
}

impl<'a> Section<'a> {
    pub(super) fn root(reader: Reader<'a>, table: Table) -> Self {
        Self { reader, path: String::new(), table }
    }

    /// The sub-section of that name, empty when there is none.
    pub(super) fn section(&mut self, name: &str) -> Section<'a> {
        let table = self.take_table(name);
        Section { reader: self.reader.clone(), path: join(&self.path, name), table }
    }

    /// A section that is read from a table put together by the caller.
    pub(super) fn with_table(&self, path: &str, table: Table) -> Section<'a> {
        Section { reader: self.reader.clone(), path: path.to_owned(), table }
    }

    pub(super) fn take_table(&mut self, name: &str) -> Table {
        match self.table.remove(name) {
            Some(Node::Table(table)) => table,
            Some(Node::Leaf(leaf)) => {
                self.problem_at(&leaf, "is a section, not a value");
                Table::new()
            }
            None => Table::new(),
        }
    }

    /// Reports what nobody asked for.
    pub(super) fn finish(self) {
        for (name, node) in &self.table {
            self.unknown(&join(&self.path, name), node);
        }
    }

    fn unknown(&self, path: &str, node: &Node) {
        match node {
            Node::Leaf(leaf) => self.problem_at(leaf, "is not a key of the configuration"),
            Node::Table(table) if table.is_empty() => {
                self.push(Problem::new(path, None, "is not a section of the configuration".into()));
            }
            Node::Table(table) => {
                for (name, node) in table {
                    self.unknown(&join(path, name), node);
                }
            }
        }
    }

    pub(super) fn problem(&self, name: &str, text: impl Into<String>) {
        let key = if name.is_empty() { self.path.clone() } else { join(&self.path, name) };
        self.push(Problem::new(&key, None, text.into()));
    }

    pub(super) fn report(&self, problems: Vec<Problem>) {
        problems.into_iter().for_each(|problem| self.push(problem));
    }

    fn problem_at(&self, leaf: &Leaf, text: &str) {
        self.push(Problem::new(&leaf.key, Some(&leaf.origin), text.to_owned()));
    }

    fn push(&self, problem: Problem) {
        let problems = &mut self.reader.findings.borrow_mut().problems;
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    fn note(&self, name: &str, value: String, leaf: &Leaf) {
        let entry = Entry { key: join(&self.path, name), value, origin: leaf.origin.to_string() };
        self.reader.findings.borrow_mut().entries.push(entry);
    }

    fn take_leaf(&mut self, name: &str) -> Option<Leaf> {
        self.reader.findings.borrow_mut().known.insert(join(&self.path, name));
        match self.table.remove(name) {
            Some(Node::Leaf(leaf)) => Some(leaf),
            Some(node @ Node::Table(_)) => {
                self.unknown(&join(&self.path, name), &node);
                None
            }
            None => None,
        }
    }

    /// A scalar as text; `None` when absent or empty.
    fn take_text(&mut self, name: &str) -> Option<(String, Leaf)> {
        let leaf = self.take_leaf(name)?;
        let text = match &leaf.value {
            Value::String(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Boolean(flag) => flag.to_string(),
            _ => {
                self.problem_at(&leaf, "must be a single value");
                return None;
            }
        };
        (!text.is_empty()).then_some((text, leaf))
    }

    fn convert<T>(&mut self, name: &str, expected: &str, convert: impl Fn(&str) -> Option<T>) -> Option<T> {
        let (text, leaf) = self.take_text(name)?;
        let converted = convert(&text);
        match &converted {
            Some(_) => self.note(name, text, &leaf),
            None => self.problem_at(&leaf, &format!("{text:?} is not {expected}")),
        }
        converted
    }

    /// A required value: `stand_in` is returned with a recorded problem.
    pub(super) fn require<T>(
        &mut self,
        name: &str,
        expected: &str,
        stand_in: T,
        convert: impl Fn(&str) -> Option<T>,
    ) -> T {
        let before = self.problem_count();
        match self.convert(name, expected, convert) {
            Some(value) => value,
            None => {
                if self.problem_count() == before {
                    self.problem(name, format!("is required: {expected}"));
                }
                stand_in
            }
        }
    }

    pub(super) fn problem_count(&self) -> usize {
        self.reader.findings.borrow().problems.len()
    }

    pub(super) fn optional(&mut self, name: &str) -> Option<String> {
        self.convert(name, "a text", |text| Some(text.to_owned()))
    }

    pub(super) fn optional_as<T: FromStr>(&mut self, name: &str, expected: &str) -> Option<T> {
        self.convert(name, expected, |text| text.parse().ok())
    }

    pub(super) fn optional_with<T>(
        &mut self,
        name: &str,
        expected: &str,
        convert: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        self.convert(name, expected, convert)
    }

    pub(super) fn text(&mut self, name: &str, expected: &str) -> String {
        self.require(name, expected, String::new(), |text| Some(text.to_owned()))
    }

    pub(super) fn one_of(&mut self, name: &str, allowed: &[&str]) -> String {
        let expected = format!("one of {}", allowed.join(", "));
        self.require(name, &expected, String::new(), |text| allowed.contains(&text).then(|| text.to_owned()))
    }

    pub(super) fn parsed<T: FromStr>(&mut self, name: &str, expected: &str, stand_in: T) -> T {
        self.require(name, expected, stand_in, |text| text.parse().ok())
    }

    pub(super) fn flag(&mut self, name: &str) -> bool {
        self.parsed(name, "true or false", false)
    }

    /// A number of at least 1.
    pub(super) fn count(&mut self, name: &str) -> u32 {
        self.require(name, "a number of at least 1", 1, |text| text.parse().ok().filter(|number| *number >= 1))
    }

    pub(super) fn port(&mut self, name: &str) -> u16 {
        self.require(name, "a port (1-65535)", 1, |text| text.parse().ok().filter(|port| *port >= 1))
    }

    /// A duration above zero.
    pub(super) fn duration(&mut self, name: &str) -> Duration {
        let expected = "a duration above zero such as \"90s\", \"5m\" or \"1h30m\"";
        self.require(name, expected, Duration::ZERO, |text| parse::duration(text).filter(|found| !found.is_zero()))
    }

    pub(super) fn size(&mut self, name: &str) -> u64 {
        self.require(name, "a size such as \"1MiB\" or a number of bytes", 0, parse::size)
    }

    /// A list of texts: an array, or a comma-separated text.
    pub(super) fn list<T>(&mut self, name: &str, expected: &str, convert: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let Some(leaf) = self.take_leaf(name) else {
            return Vec::new();
        };
        let Some(items) = items_of(&leaf.value) else {
            self.problem_at(&leaf, "must be a list of texts");
            return Vec::new();
        };
        self.note(name, items.join(","), &leaf);
        let mut converted = Vec::new();
        for item in &items {
            match convert(item) {
                Some(value) => converted.push(value),
                None => self.problem_at(&leaf, &format!("{item:?} is not {expected}")),
            }
        }
        converted
    }

    /// A secret given as `name` or in a file named by `name_file`. Its value is in no message.
    pub(super) fn secret(&mut self, name: &str) -> Option<Secret> {
        let file_name = format!("{name}_file");
        match (self.take_text(name), self.take_text(&file_name)) {
            (Some((_, value)), Some((_, file))) => {
                let text = format!("and {} ({}) are both set: give one", file.key, file.origin);
                self.problem_at(&value, &text);
                None
            }
            (Some((text, leaf)), None) => {
                self.note(name, REDACTED.to_owned(), &leaf);
                Some(Secret { value: text.into(), file: None })
            }
            (None, Some((path, leaf))) => self.secret_from(&path, &file_name, &leaf),
            (None, None) => None,
        }
    }

    /// A file that can be read. Its path even when it cannot: that is reported.
    pub(super) fn file(&mut self, name: &str) -> Option<PathBuf> {
        let (path, leaf) = self.take_text(name)?;
        let path = self.resolved(&path, &leaf);
        self.note(name, path.display().to_string(), &leaf);
        if let Err(error) = self.reader.source.read(&path) {
            self.problem_at(&leaf, &format!("{} cannot be read: {error}", path.display()));
        }
        Some(path)
    }

    fn secret_from(&mut self, path: &str, file_name: &str, leaf: &Leaf) -> Option<Secret> {
        let path = self.resolved(path, leaf);
        self.note(file_name, path.display().to_string(), leaf);
        match self.reader.source.read(&path) {
            Ok(text) if text.trim().is_empty() => {
                self.problem_at(leaf, &format!("{} is empty", path.display()));
                None
            }
            Ok(text) => Some(Secret { value: text.trim().to_owned().into(), file: Some(path) }),
            Err(error) => {
                self.problem_at(leaf, &format!("{} cannot be read: {error}", path.display()));
                None
            }
        }
    }

    fn resolved(&self, path: &str, leaf: &Leaf) -> PathBuf {
        leaf.origin.directory().map_or_else(|| Path::new(path).to_owned(), |directory| directory.join(path))
    }

    /// Whether any of these keys has a value here.
    pub(super) fn names_any(table: &Table) -> bool {
        table.values().any(|node| match node {
            Node::Leaf(leaf) => leaf.value.as_str() != Some(""),
            Node::Table(_) => true,
        })
    }
}

fn items_of(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        Value::String(text) => {
            Some(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
        }
        _ => None,
    }
}
