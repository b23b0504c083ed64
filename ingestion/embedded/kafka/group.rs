//! One consumer group, as a machine without I/O: it is told what members ask and what time it is.
//! Source: <https://kafka.apache.org/protocol#The_Messages_JoinGroup> and KIP-394, KIP-345.
//!
//! ```text
//! Empty ──join──► Joining ──all are here, or the time is over──► Syncing ──the leader's assignment──► Stable
//!   ▲                ▲────────────── a member comes, goes, or asks for something else ─────────────────┘
//!   └── the last member goes
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Members of one group, those included that were given a name and have not joined yet.
const MEMBERS_MAX: usize = 256;

/// Bytes of what a member says of itself, and of what it is assigned; real ones are some hundreds.
const MEMBER_BYTES_MAX: usize = 64 << 10;

/// How long the first members wait for others, so that a group that starts as one is not shared out again for each.
const FIRST_JOIN_WAIT: Duration = Duration::from_millis(300);

const SESSION_MS: std::ops::RangeInclusive<i32> = 1_000..=1_800_000;
const REBALANCE_MAX: Duration = Duration::from_secs(1_800);

/// What a member asks when it joins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Join {
    pub(crate) member: String,
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_ms: i32,
    pub(crate) rebalance_ms: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocols: Vec<(String, Bytes)>,
    /// Whether the client knows that it must join again with the name it is given.
    pub(crate) knows_names: bool,
}

/// The answer to a member that has joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) generation: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) leader: String,
    pub(crate) member: String,
    /// Name, instance and what it said of itself, for the leader only.
    pub(crate) members: Vec<(String, Option<String>, Bytes)>,
}

/// Why not; with the name to join with, for `MEMBER_ID_REQUIRED`.
pub(crate) type Refused = (ResponseError, String);
pub(crate) type JoinReply = oneshot::Sender<Result<Joined, Refused>>;
pub(crate) type SyncReply = oneshot::Sender<Result<Bytes, ResponseError>>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    #[default]
    Empty,
    /// Members join until then.
    Joining {
        until: Instant,
        may_end_early: bool,
    },
    /// The leader shares out until then.
    Syncing {
        until: Instant,
    },
    Stable,
}

impl State {
    /// As Kafka's tools name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Joining { .. } => "PreparingRebalance",
            Self::Syncing { .. } => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    session: Duration,
    rebalance: Duration,
    protocols: Vec<(String, Bytes)>,
    pub(crate) assignment: Bytes,
    alive_until: Instant,
    joining: Option<JoinReply>,
    syncing: Option<SyncReply>,
}

#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) state: State,
    pub(crate) generation: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) members: BTreeMap<String, Member>,
    leader: String,
    /// Names that were given and not used yet, until when.
    named: BTreeMap<String, Instant>,
}

impl Group {
    /// Whether nothing is left to know of it.
    pub(crate) fn is_gone(&self) -> bool {
        self.size() == 0
    }

    /// Its members, and those that have a name and have not joined yet.
    pub(crate) fn size(&self) -> usize {
        self.members.len() + self.named.len()
    }

    /// `fresh` is a name that nobody has, for a member that has none.
    pub(crate) fn join(&mut self, join: Join, fresh: String, now: Instant, reply: JoinReply) {
        match self.admit(&join, fresh, now) {
            Ok(name) => self.take_in(name, join, now, reply),
            Err(refused) => answer(reply, Err(refused)),
        }
    }

    /// The name under which it may join.
    fn admit(&mut self, join: &Join, fresh: String, now: Instant) -> Result<String, Refused> {
        let refuse = |error| Err((error, join.member.clone()));
        let bytes: usize = join.protocols.iter().map(|(name, metadata)| name.len() + metadata.len()).sum();
        if !SESSION_MS.contains(&join.session_ms) {
            return refuse(ResponseError::InvalidSessionTimeout);
        }
        if join.protocols.is_empty() || join.protocol_type.is_empty() || bytes > MEMBER_BYTES_MAX {
            return refuse(ResponseError::InconsistentGroupProtocol);
        }
        let same_instance = |member: &Member| join.instance.is_some() && member.instance == join.instance;
        let of_instance = self.members.iter().find(|(_, member)| same_instance(member)).map(|(name, _)| name.clone());
        let name = match (&of_instance, join.member.as_str()) {
            // It was started again under the same instance id, and takes its place.
            (Some(before), "") => before.clone(),
            (Some(before), name) if name != before => return refuse(ResponseError::FencedInstanceId),
            (None, "") => fresh.clone(),
            (_, name) if self.members.contains_key(name) || self.named.contains_key(name) => name.to_owned(),
            _ => return refuse(ResponseError::UnknownMemberId),
        };
        let others: Vec<_> = self.members.iter().filter(|(other, _)| **other != name).collect();
        let is_new = !self.members.contains_key(&name);
        if is_new && others.len() + self.named.len() >= MEMBERS_MAX && !self.named.contains_key(&name) {
            return refuse(ResponseError::GroupMaxSizeReached);
        }
        let all_know = |protocol: &str| others.iter().all(|(_, member)| member.metadata(protocol).is_some());
        let fits = others.is_empty()
            || self.protocol_type == join.protocol_type && join.protocols.iter().any(|(name, _)| all_know(name));
        if !fits {
            return refuse(ResponseError::InconsistentGroupProtocol);
        }
        if is_new && join.member.is_empty() && join.instance.is_none() && join.knows_names {
            self.named.insert(fresh.clone(), now + Duration::from_millis(join.session_ms as u64));
            return Err((ResponseError::MemberIdRequired, fresh));
        }
        if let (Some(before), "") = (&of_instance, join.member.as_str()) {
            // Under another name, so that the one before it is fenced when it asks again.
            let member = self.members.remove(before).expect("found above");
            if self.leader == *before {
                self.leader.clone_from(&fresh);
            }
            self.members.insert(fresh.clone(), member);
            return Ok(fresh);
        }
        Ok(name)
    }

