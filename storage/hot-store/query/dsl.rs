//! Elasticsearch's query DSL, read into a [`Node`]: the queries that combine others.
//! Source: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/query-dsl.html>.

use serde_json::Value;

use super::ast::{BoolNode, Leaf, Minimum, Node, Target, Test};
use super::error::{Result, bad, illegal, nearest, parsing};
use super::json::Object;
use super::{CLAUSES_MAX, DEPTH_MAX, dsl_leaf, query_string};

/// The queries there are.
const QUERIES: &[&str] = &[
    "bool",
    "constant_score",
    "dis_max",
    "exists",
    "fuzzy",
    "ids",
    "match",
    "match_all",
    "match_none",
    "match_phrase",
    "match_phrase_prefix",
    "multi_match",
    "prefix",
    "query_string",
    "range",
    "regexp",
    "term",
    "terms",
    "wildcard",
];

/// Reads a query; `boosting`, `match_bool_prefix` and `simple_query_string` are known and refused.
pub(super) fn parse(query: &Value) -> Result<Node> {
    Reader { clauses: 0 }.node(query, 0)
}

struct Reader {
    clauses: usize,
}

impl Reader {
    fn node(&mut self, query: &Value, depth: usize) -> Result<Node> {
        self.clauses += 1;
        if self.clauses > CLAUSES_MAX {
            return Err(too_many_clauses());
        }
        if depth > DEPTH_MAX {
            return Err(illegal(format!(
                "The nested depth of the query exceeds the maximum nested depth for queries set in [{DEPTH_MAX}]"
            )));
        }
        let object = Object::open("query", query)?;
        let mut entries = object.map.iter();
        let (Some((name, body)), None) = (entries.next(), entries.next()) else {
            return Err(match object.map.keys().nth(1) {
                Some(second) => parsing(format!("[query] malformed query, expected one query, found also [{second}]")),
                None => illegal("query malformed, empty clause found"),
            });
        };
        self.named(name, body, depth)
    }

    fn named(&mut self, name: &str, body: &Value, depth: usize) -> Result<Node> {
        match name {
            "bool" => self.boolean(body, depth),
            "constant_score" => {
                let object = Object::new(name, body, &["filter", "boost", "_name"])?;
                let filter = self.node(object.need("filter")?, depth + 1)?;
                boosted(Node::Constant(Box::new(filter)), object)
            }
            "dis_max" => {
                let object = Object::new(name, body, &["queries", "tie_breaker", "boost", "_name"])?;
                let nodes = self.nodes("queries", object.need("queries")?, depth)?;
                let tie_breaker = object.number("tie_breaker")?.unwrap_or(0.0) as f32;
                boosted(Node::DisMax { nodes, tie_breaker }, object)
            }
            "match_all" => boosted(Node::All, Object::new(name, body, &["boost", "_name"])?),
            "match_none" => boosted(Node::None, Object::new(name, body, &["boost", "_name"])?),
            "exists" => {
                let object = Object::new(name, body, &["field", "boost", "_name"])?;
                let field = object.text("field")?.ok_or_else(|| parsing("[exists] must be provided with a [field]"))?;
                boosted(leaf(Target::One(field.to_owned()), Test::Exists), object)
            }
            "ids" => {
                let object = Object::new(name, body, &["values", "boost", "_name"])?;
                boosted(Node::Ids(object.texts("values")?), object)
            }
            "query_string" => query_string::from_json(body),
            "boosting" | "match_bool_prefix" | "simple_query_string" => {
                Err(parsing(format!("query [{name}] is not supported; use [bool], [match] or [query_string]")))
            }
            name if QUERIES.contains(&name) => dsl_leaf::parse(name, body),
            unknown => Err(parsing(format!("unknown query [{unknown}]; {}", nearest(unknown, QUERIES)))),
        }
    }

    fn boolean(&mut self, body: &Value, depth: usize) -> Result<Node> {
        let known =
            ["must", "should", "filter", "must_not", "minimum_should_match", "boost", "_name", "adjust_pure_negative"];
        let object = Object::new("bool", body, &known)?;
        let mut clauses = |key: &str| match object.get(key) {
            Some(value) => self.nodes(key, value, depth),
            None => Ok(Vec::new()),
        };
        let node = BoolNode {
            must: clauses("must")?,
            should: clauses("should")?,
            filter: clauses("filter")?,
            must_not: clauses("must_not")?,
            minimum: object.get("minimum_should_match").map(Minimum::from_json).transpose()?,
        };
        boosted(Node::Bool(node), object)
    }

    /// One query or a list of them.
    fn nodes(&mut self, key: &str, value: &Value, depth: usize) -> Result<Vec<Node>> {
        match value {
            Value::Array(items) => items.iter().map(|item| self.node(item, depth + 1)).collect(),
            Value::Object(_) => Ok(vec![self.node(value, depth + 1)?]),
            other => Err(parsing(format!("[{key}] needs a query or an array of queries, got {other}"))),
        }
    }
}

/// A test of a column that is refused where its type does not fit.
pub(super) fn leaf(target: Target, test: Test) -> Node {
    Node::Leaf(Leaf { target, test, lenient: false })
}

/// The query with the `boost` of its body.
pub(super) fn boosted(node: Node, body: Object<'_>) -> Result<Node> {
    match body.number("boost")? {
        Some(boost) if boost < 0.0 => {
            Err(illegal(format!("negative [boost] are not allowed in [{}], got {boost}", body.name)))
        }
        Some(boost) if boost != 1.0 => Ok(Node::Boost(Box::new(node), boost as f32)),
        _ => Ok(node),
    }
}

/// The error for a query that is too large.
pub(super) fn too_many_clauses() -> contract::SearchError {
    bad(
        "too_many_nested_clauses",
        format!("Query contains too many nested clauses; maxClauseCount is set to {CLAUSES_MAX}"),
    )
}
