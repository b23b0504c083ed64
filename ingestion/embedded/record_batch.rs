//! Kafka's RecordBatch v2: what one append holds for one partition, in the bytes that the Kafka protocol
//! carries. Source: <https://kafka.apache.org/41/design/#recordbatch>.
//!
//! A record's key is its id and its value the body; headers `id`, `event_time` and `fetched_at`
//! (decimal microseconds since 1970) and `content_type` say the rest, so that any Kafka client finds all of it.

use bytes::Bytes;
use contract::{LogRecord, Offset, Partition, RawRecord, Timestamp};

use crate::codec::{self, Compression, Encoder};
use crate::kafka::{outside, unpack};

const HEADER_BYTES: usize = 61;
const MAGIC: u8 = 2;
/// Where the part that Kafka's checksum covers begins: after the base offset, so that the offset can be
/// set at the last moment.
const CHECKED_FROM: usize = 21;
const LOG_APPEND_TIME: i16 = 1 << 3;
const CODEC_MASK: i16 = 0b111;

/// A batch that waits for its base offset.
pub(crate) struct EncodedBatch {
    /// The batch, its base offset 0.
    pub(crate) bytes: Vec<u8>,
    /// How many records.
    pub(crate) records: u32,
    /// Bytes of the records before compression.
    pub(crate) section_bytes: u32,
    /// Kafka's checksum.
    pub(crate) crc: u32,
}

impl EncodedBatch {
    pub(crate) fn set_base_offset(&mut self, base: Offset) {
        self.bytes[..8].copy_from_slice(&base.to_be_bytes());
    }
}

/// Encodes and compresses records in their order. The caller bounds their size: see
/// [`crate::frame::FRAME_BYTES_MAX`].
pub(crate) fn encode(
    records: &[RawRecord],
    appended_at: Timestamp,
    compression: Compression,
    encoder: &mut Encoder,
) -> EncodedBatch {
    assert!(!records.is_empty(), "a batch holds at least one record");
    let mut headers = Vec::new();
    for (offset_delta, record) in (0..).zip(records) {
        put_record(&mut encoder.section, offset_delta, record, &mut headers);
    }
    let section_bytes = u32::try_from(encoder.section.len()).expect("bounded by the size of a frame");
    let count = i32::try_from(records.len()).expect("bounded by the size of a frame");
    let section = encoder.compress(compression);

    let mut bytes = Vec::with_capacity(HEADER_BYTES + section.len());
    let length_after_this = i32::try_from(HEADER_BYTES - 12 + section.len()).expect("bounded by the size of a frame");
    let milliseconds = appended_at.0.div_euclid(1_000).to_be_bytes();
    bytes.extend_from_slice(&0_i64.to_be_bytes()); // base offset
    bytes.extend_from_slice(&length_after_this.to_be_bytes());
    bytes.extend_from_slice(&0_i32.to_be_bytes()); // partition leader epoch
    bytes.push(MAGIC);
    bytes.extend_from_slice(&[0; 4]); // checksum
    bytes.extend_from_slice(&(compression.code() | LOG_APPEND_TIME).to_be_bytes());
    bytes.extend_from_slice(&(count - 1).to_be_bytes()); // last offset delta
    bytes.extend_from_slice(&milliseconds); // first timestamp
    bytes.extend_from_slice(&milliseconds); // last timestamp, which counts for all with LogAppendTime
    bytes.extend_from_slice(&(-1_i64).to_be_bytes()); // producer id
    bytes.extend_from_slice(&(-1_i16).to_be_bytes()); // producer epoch
    bytes.extend_from_slice(&(-1_i32).to_be_bytes()); // base sequence
    bytes.extend_from_slice(&count.to_be_bytes());
    assert_eq!(bytes.len(), HEADER_BYTES, "the header of a batch has a fixed size");
    bytes.extend_from_slice(section);
    encoder.clear();
    let crc = crc32c::crc32c(&bytes[CHECKED_FROM..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    EncodedBatch { bytes, records: count as u32, section_bytes, crc }
}

fn put_record(out: &mut Vec<u8>, offset_delta: i32, record: &RawRecord, headers: &mut Vec<u8>) {
    let id = record.id.as_str().as_bytes();
    // The length of a record stands before it and is itself of variable length. The headers are small: they
    // are written aside first, and so the length is known.
    headers.clear();
    put_varint(headers, 4);
    put_header(headers, "id", id);
    put_header(headers, "event_time", record.event_time.0.to_string().as_bytes());
    put_header(headers, "fetched_at", record.fetched_at.0.to_string().as_bytes());
    put_header(headers, "content_type", content_type(&record.body).as_bytes());
    let fixed = 1 + 1 + varint_bytes(i64::from(offset_delta));
    let key = varint_bytes(id.len() as i64) + id.len();
    let value = varint_bytes(record.body.len() as i64) + record.body.len();
    put_varint(out, (fixed + key + value + headers.len()) as i64);
    out.push(0); // attributes
    put_varint(out, 0); // timestamp delta
    put_varint(out, i64::from(offset_delta));
    put_varint(out, id.len() as i64);
    out.extend_from_slice(id);
    put_varint(out, record.body.len() as i64);
    out.extend_from_slice(&record.body);
    out.extend_from_slice(headers);
}

fn put_header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    put_varint(out, name.len() as i64);
    out.extend_from_slice(name.as_bytes());
    put_varint(out, value.len() as i64);
    out.extend_from_slice(value);
}

/// A guess for foreign readers from the first byte; Data Broker itself never reads it.
fn content_type(body: &[u8]) -> &'static str {
    match body.first() {
        Some(b'{' | b'[') => "application/json",
        Some(b'<') => "application/xml",
        _ => "application/octet-stream",
    }
}

