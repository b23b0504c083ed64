//! A filter: what was added is there; what was not is taken for there seldom, the more often the more was added.
//!
//! It is a Bloom filter of blocks, each of a cache line and with a bit of each of its eight words for every hash. With 32 bits
//! for each hash about one of a million is taken for there, with 16 one of a thousand.
//! Source: Putze, Sanders, Singler, Cache-, Hash- and Space-Efficient Bloom Filters, 2007, section 3.

const WORDS: usize = 8;

/// A set of hashes that forgets which they were.
pub(super) struct Filter {
    blocks: Vec<[u64; WORDS]>,
}

impl Filter {
    /// An empty one that takes about `bytes`, always.
    pub(super) fn new(bytes: usize) -> Self {
        Self { blocks: vec![[0; WORDS]; (bytes / size_of::<[u64; WORDS]>()).max(1)] }
    }

    /// Adds a hash.
    pub(super) fn insert(&mut self, hash: u64) {
        let place = self.place(hash);
        self.blocks[place].iter_mut().zip(bits(hash)).for_each(|(word, bit)| *word |= bit);
    }

    /// Whether the hash may have been added.
    pub(super) fn may_contain(&self, hash: u64) -> bool {
        self.blocks[self.place(hash)].iter().zip(bits(hash)).all(|(word, bit)| word & bit != 0)
    }

    /// Memory.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.len() * size_of::<[u64; WORDS]>()
    }

    fn place(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.blocks.len() as u128) >> 64) as usize
    }
}

/// One bit of each word. The place follows from the upper bits; multiplied, each bit follows from the lower ones too.
fn bits(hash: u64) -> impl Iterator<Item = u64> {
    let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..WORDS as u32).map(move |word| 1 << ((mixed >> (64 - 6 * (word + 1))) & 63))
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    #[test]
    fn what_was_added_is_there_and_of_a_thousand_others_about_one_at_sixteen_bits_each() {
        const ADDED: u64 = 100_000;
        let hash = |number: u64| xxh3_64(&number.to_le_bytes());
        let mut filter = Filter::new(ADDED as usize * 2);
        (0..ADDED).for_each(|number| filter.insert(hash(number)));
        assert!((0..ADDED).all(|number| filter.may_contain(hash(number))));
        let wrong = (ADDED..ADDED * 11).filter(|&number| filter.may_contain(hash(number))).count();
        assert!((100..2_500).contains(&wrong), "{wrong} of 1,000,000");
        assert_eq!(filter.bytes(), 200_000);
    }
}
