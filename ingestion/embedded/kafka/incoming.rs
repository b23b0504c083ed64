//! A batch that a client produces: what is checked before it enters the log, and what is set in it.
//! Source: <https://kafka.apache.org/41/design/#recordbatch>.
//!
//! | part of the batch | what happens to it |
//! | --- | --- |
//! | base offset, leader epoch | set: the offset by the writer, the epoch to 0 |
//! | attributes, last timestamp | the bit "log append time", and that time; topics are `message.timestamp.type=LogAppendTime` |
//! | first timestamp and the records' differences to it | stay: what the producer said is still to be read from them |
//! | checksum | checked as it came, then computed anew over the above |
//! | codec, records, keys, values, headers | stay byte for byte |

use bytes::{Bytes, BytesMut};
use contract::{LogRecord, Timestamp};
use kafka_protocol::ResponseError;

use super::metadata::NO_TRANSACTIONS;
use super::unpack::unpack;
use crate::record_batch::{self, EncodedBatch};

/// Bytes of a batch as it comes: a record at the limit of what processors look at, and room for others beside it.
pub(crate) const BATCH_BYTES_MAX: usize = 16 << 20;

/// Bytes of its records when unpacked. Real batches hold about a megabyte and pack to a tenth; what packs to a thousandth is
/// meant to fill the memory.
const UNPACKED_BYTES_MAX: usize = 64 << 20;

const HEADER_BYTES: usize = 61;
const CODEC_MASK: i16 = 0b111;
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// Why a batch is refused: Kafka's error, and a sentence.
pub(crate) type Refusal = (ResponseError, String);

/// A batch that may enter the log.
pub(crate) struct Incoming {
    pub(crate) batch: EncodedBatch,
    /// Of a producer that numbers its records.
    pub(crate) sent: Option<Sent>,
}

/// The numbers that an idempotent producer gave its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) first: i32,
    pub(crate) last: i32,
}

/// Checks a batch and sets what the log sets. Unpacks it once, to see that all of its records can be read.
pub(crate) fn accept(records: &Bytes, appended_at: Timestamp) -> Result<Incoming, Refusal> {
    let invalid = |what: &str| (ResponseError::InvalidRecord, what.to_owned());
    if records.len() > BATCH_BYTES_MAX {
        let doing = format!("a batch of {} bytes (at most {BATCH_BYTES_MAX})", records.len());
        return Err((ResponseError::MessageTooLarge, doing));
    }
    let Some(header) = records.first_chunk::<HEADER_BYTES>() else {
        return Err(invalid("the batch is shorter than its header"));
    };
    if header[16] != 2 {
        return Err((ResponseError::UnsupportedForMessageFormat, "only record batches of version 2 are taken".into()));
    }
    if int(header, 8) != records.len() as i32 - 12 {
        return Err(invalid("a partition takes one whole batch in a request"));
    }
    if int(header, 17) as u32 != crc32c::crc32c(&records[21..]) {
        return Err((ResponseError::CorruptMessage, "the checksum of the batch differs".to_owned()));
    }
    let attributes = i16::from_be_bytes([header[21], header[22]]);
    if attributes & TRANSACTIONAL != 0 {
        return Err((ResponseError::TransactionalIdAuthorizationFailed, NO_TRANSACTIONS.to_owned()));
    }
    if attributes & CONTROL != 0 {
        return Err(invalid("only a server writes control batches"));
    }
    let count = int(header, 57);
    if count < 1 || int(header, 23) != count - 1 {
        return Err(invalid("the number of records and the last offset do not agree"));
    }
    let section_bytes = check_records(records, header, attributes & CODEC_MASK)?;
    let sent = Sent {
        producer_id: long(header, 43),
        epoch: i16::from_be_bytes([header[51], header[52]]),
        first: int(header, 53),
        last: add_sequence(int(header, 53), count - 1),
    };
    let numbered = sent.producer_id >= 0;
    if numbered && (sent.first < 0 || sent.epoch < 0) {
        return Err(invalid("a producer with an id gives its records numbers"));
    }
    let (bytes, crc) = stamp(records, attributes, appended_at);
    let batch = EncodedBatch { bytes, records: count as u32, section_bytes, crc };
    Ok(Incoming { batch, sent: numbered.then_some(sent) })
}

/// Kafka's sequence numbers go on at 0 after the highest.
pub(crate) fn add_sequence(first: i32, more: i32) -> i32 {
    (i64::from(first) + i64::from(more)).rem_euclid(1 << 31) as i32
}

/// Reads every record; answers how many bytes they take unpacked.
fn check_records(records: &Bytes, header: &[u8; HEADER_BYTES], codec: i16) -> Result<u32, Refusal> {
    let section = unpack(codec, &records.slice(HEADER_BYTES..), UNPACKED_BYTES_MAX)
        .map_err(|error| (ResponseError::InvalidRecord, format!("the records cannot be unpacked: {error}")))?;
    let section_bytes = section.len();
    // The same batch without a codec is read as the log's readers will read it.
    let mut plain = BytesMut::with_capacity(HEADER_BYTES + section_bytes);
    plain.extend_from_slice(header);
    plain[..8].fill(0);
    plain[22] &= !(CODEC_MASK as u8);
    plain.extend_from_slice(&section);
    drop(section);
    let invalid = |what: String| (ResponseError::InvalidRecord, what);
    let mut read = record_batch::decode(&plain.freeze(), section_bytes, 0).map_err(invalid)?;
    for (expected, record) in (0..).zip(read.by_ref()) {
        let LogRecord { offset, record, .. } = record.map_err(invalid)?;
        if offset != expected {
            return Err(invalid(format!("record {expected} of the batch has another offset")));
        }
        let times = [record.event_time, record.fetched_at];
        if times.iter().any(|time| Timestamp::in_calendar(time.0).is_none()) {
            return Err(invalid(format!(
                "a time in the headers of record {expected} lies outside the years 1 to 9999"
            )));
        }
    }
    if !read.is_used_up() {
        return Err(invalid("more stands behind the last record of the batch".to_owned()));
    }
    Ok(u32::try_from(section_bytes).expect("bounded above"))
}

/// The batch with what the log sets, except for the offset; and its checksum.
fn stamp(records: &Bytes, attributes: i16, appended_at: Timestamp) -> (Vec<u8>, u32) {
    let mut bytes = records.to_vec();
    bytes[12..16].fill(0);
    bytes[21..23].copy_from_slice(&(attributes | LOG_APPEND_TIME).to_be_bytes());
    bytes[35..43].copy_from_slice(&appended_at.0.div_euclid(1_000).to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    (bytes, crc)
}

fn int(header: &[u8; HEADER_BYTES], at: usize) -> i32 {
    i32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"))
}

fn long(header: &[u8; HEADER_BYTES], at: usize) -> i64 {
    i64::from_be_bytes(header[at..at + 8].try_into().expect("eight bytes"))
}