/// Checks a batch read from disk or given by a client: form and checksum, and that it says `base_offset`.
pub(crate) fn check(batch: &[u8], base_offset: Offset, crc: u32) -> Result<(), String> {
    if batch.len() < HEADER_BYTES {
        return Err(format!("the batch has {} bytes, fewer than its header", batch.len()));
    }
    let says = |ok: bool, what: &str| if ok { Ok(()) } else { Err(format!("{what} of the batch is damaged")) };
    says(batch[..8] == base_offset.to_be_bytes(), "the base offset")?;
    says(batch[8..12] == ((batch.len() - 12) as i32).to_be_bytes(), "the length")?;
    says(batch[12..16] == [0; 4] && batch[16] == MAGIC, "the version")?;
    says(batch[17..21] == crc.to_be_bytes(), "the checksum")?;
    says(crc32c::crc32c(&batch[CHECKED_FROM..]) == crc, "the content")
}

/// The records of a checked batch, one by one; ids and bodies are slices of one buffer.
pub(crate) struct Records {
    partition: Partition,
    base_offset: Offset,
    /// When its producer made the record from which the others count.
    first_milliseconds: i64,
    appended_at: Timestamp,
    left: u32,
    section: Bytes,
}

/// Unpacks a checked batch whose records take `section_bytes` at the most.
pub(crate) fn decode(batch: &Bytes, section_bytes: usize, partition: Partition) -> Result<Records, String> {
    let number = |at: usize| batch.get(at..at + 4).map(|b| i32::from_be_bytes(b.try_into().expect("four bytes")));
    let long = |at: usize| batch.get(at..at + 8).map(|b| i64::from_be_bytes(b.try_into().expect("eight bytes")));
    let (Some(base_offset), Some(milliseconds), Some(count)) = (long(0), long(35), number(57)) else {
        return Err("the batch ends within its header".to_owned());
    };
    let first_milliseconds = long(27).unwrap_or(milliseconds);
    let attributes = i16::from_be_bytes([batch[21], batch[22]]);
    let code = attributes & CODEC_MASK;
    let packed = batch.slice(HEADER_BYTES..);
    let unpacked = match Compression::of_code(code) {
        Some(compression) => codec::decompress(compression, packed, section_bytes),
        None => unpack::unpack(code, &packed, section_bytes),
    };
    let section = unpacked.map_err(|error| format!("the records cannot be unpacked: {error}"))?;
    let left = u32::try_from(count).map_err(|_| format!("the batch says it holds {count} records"))?;
    let appended_at = Timestamp(milliseconds.saturating_mul(1_000));
    Ok(Records { partition, base_offset, first_milliseconds, appended_at, left, section })
}

impl Iterator for Records {
    type Item = Result<LogRecord, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let record = self.take_record().ok_or_else(|| "a record of the batch is malformed".to_owned());
        if record.is_err() {
            self.left = 0;
        }
        Some(record)
    }
}

