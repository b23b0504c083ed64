//! Which query a response answers: a bounded table of queries that wait.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use xxhash_rust::xxh3::Xxh3;

use super::dnstap::{Moment, SocketProtocol};

/// Queries that are remembered at once; the oldest makes room. At 25,000 queries a second these are ten seconds, and
/// 12 MB.
const WAITING_MAX: usize = 1 << 18;

/// Queries that waited too long and are forgotten when one comes: more than one, so that they go, and few, so that no wrong
/// time takes many.
const FORGOTTEN_AT_ONCE_MAX: usize = 2;

/// A step of the time between two queries that is taken for a wrong one.
const JUMP_NANOS: u64 = 3_600_000_000_000;

/// Bytes of a header, after which the question stands.
const HEADER_BYTES: usize = 12;

/// The two ends of an exchange, as far as they are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    pub(super) client: Option<SocketAddr>,
    pub(super) server: Option<SocketAddr>,
    pub(super) protocol: Option<SocketProtocol>,
    /// Who they are to each other, where a server says so: a resolver's query to itself is none of a client's.
    pub(super) role: u32,
}

/// See the module. A query that is sent again while it waits counts from its first time; an answered one is forgotten,
/// so a second response has no query.
pub(super) struct Pairs {
    waiting: HashMap<u64, u64>,
    /// In the order in which they came: key and time in nanoseconds.
    order: VecDeque<(u64, u64)>,
    /// When the last query was asked.
    newest: u64,
    wait_nanos: u64,
}

impl Pairs {
    /// Queries wait for so long.
    pub(super) fn new(wait_seconds: u32) -> Self {
        let wait_nanos = u64::from(wait_seconds) * 1_000_000_000;
        Self { waiting: HashMap::new(), order: VecDeque::new(), newest: 0, wait_nanos }
    }

    /// An empty table of the same kind.
    pub(super) fn fresh(&self) -> Self {
        Self { waiting: HashMap::new(), order: VecDeque::new(), newest: 0, wait_nanos: self.wait_nanos }
    }

    /// Notes a query.
    pub(super) fn asked(&mut self, ends: &Ends, time: Moment, dns: &[u8]) {
        let Some(key) = key(ends, dns) else { return };
        let now = time.total_nanos();
        // One wrong time is no reason to forget those that wait; where the clock was set, the next query tells.
        let is_jump = std::mem::replace(&mut self.newest, now).abs_diff(now) > JUMP_NANOS;
        for _ in 0..FORGOTTEN_AT_ONCE_MAX {
            let Some(&(oldest, asked)) = self.order.front() else { break };
            if (is_jump || !self.is_over(asked, now)) && self.order.len() < WAITING_MAX {
                break;
            }
            self.order.pop_front();
            // It may be answered, or answered and asked again.
            if self.waiting.get(&oldest) == Some(&asked) {
                self.waiting.remove(&oldest);
            }
        }
        match self.waiting.get(&key) {
            Some(&asked) if !self.is_over(asked, now) => {}
            _ => {
                self.order.push_back((key, now));
                self.waiting.insert(key, now);
            }
        }
    }

    /// Whether a query waited too long. One that was asked far after now has a wrong time, and waited too long as well.
    fn is_over(&self, asked: u64, now: u64) -> bool {
        asked.abs_diff(now) > self.wait_nanos
    }

    /// When the query of a response was seen, if it was.
    pub(super) fn answered(&mut self, ends: &Ends, time: Moment, dns: &[u8]) -> Option<Moment> {
        let asked = self.waiting.remove(&key(ends, dns)?)?;
        let is_over = self.is_over(asked, time.total_nanos());
        let moment = Moment { seconds: asked / 1_000_000_000, nanos: (asked % 1_000_000_000) as u32 };
        (!is_over).then_some(moment)
    }
}

