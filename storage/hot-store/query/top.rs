//! The collector of hits: the first rows by any sort, with memory for that many rows only.

use std::collections::BinaryHeap;
use std::ops::Bound;

use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::{Column, ColumnType, MonotonicallyMappableToU64, StrColumn};
use tantivy::{DocAddress, DocId, Score, SegmentOrdinal, SegmentReader};

use super::sort::{SortBy, SortKey, SortValue};

/// Nanoseconds of a millisecond: the precision that dates are sorted with.
const NANOS_PER_MILLI: i64 = 1_000_000;

/// Collects the first `limit` rows of one index.
pub(super) struct TopRows<'a> {
    /// The number of the index, which the rows carry.
    pub(super) index: usize,
    pub(super) keys: &'a [SortKey],
    pub(super) limit: usize,
    /// Only rows behind these values, which are as many as the keys.
    pub(super) after: Option<&'a [SortValue]>,
    pub(super) score_min: Option<f32>,
    pub(super) needs_score: bool,
}

/// What was collected.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// All rows that match, also before `after`.
    pub(super) total: u64,
    pub(super) score_max: Option<f32>,
    /// The first rows; in order for one segment only.
    pub(super) rows: Vec<Row>,
}

/// A hit.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The number of its index.
    pub(super) index: usize,
    pub(super) address: DocAddress,
    pub(super) score: f32,
    pub(super) sort: Vec<SortValue>,
    /// Partition and offset: they break ties, the same way however rows are spread over indices.
    pub(super) place: (i64, i64),
}

impl Row {
    /// The order of two hits.
    pub(super) fn compare(&self, other: &Self, keys: &[SortKey]) -> std::cmp::Ordering {
        let values = self.sort.iter().zip(&other.sort);
        let by_keys = keys.iter().zip(values).map(|(key, (left, right))| key.compare(left, right));
        by_keys.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then).then(self.place.cmp(&other.place))
    }
}

impl Collector for TopRows<'_> {
    type Fruit = Collected;
    type Child = SegmentTop;

    fn for_segment(&self, ordinal: SegmentOrdinal, segment: &SegmentReader) -> tantivy::Result<SegmentTop> {
        let readers = self.keys.iter().map(|key| KeyReader::open(key, segment)).collect::<tantivy::Result<Vec<_>>>()?;
        let after = match self.after {
            None => None,
            Some(values) => {
                let places = readers.iter().zip(values).map(|(reader, value)| reader.place_of(value));
                Some(places.collect::<tantivy::Result<Vec<_>>>()?)
            }
        };
        Ok(SegmentTop {
            index: self.index,
            ordinal,
            scratch: Vec::with_capacity(readers.len()),
            readers,
            partitions: segment.fast_fields().i64("_partition")?,
            offsets: segment.fast_fields().i64("_offset")?,
            limit: self.limit,
            after,
            score_min: self.score_min,
            has_score: self.needs_score,
            heap: BinaryHeap::new(),
            total: 0,
            score_max: None,
        })
    }

    fn requires_scoring(&self) -> bool {
        self.needs_score
    }

    fn merge_fruits(&self, segments: Vec<tantivy::Result<Collected>>) -> tantivy::Result<Collected> {
        let mut all = Collected::default();
        for segment in segments {
            all.add(segment?, self.keys, self.limit);
        }
        Ok(all)
    }
}

impl Collected {
    /// Takes in the rows of another segment or index.
    pub(super) fn add(&mut self, other: Self, keys: &[SortKey], limit: usize) {
        self.total += other.total;
        self.score_max = match (self.score_max, other.score_max) {
            (Some(left), Some(right)) => Some(left.max(right)),
            (left, right) => left.or(right),
        };
        self.rows.extend(other.rows);
        self.rows.sort_by(|left, right| left.compare(right, keys));
        self.rows.truncate(limit);
    }
}

