//! A member of the consumer group whose members share the partitions, by Kafka's classic protocol.
//!
//! | case | what happens |
//! | --- | --- |
//! | somebody joins, leaves or dies | all join again and keep what they have meanwhile; the leader shares out (`assign.rs`) |
//! | a partition is to move | who has it is told by a share without it, gives it up, and joins again; the next generation gives it on |
//! | it is not given up within `kafka.rebalance_timeout_ms` | this member loses all it has and joins with nothing |
//! | the coordinator is not heard for `kafka.session_timeout_ms` | it gives what this member has to others; so does this member take it as lost |
//! | the coordinator does not know this member or its generation | as above: it was thrown out, perhaps while it was paused |
//! | new partitions, new topics | the leader looks every half minute, and joins again |
//! | the process ends | what was committed is said, and the member leaves, so that others need not wait |
//!
//! Source: <https://cwiki.apache.org/confluence/display/KAFKA/Kafka+Client-side+Assignment+Proposal>, and KIP-429 for the
//! giving up in steps. The offsets that are said to the coordinator are for tools that show lag: what counts stands in the
//! stores.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use contract::{Assignments, Partition, Positions, Remedy, Result, Share, Topic};
use kafka_protocol::ResponseError as Code;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::{Request, StrBytes};

use crate::assign::{Claim, Place, share_out};
use crate::cluster::{Cluster, Coordinates};
use crate::consumer::{read_claim, read_share, write_claim, write_share};
use crate::failure::{Failure, Outcome};
use crate::offsets::{self, Committer};

const PROTOCOL_TYPE: &str = "consumer";
/// The assignor's name as Kafka's own clients know it: one that moves partitions in two steps.
const ASSIGNOR: &str = "cooperative-sticky";
/// How often it is looked whether partitions were given up.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Before a request is made again that was not answered, and before a member that was thrown out joins again.
const PAUSE: Duration = Duration::from_millis(200);
/// How often the leader looks for new partitions and topics.
const GROWTH_INTERVAL: Duration = Duration::from_secs(30);
/// How long the end may take for saying offsets and leaving: others wait for the session's end otherwise, no longer.
const LEAVE_MAX: Duration = Duration::from_secs(3);

/// A member of the group `kafka.group_id`.
pub struct Member {
    cluster: Arc<Cluster>,
    /// The topics that are shared, by their names on the cluster.
    topics: BTreeMap<String, Topic>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    life: u64,
    has: BTreeSet<Place>,
    /// What was last said to be read of each topic, and nothing else.
    settled: BTreeMap<Topic, Share>,
    /// Offsets that the coordinator was not told yet, by names on the cluster.
    unsaid: BTreeMap<String, Positions>,
}

/// What this member is to the coordinator.
#[derive(Default)]
struct Session {
    /// Given by the coordinator; empty before.
    member: StrBytes,
    generation: i32,
    /// The generation in which what it has was given to it.
    has_since: i32,
    /// When the coordinator was last heard.
    heard: Option<Instant>,
}

/// The leader's part of a generation; of the others nothing.
type Led = Option<(Vec<Claim>, BTreeMap<String, Partition>)>;

