//! Tests of single columns as tantivy queries: of text, and of numbers, booleans and dates.

use std::ops::Bound;

use contract::{Column, Kind, Search};
use tantivy::query::{
    AllQuery, BooleanQuery, EmptyQuery, FuzzyTermQuery, InvertedIndexRangeQuery, Occur, PhrasePrefixQuery, PhraseQuery,
    RangeQuery, RegexQuery, TermQuery, TermSetQuery,
};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DateTime, Term};

use super::ast::{Limit, Minimum, Pattern, RangeTest, Scalar, Test};
use super::compile::{BoxQuery, Compiler, constant};
use super::date_math::DateReader;
use super::error::{Result, illegal, query_shard};
use super::pattern;
use crate::fields::exactly;

impl Compiler<'_> {
    /// A test of a column of text.
    pub(super) fn text_test(&self, column: &'static Column, field: Field, test: &Test) -> Result<BoxQuery> {
        let is_words = column.search == Search::Words && column.name != "_id";
        let exact = |text: &str| Term::from_field_text(field, text);
        match test {
            Test::Term { value, case_insensitive: false } => Ok(term_query(exact(&value.text()), is_words)),
            Test::Term { value, case_insensitive: true } => {
                let escaped: String = value.text().chars().flat_map(|letter| ['\\', letter]).collect();
                regex_query(&Pattern::Wildcard(escaped), true, field)
            }
            Test::Terms(values) => Ok(Box::new(TermSetQuery::new(values.iter().map(|value| exact(&value.text()))))),
            Test::Match { text, all, minimum, fuzziness, empty_matches_all } => {
                let words = if is_words { words(&text.text()) } else { vec![(0, text.text())] };
                self.count_clauses(words.len())?;
                let queries = words.into_iter().map(|(_, word)| -> BoxQuery {
                    match fuzziness.map(|fuzziness| fuzziness.edits(&word)) {
                        None | Some(0) => term_query(exact(&word), is_words),
                        Some(edits) => constant(Box::new(FuzzyTermQuery::new(exact(&word), edits, true))),
                    }
                });
                Ok(combined(queries.collect(), *all, *minimum, *empty_matches_all))
            }
            Test::Phrase { text, slop, prefix, max_expansions } => {
                if !is_words {
                    return match prefix {
                        false => Ok(term_query(exact(&text.text()), false)),
                        true => regex_query(&Pattern::Prefix(text.text()), false, field),
                    };
                }
                let words = words(&text.text());
                self.count_clauses(words.len())?;
                phrase(words, field, *slop, prefix.then_some(*max_expansions))
            }
            Test::Range(range) => {
                let bound = |limit: &Option<Limit>| match limit {
                    None => Bound::Unbounded,
                    Some(limit) if limit.included => Bound::Included(exact(&limit.value.text())),
                    Some(limit) => Bound::Excluded(exact(&limit.value.text())),
                };
                let (lower, upper) = (bound(&range.lower), bound(&range.upper));
                if (&lower, &upper) == (&Bound::Unbounded, &Bound::Unbounded) {
                    return self.test_exists(column);
                }
                if column.name == "_id" || is_words {
                    return Ok(Box::new(InvertedIndexRangeQuery::new(lower, upper)));
                }
                Ok(Box::new(RangeQuery::new(lower, upper)))
            }
            Test::Pattern { pattern, case_insensitive, normalize } => {
                let lower = |text: &String| if *normalize && is_words { text.to_lowercase() } else { text.clone() };
                let pattern = match pattern {
                    Pattern::Prefix(text) => Pattern::Prefix(lower(text)),
                    Pattern::Wildcard(text) => Pattern::Wildcard(lower(text)),
                    Pattern::Regexp(text) => Pattern::Regexp(text.clone()),
                };
                regex_query(&pattern, *case_insensitive, field)
            }
            Test::Fuzzy { value, fuzziness } => {
                let value = if is_words { value.to_lowercase() } else { value.clone() };
                Ok(match fuzziness.edits(&value) {
                    0 => constant(term_query(exact(&value), is_words)),
                    edits => constant(Box::new(FuzzyTermQuery::new(exact(&value), edits, true))),
                })
            }
            Test::Exists => self.test_exists(column),
        }
    }

    fn test_exists(&self, column: &'static Column) -> Result<BoxQuery> {
        let leaf = super::ast::Leaf {
            target: super::ast::Target::One(column.name.to_owned()),
            test: Test::Exists,
            lenient: false,
        };
        self.query(&super::ast::Node::Leaf(leaf))
    }

    /// A test of a column of numbers, booleans or dates.
    pub(super) fn value_test(&self, column: &'static Column, field: Field, test: &Test) -> Result<BoxQuery> {
        match test {
            Test::Term { value, .. }
            | Test::Match { text: value, .. }
            | Test::Phrase { text: value, prefix: false, .. } => self.value_term(column, field, value),
            Test::Terms(values) => {
                let terms = values.iter().map(|value| self.value_term(column, field, value));
                let terms = terms.map(|term| term.map(|term| (Occur::Should, term))).collect::<Result<Vec<_>>>()?;
                Ok(if terms.is_empty() { Box::new(EmptyQuery) } else { constant(Box::new(BooleanQuery::new(terms))) })
            }
            Test::Range(range) => self.value_range(column, field, range),
            Test::Exists => self.test_exists(column),
            Test::Pattern { pattern, .. } => Err(unfit(
                column,
                match pattern {
                    Pattern::Prefix(_) => "prefix",
                    Pattern::Wildcard(_) => "wildcard",
                    Pattern::Regexp(_) => "regexp",
                },
            )),
            Test::Phrase { .. } => Err(unfit(column, "phrase prefix")),
            Test::Fuzzy { .. } => Err(unfit(column, "fuzzy")),
        }
    }

    fn value_term(&self, column: &'static Column, field: Field, value: &Scalar) -> Result<BoxQuery> {
        match column.kind {
            Kind::Boolean => {
                let term = Term::from_field_bool(field, boolean(value)?);
                Ok(constant(Box::new(TermQuery::new(term, IndexRecordOption::Basic))))
            }
            Kind::Float => Ok(exactly(Term::from_field_f64(field, float(value)?))),
            Kind::Timestamp => {
                let limit = Some(Limit { value: value.clone(), included: true });
                let range = RangeTest { lower: limit.clone(), upper: limit, format: None, time_zone: None };
                self.value_range(column, field, &range)
            }
            _ => Ok(match integer(value)? {
                Whole::Exactly(number) => exactly(Term::from_field_i64(field, number)),
                Whole::Between(..) => Box::new(EmptyQuery),
            }),
        }
    }

    /// A range, as both ends included; one that holds nothing is no query.
    fn value_range(&self, column: &'static Column, field: Field, range: &RangeTest) -> Result<BoxQuery> {
        if range.lower.is_none() && range.upper.is_none() {
            return self.test_exists(column);
        }
        if column.kind == Kind::Float {
            let bound = |limit: &Option<Limit>| -> Result<Bound<Term>> {
                let Some(limit) = limit else { return Ok(Bound::Unbounded) };
                let term = Term::from_field_f64(field, float(&limit.value)?);
                Ok(if limit.included { Bound::Included(term) } else { Bound::Excluded(term) })
            };
            return Ok(Box::new(RangeQuery::new(bound(&range.lower)?, bound(&range.upper)?)));
        }
        let dates = DateReader::new(self.now, range.format.as_deref(), range.time_zone.as_deref())?;
        let low = |limit: &Limit| -> Result<i64> {
            Ok(match column.kind {
                Kind::Timestamp if limit.included => dates.read(&limit.value, false)?.0,
                Kind::Timestamp => dates.read(&limit.value, true)?.0.saturating_add(1),
                Kind::Boolean => i64::from(boolean(&limit.value)?) + i64::from(!limit.included),
                _ => match integer(&limit.value)? {
                    Whole::Exactly(number) if limit.included => number,
                    Whole::Exactly(i64::MAX) => return Ok(i64::MAX),
                    Whole::Exactly(number) => number + 1,
                    Whole::Between(_, above) => above,
                },
            })
        };
        let high = |limit: &Limit| -> Result<i64> {
            Ok(match column.kind {
                Kind::Timestamp if limit.included => dates.read(&limit.value, true)?.0,
                Kind::Timestamp => dates.read(&limit.value, false)?.0.saturating_sub(1),
                Kind::Boolean => i64::from(boolean(&limit.value)?) - i64::from(!limit.included),
                _ => match integer(&limit.value)? {
                    Whole::Exactly(number) if limit.included => number,
                    Whole::Exactly(i64::MIN) => return Ok(i64::MIN),
                    Whole::Exactly(number) => number - 1,
                    Whole::Between(below, _) => below,
                },
            })
        };
        let is_end = |limit: &Option<Limit>, end: i64| {
            limit.as_ref().is_some_and(|limit| !limit.included && limit.value == Scalar::Integer(end))
        };
        let lower = range.lower.as_ref().map(low).transpose()?;
        let upper = range.upper.as_ref().map(high).transpose()?;
        let is_empty = lower.unwrap_or(i64::MIN) > upper.unwrap_or(i64::MAX)
            || is_end(&range.lower, i64::MAX)
            || is_end(&range.upper, i64::MIN);
        if is_empty { Ok(Box::new(EmptyQuery)) } else { Ok(between(column, field, lower, upper)) }
    }
}