impl Records {
    /// Whether all was read, and nothing stands behind the last record.
    pub(crate) fn is_used_up(&self) -> bool {
        self.left == 0 && self.section.is_empty()
    }

    fn take_record(&mut self) -> Option<LogRecord> {
        let length = usize::try_from(take_varint(&mut self.section)?).ok()?;
        let mut rest = take(&mut self.section, length)?;
        let _attributes = take(&mut rest, 1)?;
        let produced_ms = self.first_milliseconds.saturating_add(take_varint(&mut rest)?);
        let offset = self.base_offset.checked_add(take_varint(&mut rest)?)?;
        let key = take_field(&mut rest)?;
        let body = take_field(&mut rest)?.unwrap_or_default();
        let (mut id, mut event_time, mut fetched_at) = (None, None, None);
        let headers = u32::try_from(take_varint(&mut rest)?).ok()?;
        for _ in 0..headers {
            let name = take_field(&mut rest)??;
            let value = take_field(&mut rest)?.unwrap_or_default();
            match std::str::from_utf8(&name).ok()? {
                "id" => id = Some(value),
                "event_time" => event_time = outside::parse_time(&value),
                "fetched_at" => fetched_at = outside::parse_time(&value),
                _ => {}
            }
        }
        let record = RawRecord {
            id: outside::id(id, key, &body),
            event_time: outside::event_time(event_time, produced_ms, self.appended_at),
            fetched_at: fetched_at.unwrap_or(self.appended_at),
            body,
        };
        let is_whole = rest.is_empty();
        is_whole.then_some(LogRecord { partition: self.partition, offset, appended_at: self.appended_at, record })
    }
}

fn take(from: &mut Bytes, count: usize) -> Option<Bytes> {
    (count <= from.len()).then(|| from.split_to(count))
}

/// A length and that many bytes; the inner none is Kafka's null.
fn take_field(from: &mut Bytes) -> Option<Option<Bytes>> {
    match take_varint(from)? {
        -1 => Some(None),
        length => take(from, usize::try_from(length).ok()?).map(Some),
    }
}