impl Member {
    pub(crate) fn new(cluster: Arc<Cluster>, topics: BTreeMap<String, Topic>) -> Self {
        Self { cluster, topics, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn group(&self) -> &str {
        &self.cluster.settings().group_id
    }

    /// Offsets to be said at the next heartbeat: all below them is in both stores.
    pub(crate) fn note(&self, topic: &str, positions: &Positions) {
        self.state().unsaid.entry(topic.to_owned()).or_default().0.extend(positions.0.clone());
    }

    /// Belongs to the group until `leave` is ready, then says what is committed, and leaves.
    ///
    /// # Errors
    /// When the cluster refuses what the settings say.
    pub async fn run(&self, leave: impl Future<Output = ()> + Send) -> Result<()> {
        tokio::pin!(leave);
        let mut session = Session { generation: -1, has_since: -1, ..Session::default() };
        loop {
            let failure = tokio::select! {
                failure = self.belong(&mut session) => failure,
                () = &mut leave => break,
            };
            self.lose(&mut session, &failure);
            let error = failure.while_doing(format!("belong to the group `{}`", self.group()));
            if error.remedy() == Remedy::Change {
                return Err(error);
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = &mut leave => break,
            }
        }
        let leaving = async {
            self.say_offsets(&session).await;
            self.leave(&session).await
        };
        if let Ok(Err(failure)) = tokio::time::timeout(LEAVE_MAX, leaving).await {
            tracing::info!("others take over when this process's session is over: {failure}");
        }
        Ok(())
    }

    /// Joins and stays. Ends only when all was lost.
    async fn belong(&self, session: &mut Session) -> Failure {
        loop {
            match self.one_generation(session).await {
                Ok(()) => {}
                Err(failure) if failure.is(&[Code::RebalanceInProgress]) => {}
                Err(failure) => return failure,
            }
        }
    }

    async fn one_generation(&self, session: &mut Session) -> Outcome<()> {
        let led = self.join(session).await?;
        let share = self.sync(session, led.as_ref()).await?;
        let has = self.state().has.clone();
        session.has_since = session.generation;
        let given_up = has.difference(&share).count();
        tracing::info!(
            generation = session.generation,
            partitions = share.len(),
            given_up,
            "this process has {} partitions of the group `{}`",
            share.len(),
            self.group()
        );
        self.state().has = share;
        if given_up > 0 {
            self.until_settled(session).await?;
            self.say_offsets(session).await;
            // Joined again at once: then the others get it.
            return Ok(());
        }
        self.stay(session, led.map(|(_, topics)| topics)).await
    }

    async fn join(&self, session: &mut Session) -> Outcome<Led> {
        let settings = self.cluster.settings();
        let milliseconds = |value: u64| i32::try_from(value).unwrap_or(i32::MAX);
        loop {
            let claim = Claim {
                member: String::new(),
                topics: self.topics.keys().cloned().collect(),
                owned: self.state().has.clone(),
                generation: session.has_since,
            };
            let protocol = JoinGroupRequestProtocol::default()
                .with_name(StrBytes::from_static_str(ASSIGNOR))
                .with_metadata(write_claim(&claim)?);
            let request = JoinGroupRequest::default()
                .with_group_id(self.group_id())
                .with_session_timeout_ms(milliseconds(settings.session_timeout_ms))
                .with_rebalance_timeout_ms(milliseconds(settings.rebalance_timeout_ms))
                .with_member_id(session.member.clone())
                .with_protocol_type(StrBytes::from_static_str(PROTOCOL_TYPE))
                .with_protocols(vec![protocol]);
            let named = Code::MemberIdRequired.code();
            let code = |answer: &JoinGroupResponse| {
                (if answer.error_code == named { 0 } else { answer.error_code }, "joining the group")
            };
            let answer = self.ask(session, &request, settings.rebalance_timeout(), code).await?;
            session.member = answer.member_id.clone();
            if answer.error_code == named {
                continue;
            }
            session.generation = answer.generation_id;
            if answer.leader != answer.member_id {
                return Ok(None);
            }
            let claims = answer.members.into_iter().map(|member| read_claim(&member.member_id, member.metadata));
            return Ok(Some((claims.collect::<Outcome<_>>()?, self.partitions(&claim.topics).await?)));
        }
    }

    /// Says, as the leader, what each member gets; answers what this one gets.
    async fn sync(
        &self,
        session: &mut Session,
        led: Option<&(Vec<Claim>, BTreeMap<String, Partition>)>,
    ) -> Outcome<BTreeSet<Place>> {
        let mut assignments = Vec::new();
        if let Some((claims, known)) = led {
            let asked: BTreeSet<String> = claims.iter().flat_map(|claim| claim.topics.clone()).collect();
            let others =
                self.partitions(&asked.into_iter().filter(|topic| !known.contains_key(topic)).collect()).await?;
            let topics = known.clone().into_iter().chain(others).collect();
            for (member, share) in share_out(&topics, claims) {
                let assignment = SyncGroupRequestAssignment::default()
                    .with_member_id(StrBytes::from_string(member))
                    .with_assignment(write_share(&share)?);
                assignments.push(assignment);
            }
        }
        let request = SyncGroupRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(session.generation)
            .with_member_id(session.member.clone())
            .with_protocol_type(Some(StrBytes::from_static_str(PROTOCOL_TYPE)))
            .with_protocol_name(Some(StrBytes::from_static_str(ASSIGNOR)))
            .with_assignments(assignments);
        let wait = self.cluster.settings().rebalance_timeout();
        let code = |answer: &SyncGroupResponse| (answer.error_code, "asking for this member's partitions");
        let answer = self.ask(session, &request, wait, code).await?;
        read_share(answer.assignment)
    }

    /// Until others want to join, or there are new partitions.
    async fn stay(&self, session: &mut Session, led: Option<BTreeMap<String, Partition>>) -> Outcome<()> {
        let mut looked = Instant::now();
        loop {
            tokio::time::sleep(self.cluster.settings().heartbeat_interval()).await;
            self.heartbeat(session).await?;
            self.say_offsets(session).await;
            let Some(shared) = &led else { continue };
            if looked.elapsed() < GROWTH_INTERVAL {
                continue;
            }
            looked = Instant::now();
            // What cannot be asked now is asked the next time.
            let now = self.partitions(&self.topics.keys().cloned().collect()).await;
            if now.is_ok_and(|now| now != *shared) {
                tracing::info!("there are new partitions: they are shared out");
                return Ok(());
            }
        }
    }

    /// Waits until all that is no longer this member's was given up.
    async fn until_settled(&self, session: &mut Session) -> Outcome<()> {
        let settings = self.cluster.settings();
        let (until, mut beat) = (Instant::now() + settings.rebalance_timeout(), Instant::now());
        while !self.is_settled() {
            tokio::time::sleep(LOOK_INTERVAL).await;
            if Instant::now() > until {
                let milliseconds = settings.rebalance_timeout_ms;
                return Err(Failure::unheard(format!(
                    "what was to be given up was not in the stores within {milliseconds} ms"
                )));
            }
            if beat.elapsed() > settings.heartbeat_interval() {
                beat = Instant::now();
                match self.heartbeat(session).await {
                    // Others wait for this member, which comes as soon as it has given up.
                    Err(failure) if failure.is(&[Code::RebalanceInProgress]) => {}
                    heard => heard?,
                }
            }
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        self.topics.values().all(|topic| {
            let share = self.share(topic);
            let state = self.state();
            let settled = state.settled.get(topic);
            settled.is_none_or(|settled| settled.life == share.life && settled.partitions.is_subset(&share.partitions))
        })
    }

    async fn heartbeat(&self, session: &mut Session) -> Outcome<()> {
        let request = HeartbeatRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(session.generation)
            .with_member_id(session.member.clone());
        let code = |answer: &HeartbeatResponse| (answer.error_code, "staying a member");
        self.ask(session, &request, Duration::ZERO, code).await.map(drop)
    }

    async fn leave(&self, session: &Session) -> Outcome<()> {
        if session.member.is_empty() {
            return Ok(());
        }
        let request = LeaveGroupRequest::default()
            .with_group_id(self.group_id())
            .with_members(vec![MemberIdentity::default().with_member_id(session.member.clone())]);
        let code = |answer: &kafka_protocol::messages::LeaveGroupResponse| (answer.error_code, "leaving");
        self.cluster.ask_coordinator(Coordinates::Group, self.group(), &request, Duration::ZERO, code).await.map(drop)
    }

    /// Asks the coordinator until it is heard, for as long as the session lasts.
    async fn ask<R: Request>(
        &self,
        session: &mut Session,
        request: &R,
        wait: Duration,
        code: impl Fn(&R::Response) -> (i16, &'static str),
    ) -> Outcome<R::Response> {
        let until = session.heard.unwrap_or_else(Instant::now) + self.cluster.settings().session_timeout();
        loop {
            let answer = self.cluster.ask_coordinator(Coordinates::Group, self.group(), request, wait, &code).await;
            match answer {
                Err(failure) if failure.may_pass() && !failure.is(&[Code::RebalanceInProgress]) => {
                    if Instant::now() > until {
                        return Err(failure);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                answer => {
                    session.heard = Some(Instant::now());
                    return answer;
                }
            }
        }
    }

    /// Says what the stores have; what is not heard is said with the next heartbeat.
    async fn say_offsets(&self, session: &Session) {
        let unsaid: BTreeMap<String, Positions> = {
            let mut state = self.state();
            let State { has, unsaid, .. } = &mut *state;
            for (topic, positions) in unsaid.iter_mut() {
                positions.0.retain(|partition, _| has.contains(&(topic.clone(), *partition)));
            }
            unsaid.retain(|_, positions| !positions.0.is_empty());
            unsaid.clone()
        };
        if unsaid.is_empty() {
            return;
        }
        let committer = Committer { member: session.member.clone(), generation: session.generation };
        match offsets::commit(&self.cluster, self.group(), &unsaid, committer).await {
            Ok(()) => self.state().unsaid.retain(|topic, positions| unsaid.get(topic) != Some(positions)),
            Err(failure) => tracing::debug!("offsets are said later: {failure}"),
        }
    }

    /// All was lost: whoever reads forgets what is not committed, and this member joins with nothing.
    fn lose(&self, session: &mut Session, failure: &Failure) {
        if failure.is(&[Code::UnknownMemberId, Code::FencedInstanceId]) {
            session.member = StrBytes::default();
        }
        *session = Session { member: session.member.clone(), generation: -1, has_since: -1, heard: None };
        let mut state = self.state();
        if !state.has.is_empty() {
            tracing::warn!(
                "this process lost its {} partitions, which others may have by now, and joins again: {failure}",
                state.has.len()
            );
        }
        *state = State { life: state.life + 1, settled: std::mem::take(&mut state.settled), ..State::default() };
    }

    async fn partitions(&self, topics: &BTreeSet<String>) -> Outcome<BTreeMap<String, Partition>> {
        let until = Instant::now() + self.cluster.settings().session_timeout();
        let mut counts = BTreeMap::new();
        for topic in topics {
            let count = loop {
                match self.cluster.partitions(topic).await {
                    Err(failure) if failure.may_pass() && Instant::now() < until => tokio::time::sleep(PAUSE).await,
                    asked => break asked?,
                }
            };
            counts.insert(topic.clone(), count);
        }
        Ok(counts)
    }

    fn group_id(&self) -> GroupId {
        GroupId(StrBytes::from_string(self.group().to_owned()))
    }
}

impl Assignments for Member {
    fn share(&self, topic: &Topic) -> Share {
        let state = self.state();
        let is_of = |name: &str| self.topics.get(name) == Some(topic);
        let of_topic = state.has.iter().filter(|(name, _)| is_of(name));
        Share { life: state.life, partitions: of_topic.map(|(_, partition)| *partition).collect() }
    }

    fn settled(&self, topic: &Topic, share: &Share) {
        self.state().settled.insert(topic.clone(), share.clone());
    }
}
