//! Puts IP fragments together. Sources: RFC 791, section 3.2; RFC 8200, section 4.5.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;

use super::dnstap::Moment;

/// Datagrams that wait for fragments; the oldest makes room.
const WAITING_MAX: usize = 1_024;

/// Bytes of all that wait; the oldest makes room.
const HELD_BYTES_MAX: usize = 16 << 20;

/// How long a datagram waits, by the times of the packets: RFC 8200, section 4.5 has 60 seconds, systems have 30.
const WAIT_NANOS: u64 = 30_000_000_000;

/// Bytes of a datagram: what an IP length can say.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Fragments of one datagram: four times what the smallest links need for the largest datagram.
const FRAGMENTS_MAX: usize = 512;

/// What the fragments of one datagram share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FragmentKey {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    pub(super) id: u32,
}

/// One fragment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment<'a> {
    pub(super) key: FragmentKey,
    pub(super) offset: usize,
    pub(super) is_last: bool,
    pub(super) bytes: &'a [u8],
}

#[derive(Default)]
struct Datagram {
    number: u64,
    /// When its first fragment came.
    since: Option<Moment>,
    parts: BTreeMap<usize, Vec<u8>>,
    /// Of all parts; where some overlap this may be more than it will have.
    bytes: usize,
    /// Known once the last fragment came.
    length: Option<usize>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Fragments {
    waiting: HashMap<FragmentKey, Datagram>,
    /// In the order of their first fragments; the number tells a later datagram of the same key.
    order: VecDeque<(FragmentKey, u64)>,
    next_number: u64,
    held_bytes: usize,
    /// Fragments of datagrams that were given up.
    given_up: u64,
}

impl Fragments {
    /// Takes a fragment; the payload of the whole datagram if it was the last that was missing. Where two overlap the
    /// first counts.
    pub(super) fn add(&mut self, fragment: &Fragment<'_>, time: Option<Moment>) -> Option<Vec<u8>> {
        let end = fragment.offset + fragment.bytes.len();
        if end > DATAGRAM_BYTES_MAX {
            self.given_up += 1;
            return None;
        }
        // What came long before is of another datagram of the same number.
        let is_old = |datagram: &Datagram| is_over(datagram.since, time);
        if self.waiting.get(&fragment.key).is_some_and(is_old) {
            self.give_up(&fragment.key);
        }
        let datagram = self.waiting.entry(fragment.key).or_insert_with(|| {
            self.next_number += 1;
            self.order.push_back((fragment.key, self.next_number));
            Datagram { number: self.next_number, since: time, ..Datagram::default() }
        });
        let is_known = datagram.parts.contains_key(&fragment.offset);
        let has_room =
            datagram.parts.len() < FRAGMENTS_MAX && datagram.bytes + fragment.bytes.len() <= DATAGRAM_BYTES_MAX;
        match (is_known, has_room) {
            (true, _) => {}
            (false, true) => {
                datagram.parts.insert(fragment.offset, fragment.bytes.to_vec());
                datagram.bytes += fragment.bytes.len();
                self.held_bytes += fragment.bytes.len();
            }
            (false, false) => self.given_up += 1,
        }
        if fragment.is_last {
            datagram.length = Some(end);
        }
        let whole = datagram.whole();
        if whole.is_some() {
            self.take(&fragment.key);
        }
        while self.order.len() > WAITING_MAX || self.held_bytes > HELD_BYTES_MAX {
            self.drop_oldest();
        }
        whole
    }

    /// Gives up the datagrams that were waited for long enough by a clock.
    pub(super) fn pass_time(&mut self, now: Moment) {
        while let Some((key, _)) = self.order.front()
            && self.waiting.get(key).is_none_or(|datagram| is_over(datagram.since, Some(now)))
        {
            self.drop_oldest();
        }
    }

    /// Fragments whose datagrams were never whole; those that wait are among them.
    pub(super) fn incomplete(&self) -> u64 {
        self.given_up + self.waiting.values().map(|datagram| datagram.parts.len() as u64).sum::<u64>()
    }

    /// Those of datagrams that are not waited for any more.
    pub(super) fn given_up(&self) -> u64 {
        self.given_up
    }

    fn drop_oldest(&mut self) {
        let Some((key, number)) = self.order.pop_front() else { return };
        if self.waiting.get(&key).is_some_and(|datagram| datagram.number == number) {
            self.give_up(&key);
        }
    }

