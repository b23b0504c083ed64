//! What a record is that another program produced: it need not have our headers, nor a key that is text.

use bytes::Bytes;
use contract::limits::ID_BYTES_MAX;
use contract::{RecordId, Timestamp};
use sha2::{Digest, Sha256};

/// The id of a record: its header `id`, else its key, else one made from its content. What is no text or too long counts
/// as absent, so that no record is unreadable for the sake of its id.
pub(crate) fn id(header: Option<Bytes>, key: Option<Bytes>, body: &[u8]) -> RecordId {
    [header, key].into_iter().flatten().find_map(usable).unwrap_or_else(|| of_content(body))
}

/// When it happened: its header `event_time` (decimal microseconds since 1970), else the time that its producer gave it,
/// else that of the append.
pub(crate) fn event_time(header: Option<Timestamp>, produced_ms: i64, appended_at: Timestamp) -> Timestamp {
    let produced = || (produced_ms >= 0).then(|| Timestamp::in_calendar(produced_ms.checked_mul(1_000)?)).flatten();
    header.or_else(produced).unwrap_or(appended_at)
}

/// A time of a header; none if it is no number.
pub(crate) fn parse_time(decimal: &[u8]) -> Option<Timestamp> {
    std::str::from_utf8(decimal).ok()?.parse().ok().map(Timestamp)
}

fn usable(bytes: Bytes) -> Option<RecordId> {
    if bytes.is_empty() || bytes.len() > ID_BYTES_MAX { None } else { RecordId::from_utf8(bytes) }
}

fn of_content(body: &[u8]) -> RecordId {
    let digits: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
    RecordId::from(format!("sha256:{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_header_else_the_key_else_made_from_the_content() {
        let some = |text: &'static [u8]| Some(Bytes::from_static(text));
        assert_eq!(id(some(b"a"), some(b"b"), b"c").as_str(), "a");
        assert_eq!(id(None, some(b"b"), b"c").as_str(), "b");
        let made = id(None, some(b"\xff"), b"c");
        assert_eq!(made, id(some(b""), None, b"c"));
        assert_eq!(made, id(None, Some(vec![b'x'; 513].into()), b"c"));
        assert_eq!(made.as_str(), "sha256:2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6");
    }

    #[test]
    fn a_time_is_the_header_else_the_producers_else_the_appends() {
        let appended_at = Timestamp(9);
        assert_eq!(event_time(parse_time(b"5"), 7, appended_at), Timestamp(5));
        assert_eq!(event_time(parse_time(b"soon"), 7, appended_at), Timestamp(7_000));
        assert_eq!(event_time(parse_time(b"9223372036854775808"), -1, appended_at), appended_at);
        assert_eq!(event_time(None, i64::MAX, appended_at), appended_at);
    }
}
