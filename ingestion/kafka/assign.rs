//! Who gets which partitions: the part of the group's leader. Balanced, sticky and cooperative.
//!
//! | promise | how |
//! | --- | --- |
//! | balanced | of two members that ask for the same topics none has two partitions more than the other |
//! | sticky | a partition stays where it is, unless the balance needs it elsewhere |
//! | never two owners | a partition that is to move is nobody's for one generation, in which its owner gives it up |
//! | spread | among what may move, the topic goes first of which the giver has the most beyond the taker |
//!
//! Source: <https://cwiki.apache.org/confluence/display/KAFKA/KIP-429%3A+Kafka+Consumer+Incremental+Rebalance+Protocol>.

use std::collections::{BTreeMap, BTreeSet};

use contract::Partition;

/// A partition of a topic, by its name on the cluster.
pub(crate) type Place = (String, Partition);

/// What each member gets, by its id.
pub(crate) type Shares = BTreeMap<String, BTreeSet<Place>>;

/// What a member says of itself when it joins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) member: String,
    /// The topics that it asks for.
    pub(crate) topics: BTreeSet<String>,
    /// What it has.
    pub(crate) owned: BTreeSet<Place>,
    /// The generation in which it got that; -1 if it has nothing.
    pub(crate) generation: i32,
}

/// Shares the partitions of `topics` (their numbers by name) out. Those that are to move are in nobody's share yet.
pub(crate) fn share_out(topics: &BTreeMap<String, Partition>, claims: &[Claim]) -> Shares {
    let mut sharing = Sharing::new(topics, claims);
    sharing.give_what_is_free(topics);
    sharing.balance();
    let mut shares = sharing.shares();
    for claim in claims {
        for (_, share) in shares.iter_mut().filter(|(member, _)| **member != claim.member) {
            share.retain(|place| !claim.owned.contains(place));
        }
    }
    shares
}

struct Sharing<'a> {
    claims: &'a [Claim],
    /// Per member, in the order of the claims, by topic.
    has: Vec<BTreeMap<&'a str, BTreeSet<Partition>>>,
}

impl<'a> Sharing<'a> {
    /// Everybody keeps what there is of what it has; where two say that they have it, the later generation counts.
    fn new(topics: &'a BTreeMap<String, Partition>, claims: &'a [Claim]) -> Self {
        let mut owners: BTreeMap<(&str, Partition), usize> = BTreeMap::new();
        for (member, claim) in claims.iter().enumerate() {
            for (topic, partition) in &claim.owned {
                let is_there = topics.get(topic).is_some_and(|count| (0..*count).contains(partition));
                if !is_there || !claim.topics.contains(topic) {
                    continue;
                }
                let owner = owners.entry((topic, *partition)).or_insert(member);
                if claims[*owner].generation < claim.generation {
                    *owner = member;
                }
            }
        }
        let mut has = vec![BTreeMap::new(); claims.len()];
        for ((topic, partition), member) in owners {
            has[member].entry(topic).or_insert_with(BTreeSet::new).insert(partition);
        }
        Self { claims, has }
    }

    fn count(&self, member: usize) -> usize {
        self.has[member].values().map(BTreeSet::len).sum()
    }

    fn count_of(&self, member: usize, topic: &str) -> usize {
        self.has[member].get(topic).map_or(0, BTreeSet::len)
    }

    fn give_what_is_free(&mut self, topics: &'a BTreeMap<String, Partition>) {
        for (topic, &count) in topics {
            let taken: BTreeSet<Partition> =
                self.has.iter().filter_map(|has| has.get(topic.as_str())).flatten().copied().collect();
            for partition in (0..count).filter(|partition| !taken.contains(partition)) {
                let eligible = (0..self.claims.len()).filter(|&member| self.claims[member].topics.contains(topic));
                let order = |&member: &usize| (self.count(member), self.count_of(member, topic), member);
                let Some(member) = eligible.min_by_key(order) else { break };
                self.has[member].entry(topic).or_default().insert(partition);
            }
        }
    }

