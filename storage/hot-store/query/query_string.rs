//! The query string: Lucene's query syntax as Elasticsearch's `query_string` reads it.
//! Source: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/query-dsl-query-string-query.html#query-string-syntax>.

use serde_json::{Value, json};

use super::ast::{BoolNode, Fuzziness, Leaf, Limit, Minimum, Node, Pattern, RangeTest, Scalar, Target, Test};
use super::dsl::{boosted, too_many_clauses};
use super::dsl_leaf::{SLOP_MAX, field_with_boost, operator_is_and};
use super::error::{Result, bad};
use super::json::Object;
use super::query_string_tokens::{Token, Tokens, Word};
use super::{CLAUSES_MAX, DEPTH_MAX};

/// Reads the body of `query_string`.
pub(super) fn from_json(body: &Value) -> Result<Node> {
    let known = [
        "query",
        "default_field",
        "fields",
        "default_operator",
        "lenient",
        "minimum_should_match",
        "tie_breaker",
        "analyze_wildcard",
        "allow_leading_wildcard",
        "phrase_slop",
        "time_zone",
        "type",
        "boost",
        "_name",
    ];
    let object = Object::new("query_string", body, &known)?;
    if let Some(kind) = object.text("type")?.filter(|kind| *kind != "best_fields") {
        return Err(super::error::parsing(format!("[query_string] type [{kind}] is not supported")));
    }
    let tie_breaker = object.number("tie_breaker")?.unwrap_or(0.0) as f32;
    let fields: Vec<_> = object.texts("fields")?.iter().map(|field| field_with_boost(field)).collect::<Result<_>>()?;
    let target = match object.text("default_field")? {
        _ if !fields.is_empty() => Target::Many { fields, tie_breaker },
        Some("*") | None => Target::Default,
        Some(field) => Target::One(field.to_owned()),
    };
    let text = object.need("query")?;
    let text = text.as_str().ok_or_else(|| object.wrong("query", "a string", text))?;
    let parser = Parser {
        tokens: Tokens::read(text)?,
        lenient: object.boolean("lenient")?.unwrap_or(target == Target::Default),
        operator_is_and: operator_is_and(object, "default_operator")?,
        allow_leading_wildcard: object.boolean("allow_leading_wildcard")?.unwrap_or(true),
        phrase_slop: object.count("phrase_slop", SLOP_MAX)?.unwrap_or(0) as u32,
        time_zone: object.text("time_zone")?.map(str::to_owned),
        minimum: object.get("minimum_should_match").map(Minimum::from_json).transpose()?,
        text,
        clauses: 0,
    };
    boosted(parser.parse(&target)?, object)
}

/// Reads a query string with Elasticsearch's defaults.
#[cfg(test)]
pub(super) fn parse(text: &str) -> Result<Node> {
    from_json(&json!({ "query": text }))
}

struct Parser<'a> {
    text: &'a str,
    tokens: Tokens,
    lenient: bool,
    operator_is_and: bool,
    allow_leading_wildcard: bool,
    phrase_slop: u32,
    time_zone: Option<String>,
    minimum: Option<Minimum>,
    clauses: usize,
}

/// How a clause stands to the others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Occur {
    Must,
    Should,
    Not,
}

