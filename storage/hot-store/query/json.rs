//! Reading request objects: every key is known or named in the error.

use serde_json::{Map, Value};

use super::ast::shape;
use super::error::{Result, parsing};

/// An object of a request with what it is called.
#[derive(Clone, Copy)]
pub(super) struct Object<'a> {
    pub(super) name: &'a str,
    pub(super) map: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// The object, all of whose keys are among `known`; `name` is what it is called in messages.
    pub(super) fn new(name: &'a str, value: &'a Value, known: &[&str]) -> Result<Self> {
        let object = Self::open(name, value)?;
        match object.map.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => {
                Err(parsing(format!("[{name}] does not support [{key}]; {}", super::error::nearest(key, known))))
            }
            None => Ok(object),
        }
    }

    /// The object, whatever its keys.
    pub(super) fn open(name: &'a str, value: &'a Value) -> Result<Self> {
        match value {
            Value::Object(map) => Ok(Self { name, map }),
            other => Err(parsing(format!("[{name}] needs an object, got {}", shape(other)))),
        }
    }

    /// The only entry of `{FIELD: …}`.
    pub(super) fn single(&self) -> Result<(&'a str, &'a Value)> {
        let mut entries = self.map.iter();
        match (entries.next(), entries.next()) {
            (Some((key, value)), None) => Ok((key, value)),
            (Some((first, _)), Some((second, _))) => Err(parsing(format!(
                "[{}] query doesn't support multiple fields, found [{first}] and [{second}]",
                self.name
            ))),
            (None, _) => Err(parsing(format!("[{}] query malformed, empty clause found", self.name))),
        }
    }

    /// A value that is there and not null.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// A value that must be there.
    pub(super) fn need(&self, key: &str) -> Result<&'a Value> {
        self.get(key).ok_or_else(|| parsing(format!("[{}] requires [{key}]", self.name)))
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.get(key).map(|value| value.as_str().ok_or_else(|| self.wrong(key, "a string", value))).transpose()
    }

    /// A boolean, also as text.
    pub(super) fn boolean(&self, key: &str) -> Result<Option<bool>> {
        self.get(key)
            .map(|value| match value {
                Value::Bool(boolean) => Ok(*boolean),
                Value::String(text) if text == "true" => Ok(true),
                Value::String(text) if text == "false" || text.is_empty() => Ok(false),
                other => Err(self.wrong(key, "a boolean", other)),
            })
            .transpose()
    }

    /// A number, also as text; finite.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.get(key)
            .map(|value| {
                let number = match value {
                    Value::Number(number) => number.as_f64(),
                    Value::String(text) => text.trim().parse().ok(),
                    _ => None,
                };
                number.filter(|number| number.is_finite()).ok_or_else(|| self.wrong(key, "a number", value))
            })
            .transpose()
    }

    /// A whole number from 0 to `max`, also as text.
    pub(super) fn count(&self, key: &str, max: u64) -> Result<Option<u64>> {
        self.get(key)
            .map(|value| {
                let number = match value {
                    Value::Number(number) => number.as_u64(),
                    Value::String(text) => text.trim().parse().ok(),
                    _ => None,
                };
                number
                    .filter(|number| *number <= max)
                    .ok_or_else(|| self.wrong(key, &format!("a whole number from 0 to {max}"), value))
            })
            .transpose()
    }

    /// A list of texts, or one text.
    pub(super) fn texts(&self, key: &str) -> Result<Vec<String>> {
        self.get(key).map_or(Ok(Vec::new()), |value| texts(value).ok_or_else(|| self.wrong(key, "strings", value)))
    }

    /// The error for a value of the wrong kind.
    pub(super) fn wrong(&self, key: &str, wanted: &str, value: &Value) -> contract::SearchError {
        parsing(format!("[{}] failed to parse [{key}]: expected {wanted}, got {}", self.name, shape(value)))
    }
}

/// One text or a list of them.
pub(super) fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}
