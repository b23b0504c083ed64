//! Elasticsearch's query DSL: the queries that test columns.

use serde_json::Value;

use super::TERMS_MAX;
use super::ast::{Fuzziness, Leaf, Limit, Minimum, Node, Pattern, RangeTest, Scalar, Target, Test};
use super::dsl::{boosted, leaf};
use super::error::{Result, illegal, parsing};
use super::json::Object;

/// Reads the query `name` with this body.
pub(super) fn parse(name: &str, body: &Value) -> Result<Node> {
    match name {
        "terms" => return terms(body),
        "multi_match" => return multi_match(body),
        _ => {}
    }
    let (field, value) = Object::open(name, body)?.single()?;
    let target = Target::One(field.to_owned());
    // `{FIELD: value}` is short for `{FIELD: {KEY: value}}`.
    let short = |key: &str| match value {
        Value::Object(_) => value.clone(),
        scalar => serde_json::json!({ key: scalar }),
    };
    match name {
        "match" => matches(target, &short("query")),
        "match_phrase" => phrase("match_phrase", target, &short("query")),
        "match_phrase_prefix" => phrase("match_phrase_prefix", target, &short("query")),
        "term" => {
            let body = short("value");
            let object = Object::new("term", &body, &["value", "boost", "case_insensitive", "_name"])?;
            let value = Scalar::from_json(object.need("value")?, "term")?;
            let case_insensitive = object.boolean("case_insensitive")?.unwrap_or(false);
            boosted(leaf(target, Test::Term { value, case_insensitive }), object)
        }
        "range" => range(target, value),
        "prefix" => pattern("prefix", &["value"], Pattern::Prefix, target, &short("value")),
        "wildcard" => pattern("wildcard", &["value", "wildcard"], Pattern::Wildcard, target, &short("value")),
        "regexp" => pattern("regexp", &["value"], Pattern::Regexp, target, &short("value")),
        _ => fuzzy(target, &short("value")),
    }
}

fn matches(target: Target, body: &Value) -> Result<Node> {
    let known =
        ["query", "operator", "minimum_should_match", "fuzziness", "zero_terms_query", "lenient", "boost", "_name"];
    let object = Object::new("match", body, &known)?;
    let test = match_test(object)?;
    let lenient = object.boolean("lenient")?.unwrap_or(false);
    boosted(Node::Leaf(Leaf { target, test, lenient }), object)
}

fn match_test(object: Object<'_>) -> Result<Test> {
    let empty_matches_all = match object.text("zero_terms_query")? {
        None | Some("none") => false,
        Some("all") => true,
        Some(other) => return Err(parsing(format!("Unsupported zero_terms_query value [{other}]"))),
    };
    Ok(Test::Match {
        text: Scalar::from_json(object.need("query")?, object.name)?,
        all: operator_is_and(object, "operator")?,
        minimum: object.get("minimum_should_match").map(Minimum::from_json).transpose()?,
        fuzziness: object.get("fuzziness").map(Fuzziness::from_json).transpose()?,
        empty_matches_all,
    })
}

/// Whether `operator` or `default_operator` says `and`.
pub(super) fn operator_is_and(object: Object<'_>, key: &str) -> Result<bool> {
    match object.text(key)?.map(str::to_ascii_lowercase).as_deref() {
        None | Some("or") => Ok(false),
        Some("and") => Ok(true),
        Some(other) => Err(illegal(format!("operator needs to be either OR or AND, but not [{other}]"))),
    }
}

fn phrase(name: &str, target: Target, body: &Value) -> Result<Node> {
    let prefix = name == "match_phrase_prefix";
    let mut known = vec!["query", "slop", "boost", "_name"];
    if prefix {
        known.push("max_expansions");
    }
    let object = Object::new(name, body, &known)?;
    boosted(leaf(target, phrase_test(object, prefix)?), object)
}

fn phrase_test(object: Object<'_>, prefix: bool) -> Result<Test> {
    let slop = object.count("slop", SLOP_MAX)?.unwrap_or(0) as u32;
    if prefix && slop > 0 {
        return Err(illegal(format!("[{}] does not support [slop]", object.name)));
    }
    Ok(Test::Phrase {
        text: Scalar::from_json(object.need("query")?, object.name)?,
        slop,
        prefix,
        max_expansions: object.count("max_expansions", 1_000)?.unwrap_or(50) as u32,
    })
}

/// How far apart the words of a phrase may be: more is a question about the same text, not about a phrase.
pub(super) const SLOP_MAX: u64 = 1_000;