impl Parser<'_> {
    fn parse(mut self, target: &Target) -> Result<Node> {
        if self.tokens.peek().is_none() {
            return Ok(Node::None);
        }
        let node = self.clauses_of(target, 0)?;
        match self.tokens.next() {
            None => Ok(node),
            Some(token) => Err(self.wrong(&format!("unexpected {token}"))),
        }
    }

    /// Clauses up to the end or a closing parenthesis, with the operators between them as Lucene's classic
    /// parser weighs them: `AND` makes both of its sides required, `OR` only leaves them optional.
    fn clauses_of(&mut self, target: &Target, depth: usize) -> Result<Node> {
        if depth > DEPTH_MAX {
            return Err(self.wrong(&format!("parentheses nest deeper than {DEPTH_MAX}")));
        }
        let mut clauses: Vec<(Occur, Node)> = Vec::new();
        while !matches!(self.tokens.peek(), None | Some(Token::Close)) {
            let conjunction = match self.tokens.peek() {
                Some(Token::And) => Some(true),
                Some(Token::Or) => Some(false),
                _ => None,
            };
            if conjunction.is_some() {
                if clauses.is_empty() {
                    return Err(self.wrong("an operator without a left side"));
                }
                self.tokens.next();
            }
            let modifier = match self.tokens.peek() {
                Some(Token::Plus) => Some(Occur::Must),
                Some(Token::Minus | Token::Not) => Some(Occur::Not),
                _ => None,
            };
            if modifier.is_some() {
                self.tokens.next();
            }
            if let Some((last, _)) = clauses.last_mut().filter(|(occur, _)| *occur != Occur::Not) {
                match conjunction {
                    Some(true) => *last = Occur::Must,
                    Some(false) if self.operator_is_and => *last = Occur::Should,
                    _ => {}
                }
            }
            let occur = match modifier {
                Some(occur) => occur,
                None if self.operator_is_and && conjunction != Some(false) => Occur::Must,
                None if !self.operator_is_and && conjunction == Some(true) => Occur::Must,
                None => Occur::Should,
            };
            clauses.push((occur, self.clause(target, depth)?));
        }
        if clauses.is_empty() {
            return Err(self.wrong("an empty group or a missing clause"));
        }
        Ok(combined(clauses, self.minimum.filter(|_| depth == 0)))
    }

    fn clause(&mut self, target: &Target, depth: usize) -> Result<Node> {
        self.clauses += 1;
        if self.clauses > CLAUSES_MAX {
            return Err(too_many_clauses());
        }
        let token = self.tokens.next();
        let field = match (&token, self.tokens.peek()) {
            (Some(Token::Word(word)), Some(Token::Colon)) => Some(word.plain()),
            (Some(Token::Star), Some(Token::Colon)) => Some("*".to_owned()),
            _ => None,
        };
        let Some(field) = field else {
            return self.value(token, target, depth);
        };
        self.tokens.next();
        let token = self.tokens.next();
        if field == "_exists_" {
            return match token {
                Some(Token::Word(word)) => self.leaf(&Target::One(word.plain()), Test::Exists),
                _ => Err(self.wrong("[_exists_:] without the name of a field")),
            };
        }
        let target = match field.as_str() {
            "*" if token == Some(Token::Star) => return self.boost_of(Node::All),
            "*" => Target::Default,
            name if name.contains('*') => Target::Many { fields: vec![(field, 1.0)], tie_breaker: 0.0 },
            _ => Target::One(field),
        };
        self.value(token, &target, depth)
    }

    /// What stands after the name of a field, or alone.
    fn value(&mut self, token: Option<Token>, target: &Target, depth: usize) -> Result<Node> {
        match token {
            Some(Token::Open) => {
                let node = self.clauses_of(target, depth + 1)?;
                match self.tokens.next() {
                    Some(Token::Close) => self.boost_of(node),
                    _ => Err(self.wrong("a parenthesis is not closed")),
                }
            }
            Some(Token::Star) => match target {
                Target::Default => self.boost_of(Node::All),
                Target::One(name) => self.leaf(&Target::One(name.clone()), Test::Exists),
                many @ Target::Many { .. } => self.leaf(many, Test::Exists),
            },
            Some(Token::Word(word)) => self.word(&word, target),
            Some(Token::Quoted(text)) => {
                let slop = match self.tokens.tilde() {
                    None => self.phrase_slop,
                    Some(slop) => match slop.parse::<f64>() {
                        Ok(slop) if (0.0..=SLOP_MAX as f64).contains(&slop) => slop as u32,
                        _ => return Err(self.wrong(&format!("[{slop}] is no slop of a phrase"))),
                    },
                };
                let text = Scalar::Text(text);
                self.leaf(target, Test::Phrase { text, slop, prefix: false, max_expansions: 0 })
            }
            Some(Token::Regexp(text)) => self.pattern(Pattern::Regexp(text), target),
            Some(Token::Range { lower, upper, lower_included, upper_included }) => {
                let limit =
                    |value: Option<String>, included| value.map(|value| Limit { value: Scalar::Text(value), included });
                self.range(limit(lower, lower_included), limit(upper, upper_included), target)
            }
            Some(Token::Compare { operator, value }) => {
                let limit = Some(Limit { value: Scalar::Text(value), included: operator.ends_with('=') });
                if operator.starts_with('>') {
                    self.range(limit, None, target)
                } else {
                    self.range(None, limit, target)
                }
            }
            Some(token) => Err(self.wrong(&format!("unexpected {token}"))),
            None => Err(self.wrong("the query ends where a clause is missing")),
        }
    }

    fn word(&mut self, word: &Word, target: &Target) -> Result<Node> {
        if let Some(edits) = self.tokens.tilde() {
            let fuzziness = match edits.as_str() {
                "" => Fuzziness::Auto(3, 6),
                edits => Fuzziness::from_json(&json!(edits))?,
            };
            return self.leaf(target, Test::Fuzzy { value: word.plain(), fuzziness });
        }
        if !word.has_wildcard() {
            let test = Test::Match {
                text: Scalar::Text(word.plain()),
                all: self.operator_is_and,
                minimum: None,
                fuzziness: None,
                empty_matches_all: false,
            };
            return self.leaf(target, test);
        }
        if !self.allow_leading_wildcard && word.starts_with_wildcard() {
            return Err(self.wrong("'*' or '?' not allowed as first character"));
        }
        match word.prefix() {
            Some(prefix) => self.pattern(Pattern::Prefix(prefix), target),
            None => self.pattern(Pattern::Wildcard(word.raw.clone()), target),
        }
    }

    fn pattern(&mut self, pattern: Pattern, target: &Target) -> Result<Node> {
        self.leaf(target, Test::Pattern { pattern, case_insensitive: false, normalize: true })
    }

    fn range(&mut self, lower: Option<Limit>, upper: Option<Limit>, target: &Target) -> Result<Node> {
        let time_zone = self.time_zone.clone();
        self.leaf(target, Test::Range(RangeTest { lower, upper, format: None, time_zone }))
    }

    fn leaf(&mut self, target: &Target, test: Test) -> Result<Node> {
        let lenient = self.lenient || *target == Target::Default;
        self.boost_of(Node::Leaf(Leaf { target: target.clone(), test, lenient }))
    }

    /// Takes `^2` if it stands here.
    fn boost_of(&mut self, node: Node) -> Result<Node> {
        let Some(boost) = self.tokens.caret() else {
            return Ok(node);
        };
        match boost.parse::<f32>() {
            Ok(boost) if boost.is_finite() && boost >= 0.0 => Ok(Node::Boost(Box::new(node), boost)),
            _ => Err(self.wrong(&format!("[^{boost}] is no boost"))),
        }
    }

    fn wrong(&self, reason: &str) -> contract::SearchError {
        bad("query_shard_exception", format!("Failed to parse query [{}]: {reason}", self.text))
    }
}

