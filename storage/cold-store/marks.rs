//! The next offsets that a table's log holds: its `txn` actions.
//!
//! A commit is a compare-and-set: it names only the partitions that it moves, and is made only while the log's `txn` of each is
//! the one that was found when its rows were chosen. So two processes that hold the same rows cannot both commit them.
//! Source: <https://github.com/delta-io/delta/blob/master/PROTOCOL.md#transaction-identifiers>.

use std::collections::BTreeMap;

use contract::{Offset, Partition, Positions, SourceId};
use deltalake::DeltaTableError;
use deltalake::kernel::Transaction;
use deltalake::logstore::LogStore;
use deltalake::table::state::DeltaTableState;

/// Partitions whose position a table is asked for at the most: far above what a topic has.
const PARTITIONS_MAX: Partition = 100_000;

/// The `txn` actions of a table by the start of their appIds: `databroker/silver.github/3` is partition 3 of the first.
#[derive(Clone, Default)]
pub(crate) struct Marks(BTreeMap<String, Positions>);

/// The start of the appIds of a source's `txn` actions in one of its tables.
pub(crate) fn prefix(table: &str, source: SourceId) -> String {
    match table.strip_prefix("ops.") {
        Some(_) => format!("databroker/{table}/{source}"),
        None => format!("databroker/{table}"),
    }
}

impl Marks {
    /// Reads those with some prefixes. delta-rs answers for an appId that is named only, so they are counted up from
    /// partition 0 to the first that is not there: see [`Moves::between`].
    pub(crate) async fn read(
        store: &dyn LogStore,
        state: &DeltaTableState,
        prefixes: &[String],
    ) -> Result<Self, DeltaTableError> {
        let mut marks = Self::default();
        for prefix in prefixes {
            let mut positions = Positions::default();
            for partition in 0..PARTITIONS_MAX {
                let Some(next) = state.transaction_version(store, format!("{prefix}/{partition}")).await? else {
                    break;
                };
                positions.advance(partition, next);
            }
            marks.0.insert(prefix.clone(), positions);
        }
        Ok(marks)
    }

    /// Takes one of a commit; the last one counts.
    pub(crate) fn take(&mut self, transaction: &Transaction) {
        let Some((prefix, partition)) = transaction.app_id.rsplit_once('/') else { return };
        if let Ok(partition) = partition.parse::<Partition>() {
            self.0.entry(prefix.to_owned()).or_default().0.insert(partition, transaction.version);
        }
    }

    /// The next offsets with a prefix.
    pub(crate) fn of(&self, prefix: &str) -> Positions {
        self.0.get(prefix).cloned().unwrap_or_default()
    }
}

/// What a commit changes of the marks.
#[derive(Default)]
pub(crate) struct Moves(Vec<Move>);

struct Move {
    prefix: String,
    partition: Partition,
    /// What was found in the log.
    from: Option<Offset>,
    to: Offset,
}

impl Moves {
    /// None: the positions stay.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// From what was `found` to what is `held`, in each partition where that is further. Partitions below these that have
    /// no `txn` yet get one, at 0 at least, so that no later one hides behind them.
    pub(crate) fn between(prefix: &str, found: &Positions, held: &Positions) -> Self {
        let mut moved = held.0.iter().filter(|&(&partition, &next)| next > found.of(partition));
        let end = moved.next_back().map_or(0, |(&partition, _)| partition + 1);
        let each = (0..end).map(|partition| Move {
            prefix: prefix.to_owned(),
            partition,
            from: found.0.get(&partition).copied(),
            to: held.of(partition),
        });
        Self(each.filter(|each| each.from.is_none_or(|from| from < each.to)).collect())
    }

    /// Those of both.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first partition that another process moved meanwhile.
    pub(crate) fn overtaken(&self, now: &Marks) -> Option<Partition> {
        let at = |each: &Move| now.0.get(&each.prefix).and_then(|positions| positions.0.get(&each.partition)).copied();
        let moved = self.0.iter().find(|each| at(each) != each.from);
        moved.map(|each| each.partition)
    }

    /// The actions.
    pub(crate) fn transactions(&self, now_ms: i64) -> Vec<Transaction> {
        let transaction = |each: &Move| {
            let id = format!("{}/{}", each.prefix, each.partition);
            Transaction::new_with_last_update(id, each.to, Some(now_ms))
        };
        self.0.iter().map(transaction).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions<const N: usize>(next: [(Partition, Offset); N]) -> Positions {
        Positions(next.into())
    }

    #[test]
    fn a_commit_names_what_it_moves_and_the_partitions_below_that_have_no_txn() {
        let found = positions([(0, 5), (1, 7)]);
        let moves = Moves::between("p", &found, &positions([(0, 5), (1, 6), (4, 3)]));
        let named: Vec<_> = moves.transactions(0).into_iter().map(|txn| (txn.app_id, txn.version)).collect();
        let expected = [("p/2", 0), ("p/3", 0), ("p/4", 3)].map(|(id, next)| (id.to_owned(), next));
        assert_eq!(named, expected);
        assert!(Moves::between("p", &found, &positions([(0, 5), (1, 6)])).is_empty());
    }

    #[test]
    fn a_move_is_overtaken_only_by_one_of_the_same_partition_and_table() {
        let mut marks = Marks::default();
        let take = |marks: &mut Marks, id: &str, next| marks.take(&Transaction::new(id, next));
        take(&mut marks, "p/0", 5);
        let moves = Moves::between("p", &marks.of("p"), &positions([(0, 9), (1, 1)]));
        take(&mut marks, "other/0", 50);
        take(&mut marks, "p/2", 50);
        take(&mut marks, "p/not a number", 50);
        assert_eq!(moves.overtaken(&marks), None);
        take(&mut marks, "p/1", 0);
        assert_eq!(moves.overtaken(&marks), Some(1), "it had none, and has one now");
        assert_eq!(Moves::none().overtaken(&marks), None);
    }
}
