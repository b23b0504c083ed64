//! What members of a consumer group say to each other by way of the coordinator, byte by byte.
//!
//! A version, then a message; both are in Kafka's definitions. The user data is what Java's cooperative-sticky puts there, the
//! generation, for members that know no newer version.
//! Source: <https://cwiki.apache.org/confluence/display/KAFKA/KIP-792%3A+Add+%22generation%22+field+into+consumer+protocol>.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use contract::Partition;
use kafka_protocol::messages::consumer_protocol_assignment as of_assignment;
use kafka_protocol::messages::consumer_protocol_subscription as of_subscription;
use kafka_protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use crate::assign::{Claim, Place};
use crate::cluster::name;
use crate::failure::{Failure, Outcome};

/// The version in which we say what we have; the next one names racks.
const SPOKEN: i16 = 2;
/// The highest that there is of both messages.
const KNOWN: i16 = 3;

fn written(message: &impl Encodable, what: &str) -> Outcome<Bytes> {
    let mut out = BytesMut::new();
    out.put_i16(SPOKEN);
    let unsayable = |cause| Failure::Refused(format!("{what}: {cause}"));
    message.encode(&mut out, SPOKEN).map_err(unsayable)?;
    Ok(out.freeze())
}

fn read<M: Decodable>(mut bytes: Bytes, what: &str) -> Outcome<M> {
    let malformed = |cause: String| Failure::unheard(format!("{what} is malformed: {cause}"));
    let version = bytes.try_get_i16().map_err(|cause| malformed(cause.to_string()))?;
    if version < 0 {
        return Err(malformed(format!("version {version}")));
    }
    M::decode(&mut bytes, version.min(KNOWN)).map_err(|cause| malformed(cause.to_string()))
}

/// Partitions by topic.
fn by_topic<'a>(places: impl IntoIterator<Item = &'a Place>) -> BTreeMap<&'a str, Vec<Partition>> {
    let mut topics: BTreeMap<&str, Vec<Partition>> = BTreeMap::new();
    for (topic, partition) in places {
        topics.entry(topic).or_default().push(*partition);
    }
    topics
}

/// What a member says of itself when it joins.
pub(crate) fn write_claim(claim: &Claim) -> Outcome<Bytes> {
    let part = |(topic, partitions): (&str, Vec<Partition>)| {
        of_subscription::TopicPartition::default().with_topic(name(topic)).with_partitions(partitions)
    };
    let mut user_data = BytesMut::new();
    user_data.put_i32(claim.generation);
    let message = ConsumerProtocolSubscription::default()
        .with_topics(claim.topics.iter().map(|topic| StrBytes::from_string(topic.clone())).collect())
        .with_user_data(Some(user_data.freeze()))
        .with_owned_partitions(by_topic(&claim.owned).into_iter().map(part).collect())
        .with_generation_id(claim.generation);
    written(&message, "what this member asks for")
}

/// What `member` says of itself.
pub(crate) fn read_claim(member: &str, bytes: Bytes) -> Outcome<Claim> {
    let message: ConsumerProtocolSubscription = read(bytes, &format!("what `{member}` asks for"))?;
    let of_user_data = message.user_data.filter(|data| data.len() == 4).map(|mut data| data.get_i32());
    let generation = if message.generation_id >= 0 { message.generation_id } else { of_user_data.unwrap_or(-1) };
    let places = |part: of_subscription::TopicPartition| {
        let topic = part.topic.to_string();
        part.partitions.into_iter().map(move |partition| (topic.clone(), partition))
    };
    Ok(Claim {
        member: member.to_owned(),
        topics: message.topics.iter().map(ToString::to_string).collect(),
        owned: message.owned_partitions.into_iter().flat_map(places).collect(),
        generation,
    })
}

/// What a member gets.
pub(crate) fn write_share<'a>(places: impl IntoIterator<Item = &'a Place>) -> Outcome<Bytes> {
    let part = |(topic, partitions): (&str, Vec<Partition>)| {
        of_assignment::TopicPartition::default().with_topic(name(topic)).with_partitions(partitions)
    };
    let parts = by_topic(places).into_iter().map(part).collect();
    written(&ConsumerProtocolAssignment::default().with_assigned_partitions(parts), "what a member gets")
}

/// What a member gets; nothing where nothing is said.
pub(crate) fn read_share<S: FromIterator<Place>>(bytes: Bytes) -> Outcome<S> {
    if bytes.is_empty() {
        return Ok(S::from_iter([]));
    }
    let message: ConsumerProtocolAssignment = read(bytes, "what this member gets")?;
    let places = |part: of_assignment::TopicPartition| {
        let topic = part.topic.to_string();
        part.partitions.into_iter().map(move |partition| (topic.clone(), partition))
    };
    Ok(message.assigned_partitions.into_iter().flat_map(places).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let place = |topic: &str, partition| (topic.to_owned(), partition);
        let claim = Claim {
            member: "m".to_owned(),
            topics: ["a".to_owned(), "b".to_owned()].into(),
            owned: [place("a", 0), place("a", 3), place("b", 1)].into(),
            generation: 7,
        };
        assert_eq!(read_claim("m", write_claim(&claim).unwrap()).unwrap(), claim);
        let share: BTreeSet<Place> = read_share(write_share(&claim.owned).unwrap()).unwrap();
        assert_eq!(share, claim.owned);
        assert_eq!(read_share::<BTreeSet<Place>>(Bytes::new()).unwrap(), BTreeSet::new());
    }

    #[test]
    fn an_older_member_says_its_generation_in_its_user_data_and_broken_bytes_are_named() {
        let mut out = BytesMut::new();
        out.put_i16(1);
        let message = ConsumerProtocolSubscription::default()
            .with_topics(vec![StrBytes::from_static_str("a")])
            .with_user_data(Some(Bytes::from_static(&[0, 0, 0, 9])));
        message.encode(&mut out, 1).unwrap();
        assert_eq!(read_claim("m", out.freeze()).unwrap().generation, 9);
        for broken in [&b""[..], b"\0", b"\xff\xff", b"\0\x02\xff\xff\xff\x7f"] {
            assert!(read_claim("m", Bytes::from_static(broken)).unwrap_err().to_string().contains("`m`"));
        }
    }
}
