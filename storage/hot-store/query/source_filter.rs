//! `_source` and `fields`: which parts of a row a hit shows. Rows are flat, so names are whole paths.

use serde_json::{Map, Value};

use super::error::{Result, parsing};
use super::json::{Object, texts};
use super::pattern::name_fits;

/// Which columns of `_source` are shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum SourceFilter {
    All,
    None,
    /// Names or patterns; no includes are all.
    Some {
        includes: Vec<String>,
        excludes: Vec<String>,
    },
}

impl SourceFilter {
    /// Reads `true`, `false`, `"a*"`, `["a", "b"]`, `{"includes": […], "excludes": […]}`.
    pub(super) fn parse(value: Option<&Value>) -> Result<Self> {
        match value {
            None | Some(Value::Null | Value::Bool(true)) => Ok(Self::All),
            Some(Value::Bool(false)) => Ok(Self::None),
            Some(object @ Value::Object(_)) => {
                let object = Object::new("_source", object, &["includes", "include", "excludes", "exclude"])?;
                let both = |plural: &str, single: &str| Ok([object.texts(plural)?, object.texts(single)?].concat());
                Ok(Self::Some { includes: both("includes", "include")?, excludes: both("excludes", "exclude")? })
            }
            Some(value) => match texts(value) {
                Some(includes) => Ok(Self::Some { includes, excludes: Vec::new() }),
                None => Err(parsing("[_source] takes a boolean, names, or [includes] and [excludes]")),
            },
        }
    }

    /// The row with what is shown of it.
    pub(super) fn apply(&self, mut row: Map<String, Value>) -> Option<Value> {
        match self {
            Self::All => Some(Value::Object(row)),
            Self::None => None,
            Self::Some { includes, excludes } => {
                let fits = |patterns: &[String], name: &str| patterns.iter().any(|pattern| name_fits(pattern, name));
                row.retain(|name, _| (includes.is_empty() || fits(includes, name)) && !fits(excludes, name));
                Some(Value::Object(row))
            }
        }
    }
}

/// The `fields` of a hit: each as a list.
pub(super) fn fields(patterns: &[String], row: &Map<String, Value>) -> Map<String, Value> {
    let wanted = row.iter().filter(|(name, _)| patterns.iter().any(|pattern| name_fits(pattern, name)));
    let listed = wanted.map(|(name, value)| match value {
        Value::Array(items) => (name.clone(), items.clone()),
        single => (name.clone(), vec![single.clone()]),
    });
    listed.filter(|(_, items)| !items.is_empty()).map(|(name, items)| (name, Value::Array(items))).collect()
}