    fn take_in(&mut self, name: String, join: Join, now: Instant, reply: JoinReply) {
        self.named.remove(&name);
        self.protocol_type.clone_from(&join.protocol_type);
        let session = Duration::from_millis(join.session_ms.max(0) as u64);
        let rebalance = Duration::from_millis(join.rebalance_ms.max(join.session_ms) as u64).min(REBALANCE_MAX);
        let asks_the_same = self.members.get(&name).is_some_and(|member| member.protocols == join.protocols);
        let member = self.members.entry(name.clone()).or_insert_with(|| Member {
            instance: join.instance.clone(),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            session,
            rebalance,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            alive_until: now + session,
            joining: None,
            syncing: None,
        });
        (member.session, member.rebalance, member.protocols) = (session, rebalance, join.protocols);
        member.alive_until = now + session;
        let keeps_place = match self.state {
            State::Syncing { .. } => asks_the_same,
            // A leader that joins again wants to share out anew.
            State::Stable => asks_the_same && name != self.leader,
            State::Empty | State::Joining { .. } => false,
        };
        if keeps_place {
            return answer(reply, Ok(self.joined(&name)));
        }
        if let Some(before) = self.members.get_mut(&name).expect("just put in").joining.replace(reply) {
            answer(before, Err((ResponseError::UnknownMemberId, name)));
        }
        self.begin_joining(now);
        self.end_joining_if_all_are_here(now);
    }

    /// Asks all members to join again.
    fn begin_joining(&mut self, now: Instant) {
        let is_first = self.state == State::Empty;
        if let State::Joining { .. } = self.state {
            return;
        }
        for member in self.members.values_mut() {
            if let Some(syncing) = member.syncing.take() {
                // It could say nothing while it waited.
                member.alive_until = now + member.session;
                answer(syncing, Err(ResponseError::RebalanceInProgress));
            }
        }
        let longest = self.members.values().map(|member| member.rebalance).max().unwrap_or_default();
        let wait = if is_first { FIRST_JOIN_WAIT } else { longest };
        self.state = State::Joining { until: now + wait, may_end_early: !is_first };
    }

    fn end_joining_if_all_are_here(&mut self, now: Instant) {
        let all_are_here = self.named.is_empty() && self.members.values().all(|member| member.joining.is_some());
        if matches!(self.state, State::Joining { may_end_early: true, .. }) && all_are_here {
            self.end_joining(now);
        }
    }

    /// Those who joined are the group from now on.
    fn end_joining(&mut self, now: Instant) {
        self.members.retain(|_, member| member.joining.is_some());
        self.generation = self.generation.wrapping_add(1).max(1);
        if self.members.is_empty() {
            self.state = State::Empty;
            self.protocol.clear();
            return;
        }
        if !self.members.contains_key(&self.leader) {
            self.leader = self.members.keys().next().expect("not empty").clone();
        }
        self.protocol = self.choose_protocol();
        let longest = self.members.values().map(|member| member.rebalance).max().unwrap_or_default();
        self.state = State::Syncing { until: now + longest };
        let names: Vec<String> = self.members.keys().cloned().collect();
        for name in names {
            let joined = self.joined(&name);
            let member = self.members.get_mut(&name).expect("listed");
            member.alive_until = now + member.session;
            member.assignment = Bytes::new();
            answer(member.joining.take().expect("kept for it"), Ok(joined));
        }
    }

    /// Of those that all know, the one that most name first.
    fn choose_protocol(&self) -> String {
        let all_know = |name: &str| self.members.values().all(|member| member.metadata(name).is_some());
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| all_know(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|(_, votes)| *votes).map(|(name, _)| name.to_owned()).unwrap_or_default()
    }

