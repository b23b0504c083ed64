//! Reading what is committed, from any offset.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use contract::{Offset, Partition, Positions};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse};
use kafka_protocol::records::Record;

use crate::cluster::{Cluster, name};
use crate::failure::{Failure, Outcome, check};
use crate::record::batches;

/// Bytes asked of all partitions together at the least and at the most, as brokers hold them.
const BYTES: std::ops::RangeInclusive<usize> = 256 << 10..=16 << 20;
/// Packed, records take a quarter of their bytes or less.
const PACKED: usize = 4;
const PARTITION_BYTES_MIN: usize = 64 << 10;
const READ_COMMITTED: i8 = 1;

/// What a read brought of each partition.
#[derive(Default)]
pub(crate) struct Fetched {
    pub(crate) records: Vec<(Partition, Record)>,
    pub(crate) next: Positions,
}

/// Reads with a fair share for each partition.
#[derive(Default)]
pub(crate) struct Reader {
    /// Which partition is named first: brokers fill an answer in the order of the request.
    turn: AtomicUsize,
}

impl Reader {
    /// What is committed at and after `from`, about `bytes_max` bytes; waits up to `wait` for the first record.
    pub(crate) async fn fetch(
        &self,
        cluster: &Cluster,
        topic: &str,
        from: &Positions,
        bytes_max: usize,
        wait: Duration,
    ) -> Outcome<Fetched> {
        let fetched = self.fetch_once(cluster, topic, from, bytes_max, wait).await;
        if fetched.as_ref().is_err_and(Failure::may_pass) {
            cluster.forget(topic);
        }
        fetched
    }

    async fn fetch_once(
        &self,
        cluster: &Cluster,
        topic: &str,
        from: &Positions,
        bytes_max: usize,
        wait: Duration,
    ) -> Outcome<Fetched> {
        let leaders = cluster.leaders(topic).await?.unwrap_or_default();
        let mut by_leader: BTreeMap<i32, Vec<(Partition, Offset)>> = BTreeMap::new();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % from.0.len().max(1);
        let places = from.0.iter().skip(turn).chain(from.0.iter().take(turn));
        for (&partition, &offset) in places {
            let leader = usize::try_from(partition).ok().and_then(|place| leaders.get(place)).copied();
            let absent = || {
                Failure::Refused(format!(
                    "`{topic}` has no partition {partition}: it was deleted (start again: what the stores lack is \
                     collected again)"
                ))
            };
            by_leader.entry(leader.ok_or_else(absent)?).or_default().push((partition, offset));
        }
        let share = bytes_max / from.0.len().max(1);
        // Of several brokers the first that has something answers for all; with one there is nothing to choose.
        let mut asked: FuturesUnordered<_> = by_leader
            .iter()
            .map(|(&leader, places)| {
                let request = request(topic, places, bytes_max, wait);
                async move { cluster.ask_broker(leader, &request, wait).await }
            })
            .collect();
        let mut fetched = Fetched { next: from.clone(), ..Fetched::default() };
        while let Some(answer) = asked.next().await {
            take(answer?, from, share, &mut fetched)?;
            if fetched.next != *from {
                break;
            }
        }
        Ok(fetched)
    }
}

fn request(topic: &str, places: &[(Partition, Offset)], bytes_max: usize, wait: Duration) -> FetchRequest {
    let share = (bytes_max / places.len().max(1) / PACKED).max(PARTITION_BYTES_MIN);
    let partition = |&(partition, offset): &(Partition, Offset)| {
        FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(share as i32)
    };
    let topic = FetchTopic::default().with_topic(name(topic)).with_partitions(places.iter().map(partition).collect());
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX))
        .with_min_bytes(1)
        .with_max_bytes(bytes_max.clamp(*BYTES.start(), *BYTES.end()) as i32)
        .with_isolation_level(READ_COMMITTED)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

fn take(answer: FetchResponse, from: &Positions, share: usize, fetched: &mut Fetched) -> Outcome<()> {
    check(answer.error_code, || "reading".to_owned())?;
    for topic in answer.responses {
        for part in topic.partitions {
            let partition = part.partition_index;
            let start = from.of(partition);
            check(part.error_code, || {
                format!("reading `{}` partition {partition} from offset {start}", topic.topic.as_str())
            })?;
            take_partition(part, start, share, fetched)?;
        }
    }
    Ok(())
}

/// The records of committed transactions, and of none; brokers answer nothing beyond the first open transaction.
fn take_partition(mut part: PartitionData, start: Offset, share: usize, fetched: &mut Fetched) -> Outcome<()> {
    let partition = part.partition_index;
    let mut undone = part.aborted_transactions.take().unwrap_or_default();
    undone.sort_by_key(|transaction| std::cmp::Reverse(transaction.first_offset));
    let mut undoing = BTreeSet::new();
    let mut bytes = 0;
    for batch in batches(part.records.take().unwrap_or_default()) {
        while undone.last().is_some_and(|transaction| transaction.first_offset < batch.offsets.end) {
            undoing.extend(undone.pop().map(|transaction| transaction.producer_id.0));
        }
        let is_undone = batch.is_transactional && undoing.contains(&batch.producer_id);
        if batch.is_control {
            if is_undone && batch.is_abort()? {
                undoing.remove(&batch.producer_id);
            }
        } else if !is_undone {
            if bytes >= share && bytes > 0 {
                return Ok(());
            }
            let records = batch.records()?.into_iter().filter(|record| record.offset >= start).collect();
            if !take_records(partition, records, (share, &mut bytes), fetched) {
                return Ok(());
            }
        }
        fetched.next.advance(partition, batch.offsets.end);
    }
    Ok(())
}