/// The values of one key in one segment, each as a number that sorts like the value does: the smaller comes first.
/// Numbers of texts are the ordinals of the segment's dictionary.
struct KeyReader {
    values: Values,
    descending: bool,
    missing_first: bool,
    largest: bool,
}

enum Values {
    Score,
    Doc,
    None,
    Number(Column<u64>, ColumnType),
    Text(StrColumn),
}

/// What is missing sorts before or behind all values, which lie between, two apart: a text that the
/// segment does not have lies between two ordinals.
const MISSING_FIRST: u128 = 0;
const VALUES_START: u128 = 1 << 70;
const MISSING_LAST: u128 = 1 << 100;

impl KeyReader {
    fn open(key: &SortKey, segment: &SegmentReader) -> tantivy::Result<Self> {
        let values = match &key.by {
            SortBy::Score => Values::Score,
            SortBy::Doc => Values::Doc,
            SortBy::Column(name) => match segment.fast_fields().str(name)? {
                Some(texts) => Values::Text(texts),
                None => match segment.fast_fields().u64_lenient(name)? {
                    Some((numbers, kind)) => Values::Number(numbers, kind),
                    None => Values::None,
                },
            },
        };
        Ok(Self { values, descending: key.descending, missing_first: key.missing_first, largest: key.largest })
    }

    fn place(&self, doc: DocId, score: Score) -> u128 {
        let pick = |values: &mut dyn Iterator<Item = u64>| if self.largest { values.max() } else { values.min() };
        let value = match &self.values {
            Values::Score => Some(score_to_u64(score)),
            Values::Doc | Values::None => None,
            Values::Number(column, ColumnType::DateTime) => {
                pick(&mut column.values_for_doc(doc)).map(|value| millis(value).to_u64())
            }
            Values::Number(column, _) => pick(&mut column.values_for_doc(doc)),
            Values::Text(column) => pick(&mut column.term_ords(doc)),
        };
        match value {
            Some(value) => self.directed(u128::from(value) << 1),
            None if self.missing_first => MISSING_FIRST,
            None => MISSING_LAST,
        }
    }

    fn directed(&self, doubled: u128) -> u128 {
        if self.descending { VALUES_START * 2 - doubled } else { VALUES_START + doubled }
    }

    /// The number of a value of `search_after`.
    fn place_of(&self, value: &SortValue) -> tantivy::Result<u128> {
        let missing = if self.missing_first { MISSING_FIRST } else { MISSING_LAST };
        Ok(match (value, &self.values) {
            (SortValue::Score(score), _) => self.directed(u128::from(score_to_u64(*score)) << 1),
            (SortValue::Boolean(boolean), _) => self.directed(u128::from(*boolean) << 1),
            (SortValue::Float(number), _) => self.directed(u128::from(number.to_u64()) << 1),
            (SortValue::Integer(number), _) => self.directed(u128::from(number.to_u64()) << 1),
            (SortValue::Text(text), Values::Text(column)) => {
                let bounds = (Bound::Included(text.as_bytes()), Bound::Unbounded);
                let (at_or_behind, _) = column.dictionary().term_bounds_to_ord(bounds.0, bounds.1)?;
                let exact = column.dictionary().term_ord(text.as_bytes())?;
                self.directed(match (exact, at_or_behind) {
                    (Some(ordinal), _) => u128::from(ordinal) << 1,
                    (None, Bound::Included(next) | Bound::Excluded(next)) => (u128::from(next) << 1).saturating_sub(1),
                    (None, Bound::Unbounded) => 0,
                })
            }
            // Where no row has a value, all are missing: behind any value, or before it.
            (SortValue::Text(_), _) => VALUES_START,
            (SortValue::Missing | SortValue::Doc, _) => missing,
        })
    }