/// The rows whose value lies between both, which may be it.
fn between(column: &Column, field: Field, lower: Option<i64>, upper: Option<i64>) -> BoxQuery {
    if column.kind == Kind::Boolean {
        let values = [false, true]
            .into_iter()
            .filter(|value| (lower.unwrap_or(i64::MIN)..=upper.unwrap_or(i64::MAX)).contains(&i64::from(*value)));
        return constant(Box::new(TermSetQuery::new(values.map(|value| Term::from_field_bool(field, value)))));
    }
    let term = |value: i64| match column.kind {
        Kind::Timestamp => Bound::Included(Term::from_field_date(field, DateTime::from_timestamp_micros(value))),
        _ => Bound::Included(Term::from_field_i64(field, value)),
    };
    Box::new(RangeQuery::new(lower.map_or(Bound::Unbounded, term), upper.map_or(Bound::Unbounded, term)))
}

/// A number as a column of integers sees it.
enum Whole {
    Exactly(i64),
    /// No integer: the next below and above.
    Between(i64, i64),
}

fn integer(value: &Scalar) -> Result<Whole> {
    let wrong = || query_shard(format!("For input string: \"{}\"", value.text()));
    let float = match value {
        Scalar::Integer(number) => return Ok(Whole::Exactly(*number)),
        Scalar::Float(float) => *float,
        Scalar::Text(text) => match text.trim().parse::<i64>() {
            Ok(number) => return Ok(Whole::Exactly(number)),
            Err(_) => text.trim().parse().map_err(|_| wrong())?,
        },
        Scalar::Boolean(_) => return Err(wrong()),
    };
    if float.is_nan() {
        return Err(wrong());
    }
    // Casts of floats stop at the ends of the range.
    let (below, above) = (float.floor() as i64, float.ceil() as i64);
    let is_within = (i64::MIN as f64..i64::MAX as f64).contains(&float);
    if below == above && is_within { Ok(Whole::Exactly(below)) } else { Ok(Whole::Between(below, above)) }
}

