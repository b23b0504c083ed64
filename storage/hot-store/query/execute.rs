//! A search over its indices: compiled for each, collected, merged, written.

use std::cell::Cell;
use std::time::Instant;

use contract::{Column, Timestamp};
use serde_json::{Map, Value, json};
use tantivy::collector::{Collector, SegmentCollector};
use tantivy::query::{BooleanQuery, ConstScoreQuery, EnableScoring, Occur, Weight};
use tantivy::schema::Value as _;
use tantivy::{COLLECT_BLOCK_BUFFER_LEN, DocAddress, DocSet, SegmentReader, TERMINATED, TantivyDocument};

use super::aggs_build::Aggregating;
use super::ast::Node;
use super::compile::{BoxQuery, Compiler};
use super::error::{Result, engine};
use super::request::{Request, TrackTotal};
use super::sort::{SortBy, SortKey, SortValue};
use super::statistics::Statistics;
use super::top::{Collected, Row, TopRows};
use crate::index::OpenIndex;

/// Rows between two looks at the clock: well below a millisecond, and what a look costs does not show.
const ROWS_UNWATCHED: usize = 4_096;

/// One search.
pub(super) struct Search<'a> {
    indices: &'a [OpenIndex],
    request: &'a Request,
    now: Timestamp,
    keys: Vec<SortKey>,
    columns: Vec<Option<&'static Column>>,
    after: Option<Vec<SortValue>>,
    needs_score: bool,
    /// When it has to end, and whether something was left out for it.
    deadline: Instant,
    timed_out: Cell<bool>,
}

impl<'a> Search<'a> {
    /// Checks the request against the columns of the indices.
    pub(super) fn new(
        indices: &'a [OpenIndex],
        request: &'a Request,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<Self> {
        let keys = if request.sort.is_empty() { vec![SortKey::by_score()] } else { request.sort.clone() };
        let columns = keys.iter().map(|key| key.column(indices)).collect::<Result<Vec<_>>>()?;
        let after = match &request.search_after {
            None => None,
            Some(values) => {
                let typed =
                    keys.iter().zip(&columns).zip(values).map(|((key, column), value)| key.after(value, *column));
                Some(typed.collect::<Result<Vec<_>>>()?)
            }
        };
        let by_score = keys.iter().any(|key| key.by == SortBy::Score);
        let needs_score = (by_score && request.size > 0) || request.track_scores || request.score_min.is_some();
        let asked = request.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let deadline = asked.map_or(deadline, |asked| asked.min(deadline));
        let timed_out = Cell::new(false);
        Ok(Self { indices, request, now, keys, columns, after, needs_score, deadline, timed_out })
    }

    /// Goes through all indices; stops between two of them, or among the rows of one, when the time is over.
    pub(super) fn run(&self) -> Result<Value> {
        let started = Instant::now();
        let mut collected = Collected::default();
        let mut aggregated_rows = 0;
        let mut aggregating = match self.request.aggregations.as_slice() {
            [] => None,
            aggregations => Some(Aggregating::new(self.indices, aggregations, self.now)?),
        };
        for number in 0..self.indices.len() {
            if self.is_late() {
                break;
            }
            let (rows, aggregated) = self.index(number, aggregating.as_mut())?;
            aggregated_rows += aggregated;
            collected.add(rows, &self.keys, self.limit());
        }
        let mut answer = json!({
            "took": started.elapsed().as_millis() as u64,
            "timed_out": self.timed_out.get(),
            "_shards": super::shards(self.indices.len()),
            "hits": self.hits(&collected)?,
        });
        if let Some(aggregating) = aggregating {
            answer["aggregations"] = aggregating.finish(aggregated_rows)?;
            answer["took"] = json!(started.elapsed().as_millis() as u64);
        }
        Ok(answer)
    }

    fn is_late(&self) -> bool {
        let is_late = Instant::now() >= self.deadline;
        self.timed_out.set(self.timed_out.get() || is_late);
        is_late
    }

    fn limit(&self) -> usize {
        // Nothing is kept where nothing is shown.
        if self.request.size == 0 { 0 } else { self.request.from + self.request.size }
    }