    fn give_up(&mut self, key: &FragmentKey) {
        self.given_up += self.take(key).map_or(0, |datagram| datagram.parts.len() as u64);
    }

    fn take(&mut self, key: &FragmentKey) -> Option<Datagram> {
        let datagram = self.waiting.remove(key)?;
        self.held_bytes -= datagram.bytes;
        Some(datagram)
    }
}

/// Whether a datagram was waited for long enough. A time before counts as one after: the clock was set.
fn is_over(since: Option<Moment>, now: Option<Moment>) -> bool {
    since.zip(now).is_some_and(|(since, now)| since.total_nanos().abs_diff(now.total_nanos()) > WAIT_NANOS)
}

impl Datagram {
    fn whole(&self) -> Option<Vec<u8>> {
        let length = self.length?;
        if self.parts.values().map(Vec::len).sum::<usize>() < length {
            return None;
        }
        let mut bytes = Vec::with_capacity(length);
        for (&offset, part) in &self.parts {
            // What overlaps with the part before it is passed over.
            let known = bytes.len().checked_sub(offset)?;
            bytes.extend_from_slice(part.get(known..).unwrap_or_default());
        }
        bytes.truncate(length);
        (bytes.len() == length).then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn fragment(id: u32, offset: usize, is_last: bool, bytes: &[u8]) -> Fragment<'_> {
        let address = IpAddr::from(Ipv4Addr::LOCALHOST);
        Fragment {
            key: FragmentKey { source: address, destination: address, protocol: 17, id },
            offset,
            is_last,
            bytes,
        }
    }

    #[test]
    fn fragments_in_any_order_and_overlapping_make_the_datagram() {
        let mut fragments = Fragments::default();
        assert_eq!(fragments.add(&fragment(1, 8, true, b"IJ"), None), None);
        assert_eq!(fragments.add(&fragment(2, 0, false, b"other"), None), None);
        assert_eq!(fragments.add(&fragment(1, 4, false, b"EFxx"), None), None);
        assert_eq!(fragments.add(&fragment(1, 0, false, b"ABCDyy"), None).unwrap(), b"ABCDyyxxIJ");
        assert_eq!((fragments.incomplete(), fragments.held_bytes), (1, 5));
    }

    #[test]
    fn what_waits_is_bounded_and_counted() {
        let mut fragments = Fragments::default();
        for id in 0..WAITING_MAX as u32 + 5 {
            assert_eq!(fragments.add(&fragment(id, 8, false, b"a"), None), None);
        }
        assert_eq!(fragments.waiting.len(), WAITING_MAX);
        assert_eq!(fragments.incomplete(), WAITING_MAX as u64 + 5);
        assert_eq!(
            fragments.add(&fragment(9, DATAGRAM_BYTES_MAX, true, b"a"), None),
            None,
            "beyond what a length can say"
        );
    }

    #[test]
    fn overlapping_fragments_fill_no_more_than_a_datagram_and_all_no_more_than_the_limit() {
        let mut fragments = Fragments::default();
        let part = vec![0; 60_000];
        for id in 0..400 {
            for offset in 1..=4 {
                assert_eq!(fragments.add(&fragment(id, offset * 8, false, &part), None), None);
            }
            assert!(fragments.held_bytes <= HELD_BYTES_MAX);
        }
        let held: usize = fragments.waiting.values().map(|datagram| datagram.bytes).sum();
        assert_eq!(held, fragments.held_bytes);
        assert_eq!(held, HELD_BYTES_MAX / part.len() * part.len());
        assert_eq!(fragments.incomplete(), 1_600);
    }

    #[test]
    fn a_fragment_is_not_joined_with_those_of_a_later_datagram() {
        let mut fragments = Fragments::default();
        let at = |seconds| Moment { seconds, nanos: 0 };
        for (first, second, joined) in [(1, 31, true), (1_000, 1_031, false), (5_000, 4_000, false)] {
            assert_eq!(fragments.add(&fragment(1, 0, false, b"old12345"), Some(at(first))), None);
            let whole = fragments.add(&fragment(1, 8, true, b"new"), Some(at(second)));
            assert_eq!(whole.is_some(), joined, "{first} {second}");
            fragments = Fragments::default();
        }
        fragments.add(&fragment(1, 0, false, b"old12345"), Some(at(1)));
        fragments.pass_time(at(31));
        assert_eq!(fragments.given_up(), 0);
        fragments.pass_time(at(32));
        assert_eq!(fragments.given_up(), 1, "on a quiet interface too");
    }
}