    fn joined(&self, name: &str) -> Joined {
        let described = |(name, member): (&String, &Member)| {
            (name.clone(), member.instance.clone(), member.metadata(&self.protocol).unwrap_or_default())
        };
        let is_leader = name == self.leader;
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            member: name.to_owned(),
            members: if is_leader { self.members.iter().map(described).collect() } else { Vec::new() },
        }
    }

    /// Whether a member may speak for itself in this generation.
    pub(crate) fn check(&self, name: &str, instance: Option<&str>, generation: i32) -> Result<(), ResponseError> {
        let has_instance = |member: &&Member| instance.is_some() && member.instance.as_deref() == instance;
        match self.members.get(name) {
            None if self.members.values().any(|member| has_instance(&member)) => Err(ResponseError::FencedInstanceId),
            None => Err(ResponseError::UnknownMemberId),
            Some(_) if generation != self.generation => Err(ResponseError::IllegalGeneration),
            Some(_) => Ok(()),
        }
    }

    /// The leader brings what each member gets; all others wait for it.
    pub(crate) fn sync(&mut self, name: &str, assignments: Vec<(String, Bytes)>, now: Instant, reply: SyncReply) {
        let is_too_much = assignments.iter().any(|(_, assignment)| assignment.len() > MEMBER_BYTES_MAX);
        let leads = name == self.leader;
        let Some(member) = self.members.get_mut(name).filter(|_| !is_too_much) else {
            return answer(reply, Err(ResponseError::UnknownMemberId));
        };
        member.alive_until = now + member.session;
        match self.state {
            State::Empty | State::Joining { .. } => answer(reply, Err(ResponseError::RebalanceInProgress)),
            State::Stable => answer(reply, Ok(member.assignment.clone())),
            State::Syncing { .. } => {
                member.syncing = Some(reply);
                if leads {
                    self.assign(assignments, now);
                }
            }
        }
    }

    fn assign(&mut self, assignments: Vec<(String, Bytes)>, now: Instant) {
        for (name, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&name) {
                member.assignment = assignment;
            }
        }
        self.state = State::Stable;
        for member in self.members.values_mut() {
            if let Some(syncing) = member.syncing.take() {
                member.alive_until = now + member.session;
                answer(syncing, Ok(member.assignment.clone()));
            }
        }
    }

    pub(crate) fn heartbeat(&mut self, name: &str, now: Instant) -> Result<(), ResponseError> {
        let member = self.members.get_mut(name).ok_or(ResponseError::UnknownMemberId)?;
        member.alive_until = now + member.session;
        if matches!(self.state, State::Joining { .. }) { Err(ResponseError::RebalanceInProgress) } else { Ok(()) }
    }

    /// A member goes, named by itself or by its instance.
    pub(crate) fn leave(&mut self, name: &str, instance: Option<&str>, now: Instant) -> Result<(), ResponseError> {
        let of_instance = |member: &Member| instance.is_some() && member.instance.as_deref() == instance;
        let found = if self.members.contains_key(name) {
            Some(name.to_owned())
        } else {
            self.members.iter().find(|(_, member)| name.is_empty() && of_instance(member)).map(|(name, _)| name.clone())
        };
        let was_named = self.named.remove(name).is_some();
        match found {
            Some(found) => self.remove(&[found], now),
            None if was_named => self.end_joining_if_all_are_here(now),
            None => return Err(ResponseError::UnknownMemberId),
        }
        Ok(())
    }

    /// Lets members go that were not heard of, and ends waits whose time is over.
    pub(crate) fn tick(&mut self, now: Instant) {
        let named = self.named.len();
        self.named.retain(|_, until| *until > now);
        let is_gone =
            |member: &Member| member.alive_until <= now && member.joining.is_none() && member.syncing.is_none();
        let gone: Vec<String> =
            self.members.iter().filter(|(_, member)| is_gone(member)).map(|(name, _)| name.clone()).collect();
        if !gone.is_empty() {
            self.remove(&gone, now);
        }
        if named > self.named.len() {
            self.end_joining_if_all_are_here(now);
        }
        match self.state {
            State::Joining { until, .. } if until <= now => self.end_joining(now),
            // Its leader has not shared out: it is asked again, or another one is.
            State::Syncing { until } if until <= now => {
                let leader = self.leader.clone();
                self.remove(&[leader], now);
            }
            _ => {}
        }
    }

    fn remove(&mut self, names: &[String], now: Instant) {
        for name in names {
            if let Some(member) = self.members.remove(name) {
                if let Some(joining) = member.joining {
                    answer(joining, Err((ResponseError::UnknownMemberId, name.clone())));
                }
                if let Some(syncing) = member.syncing {
                    answer(syncing, Err(ResponseError::UnknownMemberId));
                }
            }
        }
        match self.state {
            State::Empty => {}
            _ if self.members.is_empty() => self.end_joining(now),
            State::Joining { .. } => self.end_joining_if_all_are_here(now),
            State::Syncing { .. } | State::Stable => self.begin_joining(now),
        }
    }
}

impl Member {
    /// What it says of itself under a protocol, if it knows that.
    pub(crate) fn metadata(&self, protocol: &str) -> Option<Bytes> {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, metadata)| metadata.clone())
    }
}

fn answer<T>(reply: oneshot::Sender<T>, answer: T) {
    // Whose connection is gone joins again, or is removed when its time is over.
    drop(reply.send(answer));
}
