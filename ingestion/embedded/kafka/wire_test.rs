//! What a client on the wire meets: batches that must not enter the log or enter it once, bytes meant to do harm, waiting.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Decodable;
use kafka_protocol::records::Compression;
use tokio::io::AsyncWriteExt;

use super::testing::{Served, TOPIC, framed, plain, produced, records};
use crate::Settings;

#[tokio::test]
async fn a_batch_that_comes_again_is_taken_once_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let batch = |first| records((77, 0, first), 5, Compression::Zstd);
    let served = Served::start(folder.path()).await;
    let mut client = served.client().await;
    assert_eq!(produced(&mut client, batch(0)).await, (0, 0));
    assert_eq!(produced(&mut client, batch(5)).await, (0, 5));
    assert_eq!(produced(&mut client, batch(15)).await.0, 45, "5 are missing");
    drop(client);
    served.end().await;
    let served = Served::start(folder.path()).await;
    let mut client = served.client().await;
    assert_eq!(produced(&mut client, batch(5)).await, (0, 5));
    assert_eq!(produced(&mut client, batch(0)).await, (0, 0));
    assert_eq!(produced(&mut client, batch(10)).await, (0, 10));
    assert_eq!(served.ends().await.of(0), 15);
}

#[tokio::test]
async fn a_batch_that_others_could_not_read_never_enters_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path()).await;
    let mut client = served.client().await;
    let whole = plain(3);
    // Each change is signed anew, except for the first.
    let mut wrong: Vec<(&str, i16, Bytes)> = Vec::new();
    let mut change = |what: &'static str, error: i16, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.to_vec();
        change(&mut bytes);
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        wrong.push((what, error, bytes.into()));
    };
    change("an old version", 43, &|bytes| bytes[16] = 1);
    change("a length beyond the end", 87, &|bytes| bytes[11] += 1);
    change("a second batch behind it", 87, &|bytes| bytes.extend_from_slice(&plain(1)));
    change("a transaction", 53, &|bytes| bytes[22] |= 16);
    change("a control batch", 87, &|bytes| bytes[22] |= 32);
    change("an unknown codec", 87, &|bytes| bytes[22] |= 6);
    change("another codec", 87, &|bytes| bytes[22] |= 4);
    change("more records than there are", 87, &|bytes| (bytes[26], bytes[60]) = (3, 4));
    change("fewer records than there are", 87, &|bytes| (bytes[26], bytes[60]) = (1, 2));
    change("no records", 87, &|bytes| (bytes[60], bytes[26]) = (0, 255));
    change("another last offset", 87, &|bytes| bytes[26] = 7);
    change("a record that is longer", 87, &|bytes| bytes[61] += 2);
    change("another offset of a record", 87, &|bytes| bytes[64] = 4);
    change("a producer without numbers", 87, &|bytes| (bytes[43], bytes[53]) = (0, 255));
    let mut torn = whole.to_vec();
    torn[70] ^= 1;
    wrong.push(("a checksum that differs", 2, torn.into()));
    wrong.push(("less than a header", 87, whole.slice(..40)));
    let bomb = records((-1, -1, 0), 6_000, Compression::Zstd);
    assert!(bomb.len() < 1 << 20, "it is small until it is unpacked");
    wrong.push(("more than the memory for it", 87, bomb));
    for (what, error, bytes) in wrong {
        assert_eq!(produced(&mut client, bytes).await, (error, -1), "{what}");
    }
    assert_eq!(served.ends().await.of(0), 0);
    assert_eq!(produced(&mut client, whole).await, (0, 0));
}

