//! Records as they stand on a topic: any Kafka client finds all of it.
//!
//! | part | holds |
//! | --- | --- |
//! | key | the id, which also chooses the partition |
//! | value | what the source said, byte for byte |
//! | headers | `id`; `event_time`, `fetched_at` (decimal microseconds since 1970); `content_type`, a guess for readers |
//! | timestamp | when it was logged |
//!
//! A record of a foreign hand may lack the headers: its key is its id, or its content where it has none; its timestamp is
//! every time. Source: <https://kafka.apache.org/41/design/#recordbatch>.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use contract::{LogRecord, Offset, Partition, RawRecord, RecordId, Timestamp, limits};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use sha2::{Digest, Sha256};

use crate::failure::{Failure, Outcome};

const HEADER_BYTES: usize = 61;

/// Who writes a batch: what makes it part of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Writer {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    /// The number of the batch's first record among all this writer wrote to the partition.
    pub(crate) sequence: i32,
}

/// Key, value and headers, to be encoded.
pub(crate) struct Outgoing {
    pub(crate) key: Bytes,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<(&'static str, Bytes)>,
}

impl From<&RawRecord> for Outgoing {
    fn from(record: &RawRecord) -> Self {
        let id = Bytes::copy_from_slice(record.id.as_str().as_bytes());
        let decimal = |time: Timestamp| Bytes::from(time.0.to_string());
        let headers = vec![
            ("id", id.clone()),
            ("event_time", decimal(record.event_time)),
            ("fetched_at", decimal(record.fetched_at)),
            ("content_type", Bytes::from_static(content_type(&record.body).as_bytes())),
        ];
        Self { key: id, value: Some(record.body.clone()), headers }
    }
}

fn content_type(body: &[u8]) -> &'static str {
    match body.first() {
        Some(b'{' | b'[') => "application/json",
        Some(b'<') => "application/xml",
        _ => "application/octet-stream",
    }
}

/// One batch of a transaction.
pub(crate) fn encode(
    records: &[Outgoing],
    writer: Writer,
    logged_at: Timestamp,
    compression: Compression,
) -> Outcome<Bytes> {
    let headers = |record: &Outgoing| -> IndexMap<StrBytes, Option<Bytes>> {
        let header = |(name, value): &(&'static str, Bytes)| (StrBytes::from_static_str(name), Some(value.clone()));
        record.headers.iter().map(header).collect()
    };
    let record = |(place, record): (i32, &Outgoing)| Record {
        transactional: true,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: writer.producer_id,
        producer_epoch: writer.epoch,
        timestamp_type: TimestampType::Creation,
        offset: i64::from(place),
        sequence: writer.sequence.wrapping_add(place),
        timestamp: logged_at.0.div_euclid(1_000),
        key: Some(record.key.clone()),
        value: record.value.clone(),
        headers: headers(record),
    };
    let records: Vec<Record> = (0..).zip(records).map(record).collect();
    let mut out = BytesMut::new();
    RecordBatchEncoder::encode(&mut out, &records, &RecordEncodeOptions { version: 2, compression })
        .map_err(|cause| Failure::Refused(format!("a batch cannot be encoded: {cause}")))?;
    Ok(out.freeze())
}

/// A batch as it was fetched, its records not unpacked yet.
pub(crate) struct Fetched {
    /// The offsets it takes; compaction may have removed some.
    pub(crate) offsets: Range<Offset>,
    pub(crate) producer_id: i64,
    pub(crate) is_transactional: bool,
    pub(crate) is_control: bool,
    bytes: Bytes,
}

/// The whole batches in what was fetched; brokers cut the last one where the limit of bytes is.
pub(crate) fn batches(mut bytes: Bytes) -> Vec<Fetched> {
    let mut found = Vec::new();
    while bytes.len() >= HEADER_BYTES {
        let long = |at: usize| i64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let number = |at: usize| i32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let Some(length) = usize::try_from(number(8)).ok().and_then(|length| length.checked_add(12)) else { break };
        if length < HEADER_BYTES || length > bytes.len() {
            break;
        }
        let attributes = i16::from_be_bytes([bytes[21], bytes[22]]);
        let (first, last_delta) = (long(0), i64::from(number(23)));
        found.push(Fetched {
            offsets: first..first.saturating_add(last_delta).saturating_add(1),
            producer_id: long(43),
            is_transactional: attributes & (1 << 4) != 0,
            is_control: attributes & (1 << 5) != 0,
            bytes: bytes.split_to(length),
        });
    }
    found
}

impl Fetched {
    /// The records, unpacked; the checksum is compared.
    pub(crate) fn records(&self) -> Outcome<Vec<Record>> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let decoded = RecordBatchDecoder::decode(&mut self.bytes.clone());
        let damaged =
            |cause| Failure::unheard(format!("the batch at offset {} is damaged: {cause}", self.offsets.start));
        decoded.map(|set| set.records).map_err(damaged)
    }

    fn is_empty(&self) -> bool {
        self.bytes[57..61] == [0; 4]
    }

    /// Whether this control batch says that a transaction was undone: the key's second half is 0 then.
    pub(crate) fn is_abort(&self) -> Outcome<bool> {
        let records = self.records()?;
        let key = records.first().and_then(|record| record.key.as_ref());
        Ok(key.is_some_and(|key| key.get(2..4) == Some(&[0, 0])))
    }
}