/// Whether all were taken. A batch is cut only where it alone is far more than was asked for: what is cut is fetched again.
fn take_records(
    partition: Partition,
    records: Vec<Record>,
    (share, bytes): (usize, &mut usize),
    fetched: &mut Fetched,
) -> bool {
    let size = |record: &Record| record.value.as_ref().map_or(0, |value| value.len());
    let is_far_more = records.iter().map(size).sum::<usize>() > 2 * share;
    for record in records {
        if is_far_more && *bytes >= share && *bytes > 0 {
            return false;
        }
        *bytes += size(&record);
        fetched.next.advance(partition, record.offset + 1);
        fetched.records.push((partition, record));
    }
    true
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use contract::Timestamp;
    use kafka_protocol::messages::ProducerId;
    use kafka_protocol::messages::fetch_response::AbortedTransaction;
    use kafka_protocol::records::Compression;

    use super::*;
    use crate::record::{Outgoing, Writer, encode};

    /// A batch of `count` records of a producer at an offset.
    fn batch(producer_id: i64, offset: Offset, count: usize, control: Option<&'static [u8]>) -> Vec<u8> {
        let record = || Outgoing {
            key: Bytes::from_static(control.unwrap_or(b"k")),
            value: Some(Bytes::from_static(b"12345")),
            headers: Vec::new(),
        };
        let out: Vec<_> = (0..count).map(|_| record()).collect();
        let writer = Writer { producer_id, epoch: 0, sequence: 0 };
        let mut bytes = encode(&out, writer, Timestamp(0), Compression::None).unwrap().to_vec();
        bytes[..8].copy_from_slice(&offset.to_be_bytes());
        if control.is_some() {
            // The attributes are under the checksum.
            bytes[22] |= 1 << 5;
            let crc = crc32c(&bytes[21..]);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        }
        bytes
    }

    fn crc32c(bytes: &[u8]) -> u32 {
        let step = |crc: u32, &byte: &u8| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(crc & 1)))
        };
        !bytes.iter().fold(!0, step)
    }

    fn read(parts: &[Vec<u8>], aborted: &[(i64, Offset)], start: Offset, share: usize) -> (Vec<Offset>, Offset) {
        let mut bytes = BytesMut::new();
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        let aborted = aborted.iter().map(|&(producer, first)| {
            AbortedTransaction::default().with_producer_id(ProducerId(producer)).with_first_offset(first)
        });
        let part = PartitionData::default()
            .with_records(Some(bytes.freeze()))
            .with_aborted_transactions(Some(aborted.collect()));
        let mut fetched = Fetched { next: Positions([(0, start)].into()), ..Fetched::default() };
        take_partition(part, start, share, &mut fetched).unwrap();
        (fetched.records.iter().map(|(_, record)| record.offset).collect(), fetched.next.of(0))
    }

    const ABORT: Option<&[u8]> = Some(&[0, 0, 0, 0]);
    const COMMIT: Option<&[u8]> = Some(&[0, 0, 0, 1]);

    #[test]
    fn what_a_transaction_undid_is_not_read_and_what_it_did_later_is() {
        let parts = [
            batch(1, 0, 2, None),
            batch(2, 2, 1, None),
            batch(1, 3, 1, ABORT),
            batch(2, 4, 1, COMMIT),
            batch(1, 5, 2, None),
            batch(1, 7, 1, COMMIT),
        ];
        assert_eq!(read(&parts, &[(1, 0)], 0, 1_000), (vec![2, 5, 6], 8));
    }

    #[test]
    fn reading_starts_within_a_batch_and_goes_on_behind_markers() {
        let parts = [batch(1, 10, 5, None), batch(1, 15, 1, COMMIT)];
        assert_eq!(read(&parts, &[], 13, 1_000), (vec![13, 14], 16));
        assert_eq!(read(&parts[1..], &[], 15, 1_000), (vec![], 16));
        assert_eq!(read(&[], &[], 7, 1_000), (vec![], 7));
    }

    #[test]
    fn a_batch_far_larger_than_asked_for_is_cut_and_gives_at_least_one_record() {
        let parts = [batch(1, 0, 10, None), batch(1, 10, 1, COMMIT)];
        assert_eq!(read(&parts, &[], 0, 1), (vec![0], 1));
        assert_eq!(read(&parts, &[], 1, 10), (vec![1, 2], 3));
        assert_eq!(read(&parts, &[], 8, 10), (vec![8, 9], 11));
    }
}
