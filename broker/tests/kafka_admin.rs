//! What an administrator does to the topics of a Kafka, in bytes of the protocol.
//! Source: <https://kafka.apache.org/protocol>.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const CREATE_PARTITIONS: i16 = 37;
const DELETE_TOPICS: i16 = 20;
const TIMEOUT_MS: i32 = 30_000;

/// Lets a topic have `count` partitions, which are more than it has.
pub(crate) fn grow(port: u16, topic: &str, count: i32) {
    let mut body = 1_i32.to_be_bytes().to_vec();
    body.extend(text(topic));
    body.extend(count.to_be_bytes());
    // Brokers choose where they lie.
    body.extend((-1_i32).to_be_bytes());
    body.extend(TIMEOUT_MS.to_be_bytes());
    body.push(0);
    let answer = ask(port, CREATE_PARTITIONS, 0, &body);
    // How long it was throttled, how many results, the name.
    assert_eq!(code(&answer, 4 + 4 + 2 + topic.len()), 0, "growing `{topic}`: {answer:?}");
}

/// Deletes a topic with all that is in it.
pub(crate) fn delete(port: u16, topic: &str) {
    let mut body = 1_i32.to_be_bytes().to_vec();
    body.extend(text(topic));
    body.extend(TIMEOUT_MS.to_be_bytes());
    let answer = ask(port, DELETE_TOPICS, 1, &body);
    assert_eq!(code(&answer, 4 + 4 + 2 + topic.len()), 0, "deleting `{topic}`: {answer:?}");
}

fn text(text: &str) -> Vec<u8> {
    let length = i16::try_from(text.len()).expect("a name");
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

fn code(answer: &[u8], at: usize) -> i16 {
    i16::from_be_bytes(answer[at..at + 2].try_into().expect("a code"))
}

/// The body of the answer.
fn ask(port: u16, key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("Kafka answers");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    let mut request = [key.to_be_bytes(), version.to_be_bytes()].concat();
    request.extend(1_i32.to_be_bytes());
    request.extend(text("tests"));
    request.extend(body);
    let length = i32::try_from(request.len()).expect("a short request").to_be_bytes();
    stream.write_all(&[&length, request.as_slice()].concat()).expect("Kafka reads");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("Kafka answers");
    let mut answer = vec![0; usize::try_from(i32::from_be_bytes(length)).expect("a length")];
    stream.read_exact(&mut answer).expect("Kafka answers");
    answer.split_off(4)
}