    /// Each move makes two counts more alike, so there is an end.
    fn balance(&mut self) {
        let members = self.claims.len();
        loop {
            let pairs = (0..members).flat_map(|giver| (0..members).map(move |taker| (giver, taker)));
            let moves = pairs.filter(|&(giver, taker)| self.count(giver) > self.count(taker) + 1);
            let moves = moves.filter_map(|(giver, taker)| {
                let topic = self.topic_to_move(giver, taker)?;
                Some((self.count(giver) - self.count(taker), giver, taker, topic))
            });
            let Some((_, giver, taker, topic)) = moves.max_by_key(|(difference, ..)| *difference) else { return };
            let partition = self.has[giver].get_mut(topic).and_then(BTreeSet::pop_last);
            self.has[taker].entry(topic).or_default().extend(partition);
        }
    }

    fn topic_to_move(&self, giver: usize, taker: usize) -> Option<&'a str> {
        let topics = self.has[giver].iter().filter(|(_, partitions)| !partitions.is_empty());
        let wanted = topics.filter(|(topic, _)| self.claims[taker].topics.contains(**topic));
        let beyond = |topic: &str, has: usize| has as i64 - self.count_of(taker, topic) as i64;
        wanted.max_by_key(|(topic, partitions)| beyond(topic, partitions.len())).map(|(topic, _)| *topic)
    }

    fn shares(self) -> Shares {
        let places = |has: BTreeMap<&str, BTreeSet<Partition>>| -> BTreeSet<Place> {
            let place = |(topic, partitions): (&str, BTreeSet<Partition>)| {
                partitions.into_iter().map(|partition| (topic.to_owned(), partition)).collect::<Vec<_>>()
            };
            has.into_iter().flat_map(place).collect()
        };
        self.claims.iter().zip(self.has).map(|(claim, has)| (claim.member.clone(), places(has))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(counts: &[(&str, Partition)]) -> BTreeMap<String, Partition> {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn claim(member: &str, asked: &BTreeMap<String, Partition>) -> Claim {
        let topics = asked.keys().cloned().collect();
        Claim { member: member.to_owned(), topics, owned: BTreeSet::new(), generation: -1 }
    }

    /// A group as its members see it: each round is a generation.
    struct World {
        topics: BTreeMap<String, Partition>,
        members: Vec<Claim>,
        generation: i32,
    }

    impl World {
        fn new(counts: &[(&str, Partition)]) -> Self {
            Self { topics: topics(counts), members: Vec::new(), generation: 0 }
        }

        /// One generation. Answers how many partitions were given up; nobody gets what another one still has.
        fn share(&mut self) -> usize {
            self.generation += 1;
            let shares = share_out(&self.topics, &self.members);
            let mut given_up = 0;
            let mut all = BTreeSet::new();
            for (member, share) in &shares {
                for place in share {
                    assert!(all.insert(place.clone()), "{place:?} is in two shares");
                    let others = self.members.iter().filter(|claim| claim.member != *member);
                    assert!(!others.clone().any(|claim| claim.owned.contains(place)), "{place:?} has two owners");
                }
            }
            for claim in &mut self.members {
                let share = shares[&claim.member].clone();
                given_up += claim.owned.difference(&share).count();
                (claim.owned, claim.generation) = (share, self.generation);
            }
            given_up
        }

        /// Shares until nobody gives anything up, as members do; answers how many partitions moved.
        fn settle(&mut self) -> usize {
            let mut moved = 0;
            for _ in 0..4 {
                match self.share() {
                    0 => return moved,
                    given_up => moved += given_up,
                }
            }
            panic!("it does not settle: {:?}", self.members);
        }

        fn assert_balanced(&self) {
            let counts: Vec<_> = self.members.iter().map(|claim| claim.owned.len()).collect();
            let total: usize = self.topics.values().map(|count| *count as usize).sum();
            if let (Some(least), Some(most)) = (counts.iter().min(), counts.iter().max()) {
                assert!(most - least <= 1, "{counts:?}");
                assert_eq!(counts.iter().sum::<usize>(), total);
            }
        }
    }

    #[test]
    fn any_coming_and_going_stays_balanced_and_moves_no_more_than_it_must_and_nothing_has_two_owners() {
        for seed in 1..=400_u64 {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut below = |bound: u64| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) % bound
            };
            let mut world = World::new(&[("a.raw", 4), ("b.raw", 1 + below(9) as i32), ("coverage", 1)]);
            for step in 0..30 {
                let total: usize = world.topics.values().map(|count| *count as usize).sum();
                let members = world.members.len();
                match below(6) {
                    0..2 => {
                        let new = claim(&format!("m{:02}-{step}", below(99)), &world.topics);
                        world.members.push(new);
                        let moved = world.settle();
                        assert!(moved <= total.div_ceil(members + 1), "seed {seed}: {moved} of {total} moved");
                    }
                    2 if members > 1 => {
                        world.members.remove(below(members as u64) as usize);
                        assert_eq!(world.settle(), 0, "seed {seed}: what the others have stays");
                    }
                    // Thrown out, it joins anew with nothing; or it woke up and claims what others got meanwhile.
                    3 if members > 1 => {
                        let at = below(members as u64) as usize;
                        let zombie = world.members.remove(at);
                        world.settle();
                        let owned = if below(2) == 0 { BTreeSet::new() } else { zombie.owned.clone() };
                        // What a zombie claims is given up by both before anybody gets it.
                        let shares = share_out(
                            &world.topics,
                            &[&world.members[..], &[Claim { owned: owned.clone(), ..zombie.clone() }]].concat(),
                        );
                        let of_others = world.members.iter().flat_map(|claim| &claim.owned);
                        let contested = of_others.filter(|place| owned.contains(*place));
                        for place in contested {
                            assert!(!shares.values().any(|share| share.contains(place)), "seed {seed}: {place:?}");
                        }
                        world.members.push(Claim { owned: BTreeSet::new(), generation: -1, ..zombie });
                        world.settle();
                    }
                    4 => {
                        *world.topics.get_mut("b.raw").unwrap() += 1;
                        world.settle();
                    }
                    _ => assert_eq!(world.settle(), 0, "seed {seed}: nothing changed, so nothing moves"),
                }
                world.assert_balanced();
            }
        }
    }

    #[test]
    fn each_topic_is_spread_over_all_members() {
        let mut world =
            World::new(&[("arxiv.raw", 4), ("coverage", 1), ("dns.raw", 4), ("github.raw", 4), ("news.raw", 4)]);
        for count in 1..=4 {
            let new = claim(&format!("m{count}"), &world.topics);
            world.members.push(new);
            world.settle();
            for (topic, partitions) in &world.topics {
                for member in &world.members {
                    let of_topic = member.owned.iter().filter(|(name, _)| name == topic).count();
                    let most = (*partitions as usize).div_ceil(count) + 1;
                    assert!(of_topic <= most, "{count} members: {of_topic} of {partitions} of `{topic}`");
                }
            }
        }
    }

    #[test]
    fn a_member_gets_only_topics_that_it_asks_for_and_what_nobody_asks_for_stays_free() {
        let all = topics(&[("a", 3), ("b", 3), ("c", 1)]);
        let mut one = claim("one", &all);
        one.topics = ["a".to_owned()].into();
        let mut other = claim("other", &all);
        other.topics = ["a".to_owned(), "b".to_owned()].into();
        let shares = share_out(&all, &[one, other]);
        assert!(shares["one"].iter().all(|(topic, _)| topic == "a"));
        assert_eq!((shares["one"].len(), shares["other"].len()), (3, 3));
    }

    #[test]
    fn of_two_that_claim_the_same_the_later_generation_counts_and_both_give_it_up_first() {
        let all = topics(&[("a", 1)]);
        let owned: BTreeSet<Place> = [("a".to_owned(), 0)].into();
        let old = Claim { owned: owned.clone(), generation: 3, ..claim("a-old", &all) };
        let new = Claim { owned, generation: 5, ..claim("b-new", &all) };
        let shares = share_out(&all, &[old, new.clone()]);
        assert!(shares.values().all(BTreeSet::is_empty), "{shares:?}");
    }
}