    /// The hits of one index, and how many rows were aggregated.
    fn index(&self, number: usize, aggregating: Option<&mut Aggregating<'_>>) -> Result<(Collected, u64)> {
        let index = &self.indices[number];
        let compiler = Compiler::new(&index.fields, &index.name, self.now);
        let query = compiler.query(&self.request.query)?;
        let narrowed = self.narrowed(&compiler, &query)?;
        let top = TopRows {
            index: number,
            keys: &self.keys,
            limit: self.limit(),
            after: self.after.as_deref(),
            score_min: self.request.score_min,
            needs_score: self.needs_score,
        };
        let Some(aggregating) = aggregating else {
            let query = narrowed.unwrap_or(query);
            if self.limit() == 0 && !self.needs_score {
                let total = self.count(index, &query)?;
                return Ok((Collected { total, ..Collected::default() }, 0));
            }
            return Ok((self.collect(index, &query, &top)?, 0));
        };
        let collector = aggregating.collector(index)?;
        let (rows, counted, aggregated) = match narrowed {
            None => {
                let (rows, counted) = self.collect(index, &query, &(top, collector))?;
                let total = rows.total;
                (rows, counted, total)
            }
            Some(narrowed) => {
                let counted = self.collect(index, &query, &collector)?;
                let aggregated = self.count(index, &query)?;
                (self.collect(index, &narrowed, &top)?, counted, aggregated)
            }
        };
        aggregating.add(counted)?;
        Ok((rows, aggregated))
    }

    /// The query with the `post_filter`, if there is one.
    fn narrowed(&self, compiler: &Compiler<'_>, query: &BoxQuery) -> Result<Option<BoxQuery>> {
        let Some(filter) = &self.request.post_filter else {
            return Ok(None);
        };
        let filter: BoxQuery = Box::new(ConstScoreQuery::new(compiler.query(filter)?, 0.0));
        Ok(Some(Box::new(BooleanQuery::new(vec![(Occur::Must, query.box_clone()), (Occur::Must, filter)]))))
    }

    /// What the collector finds in the segments of an index, as long as there is time; in the start of the first one at
    /// least.
    fn collect<C: Collector>(&self, index: &OpenIndex, query: &BoxQuery, collector: &C) -> Result<C::Fruit> {
        let (searcher, statistics) = (&index.searcher, Statistics { indices: self.indices, asking: index });
        let scoring = match collector.requires_scoring() {
            true => EnableScoring::enabled_from_statistics_provider(&statistics, searcher),
            false => EnableScoring::disabled_from_searcher(searcher),
        };
        let weight = query.weight(scoring).map_err(engine)?;
        collector.check_schema(searcher.schema()).map_err(engine)?;
        let mut fruits = Vec::new();
        for (ordinal, segment) in (0..).zip(searcher.segment_readers()) {
            if ordinal > 0 && self.is_late() {
                break;
            }
            let mut child = collector.for_segment(ordinal, segment).map_err(engine)?;
            self.collect_segment(&mut child, &*weight, segment, collector.requires_scoring()).map_err(engine)?;
            fruits.push(child.harvest());
        }
        collector.merge_fruits(fruits).map_err(engine)
    }

    /// As [`Collector::collect_segment`], which cannot be stopped.
    fn collect_segment(
        &self,
        child: &mut impl SegmentCollector,
        weight: &dyn Weight,
        segment: &SegmentReader,
        with_scores: bool,
    ) -> tantivy::Result<()> {
        let mut rows = weight.scorer(segment, 1.0)?;
        let alive = segment.alive_bitset();
        let mut block = [0; COLLECT_BLOCK_BUFFER_LEN];
        let mut unwatched = 0;
        while rows.doc() != TERMINATED {
            if with_scores || alive.is_some() {
                let row = rows.doc();
                if alive.is_none_or(|alive| alive.is_alive(row)) {
                    child.collect(row, if with_scores { rows.score() } else { 0.0 });
                }
                rows.advance();
                unwatched += 1;
            } else {
                let filled = rows.fill_buffer(&mut block);
                child.collect_block(&block[..filled]);
                unwatched += filled;
            }
            if unwatched >= ROWS_UNWATCHED {
                if self.is_late() {
                    break;
                }
                unwatched = 0;
            }
        }
        Ok(())
    }

    fn count(&self, index: &OpenIndex, query: &BoxQuery) -> Result<u64> {
        count_segments(index, query, || self.is_late())
    }

