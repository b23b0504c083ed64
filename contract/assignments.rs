//! Which partitions a process has, where several share those of a log.

use std::collections::BTreeSet;

use crate::{Partition, Topic};

/// Tells a process what it has of each topic, as it changes. Whoever reads a topic asks often, and brings what it does in
/// line:
///
/// | the share changes | what is done |
/// | --- | --- |
/// | a partition is no longer in it, in the same life | what was read of it goes into both stores; then `settled`, and the next process has it |
/// | another life began | all of the life before was lost, perhaps long ago: what was read and not committed is forgotten |
/// | a partition is in it that was not | both stores are asked where it stands now, whoever wrote it until then |
///
/// A process that does not know yet that it lost a partition does no harm: rows follow from the log alone, and the stores
/// drop what is there.
pub trait Assignments: Send + Sync {
    /// What this process has of a topic now.
    fn share(&self, topic: &Topic) -> Share;

    /// Says that nothing but what is in `share` is read of the topic any more, and that what was read of all else is in the
    /// stores.
    fn settled(&self, topic: &Topic, share: &Share);
}

/// What a process has of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Counts how often all was lost; within a life a partition is taken back only after it was given up.
    pub life: u64,
    /// The partitions.
    pub partitions: BTreeSet<Partition>,
}
