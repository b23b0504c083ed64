//! A [`Node`] becomes a tantivy query over the columns of one index.

use std::cell::Cell;

use contract::{Column, Kind, Search, Timestamp};
use tantivy::Term;
use tantivy::query::{
    AllQuery, BooleanQuery, BoostQuery, ConstScoreQuery, DisjunctionMaxQuery, EmptyQuery, Occur, Query, TermQuery,
    TermSetQuery,
};
use tantivy::schema::{Field, IndexRecordOption};

use super::ast::{BoolNode, Leaf, Node, Scalar, Target, Test};
use super::dsl::too_many_clauses;
use super::error::Result;
use super::{CLAUSES_MAX, pattern};
use crate::fields::Fields;

/// A query of tantivy.
pub(super) type BoxQuery = Box<dyn Query>;

/// Builds the queries of one index.
pub(super) struct Compiler<'a> {
    pub(super) fields: &'a Fields,
    /// The name of the index: `_index`.
    pub(super) index: &'a str,
    pub(super) now: Timestamp,
    clauses: Cell<usize>,
}

impl<'a> Compiler<'a> {
    pub(super) fn new(fields: &'a Fields, index: &'a str, now: Timestamp) -> Self {
        Self { fields, index, now, clauses: Cell::new(0) }
    }

    /// The query of a node.
    pub(super) fn query(&self, node: &Node) -> Result<BoxQuery> {
        match node {
            Node::All => Ok(Box::new(AllQuery)),
            Node::None => Ok(Box::new(EmptyQuery)),
            Node::Bool(node) => self.boolean(node),
            Node::DisMax { nodes, tie_breaker } => {
                let nodes = nodes.iter().map(|node| self.query(node)).collect::<Result<_>>()?;
                Ok(best_of(nodes, *tie_breaker))
            }
            Node::Constant(inner) => Ok(Box::new(ConstScoreQuery::new(self.query(inner)?, 1.0))),
            Node::Boost(inner, boost) => Ok(Box::new(BoostQuery::new(self.query(inner)?, *boost))),
            Node::Ids(ids) => {
                let terms = ids.iter().map(|id| Term::from_field_text(self.fields.id, id));
                Ok(Box::new(TermSetQuery::new(terms)))
            }
            Node::Leaf(leaf) => self.leaf(leaf),
        }
    }

    /// Counts what a text or a set of columns unfolds to.
    pub(super) fn count_clauses(&self, more: usize) -> Result<()> {
        self.clauses.set(self.clauses.get().saturating_add(more));
        // Every query string without a field name unfolds to all columns of text, so this is wider than the
        // limit of what a user writes.
        if self.clauses.get() > CLAUSES_MAX * 16 { Err(too_many_clauses()) } else { Ok(()) }
    }

    fn boolean(&self, node: &BoolNode) -> Result<BoxQuery> {
        let mut clauses: Vec<(Occur, BoxQuery)> = Vec::new();
        for must in &node.must {
            clauses.push((Occur::Must, self.query(must)?));
        }
        for filter in &node.filter {
            clauses.push((Occur::Must, Box::new(ConstScoreQuery::new(self.query(filter)?, 0.0))));
        }
        let is_optional = !clauses.is_empty();
        let mut should = Vec::new();
        for clause in &node.should {
            should.push(self.query(clause)?);
        }
        let minimum = match node.minimum {
            Some(minimum) => minimum.of(should.len()),
            None => usize::from(!is_optional && !should.is_empty()),
        };
        if minimum > should.len() {
            return Ok(Box::new(EmptyQuery));
        }
        let is_negative = clauses.is_empty() && (should.is_empty() || minimum == 0);
        if is_negative {
            // tantivy answers nothing where there is nothing to start from; Elasticsearch starts from all rows,
            // with the score 0 where something is forbidden and 1 where nothing is asked.
            let score = if node.must_not.is_empty() && should.is_empty() { 1.0 } else { 0.0 };
            clauses.push((Occur::Must, Box::new(ConstScoreQuery::new(Box::new(AllQuery), score))));
        }
        clauses.extend(should.into_iter().map(|query| (Occur::Should, query)));
        for forbidden in &node.must_not {
            clauses.push((Occur::MustNot, self.query(forbidden)?));
        }
        Ok(Box::new(BooleanQuery::with_minimum_required_clauses(clauses, minimum)))
    }