/// What a record of a topic of ours says; of a foreign one, what can be made of it.
pub(crate) fn understand(partition: Partition, record: Record) -> LogRecord {
    let appended_at = Timestamp(record.timestamp.saturating_mul(1_000));
    let header = |name: &str| record.headers.get(name.as_bytes()).cloned().flatten();
    let time = |name: &str| {
        let decimal = header(name).and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok());
        decimal.map_or(appended_at, Timestamp)
    };
    let (event_time, fetched_at) = (time("event_time"), time("fetched_at"));
    let body = record.value.clone().unwrap_or_default();
    let named = header("id").or_else(|| record.key.clone().filter(|key| !key.is_empty()));
    let named = named.filter(|id| id.len() <= limits::ID_BYTES_MAX).and_then(RecordId::from_utf8);
    let id = named.unwrap_or_else(|| content_id(record.key.as_ref(), &body));
    let record_of_ours = RawRecord { id, event_time, fetched_at, body };
    LogRecord { partition, offset: record.offset, appended_at, record: record_of_ours }
}

/// An id made of the content, where the record names none that can be one.
fn content_id(key: Option<&Bytes>, body: &Bytes) -> RecordId {
    let mut hash = Sha256::new();
    key.into_iter().for_each(|key| hash.update(key));
    hash.update(body);
    let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    RecordId::from(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITER: Writer = Writer { producer_id: 7, epoch: 3, sequence: 40 };

    fn raw(id: &str, body: &'static str) -> RawRecord {
        let (event_time, fetched_at) = (Timestamp(-5), Timestamp(1_700_000_000_000_001));
        RawRecord { id: RecordId::from(id), event_time, fetched_at, body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn each_codec_gives_back_what_it_took() {
        let sent = [raw("a", "{}"), raw("zwölf\0", ""), raw("b", "<x/>")];
        let out: Vec<Outgoing> = sent.iter().map(Outgoing::from).collect();
        for codec in [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let bytes = encode(&out, WRITER, Timestamp(2_000_000), codec).unwrap();
            let mut cut = bytes.to_vec();
            cut.extend_from_slice(&bytes[..bytes.len() - 1]);
            let batches = batches(cut.into());
            assert_eq!(batches.len(), 1, "the second is cut");
            let batch = &batches[0];
            assert_eq!((batch.offsets.clone(), batch.producer_id), (0..3, 7));
            assert!(batch.is_transactional && !batch.is_control);
            let read: Vec<_> = batch.records().unwrap().into_iter().map(|record| understand(1, record)).collect();
            assert!(read.iter().all(|at| at.appended_at == Timestamp(2_000_000) && at.partition == 1));
            assert_eq!(read.into_iter().map(|at| at.record).collect::<Vec<_>>(), sent, "{codec:?}");
        }
    }

    #[test]
    fn a_damaged_batch_is_told_by_its_checksum() {
        let bytes = encode(&[Outgoing::from(&raw("a", "{}"))], WRITER, Timestamp(0), Compression::None).unwrap();
        let mut damaged = bytes.to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(batches(damaged.into())[0].records().is_err());
    }

    #[test]
    fn a_foreign_record_is_known_by_its_key_or_its_content() {
        let foreign = |key: Option<&'static [u8]>, event_time: &'static str| {
            let out = [Outgoing {
                key: Bytes::new(),
                value: Some(Bytes::from_static(b"body")),
                headers: vec![("event_time", Bytes::from_static(event_time.as_bytes()))],
            }];
            let bytes = encode(&out, WRITER, Timestamp(7_000), Compression::None).unwrap();
            let mut record = batches(bytes)[0].records().unwrap().remove(0);
            record.key = key.map(Bytes::from_static);
            understand(0, record).record
        };
        let named = foreign(Some(b"k"), "12");
        assert_eq!((named.id.as_str(), named.event_time, named.fetched_at), ("k", Timestamp(12), Timestamp(7_000)));
        for key in [None, Some(&b""[..]), Some(&[0xff, 0xfe][..])] {
            let made = foreign(key, "soon");
            assert_eq!((made.id.as_str().len(), made.event_time), (64, Timestamp(7_000)));
        }
        assert_ne!(foreign(None, "1").id, foreign(Some(&[0xff]), "1").id);
    }
}