    fn hits(&self, collected: &Collected) -> Result<Value> {
        let mut hits = Map::new();
        match self.request.total {
            TrackTotal::Not => {}
            TrackTotal::UpTo(limit) if collected.total > limit => {
                hits.insert("total".to_owned(), json!({ "value": limit, "relation": "gte" }));
            }
            TrackTotal::Exactly | TrackTotal::UpTo(_) => {
                hits.insert("total".to_owned(), json!({ "value": collected.total, "relation": "eq" }));
            }
        }
        let shows_score = self.shows_score() && !collected.rows.is_empty();
        hits.insert("max_score".to_owned(), json!(collected.score_max.filter(|_| shows_score)));
        let rows = collected.rows.iter().skip(self.request.from);
        hits.insert("hits".to_owned(), rows.map(|row| self.hit(row)).collect::<Result<Vec<Value>>>()?.into());
        Ok(Value::Object(hits))
    }

    fn shows_score(&self) -> bool {
        let by_score = self.keys.iter().any(|key| key.by == SortBy::Score);
        by_score || self.request.track_scores
    }

    fn hit(&self, row: &Row) -> Result<Value> {
        let index = &self.indices[row.index];
        let (id, source) = document(index, row.address)?;
        let mut hit = Map::new();
        hit.insert("_index".to_owned(), json!(index.name));
        hit.insert("_id".to_owned(), json!(id));
        hit.insert("_score".to_owned(), if self.shows_score() { json!(row.score) } else { Value::Null });
        if let Some(highlight) = &self.request.highlight {
            let marked = highlight.apply(&self.request.query, &index.fields, &source);
            if !marked.is_empty() {
                hit.insert("highlight".to_owned(), Value::Object(marked));
            }
        }
        if !self.request.fields.is_empty() {
            let fields = super::source_filter::fields(&self.request.fields, &source);
            if !fields.is_empty() {
                hit.insert("fields".to_owned(), Value::Object(fields));
            }
        }
        if let Some(source) = self.request.source.apply(source) {
            hit.insert("_source".to_owned(), source);
        }
        if !self.request.sort.is_empty() {
            let values = self.keys.iter().zip(&self.columns).zip(&row.sort);
            let sort: Vec<_> = values.map(|((key, column), value)| key.json(value, *column)).collect();
            hit.insert("sort".to_owned(), sort.into());
        }
        Ok(Value::Object(hit))
    }
}

/// How many rows match a query over all indices.
pub(super) fn count(indices: &[OpenIndex], query: &Node, now: Timestamp, deadline: Instant) -> Result<u64> {
    let is_late = || Instant::now() >= deadline;
    let mut count = 0;
    for index in indices {
        let query = Compiler::new(&index.fields, &index.name, now).query(query)?;
        count += count_segments(index, &query, is_late)?;
        if is_late() {
            return Err(contract::SearchError {
                status: 504,
                kind: "search_timeout_exception",
                reason: "failed to count within the time of a search; ask for less, such as one day".to_owned(),
            });
        }
    }
    Ok(count)
}

/// How many rows match in the segments of an index, until it is late.
fn count_segments(index: &OpenIndex, query: &BoxQuery, is_late: impl Fn() -> bool) -> Result<u64> {
    let weight = query.weight(EnableScoring::disabled_from_searcher(&index.searcher)).map_err(engine)?;
    let mut count = 0;
    for segment in index.searcher.segment_readers() {
        if is_late() {
            break;
        }
        count += u64::from(weight.count(segment).map_err(engine)?);
    }
    Ok(count)
}

/// The `_id` and the row of a document.
pub(super) fn document(index: &OpenIndex, address: DocAddress) -> Result<(String, Map<String, Value>)> {
    let document: TantivyDocument = index.searcher.doc(address).map_err(engine)?;
    let id = document.get_first(index.fields.id).and_then(|id| id.as_str().map(str::to_owned));
    let source =
        document.get_first(index.fields.source).and_then(|source| source.as_bytes().map(serde_json::from_slice));
    match (id, source) {
        (Some(id), Some(Ok(source))) => Ok((id, source)),
        _ => Err(contract::SearchError {
            status: 500,
            kind: "search_phase_execution_exception",
            reason: format!("failed to read a row of [{}]: it has no `_id` or no readable `_source`", index.name),
        }),
    }
}