    fn leaf(&self, leaf: &Leaf) -> Result<BoxQuery> {
        let (columns, tie_breaker) = match &leaf.target {
            // A row has a list of structs if it has any member of any of them.
            Target::One(name) if leaf.test == Test::Exists && self.fields.column(name).is_none() => {
                self.columns(&Target::Many { fields: vec![(format!("{name}.*"), 1.0)], tie_breaker: 0.0 })
            }
            target => self.columns(target),
        };
        if let Target::One(name) = &leaf.target
            && name == "_index"
        {
            return Ok(self.index_name(&leaf.test));
        }
        self.count_clauses(columns.len())?;
        let mut queries = Vec::new();
        for (column, field, boost) in columns {
            let query = match self.test(column, field, &leaf.test) {
                Ok(query) => query,
                Err(error) if leaf.lenient && error.status == 400 && error.kind != "too_many_nested_clauses" => {
                    continue;
                }
                Err(error) => return Err(error),
            };
            queries.push(if boost == 1.0 { query } else { Box::new(BoostQuery::new(query, boost)) });
        }
        Ok(best_of(queries, tie_breaker))
    }

    /// The columns of a target, without those that this index does not have.
    fn columns(&self, target: &Target) -> (Vec<(&'static Column, Field, f32)>, f32) {
        match target {
            Target::One(name) => {
                let column = self.fields.column(name);
                (column.into_iter().map(|(column, field)| (column, field, 1.0)).collect(), 0.0)
            }
            Target::Many { fields, tie_breaker } => {
                let named = fields.iter().flat_map(|(name, boost)| {
                    let fits = move |column: &&(&'static Column, Field)| pattern::name_fits(name, column.0.name);
                    self.fields.columns.iter().filter(fits).map(|(column, field)| (*column, *field, *boost))
                });
                (named.collect(), *tie_breaker)
            }
            Target::Default => {
                let is_text = |column: &Column| matches!(column.kind, Kind::Text | Kind::TextList);
                let all = self.fields.columns.iter().filter(|(column, _)| is_text(column));
                (all.map(|(column, field)| (*column, *field, 1.0)).collect(), 0.0)
            }
        }
    }

    /// A test of the name of the index is answered here: all of its rows or none.
    fn index_name(&self, test: &Test) -> BoxQuery {
        let is = |value: &Scalar| value.text() == self.index;
        let fits = match test {
            Test::Term { value, .. } | Test::Match { text: value, .. } | Test::Phrase { text: value, .. } => is(value),
            Test::Terms(values) => values.iter().any(is),
            Test::Pattern { pattern, .. } => pattern::fits(pattern, self.index),
            Test::Exists => true,
            Test::Range(_) | Test::Fuzzy { .. } => false,
        };
        if fits { Box::new(AllQuery) } else { Box::new(EmptyQuery) }
    }

    fn test(&self, column: &'static Column, field: Field, test: &Test) -> Result<BoxQuery> {
        if *test == Test::Exists {
            return Ok(self.exists(column));
        }
        match column.kind {
            Kind::Text | Kind::TextList => self.text_test(column, field, test),
            Kind::Integer | Kind::Float | Kind::Boolean | Kind::Timestamp => self.value_test(column, field, test),
            Kind::StructList(_) => unreachable!("its members are the leaves"),
        }
    }

    fn exists(&self, column: &Column) -> BoxQuery {
        if column.name == "_id" {
            return Box::new(AllQuery);
        }
        if column.search == Search::Words && matches!(column.kind, Kind::Text | Kind::TextList) {
            let term = Term::from_field_text(self.fields.field_names, column.name);
            return constant(Box::new(TermQuery::new(term, IndexRecordOption::Basic)));
        }
        Box::new(tantivy::query::ExistsQuery::new(column.name.to_owned(), false))
    }
}

/// The query with the score 1 for all its rows.
pub(super) fn constant(query: BoxQuery) -> BoxQuery {
    Box::new(ConstScoreQuery::new(query, 1.0))
}

/// The best of several queries.
pub(super) fn best_of(mut queries: Vec<BoxQuery>, tie_breaker: f32) -> BoxQuery {
    match queries.len() {
        0 => Box::new(EmptyQuery),
        1 => queries.remove(0),
        _ => Box::new(DisjunctionMaxQuery::with_tie_breaker(queries, tie_breaker)),
    }
}
