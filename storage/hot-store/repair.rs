//! Single rows that are put right, outside the order of offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use arrow::array::RecordBatch;
use contract::{Error, Offset, Partition, Positions, Result, Timestamp};
use tantivy::collector::DocSetCollector;
use tantivy::query::{BooleanQuery, RangeQuery};
use tantivy::schema::Field;
use tantivy::{Searcher, Term};

use crate::document::RowBatch;
use crate::error::failed;
use crate::fields::exactly;
use crate::index::HotIndex;
use crate::source::{HotSource, Places, Progress};
use crate::writers::OpenWriter;

impl HotSource {
    /// Writes rows anew, durably. What stands at their places goes in the same commit, index by index. Rows that are too
    /// old, or that the store has yet to be given in their turn, are left out.
    pub(crate) fn replace(&self, rows: &RecordBatch, now: Timestamp) -> Result<()> {
        let mut progress = self.progress()?;
        let places = Places::of(rows);
        let at = |row: usize| (places.partition(row), places.offset(row));
        self.commit_all(&mut progress)?;
        let mut groups = self.groups(rows, self.first_day(now));
        for (name, group) in &mut groups {
            group.retain(|&row| at(row).1 < progress.written.of(at(row).0));
            progress.checkpoint.note_first(name, &places.first(group));
        }
        let mut kept = vec![false; rows.num_rows()];
        groups.values().flatten().for_each(|&row| kept[row] = true);
        let wanted = (0..rows.num_rows()).filter(|&row| kept[row]).map(at).collect();
        let batch = Arc::new(RowBatch::new(self.schema, rows, &kept, &self.common.budget));
        let outcome = self.change(&mut progress, &wanted, groups, |open, rows| open.add(&batch, rows));
        self.settle(&mut progress, outcome)
    }

    /// Removes rows, durably.
    pub(crate) fn remove(&self, places: &[(Partition, Offset)]) -> Result<()> {
        let mut progress = self.progress()?;
        self.commit_all(&mut progress)?;
        let places = places.iter().copied().collect();
        let outcome = self.change(&mut progress, &places, BTreeMap::new(), |_, _| Ok(()));
        self.settle(&mut progress, outcome)
    }

    fn change(
        &self,
        progress: &mut Progress,
        places: &BTreeSet<(Partition, Offset)>,
        mut groups: BTreeMap<String, Vec<usize>>,
        add: impl Fn(&mut OpenWriter, &[usize]) -> Result<()>,
    ) -> Result<()> {
        let mut found = BTreeMap::new();
        for index in self.all() {
            let places = index.find(places)?;
            if !places.is_empty() {
                groups.entry(index.name.clone()).or_default();
                found.insert(index.name.clone(), places);
            }
        }
        let written: Positions = progress.written.clone();
        for (name, rows) in &groups {
            let open = self.open_writer(progress, name)?;
            for &place in found.get(name).into_iter().flatten() {
                open.delete(place)?;
            }
            add(open, rows)?;
            open.reach(&written);
            open.commit()?;
        }
        self.save(progress, |_| ())
    }
}

impl OpenWriter {
    fn delete(&mut self, (partition, offset): (Partition, Offset)) -> Result<()> {
        self.is_changed = true;
        let term = |field, value| exactly(Term::from_field_i64(field, value));
        let (partition_field, offset_field) = self.index.place_fields();
        let at = vec![term(partition_field, i64::from(partition)), term(offset_field, offset)];
        let deleted = self.writer.delete_query(Box::new(BooleanQuery::intersection(at)));
        deleted.map(|_| ()).map_err(|error| failed(format!("delete from the index `{}`", self.index.name), error))
    }
}

impl HotIndex {
    fn place_fields(&self) -> (Field, Field) {
        let field = |name| self.fields.column(name).expect("every index has the common columns").1;
        (field("_partition"), field("_offset"))
    }

    /// Which of `places` hold a row here.
    fn find(&self, places: &BTreeSet<(Partition, Offset)>) -> Result<BTreeSet<(Partition, Offset)>> {
        let (_, offset_field) = self.place_fields();
        let offsets = || places.iter().map(|&(_, offset)| offset);
        let (Some(first), Some(last)) = (offsets().min(), offsets().max()) else { return Ok(BTreeSet::new()) };
        let end = |offset| Bound::Included(Term::from_field_i64(offset_field, offset));
        let searcher = self.opened().searcher;
        let found = || -> tantivy::Result<BTreeSet<(Partition, Offset)>> {
            let candidates = searcher.search(&RangeQuery::new(end(first), end(last)), &DocSetCollector)?;
            let columns = PlaceColumns::of(&searcher)?;
            let all = candidates.into_iter().map(|at| columns[at.segment_ord as usize].place(at.doc_id));
            Ok(all.filter(|place| places.contains(place)).collect())
        };
        found().map_err(|error| Error::stop(format!("search the index `{}`", self.name)).because(error))
    }
}

/// Partition and offset of the rows of one segment.
pub(crate) struct PlaceColumns {
    partitions: tantivy::columnar::Column<i64>,
    offsets: tantivy::columnar::Column<i64>,
}

impl PlaceColumns {
    /// Those of all segments.
    pub(crate) fn of(searcher: &Searcher) -> tantivy::Result<Vec<Self>> {
        let segments = searcher.segment_readers().iter();
        let columns = segments.map(|segment| {
            let fast = segment.fast_fields();
            Ok(Self { partitions: fast.i64("_partition")?, offsets: fast.i64("_offset")? })
        });
        columns.collect()
    }

    /// The place of one row. Both columns are never null.
    pub(crate) fn place(&self, row: u32) -> (Partition, Offset) {
        let partition = self.partitions.first(row).unwrap_or_default();
        (partition as Partition, self.offsets.first(row).unwrap_or_default())
    }
}