/// A zigzag number of seven bits a byte, lowest first, as in Protocol Buffers.
fn take_varint(from: &mut Bytes) -> Option<i64> {
    let mut value = 0_u64;
    for (place, &byte) in from.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            // Longer than needed: other readers of the log refuse it.
            if byte == 0 && place > 0 {
                return None;
            }
            bytes::Buf::advance(from, place + 1);
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut zigzag = (value << 1 ^ value >> 63) as u64;
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

fn varint_bytes(value: i64) -> usize {
    let zigzag = (value << 1 ^ value >> 63) as u64;
    (70 - (zigzag | 1).leading_zeros() as usize) / 7
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::records as kafka;
    use proptest::prelude::*;

    use super::*;

    const CODECS: [(Compression, kafka::Compression); 3] = [
        (Compression::None, kafka::Compression::None),
        (Compression::Lz4, kafka::Compression::Lz4),
        (Compression::Zstd, kafka::Compression::Zstd),
    ];

    fn records() -> Vec<RawRecord> {
        let record = |number: i64| RawRecord {
            id: format!("ключ-{number}").into(),
            event_time: Timestamp(-number * 1_000_001),
            fetched_at: Timestamp(1_700_000_000_123_456 + number),
            body: format!(r#"{{"n":{number},"text":"{}"}}"#, "wörd ".repeat(number as usize * 40)).into(),
        };
        (0..200).map(record).collect()
    }

    fn encoded(records: &[RawRecord], compression: Compression) -> EncodedBatch {
        let mut batch = encode(records, Timestamp(1_700_000_000_123_456), compression, &mut Encoder::new());
        batch.set_base_offset(77);
        batch
    }

    #[test]
    fn a_batch_comes_back_with_its_offsets_and_times() {
        for (compression, _) in CODECS {
            let batch = encoded(&records(), compression);
            let bytes = Bytes::from(batch.bytes);
            check(&bytes, 77, batch.crc).unwrap();
            let read: Vec<LogRecord> =
                decode(&bytes, batch.section_bytes as usize, 3).unwrap().collect::<Result<_, _>>().unwrap();
            assert_eq!(read.iter().map(|r| r.offset).collect::<Vec<_>>(), (77..277).collect::<Vec<_>>());
            assert!(read.iter().all(|r| r.partition == 3 && r.appended_at == Timestamp(1_700_000_000_123_000)));
            assert_eq!(read.into_iter().map(|r| r.record).collect::<Vec<_>>(), records(), "{compression:?}");
        }
    }

    #[test]
    fn the_kafka_protocol_crate_reads_what_is_written() {
        for (compression, theirs) in CODECS {
            let mut bytes = Bytes::from(encoded(&records(), compression).bytes);
            let set = kafka::RecordBatchDecoder::decode(&mut bytes).unwrap();
            assert!(bytes.is_empty() && set.compression == theirs);
            assert_eq!(set.records.len(), 200);
            for (number, (theirs, ours)) in set.records.iter().zip(records()).enumerate() {
                assert_eq!(theirs.offset, 77 + number as i64);
                assert_eq!(theirs.timestamp_type, kafka::TimestampType::LogAppend);
                assert_eq!(theirs.timestamp, 1_700_000_000_123);
                assert_eq!(theirs.key.as_deref(), Some(ours.id.as_str().as_bytes()));
                assert_eq!(theirs.value.as_ref(), Some(&ours.body));
                let header = |name: &str| {
                    let (_, value) = theirs.headers.iter().find(|(key, _)| &key[..] == name).unwrap();
                    String::from_utf8(value.clone().unwrap().to_vec()).unwrap()
                };
                assert_eq!(header("id"), ours.id.as_str());
                assert_eq!(header("event_time"), ours.event_time.0.to_string());
                assert_eq!(header("fetched_at"), ours.fetched_at.0.to_string());
                assert_eq!(header("content_type"), "application/json");
            }
        }
    }

    #[test]
    fn what_the_kafka_protocol_crate_writes_is_read() {
        for (_, theirs) in CODECS {
            let sent: Vec<kafka::Record> = (0..50_i64)
                .map(|number| kafka::Record {
                    transactional: false,
                    control: false,
                    delete_horizon: false,
                    partition_leader_epoch: 0,
                    producer_id: -1,
                    producer_epoch: -1,
                    timestamp_type: kafka::TimestampType::Creation,
                    offset: 10 + number,
                    sequence: number as i32,
                    timestamp: 5_000,
                    key: Some(Bytes::from(format!("key {number}"))),
                    value: (number != 7).then(|| Bytes::from(format!("body {number}"))),
                    headers: Default::default(),
                })
                .collect();
            let mut bytes = BytesMut::new();
            let options = kafka::RecordEncodeOptions { version: 2, compression: theirs };
            kafka::RecordBatchEncoder::encode(&mut bytes, &sent, &options).unwrap();
            let read: Vec<LogRecord> = decode(&bytes.freeze(), 1 << 20, 0).unwrap().collect::<Result<_, _>>().unwrap();
            assert_eq!(read.len(), 50);
            for (ours, theirs) in read.iter().zip(&sent) {
                assert_eq!(ours.offset, theirs.offset);
                assert_eq!(ours.record.id.as_str().as_bytes(), theirs.key.as_deref().unwrap());
                assert_eq!(ours.record.body, theirs.value.clone().unwrap_or_default());
                assert_eq!(ours.record.event_time, Timestamp(5_000_000));
            }
        }
    }

    #[test]
    fn every_flipped_byte_of_a_batch_is_noticed() {
        let batch = encoded(&records()[..3], Compression::Zstd);
        for place in 0..batch.bytes.len() {
            let mut damaged = batch.bytes.clone();
            damaged[place] ^= 0x10;
            assert!(check(&damaged, 77, batch.crc).is_err(), "byte {place}");
        }
    }

    proptest! {
        #[test]
        fn a_number_comes_back_and_its_size_is_foretold(value: i64) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            prop_assert_eq!(bytes.len(), varint_bytes(value));
            let mut bytes = Bytes::from(bytes);
            prop_assert_eq!(take_varint(&mut bytes), Some(value));
            prop_assert!(bytes.is_empty());
        }

        #[test]
        fn any_bytes_as_a_batch_give_records_or_a_reason(bytes in prop::collection::vec(any::<u8>(), 0..300), codec in 0_u8..5) {
            let mut batch = encoded(&records()[..2], Compression::None).bytes;
            batch.truncate(HEADER_BYTES);
            batch[22] = codec;
            batch.extend_from_slice(&bytes);
            if let Ok(read) = decode(&Bytes::from(batch), 4096, 0) {
                prop_assert!(read.count() <= 2);
            }
        }
    }
}
