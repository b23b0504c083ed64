//! The ids of one period, in as little memory as they allow.
//!
//! | ids | are kept as | bytes each |
//! | --- | --- | --- |
//! | `NUMBER`, `PREFIX-NUMBER` | numbers by their prefix ([`super::numbers`]) | of DNS almost none, of GitHub a quarter, otherwise up to four, and about eighty where each stands alone |
//! | any others, some hundred thousands | 64-bit hashes | 9 to 18 |
//! | any others, more than that | a filter ([`super::filter`]) | none: it always takes the same |

use std::collections::HashSet;
use std::hash::BuildHasherDefault;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::filter::Filter;
use super::numbers::Numbers;
use super::{AsItIs, table_bytes};

/// Digits of a number; as many fit into 64 bits.
const DIGITS_MAX: usize = 18;

/// An id as the set knows it.
#[derive(Clone, Copy)]
pub(super) enum Key {
    /// A number with its prefix: the hash of the prefix and the upper bits, and the lower bits.
    Number { run: u64, low: u16 },
    /// The hash of any other id.
    Hash(u64),
}

impl Key {
    /// The key of an id. Ids that differ have the same key only where their hashes are the same.
    pub(super) fn of(id: &str) -> Self {
        match split(id) {
            Some((prefix, number)) => {
                Self::Number { run: xxh3_64_with_seed(prefix.as_bytes(), number >> 16), low: number as u16 }
            }
            None => Self::Hash(xxh3_64(id.as_bytes())),
        }
    }
}

/// Prefix and number of an id that ends with one and is nothing else. The number is as one writes it, so that both parts are
/// the id.
fn split(id: &str) -> Option<(&str, u64)> {
    let start = id.bytes().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |last| last + 1);
    let (prefix, digits) = id.split_at_checked(start)?;
    let is_name = prefix.is_empty() || prefix.ends_with('-');
    let is_number = (1..=DIGITS_MAX).contains(&digits.len()) && (digits.len() == 1 || !digits.starts_with('0'));
    if is_name && is_number { Some((prefix, digits.parse().ok()?)) } else { None }
}

/// Ids that may be told apart from all others.
pub(super) struct IdSet {
    numbers: Numbers,
    hashes: HashSet<u64, BuildHasherDefault<AsItIs>>,
    filter: Option<Filter>,
    bytes_max: usize,
}

impl IdSet {
    /// An empty one. What it holds beside numbers takes less than `bytes_max`.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { numbers: Numbers::default(), hashes: HashSet::default(), filter: None, bytes_max }
    }

    /// Adds an id.
    pub(super) fn insert(&mut self, key: Key) {
        let hash = match key {
            Key::Number { run, low } => return self.numbers.insert(run, low),
            Key::Hash(hash) => hash,
        };
        if let Some(filter) = &mut self.filter {
            return filter.insert(hash);
        }
        self.hashes.insert(hash);
        // So many take at most half of the memory, as the filter does.
        if self.hashes.len() > self.bytes_max / 40 {
            let mut filter = Filter::new(self.bytes_max / 2);
            std::mem::take(&mut self.hashes).into_iter().for_each(|hash| filter.insert(hash));
            self.filter = Some(filter);
        }
    }

    /// Whether the id may have been added; if not, it was not.
    pub(super) fn may_contain(&self, key: Key) -> bool {
        match (key, &self.filter) {
            (Key::Number { run, low }, _) => self.numbers.contains(run, low),
            (Key::Hash(hash), None) => self.hashes.contains(&hash),
            (Key::Hash(hash), Some(filter)) => filter.may_contain(hash),
        }
    }

    /// Whether more ids are kept than can be told apart surely.
    #[cfg(test)]
    pub(super) fn is_filter(&self) -> bool {
        self.filter.is_some()
    }

    /// Memory.
    pub(super) fn bytes(&self) -> usize {
        let filter = self.filter.as_ref().map_or(0, Filter::bytes);
        self.numbers.bytes() + table_bytes::<u64>(self.hashes.capacity()) + filter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_ends_with_a_number_is_told_from_all_that_look_like_it() {
        assert_eq!(split("17244207336"), Some(("", 17_244_207_336)));
        assert_eq!(split("5f3a-l0-65537"), Some(("5f3a-l0-", 65_537)));
        assert_eq!(split("a-0"), Some(("a-", 0)));
        for other in
            ["", "-", "a-", "007", "a-00", "a-01", "é1", "a1", "+1", "a-1x", "sha256:12", "1234567890123456789"]
        {
            assert_eq!(split(other), None, "{other}");
        }
        let mut set = IdSet::new(1 << 20);
        for id in ["7", "a-7", "a-65543", "sha256:7"] {
            assert!(!set.may_contain(Key::of(id)), "{id}");
            set.insert(Key::of(id));
            assert!(set.may_contain(Key::of(id)), "{id}");
        }
    }

    #[test]
    fn a_busy_day_of_numbered_ids_takes_next_to_nothing() {
        let bytes = |id: &dyn Fn(u64) -> String| {
            let mut set = IdSet::new(1 << 20);
            (0..300_000).for_each(|number| set.insert(Key::of(&id(number))));
            assert!((0..300_000).all(|number| set.may_contain(Key::of(&id(number)))));
            set.bytes()
        };
        let of_dns = bytes(&|number| format!("64b8f3a2c1d0e-l0-{}", number + 1));
        let of_github = bytes(&|number| (17_244_207_336 + number * 2 + number % 2).to_string());
        assert!(of_dns < 20_000 && of_github < 100_000, "{of_dns} and {of_github} bytes");
    }

    #[test]
    fn more_hashes_than_there_is_room_for_go_into_a_filter_that_knows_them_all() {
        let mut set = IdSet::new(40_000);
        let id = |number: u32| format!("{number}x");
        for number in 0..20_000 {
            set.insert(Key::of(&id(number)));
            assert!(set.bytes() < 40_000, "{} bytes of {number}", set.bytes());
        }
        assert!(set.filter.is_some() && (0..20_000).all(|number| set.may_contain(Key::of(&id(number)))));
    }
}