fn combined(mut clauses: Vec<(Occur, Node)>, minimum: Option<Minimum>) -> Node {
    if clauses.len() == 1 && clauses[0].0 != Occur::Not {
        return clauses.remove(0).1;
    }
    let mut node = BoolNode { minimum, ..BoolNode::default() };
    for (occur, clause) in clauses {
        match occur {
            Occur::Must => node.must.push(clause),
            Occur::Should => node.should.push(clause),
            Occur::Not => node.must_not.push(clause),
        }
    }
    Node::Bool(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A short form: `+` required, `-` forbidden, groups in parentheses.
    fn show(node: &Node) -> String {
        match node {
            Node::Bool(node) => {
                let part = |sign: &str, nodes: &[Node]| {
                    nodes.iter().map(|node| format!("{sign}{}", show(node))).collect::<Vec<_>>()
                };
                let parts = [part("+", &node.must), part("", &node.should), part("-", &node.must_not)].concat();
                format!("({})", parts.join(" "))
            }
            Node::Boost(inner, boost) => format!("{}^{boost}", show(inner)),
            Node::All => "*:*".to_owned(),
            Node::Leaf(leaf) => {
                let field = match &leaf.target {
                    Target::One(name) => format!("{name}:"),
                    Target::Many { .. } => "many:".to_owned(),
                    Target::Default => String::new(),
                };
                format!("{field}{}", show_test(&leaf.test))
            }
            other => format!("{other:?}"),
        }
    }

    fn show_test(test: &Test) -> String {
        match test {
            Test::Match { text, .. } => text.text(),
            Test::Phrase { text, slop, .. } => format!("\"{}\"~{slop}", text.text()),
            Test::Exists => "exists".to_owned(),
            Test::Pattern { pattern, .. } => format!("{pattern:?}"),
            Test::Fuzzy { value, .. } => format!("{value}~"),
            Test::Range(range) => {
                let end = |limit: &Option<Limit>| {
                    limit.as_ref().map_or("*".to_owned(), |limit| format!("{}{}", limit.value.text(), limit.included))
                };
                format!("[{} {}]", end(&range.lower), end(&range.upper))
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn operators_weigh_as_in_lucene() {
        let cases = [
            ("a b", "(a b)"),
            ("a AND b", "(+a +b)"),
            ("a OR b AND c", "(+b +c a)"),
            ("a && b || c", "(+a +b c)"),
            ("a NOT b", "(a -b)"),
            ("NOT a", "(-a)"),
            ("+a -b !c", "(+a -b -c)"),
            ("(a OR b) AND c", "(+(a b) +c)"),
            ("title:(a OR b) c", "((title:a title:b) c)"),
            ("a-b", "a-b"),
            ("type:PushEvent AND repo_name:rust*", "(+type:PushEvent +repo_name:Prefix(\"rust\"))"),
            ("title:\"memory leak\"~2^3", "title:\"memory leak\"~2^3"),
            ("n:[1 TO 5}", "n:[1true 5false]"),
            ("n:{* TO 5]", "n:[* 5true]"),
            ("n:>=10", "n:[10true *]"),
            ("n:<10", "n:[* 10false]"),
            ("d:[2015-01-01T12:00:00Z TO now-1d/d]", "d:[2015-01-01T12:00:00Ztrue now-1d/dtrue]"),
            ("_exists_:title", "title:exists"),
            ("title:*", "title:exists"),
            ("*", "*:*"),
            ("*:*", "*:*"),
            ("a\\:b", "a:b"),
            ("a\\*", "a*"),
            ("te?t*", "Wildcard(\"te?t*\")"),
            ("ab~1", "ab~"),
            ("/ab.*/", "Regexp(\"ab.*\")"),
            ("a^2 b", "(a^2 b)"),
            ("AND1 ORx", "(AND1 ORx)"),
            ("\"a AND b\"", "\"a AND b\"~0"),
        ];
        for (text, expected) in cases {
            let node = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(show(&node), expected, "{text}");
        }
    }

    #[test]
    fn a_broken_query_string_is_refused_with_the_query() {
        for text in [
            "(a",
            "a)",
            "AND a",
            "a AND",
            "\"a",
            "title:",
            "[1 TO",
            "n:[1 5]",
            "()",
            "a^x",
            "n:>",
            "/a",
            "\\",
            "NOT",
            "a OR OR b",
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!((error.status, error.kind), (400, "query_shard_exception"), "{text}");
            assert!(error.reason.contains(&format!("[{text}]")), "{text}: {}", error.reason);
        }
        assert!(parse(&"(".repeat(10_000)).is_err());
        assert_eq!(parse(&"a ".repeat(2_000)).expect_err("too many").kind, "too_many_nested_clauses");
    }
}
