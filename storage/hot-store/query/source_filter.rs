//! `_source` and `fields`: which parts of a row a hit shows. A name is that of a column, or of a member of a list of
//! structs: `answers.ttl`.

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
                row.retain(|name, value| {
                    if fits(excludes, name) {
                        return false;
                    }
                    let is_whole = includes.is_empty() || fits(includes, name);
                    let is_shown = |path: &str| (is_whole || fits(includes, path)) && !fits(excludes, path);
                    let Some(structs) = structs(value) else { return is_whole };
                    structs.iter_mut().filter_map(Value::as_object_mut).for_each(|members| {
                        members.retain(|member, _| is_shown(&format!("{name}.{member}")));
                    });
                    is_whole || structs.iter().any(|members| members.as_object().is_some_and(|map| !map.is_empty()))
                });
                Some(Value::Object(row))
            }
        }
    }
}

/// The items, if they are structs.
fn structs(value: &mut Value) -> Option<&mut Vec<Value>> {
    value.as_array_mut().filter(|items| items.first().is_some_and(Value::is_object))
}

/// The values of a column, or of a member of a list of structs, in the row.
pub(super) fn values_of<'a>(row: &'a Map<String, Value>, name: &str) -> Vec<&'a Value> {
    let (column, member) = name.split_once('.').map_or((name, None), |(column, member)| (column, Some(member)));
    match (row.get(column), member) {
        (None, _) => Vec::new(),
        (Some(Value::Array(items)), None) => items.iter().collect(),
        (Some(Value::Array(items)), Some(member)) => items.iter().filter_map(|item| item.get(member)).collect(),
        (Some(single), _) => vec![single],
    }
}

/// The `fields` of a hit: each as a list.
pub(super) fn fields(patterns: &[String], row: &Map<String, Value>) -> Map<String, Value> {
    let mut names = std::collections::BTreeSet::new();
    for (name, value) in row {
        let structs = value.as_array().into_iter().flatten().filter_map(Value::as_object);
        let members: Vec<String> = structs.flat_map(Map::keys).map(|member| format!("{name}.{member}")).collect();
        if members.is_empty() {
            names.insert(name.clone());
        }
        names.extend(members);
    }
    let wanted = names.into_iter().filter(|name| patterns.iter().any(|pattern| name_fits(pattern, name)));
    let listed = wanted.map(|name| {
        let values: Vec<Value> = values_of(row, &name).into_iter().cloned().collect();
        (name, values)
    });
    listed.filter(|(_, values)| !values.is_empty()).map(|(name, values)| (name, Value::Array(values))).collect()
}
