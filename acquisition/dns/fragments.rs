//! Puts IP fragments together. Sources: RFC 791, section 3.2; RFC 8200, section 4.5.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;

/// Datagrams that wait for fragments; the oldest makes room. With their greatest size this bounds the memory to 64 MiB.
const WAITING_MAX: usize = 1_024;

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
    parts: BTreeMap<usize, Vec<u8>>,
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
    /// Fragments of datagrams that were given up.
    given_up: u64,
}

impl Fragments {
    /// Takes a fragment; the payload of the whole datagram if it was the last that was missing. Where two overlap the
    /// first counts.
    pub(super) fn add(&mut self, fragment: &Fragment<'_>) -> Option<Vec<u8>> {
        let end = fragment.offset + fragment.bytes.len();
        if end > DATAGRAM_BYTES_MAX {
            self.given_up += 1;
            return None;
        }
        let datagram = self.waiting.entry(fragment.key).or_insert_with(|| {
            self.next_number += 1;
            self.order.push_back((fragment.key, self.next_number));
            Datagram { number: self.next_number, ..Datagram::default() }
        });
        if datagram.parts.len() < FRAGMENTS_MAX {
            datagram.parts.entry(fragment.offset).or_insert_with(|| fragment.bytes.to_vec());
        }
        if fragment.is_last {
            datagram.length = Some(end);
        }
        let whole = datagram.whole();
        if whole.is_some() {
            self.waiting.remove(&fragment.key);
        }
        while self.order.len() > WAITING_MAX {
            self.drop_oldest();
        }
        whole
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
        let still_waits = self.waiting.get(&key).is_some_and(|datagram| datagram.number == number);
        if still_waits && let Some(datagram) = self.waiting.remove(&key) {
            self.given_up += datagram.parts.len() as u64;
        }
    }
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
        assert_eq!(fragments.add(&fragment(1, 8, true, b"IJ")), None);
        assert_eq!(fragments.add(&fragment(2, 0, false, b"other")), None);
        assert_eq!(fragments.add(&fragment(1, 4, false, b"EFxx")), None);
        assert_eq!(fragments.add(&fragment(1, 0, false, b"ABCDyy")).unwrap(), b"ABCDyyxxIJ");
        assert_eq!(fragments.incomplete(), 1);
    }

    #[test]
    fn what_waits_is_bounded_and_counted() {
        let mut fragments = Fragments::default();
        for id in 0..WAITING_MAX as u32 + 5 {
            assert_eq!(fragments.add(&fragment(id, 8, false, b"a")), None);
        }
        assert_eq!(fragments.waiting.len(), WAITING_MAX);
        assert_eq!(fragments.incomplete(), WAITING_MAX as u64 + 5);
        assert_eq!(fragments.add(&fragment(9, DATAGRAM_BYTES_MAX, true, b"a")), None, "beyond what a length can say");
    }
}