fn float(value: &Scalar) -> Result<f64> {
    let number = match value {
        Scalar::Integer(number) => Some(*number as f64),
        Scalar::Float(float) => Some(*float),
        Scalar::Text(text) => text.trim().parse().ok(),
        Scalar::Boolean(_) => None,
    };
    let wrong = || query_shard(format!("For input string: \"{}\"", value.text()));
    number.filter(|number| !number.is_nan()).ok_or_else(wrong)
}

fn boolean(value: &Scalar) -> Result<bool> {
    match value {
        Scalar::Boolean(boolean) => Ok(*boolean),
        Scalar::Text(text) if text == "true" => Ok(true),
        Scalar::Text(text) if text == "false" || text.is_empty() => Ok(false),
        other => Err(query_shard(format!("Can't parse boolean value [{}], expected [true] or [false]", other.text()))),
    }
}

fn unfit(column: &Column, query: &str) -> contract::SearchError {
    query_shard(format!(
        "Can only use {query} queries on keyword and text fields - not on [{}] which is of type [{}]",
        column.name,
        type_name(column)
    ))
}

/// Elasticsearch's name of a column's type.
pub(crate) fn type_name(column: &Column) -> &'static str {
    match (column.kind, column.search) {
        (Kind::Text | Kind::TextList, Search::Exact) => "keyword",
        (Kind::Text | Kind::TextList, Search::Words) => "text",
        (Kind::Integer, _) => "long",
        (Kind::Float, _) => "double",
        (Kind::Boolean, _) => "boolean",
        (Kind::Timestamp, _) => "date",
        (Kind::StructList(_), _) => "object",
    }
}