/// Ends, id and question as one number; none where the message has no question.
fn key(ends: &Ends, dns: &[u8]) -> Option<u64> {
    let question = question(dns)?;
    let mut hasher = Xxh3::new();
    for end in [ends.client, ends.server] {
        match end {
            Some(SocketAddr::V4(end)) => {
                hasher.update(&end.ip().octets());
                hasher.update(&end.port().to_be_bytes());
            }
            Some(SocketAddr::V6(end)) => {
                hasher.update(&end.ip().octets());
                hasher.update(&end.port().to_be_bytes());
            }
            None => hasher.update(&[0]),
        }
    }
    let protocol = ends.protocol.map_or(0, |protocol| protocol.0);
    hasher.update(&protocol.to_be_bytes());
    hasher.update(&ends.role.to_be_bytes());
    hasher.update(dns.get(..2)?);
    // Letters in lower case: some servers answer in another case than they were asked in.
    let mut lowered = [0; 64];
    for part in question.chunks(lowered.len()) {
        let lowered = &mut lowered[..part.len()];
        lowered.copy_from_slice(part);
        lowered.make_ascii_lowercase();
        hasher.update(lowered);
    }
    Some(hasher.digest())
}

/// The first question: name, type and class. A name that is compressed has nothing before it to point to.
fn question(dns: &[u8]) -> Option<&[u8]> {
    let has_question = dns.get(4..6)? != [0, 0];
    let mut end = HEADER_BYTES;
    loop {
        let length = *dns.get(end)?;
        end += 1 + usize::from(length);
        match length {
            0 => break,
            1..=63 => {}
            _ => return None,
        }
    }
    has_question.then(|| dns.get(HEADER_BYTES..end + 4))?
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: Ends = Ends { client: None, server: None, protocol: Some(SocketProtocol::UDP), role: 0 };

    fn message(id: u8, name: &[u8]) -> Vec<u8> {
        let header = [0, id, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() as u8];
        [&header[..], name, &[0, 0, 1, 0, 1]].concat()
    }

    fn at(seconds: u64) -> Moment {
        Moment { seconds, nanos: 5 }
    }

    #[test]
    fn a_response_finds_its_query_once_and_in_any_case_of_letters() {
        let mut pairs = Pairs::new(10);
        pairs.asked(&ENDS, at(1), &message(1, b"example"));
        pairs.asked(&ENDS, at(2), &message(1, b"example"));
        assert_eq!(pairs.answered(&ENDS, at(3), &message(2, b"example")), None);
        assert_eq!(pairs.answered(&ENDS, at(3), &message(1, b"EXAMPLE")), Some(at(1)));
        assert_eq!(pairs.answered(&ENDS, at(3), &message(1, b"example")), None);
    }

    #[test]
    fn a_query_that_waited_too_long_is_none() {
        let mut pairs = Pairs::new(10);
        pairs.asked(&ENDS, at(1), &message(1, b"a"));
        assert_eq!(pairs.answered(&ENDS, at(12), &message(1, b"a")), None);
    }

    #[test]
    fn one_wrong_time_takes_no_pair_and_the_table_is_tidied_after_it() {
        let mut pairs = Pairs::new(10);
        for id in 0..100 {
            pairs.asked(&ENDS, at(1), &message(id, b"a"));
        }
        pairs.asked(&ENDS, at(u64::from(u32::MAX)), &message(100, b"a"));
        let answered = (0..100).filter(|&id| pairs.answered(&ENDS, at(2), &message(id, b"a")).is_some());
        assert_eq!(answered.count(), 100);
        pairs.asked(&ENDS, at(2), &message(100, b"a"));
        assert_eq!(pairs.answered(&ENDS, at(3), &message(100, b"a")), Some(at(2)), "asked again at a right time");
        for id in 0..200 {
            pairs.asked(&ENDS, at(100), &message(id, b"b"));
        }
        assert_eq!((pairs.order.len(), pairs.waiting.len()), (200, 200));
    }

    #[test]
    fn the_table_stays_bounded() {
        let mut pairs = Pairs::new(600);
        for number in 0..WAITING_MAX + 1_000 {
            pairs.asked(&ENDS, at(1), &message(0, number.to_string().as_bytes()));
        }
        assert_eq!((pairs.waiting.len(), pairs.order.len()), (WAITING_MAX, WAITING_MAX));
        assert_eq!(pairs.answered(&ENDS, at(2), &message(0, b"999")), None, "the oldest made room");
        assert_eq!(pairs.answered(&ENDS, at(2), &message(0, b"1000")), Some(at(1)));
    }
}
