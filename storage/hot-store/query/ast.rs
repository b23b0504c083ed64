//! A query as it was asked, before it meets the columns of an index.

use serde_json::Value;

use super::error::{Result, parsing};

/// A query, or a part of one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// Every row, with the score 1.
    All,
    /// No row.
    None,
    /// A combination.
    Bool(BoolNode),
    /// The best of several, and `tie_breaker` of the others' scores.
    DisMax { nodes: Vec<Node>, tie_breaker: f32 },
    /// The rows of the inner query, all with the score 1.
    Constant(Box<Node>),
    /// The inner query with its score multiplied.
    Boost(Box<Node>, f32),
    /// The rows with these `_id`s.
    Ids(Vec<String>),
    /// A test of columns.
    Leaf(Leaf),
}

/// A combination of queries.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct BoolNode {
    pub(super) must: Vec<Node>,
    pub(super) should: Vec<Node>,
    pub(super) filter: Vec<Node>,
    pub(super) must_not: Vec<Node>,
    /// How many of `should` are needed; by default one if there is neither `must` nor `filter`, else none.
    pub(super) minimum: Option<Minimum>,
}

/// A test of one or several columns.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Leaf {
    pub(super) target: Target,
    pub(super) test: Test,
    /// Whether a column that cannot be tested so (words for a number) is passed over instead of refused.
    pub(super) lenient: bool,
}

/// Which columns a test looks at. Several are a dis-max.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target {
    One(String),
    /// Names or patterns with `*`, each with its boost.
    Many {
        fields: Vec<(String, f32)>,
        tie_breaker: f32,
    },
    /// All columns of words and all exact texts: what a query without a field name searches.
    Default,
}

/// What is asked of a column.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    /// The value as it stands, not analysed.
    Term { value: Scalar, case_insensitive: bool },
    /// One of the values.
    Terms(Vec<Scalar>),
    /// The words of a text.
    Match { text: Scalar, all: bool, minimum: Option<Minimum>, fuzziness: Option<Fuzziness>, empty_matches_all: bool },
    /// The words of a text in order; with `prefix` the last may go on.
    Phrase { text: Scalar, slop: u32, prefix: bool, max_expansions: u32 },
    /// Between two values.
    Range(RangeTest),
    /// There is a value.
    Exists,
    /// A term that fits a pattern; `normalize` lowers its case for a column of words.
    Pattern { pattern: Pattern, case_insensitive: bool, normalize: bool },
    /// A term a few edits away.
    Fuzzy { value: String, fuzziness: Fuzziness },
}

/// A pattern of terms.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Pattern {
    Prefix(String),
    /// `*` any letters, `?` one letter, `\` takes the next as it is.
    Wildcard(String),
    /// A regular expression over the whole term.
    Regexp(String),
}

/// The bounds of a range and how its dates are read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RangeTest {
    pub(super) lower: Option<Limit>,
    pub(super) upper: Option<Limit>,
    pub(super) format: Option<String>,
    pub(super) time_zone: Option<String>,
}

/// One end of a range.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Limit {
    pub(super) value: Scalar,
    pub(super) included: bool,
}

/// A JSON value that is not a container.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
}

impl Scalar {
    /// Reads it from JSON; `of` names what it is for.
    pub(super) fn from_json(value: &Value, of: &str) -> Result<Self> {
        match value {
            Value::String(text) => Ok(Self::Text(text.clone())),
            Value::Bool(boolean) => Ok(Self::Boolean(*boolean)),
            Value::Number(number) => Ok(match number.as_i64() {
                Some(integer) => Self::Integer(integer),
                None => Self::Float(number.as_f64().unwrap_or(f64::INFINITY)),
            }),
            Value::Null => Err(parsing(format!("[{of}] needs a value, got null"))),
            Value::Array(_) | Value::Object(_) => {
                Err(parsing(format!("[{of}] needs a string, number or boolean, got {}", shape(value))))
            }
        }
    }

    /// As text: how it is looked up in a column of text.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Integer(integer) => integer.to_string(),
            Self::Float(float) => float.to_string(),
            Self::Boolean(boolean) => boolean.to_string(),
        }
    }
}

/// How many of several clauses must hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Minimum {
    /// That many, or all but that many if negative.
    Count(i64),
    /// That part, or all but that part if negative.
    Percent(f64),
}

impl Minimum {
    /// Reads `2`, `-1`, `"75%"`, `"-25%"`.
    pub(super) fn from_json(value: &Value) -> Result<Self> {
        let text = match value {
            Value::Number(number) if number.is_i64() => number.to_string(),
            Value::String(text) => text.trim().to_owned(),
            other => return Err(parsing(format!("[minimum_should_match] got [{}]", shape(other)))),
        };
        let parsed = match text.strip_suffix('%') {
            Some(percent) => percent.parse().ok().filter(|part: &f64| part.is_finite()).map(Self::Percent),
            None => text.parse().ok().map(Self::Count),
        };
        parsed.ok_or_else(|| {
            parsing(format!("[minimum_should_match] takes a number or a percentage, not [{text}]; combinations with [<] are not supported"))
        })
    }

    /// How many of `clauses`; a part is rounded down.
    pub(super) fn of(self, clauses: usize) -> usize {
        let all = clauses as i64;
        let wanted = match self {
            Self::Count(count) if count < 0 => all.saturating_add(count),
            Self::Count(count) => count,
            Self::Percent(part) if part < 0.0 => all - (clauses as f64 * -part / 100.0) as i64,
            Self::Percent(part) => (clauses as f64 * part / 100.0) as i64,
        };
        usize::try_from(wanted).unwrap_or(0)
    }
}

/// How many edits away a word may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fuzziness {
    /// By the length of the word: 0 below the first, 1 below the second, else 2.
    Auto(usize, usize),
    Edits(u8),
}

impl Fuzziness {
    /// Reads `0` to `2`, `"AUTO"`, `"AUTO:3,6"`.
    pub(super) fn from_json(value: &Value) -> Result<Self> {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let wrong = || parsing(format!("[fuzziness] takes 0, 1, 2 or AUTO, not [{text}]"));
        let upper = text.to_ascii_uppercase();
        if upper == "AUTO" {
            return Ok(Self::Auto(3, 6));
        }
        if let Some(lengths) = upper.strip_prefix("AUTO:") {
            let (low, high) = lengths.split_once(',').ok_or_else(wrong)?;
            let low = low.trim().parse().map_err(|_| wrong())?;
            return Ok(Self::Auto(low, high.trim().parse().map_err(|_| wrong())?));
        }
        match upper.trim_end_matches(".0").parse() {
            Ok(edits @ 0..=2) => Ok(Self::Edits(edits)),
            _ => Err(wrong()),
        }
    }

    /// The edits allowed for a word.
    pub(super) fn edits(self, word: &str) -> u8 {
        match self {
            Self::Edits(edits) => edits,
            Self::Auto(low, high) => match word.chars().count() {
                length if length < low => 0,
                length if length < high => 1,
                _ => 2,
            },
        }
    }
}

/// What a JSON value is, for messages.
pub(super) fn shape(value: &Value) -> String {
    match value {
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => other.to_string(),
    }
}
