//! Numbers as a set, in runs of 65,536: a full run takes no memory of its own, a dense one a bit for each number, a
//! sparse one two to four bytes.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use super::AsItIs;

/// Numbers of a run that are kept as a list; as many take as much as bits for all.
const LISTED_MAX: usize = 4_096;

/// Words of the bits of a run.
const WORDS: usize = 1_024;

/// Runs of numbers, each by the hash of what names it.
#[derive(Default)]
pub(super) struct Numbers {
    runs: HashMap<u64, Run, BuildHasherDefault<AsItIs>>,
    bytes_of_runs: usize,
}

/// The low 16 bits of the numbers of a run.
enum Run {
    /// In order.
    Few(Vec<u16>),
    Many(Box<Bits>),
    All,
}

struct Bits {
    words: [u64; WORDS],
    count: u32,
}

impl Numbers {
    /// Adds a number.
    pub(super) fn insert(&mut self, run: u64, low: u16) {
        let run = self.runs.entry(run).or_insert_with(|| Run::Few(Vec::new()));
        let before = run.bytes();
        run.insert(low);
        self.bytes_of_runs = self.bytes_of_runs + run.bytes() - before;
    }

    /// Whether the number was added, or one of a run with the same hash.
    pub(super) fn contains(&self, run: u64, low: u16) -> bool {
        match self.runs.get(&run) {
            None => false,
            Some(Run::Few(numbers)) => numbers.binary_search(&low).is_ok(),
            Some(Run::Many(bits)) => (bits.words[usize::from(low >> 6)] >> (low & 63)) & 1 == 1,
            Some(Run::All) => true,
        }
    }

    /// Memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes_of_runs + super::table_bytes::<(u64, Run)>(self.runs.capacity())
    }
}

impl Run {
    fn insert(&mut self, low: u16) {
        match self {
            Self::Few(numbers) => {
                let Err(place) = numbers.binary_search(&low) else { return };
                numbers.insert(place, low);
                if numbers.len() == LISTED_MAX {
                    let mut bits = Box::new(Bits { words: [0; WORDS], count: 0 });
                    numbers.iter().for_each(|&number| bits.insert(number));
                    *self = Self::Many(bits);
                }
            }
            Self::Many(bits) => {
                bits.insert(low);
                if bits.count == 1 << 16 {
                    *self = Self::All;
                }
            }
            Self::All => {}
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Few(numbers) => numbers.capacity() * size_of::<u16>(),
            Self::Many(_) => size_of::<Bits>(),
            Self::All => 0,
        }
    }
}

impl Bits {
    fn insert(&mut self, low: u16) {
        let word = &mut self.words[usize::from(low >> 6)];
        self.count += u32::from((*word >> (low & 63)) & 1 == 0);
        *word |= 1 << (low & 63);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each number of a run, in an order without one: 40,503 has no factor in common with 65,536.
    fn shuffled() -> impl Iterator<Item = u16> {
        (0..=u16::MAX).map(|number| number.wrapping_mul(40_503))
    }

    #[test]
    fn what_was_added_is_there_and_nothing_else_while_a_list_becomes_bits_and_bits_become_a_full_run() {
        let mut numbers = Numbers::default();
        let mut most = 0;
        for (count, low) in shuffled().enumerate() {
            assert!(!numbers.contains(7, low), "{low} is not there after {count}");
            numbers.insert(7, low);
            numbers.insert(7, low);
            assert!(numbers.contains(7, low), "{low} is there after {count}");
            if [1, 4_094, 4_095, 4_096, 65_534].contains(&count) {
                let added: std::collections::HashSet<u16> = shuffled().take(count + 1).collect();
                assert!((0..=u16::MAX).all(|low| numbers.contains(7, low) == added.contains(&low)), "after {count}");
            }
            most = most.max(numbers.bytes());
        }
        assert!(!numbers.contains(8, 0));
        assert!((8_192..9_000).contains(&most), "{most} bytes");
        assert!(numbers.bytes() < 500, "{} bytes of a full run", numbers.bytes());
    }
}