fn multi_match(body: &Value) -> Result<Node> {
    let known = [
        "query",
        "fields",
        "type",
        "operator",
        "minimum_should_match",
        "fuzziness",
        "zero_terms_query",
        "tie_breaker",
        "slop",
        "max_expansions",
        "lenient",
        "boost",
        "_name",
    ];
    let object = Object::new("multi_match", body, &known)?;
    let kind = object.text("type")?.unwrap_or("best_fields");
    let default_tie_breaker = match kind {
        "best_fields" | "phrase" | "phrase_prefix" => 0.0,
        // The sum of all columns' scores.
        "most_fields" => 1.0,
        other => {
            return Err(parsing(format!(
                "[multi_match] type [{other}] is not supported; supported are [best_fields, most_fields, phrase, phrase_prefix]"
            )));
        }
    };
    let tie_breaker = object.number("tie_breaker")?.unwrap_or(default_tie_breaker) as f32;
    let fields: Vec<_> = object.texts("fields")?.iter().map(|field| field_with_boost(field)).collect::<Result<_>>()?;
    let target = if fields.is_empty() { Target::Default } else { Target::Many { fields, tie_breaker } };
    let lenient = object.boolean("lenient")?.unwrap_or(target == Target::Default);
    let test = match kind {
        "phrase" | "phrase_prefix" => phrase_test(object, kind == "phrase_prefix")?,
        _ => match_test(object)?,
    };
    boosted(Node::Leaf(Leaf { target, test, lenient }), object)
}

/// Reads `title^2`.
pub(super) fn field_with_boost(field: &str) -> Result<(String, f32)> {
    match field.split_once('^') {
        None => Ok((field.to_owned(), 1.0)),
        Some((name, boost)) => match boost.parse::<f32>() {
            Ok(boost) if boost.is_finite() && boost >= 0.0 => Ok((name.to_owned(), boost)),
            _ => Err(illegal(format!("[{field}] has no valid boost"))),
        },
    }
}

fn terms(body: &Value) -> Result<Node> {
    let object = Object::open("terms", body)?;
    let mut fields = object.map.iter().filter(|(key, _)| !["boost", "_name"].contains(&key.as_str()));
    let (Some((field, values)), None) = (fields.next(), fields.next()) else {
        return Err(parsing("[terms] query requires exactly one field name"));
    };
    let Value::Array(values) = values else {
        return Err(parsing(format!("[terms] query does not support [{field}] without an array of values")));
    };
    if values.len() > TERMS_MAX {
        return Err(illegal(format!(
            "The number of terms [{}] used in the Terms Query request has exceeded the allowed maximum of [{TERMS_MAX}]",
            values.len()
        )));
    }
    let values = values.iter().map(|value| Scalar::from_json(value, "terms")).collect::<Result<_>>()?;
    boosted(leaf(Target::One(field.clone()), Test::Terms(values)), object)
}

fn range(target: Target, body: &Value) -> Result<Node> {
    let known = [
        "gt",
        "gte",
        "lt",
        "lte",
        "from",
        "to",
        "include_lower",
        "include_upper",
        "format",
        "time_zone",
        "relation",
        "boost",
        "_name",
    ];
    let object = Object::new("range", body, &known)?;
    match object.text("relation")?.map(str::to_ascii_uppercase).as_deref() {
        None | Some("INTERSECTS" | "WITHIN" | "CONTAINS") => {}
        Some(other) => return Err(illegal(format!("[range] query does not support relation [{other}]"))),
    }
    let limit = |exclusive: &str, inclusive: &str, either: &str, include: &str| -> Result<Option<Limit>> {
        for (key, included) in
            [(exclusive, false), (inclusive, true), (either, object.boolean(include)?.unwrap_or(true))]
        {
            if let Some(value) = object.get(key) {
                return Ok(Some(Limit { value: Scalar::from_json(value, "range")?, included }));
            }
        }
        Ok(None)
    };
    let test = RangeTest {
        lower: limit("gt", "gte", "from", "include_lower")?,
        upper: limit("lt", "lte", "to", "include_upper")?,
        format: object.text("format")?.map(str::to_owned),
        time_zone: object.text("time_zone")?.map(str::to_owned),
    };
    boosted(leaf(target, Test::Range(test)), object)
}

fn pattern(name: &str, keys: &[&str], make: fn(String) -> Pattern, target: Target, body: &Value) -> Result<Node> {
    let mut known = vec!["boost", "_name", "case_insensitive", "rewrite"];
    known.extend(keys);
    let object = Object::new(name, body, &known)?;
    let key = keys.iter().find(|key| object.get(key).is_some()).unwrap_or(&"value");
    let value = Scalar::from_json(object.need(key)?, name)?.text();
    let case_insensitive = object.boolean("case_insensitive")?.unwrap_or(false);
    boosted(leaf(target, Test::Pattern { pattern: make(value), case_insensitive, normalize: false }), object)
}

fn fuzzy(target: Target, body: &Value) -> Result<Node> {
    let object = Object::new("fuzzy", body, &["value", "fuzziness", "boost", "_name"])?;
    let value = Scalar::from_json(object.need("value")?, "fuzzy")?.text();
    let fuzziness = object.get("fuzziness").map(Fuzziness::from_json).transpose()?.unwrap_or(Fuzziness::Auto(3, 6));
    boosted(leaf(target, Test::Fuzzy { value, fuzziness }), object)
}