#[tokio::test]
async fn what_is_no_request_closes_its_connection_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path()).await;
    let mut other = served.client().await;
    let head = |key: i16, version: i16| {
        let mut bytes = BytesMut::new();
        bytes.put_i16(key);
        bytes.put_i16(version);
        bytes.put_i32(1);
        bytes.put_i16(-1);
        bytes
    };
    let frame = |body: &[u8]| [&(body.len() as i32).to_be_bytes()[..], body].concat();
    let with = |key, version, body: &[u8]| frame(&[&head(key, version)[..], body].concat());
    let hostile = [
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        i32::MAX.to_be_bytes().to_vec(),
        (-1_i32).to_be_bytes().to_vec(),
        0_i32.to_be_bytes().to_vec(),
        frame(b"\0\x03\0"),
        with(999, 0, b""),
        with(-1, 0, b""),
        with(3, 99, b""),
        with(3, -1, b""),
        // A client's id that is longer than the frame.
        frame(b"\0\x03\0\x01\0\0\0\x01\x7f\xffabc"),
        // Two thousand million topics, and as many in the compact form.
        with(3, 1, &i32::MAX.to_be_bytes()),
        with(3, 9, b"\0\xff\xff\xff\xff\x07"),
        // A negative number of topics, and a number that never ends.
        with(3, 1, &(-2_i32).to_be_bytes()),
        with(3, 9, b"\0\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"),
        // Tagged fields of 4 GB; elements of one byte, more than a request may have.
        with(3, 9, b"\0\x01\0\0\0\x01\x01\xff\xff\xff\xff\x0f"),
        with(23, 0, &[&30_000_i32.to_be_bytes()[..], &[0; 60_000]].concat()),
        with(15, 5, &[&b"\0\xff\xff\x03"[..], &[1; 65_600]].concat()),
        // Nothing but records needs as much.
        with(3, 1, &[&(-1_i32).to_be_bytes()[..], &vec![0; 2 << 20]].concat()),
        // Text that is none.
        with(3, 1, b"\0\0\0\x01\0\x02\xff\xfe"),
    ];
    for (place, bytes) in hostile.iter().enumerate() {
        assert!(served.client().await.closes_on(bytes).await, "the one of number {place} was answered");
    }
    assert_eq!(other.ask(&MetadataRequest::default().with_topics(None), 9).await.topics.len(), 3);
    let whole = framed(&MetadataRequest::default().with_topics(None), 9);
    let longer = frame(&[&whole[4..], b"\0\0\0"].concat());
    assert!(!served.client().await.closes_on(&longer).await, "librdkafka sends some bytes too many");
}

#[tokio::test]
async fn a_topic_that_no_store_reads_goes_by_its_age_and_says_where_it_starts() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { segment_bytes_max: 8_192, retention_bytes: 30_000, ..Settings::default() };
    let served = Served::start_with(folder.path(), settings).await;
    let mut client = served.client().await;
    for _ in 0..40 {
        assert_eq!(produced(&mut client, plain(25)).await.0, 0);
    }
    let partition = ListOffsetsPartition::default().with_timestamp(-2);
    let topic = ListOffsetsTopic::default().with_name(TOPIC).with_partitions(vec![partition]);
    let answer = client.ask(&ListOffsetsRequest::default().with_topics(vec![topic]), 7).await;
    let start = answer.topics[0].partitions[0].offset;
    assert!(start > 0 && start < 1_000, "it starts at {start}");
    let fetch = |offset| {
        let partition = FetchPartition::default().with_fetch_offset(offset).with_partition_max_bytes(1 << 20);
        let topic = FetchTopic::default().with_topic(TOPIC).with_partitions(vec![partition]);
        FetchRequest::default().with_max_bytes(1 << 20).with_topics(vec![topic])
    };
    let [before, from] = [client.ask(&fetch(start - 1), 12).await, client.ask(&fetch(start), 12).await];
    assert_eq!(before.responses[0].partitions[0].error_code, 1, "what retention removed is out of range");
    assert_eq!(from.responses[0].partitions[0].records.clone().unwrap().get_i64(), start);
}

#[tokio::test]
async fn a_newer_apiversions_is_answered_with_what_is_spoken() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path()).await;
    let mut client = served.client().await;
    client.stream.write_all(b"\0\0\0\x0a\0\x12\0\x63\0\0\0\x05\xff\xff").await.unwrap();
    let mut answer = client.answer().await.unwrap();
    assert_eq!(answer.get_i32(), 5);
    let versions = ApiVersionsResponse::decode(&mut answer, 0).unwrap();
    assert_eq!(versions.error_code, 35);
    assert_eq!(versions.api_keys[0].min_version, 0, "or old librdkafka takes it that nothing may be compressed");
    assert_eq!(client.ask(&ApiVersionsRequest::default(), 3).await.error_code, 0, "it may go on");
}

#[tokio::test]
async fn a_fetch_waits_for_records_and_no_longer_than_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path()).await;
    let (mut reader, mut writer) = (served.client().await, served.client().await);
    let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(TOPIC).with_partitions(vec![partition]);
    let fetch = FetchRequest::default().with_max_bytes(1 << 20).with_min_bytes(1).with_topics(vec![topic]);
    let started = std::time::Instant::now();
    let empty = reader.ask(&fetch.clone().with_max_wait_ms(120), 11).await;
    assert!(empty.responses[0].partitions[0].records.as_ref().is_none_or(Bytes::is_empty));
    assert!(started.elapsed() >= Duration::from_millis(120));
    let fetch = fetch.with_max_wait_ms(30_000);
    let (answer, _) = tokio::join!(reader.ask(&fetch, 11), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        produced(&mut writer, plain(2)).await
    });
    assert!(answer.responses[0].partitions[0].records.as_ref().is_some_and(|records| records.len() > 61));
    assert!(started.elapsed() < Duration::from_secs(20));
}