/// The words of a text with their places.
pub(super) fn words(text: &str) -> Vec<(usize, String)> {
    let mut analyser = crate::fields::standard();
    let mut stream = analyser.token_stream(text);
    let mut words = Vec::new();
    stream.process(&mut |token| words.push((token.position, token.text.clone())));
    words
}

fn term_query(term: Term, is_words: bool) -> BoxQuery {
    let record = if is_words { IndexRecordOption::WithFreqs } else { IndexRecordOption::Basic };
    Box::new(TermQuery::new(term, record))
}

fn regex_query(pattern: &Pattern, case_insensitive: bool, field: Field) -> Result<BoxQuery> {
    let regex = pattern::regex(pattern, case_insensitive)?;
    let query = RegexQuery::from_pattern(&regex, field)
        .map_err(|error| illegal(format!("the pattern {pattern:?} is not supported: {error}")))?;
    Ok(Box::new(query))
}

fn phrase(words: Vec<(usize, String)>, field: Field, slop: u32, max_expansions: Option<u32>) -> Result<BoxQuery> {
    let mut terms: Vec<_> = words.iter().map(|(place, word)| (*place, Term::from_field_text(field, word))).collect();
    match (terms.len(), max_expansions) {
        (0, _) => Ok(Box::new(EmptyQuery)),
        (1, None) => Ok(term_query(terms.remove(0).1, true)),
        (_, None) => Ok(Box::new(PhraseQuery::new_with_offset_and_slop(terms, slop))),
        (1, Some(_)) => regex_query(&Pattern::Prefix(words[0].1.clone()), false, field),
        (_, Some(max_expansions)) => {
            let mut query = PhrasePrefixQuery::new_with_offset(terms);
            query.set_max_expansions(max_expansions);
            Ok(Box::new(query))
        }
    }
}

fn combined(mut queries: Vec<BoxQuery>, all: bool, minimum: Option<Minimum>, empty_matches_all: bool) -> BoxQuery {
    let needed = match minimum {
        _ if all => queries.len(),
        Some(minimum) => minimum.of(queries.len()).max(1),
        None => 1,
    };
    match queries.len() {
        0 if empty_matches_all => Box::new(AllQuery),
        0 => Box::new(EmptyQuery),
        count if needed > count => Box::new(EmptyQuery),
        1 => queries.remove(0),
        _ if all => Box::new(BooleanQuery::intersection(queries)),
        _ => Box::new(BooleanQuery::union_with_minimum_required_clauses(queries, needed)),
    }
}