    /// The value of a row that was kept.
    fn value(&self, doc: DocId, score: Score) -> SortValue {
        let pick = |values: &mut dyn Iterator<Item = u64>| if self.largest { values.max() } else { values.min() };
        match &self.values {
            Values::Score => SortValue::Score(score),
            Values::Doc => SortValue::Doc,
            Values::None => SortValue::Missing,
            Values::Number(column, kind) => match (pick(&mut column.values_for_doc(doc)), kind) {
                (None, _) => SortValue::Missing,
                (Some(value), ColumnType::Bool) => SortValue::Boolean(value != 0),
                (Some(value), ColumnType::DateTime) => SortValue::Integer(millis(value)),
                (Some(value), ColumnType::F64) => SortValue::Float(f64::from_u64(value)),
                (Some(value), _) => SortValue::Integer(i64::from_u64(value)),
            },
            Values::Text(column) => {
                let mut text = String::new();
                match pick(&mut column.term_ords(doc)) {
                    // A dictionary that lacks its own ordinal is damaged; the row is then as without a value.
                    Some(ordinal) if matches!(column.ord_to_str(ordinal, &mut text), Ok(true)) => SortValue::Text(text),
                    _ => SortValue::Missing,
                }
            }
        }
    }
}

fn millis(value: u64) -> i64 {
    i64::from_u64(value).div_euclid(NANOS_PER_MILLI)
}

/// Scores are not negative, and bits of floats that are not negative sort like the floats.
fn score_to_u64(score: Score) -> u64 {
    if score > 0.0 { u64::from(score.to_bits()) } else { 0 }
}

/// Collects the rows of one segment.
pub(super) struct SegmentTop {
    index: usize,
    ordinal: SegmentOrdinal,
    readers: Vec<KeyReader>,
    partitions: Column<i64>,
    offsets: Column<i64>,
    limit: usize,
    after: Option<Vec<u128>>,
    score_min: Option<f32>,
    has_score: bool,
    scratch: Vec<u128>,
    /// The last of the kept rows on top.
    heap: BinaryHeap<Entry>,
    total: u64,
    score_max: Option<f32>,
}

struct Entry {
    places: Box<[u128]>,
    place: (i64, i64),
    doc: DocId,
    score: Score,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (&self.places, self.place, self.doc).cmp(&(&other.places, other.place, other.doc))
    }
}

impl SegmentCollector for SegmentTop {
    type Fruit = tantivy::Result<Collected>;

    fn collect(&mut self, doc: DocId, score: Score) {
        if self.score_min.is_some_and(|min| score < min) {
            return;
        }
        self.total += 1;
        if self.has_score {
            self.score_max = Some(self.score_max.map_or(score, |max| max.max(score)));
        }
        if self.limit == 0 {
            return;
        }
        let Self { scratch, readers, .. } = self;
        scratch.clear();
        scratch.extend(readers.iter().map(|reader| reader.place(doc, score)));
        if self.after.as_ref().is_some_and(|after| self.scratch <= *after) {
            return;
        }
        let is_full = self.heap.len() == self.limit;
        if is_full && self.heap.peek().is_some_and(|last| self.scratch[..] > last.places[..]) {
            return;
        }
        let place = (self.partitions.first(doc).unwrap_or(i64::MAX), self.offsets.first(doc).unwrap_or(i64::MAX));
        let entry = Entry { places: self.scratch.as_slice().into(), place, doc, score };
        if !is_full {
            self.heap.push(entry);
        } else if let Some(mut last) = self.heap.peek_mut()
            && entry < *last
        {
            *last = entry;
        }
    }

    fn harvest(self) -> Self::Fruit {
        let readers = &self.readers;
        let rows = self.heap.into_sorted_vec().into_iter().map(|entry| Row {
            index: self.index,
            address: DocAddress::new(self.ordinal, entry.doc),
            score: entry.score,
            sort: readers.iter().map(|reader| reader.value(entry.doc, entry.score)).collect(),
            place: entry.place,
        });
        Ok(Collected { total: self.total, score_max: self.score_max, rows: rows.collect() })
    }
}
