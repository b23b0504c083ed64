//! All groups, and the requests of their members. Who is in a group stands in memory only.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use contract::Timestamp;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DescribeGroupsRequest, DescribeGroupsResponse, GroupId, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest,
    JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, SyncGroupRequest,
    SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::connection::Peer;
use super::group::{Group, Join, Joined, Refused};
use super::{Kafka, note_error, offsets, text};

/// Groups that have members at a time, and members of all of them: with what each may say of itself and is assigned
/// (64 KiB each) they take 128 MiB at the most.
const GROUPS_MAX: usize = 1_000;
const MEMBERS_OF_ALL_MAX: usize = 1_000;
pub(crate) const GROUP_BYTES_MAX: usize = 255;
/// Letters of a client's id that are kept.
const CLIENT_LETTERS_MAX: usize = 64;
const INSTANCE_BYTES_MAX: usize = 255;

/// How often groups are told what time it is; sessions last seconds.
pub(crate) const TICK: Duration = Duration::from_millis(50);

pub(crate) struct Coordinator {
    groups: Mutex<BTreeMap<String, Group>>,
    /// Makes names of members that none had before, nor before a restart.
    started: i64,
    named: AtomicU64,
}

impl Coordinator {
    pub(crate) fn new(started: Timestamp) -> Self {
        Self { groups: Mutex::default(), started: started.0, named: AtomicU64::new(0) }
    }

    pub(crate) fn groups(&self) -> MutexGuard<'_, BTreeMap<String, Group>> {
        self.groups.lock().expect("nothing panics under this lock")
    }

    pub(crate) fn tick(&self, now: Instant) {
        self.groups().retain(|_, group| {
            group.tick(now);
            !group.is_gone()
        });
    }

    fn fresh_name(&self, client_id: &str) -> String {
        let number = self.named.fetch_add(1, Ordering::Relaxed);
        format!("{client_id}-{:x}-{number}", self.started)
    }

    pub(crate) async fn join(
        &self,
        peer: &Peer,
        client_id: &str,
        request: JoinGroupRequest,
        version: i16,
    ) -> JoinGroupResponse {
        let group_id = request.group_id.to_string();
        let protocols = request.protocols.iter().map(|known| (known.name.to_string(), kept(&known.metadata))).collect();
        let join = Join {
            member: request.member_id.to_string(),
            instance: request.group_instance_id.map(|instance| instance.to_string()),
            client_id: client_id.chars().take(CLIENT_LETTERS_MAX).collect(),
            client_host: format!("/{}", peer.address.ip()),
            session_ms: request.session_timeout_ms,
            // Before version 1 there was one time for both.
            rebalance_ms: if version >= 1 { request.rebalance_timeout_ms } else { request.session_timeout_ms },
            protocol_type: request.protocol_type.to_string(),
            protocols,
            knows_names: version >= 4,
        };
        let member = join.member.clone();
        let joined = match self.ask_to_join(&group_id, join) {
            Ok(joined) => joined.await.unwrap_or(Err((ResponseError::RebalanceInProgress, member))),
            Err(error) => Err((error, member)),
        };
        join_answer(joined, version)
    }

    fn ask_to_join(
        &self,
        group_id: &str,
        join: Join,
    ) -> Result<oneshot::Receiver<Result<Joined, Refused>>, ResponseError> {
        if group_id.is_empty() || group_id.len() > GROUP_BYTES_MAX {
            return Err(ResponseError::InvalidGroupId);
        }
        if join.instance.as_ref().is_some_and(|instance| instance.len() > INSTANCE_BYTES_MAX) {
            return Err(ResponseError::InvalidRequest);
        }
        let mut groups = self.groups();
        let is_new = join.member.is_empty();
        let is_full = groups.len() >= GROUPS_MAX && !groups.contains_key(group_id)
            || is_new && groups.values().map(Group::size).sum::<usize>() >= MEMBERS_OF_ALL_MAX;
        if is_full {
            return Err(ResponseError::GroupMaxSizeReached);
        }
        let (reply, joined) = oneshot::channel();
        let fresh = self.fresh_name(&join.client_id);
        groups.entry(group_id.to_owned()).or_default().join(join, fresh, Instant::now(), reply);
        Ok(joined)
    }

    pub(crate) async fn sync(&self, request: SyncGroupRequest, version: i16) -> SyncGroupResponse {
        let assignments = request.assignments.iter().map(|one| (one.member_id.to_string(), kept(&one.assignment)));
        let assignments: Vec<(String, Bytes)> = assignments.collect();
        let (name, instance) = (request.member_id.as_str(), request.group_instance_id.as_deref());
        let asked = {
            let mut groups = self.groups();
            let checked = checked(&mut groups, &request.group_id, name, instance, request.generation_id);
            checked.map(|group| {
                let (reply, synced) = oneshot::channel();
                group.sync(name, assignments, Instant::now(), reply);
                (synced, group.protocol_type.clone(), group.protocol.clone())
            })
        };
        let synced = match asked {
            Ok((synced, protocol_type, protocol)) => {
                let synced = synced.await.unwrap_or(Err(ResponseError::RebalanceInProgress));
                synced.map(|assignment| (assignment, protocol_type, protocol))
            }
            Err(error) => Err(error),
        };
        match synced {
            Ok((assignment, protocol_type, protocol)) => {
                let answer = SyncGroupResponse::default().with_assignment(assignment);
                if version < 5 {
                    return answer;
                }
                answer.with_protocol_type(Some(text(&protocol_type))).with_protocol_name(Some(text(&protocol)))
            }
            Err(error) => {
                note_error("SyncGroup", error);
                SyncGroupResponse::default().with_error_code(error.code())
            }
        }
    }

    pub(crate) fn heartbeat(&self, request: &HeartbeatRequest) -> HeartbeatResponse {
        let (name, instance) = (request.member_id.as_str(), request.group_instance_id.as_deref());
        let mut groups = self.groups();
        let checked = checked(&mut groups, &request.group_id, name, instance, request.generation_id);
        let answer = HeartbeatResponse::default();
        match checked.and_then(|group| group.heartbeat(name, Instant::now())) {
            Ok(()) => answer,
            Err(error) => {
                note_error("Heartbeat", error);
                answer.with_error_code(error.code())
            }
        }
    }

    pub(crate) fn leave(&self, request: &LeaveGroupRequest, version: i16) -> LeaveGroupResponse {
        let mut groups = self.groups();
        let mut leave = |name: &str, instance: Option<&str>| {
            let group = groups.get_mut(request.group_id.as_str()).ok_or(ResponseError::UnknownMemberId);
            let left = group.and_then(|group| group.leave(name, instance, Instant::now()));
            left.map_or_else(|error| error.code(), |()| 0)
        };
        if version < 3 {
            return LeaveGroupResponse::default().with_error_code(leave(request.member_id.as_str(), None));
        }
        let answer = |member: &kafka_protocol::messages::leave_group_request::MemberIdentity| {
            MemberResponse::default()
                .with_member_id(member.member_id.clone())
                .with_group_instance_id(member.group_instance_id.clone())
                .with_error_code(leave(member.member_id.as_str(), member.group_instance_id.as_deref()))
        };
        LeaveGroupResponse::default().with_members(request.members.iter().map(answer).collect())
    }

    pub(crate) fn describe(
        &self,
        kafka: &Kafka,
        request: &DescribeGroupsRequest,
        version: i16,
    ) -> DescribeGroupsResponse {
        let groups = self.groups();
        let describe = |group_id: &GroupId| {
            let answer = DescribedGroup::default().with_group_id(group_id.clone());
            // One without members is Empty as long as its offsets are known.
            match groups.get(group_id.as_str()) {
                Some(group) => described(answer, group, version),
                None if offsets::is_known(kafka, group_id.as_str()) => answer.with_group_state(text("Empty")),
                None => answer.with_group_state(text("Dead")),
            }
        };
        DescribeGroupsResponse::default().with_groups(request.groups.iter().map(describe).collect())
    }

    pub(crate) fn list(&self, kafka: &Kafka, request: &ListGroupsRequest, version: i16) -> ListGroupsResponse {
        let is_asked = |wanted: &[StrBytes], is: &str| {
            wanted.is_empty() || wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(is))
        };
        let mut all: BTreeMap<String, (String, &'static str)> =
            offsets::names(kafka).into_iter().map(|name| (name, (String::new(), "Empty"))).collect();
        let groups = self.groups();
        all.extend(
            groups.iter().map(|(name, group)| (name.clone(), (group.protocol_type.clone(), group.state.name()))),
        );
        let listed = |(name, (protocol_type, state)): (String, (String, &'static str))| {
            let line =
                ListedGroup::default().with_group_id(GroupId(text(&name))).with_protocol_type(text(&protocol_type));
            let line = if version >= 4 { line.with_group_state(text(state)) } else { line };
            if version >= 5 { line.with_group_type(text("classic")) } else { line }
        };
        let asked = all.into_iter().filter(|(_, (_, state))| is_asked(&request.states_filter, state));
        let asked = asked.filter(|_| is_asked(&request.types_filter, "classic"));
        ListGroupsResponse::default().with_groups(asked.map(listed).collect())
    }
}

/// A copy: the bytes of a request are a part of its frame, which must not stay in memory with them.
fn kept(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// The group, if the member may speak in it.
fn checked<'a>(
    groups: &'a mut BTreeMap<String, Group>,
    group_id: &GroupId,
    name: &str,
    instance: Option<&str>,
    generation: i32,
) -> Result<&'a mut Group, ResponseError> {
    let group = groups.get_mut(group_id.as_str()).ok_or(ResponseError::UnknownMemberId)?;
    group.check(name, instance, generation)?;
    Ok(group)
}

fn join_answer(joined: Result<Joined, Refused>, version: i16) -> JoinGroupResponse {
    let (joined, error) = match joined {
        Ok(joined) => (joined, 0),
        Err((error, member)) => {
            note_error("JoinGroup", error);
            (Joined { generation: -1, member, ..Joined::default() }, error.code())
        }
    };
    let member = |(name, instance, metadata): (String, Option<String>, Bytes)| {
        let member = JoinGroupResponseMember::default().with_member_id(text(&name)).with_metadata(metadata);
        if version >= 5 { member.with_group_instance_id(instance.as_deref().map(text)) } else { member }
    };
    let answer = JoinGroupResponse::default()
        .with_error_code(error)
        .with_generation_id(joined.generation)
        .with_protocol_name(Some(text(&joined.protocol)))
        .with_leader(text(&joined.leader))
        .with_member_id(text(&joined.member))
        .with_members(joined.members.into_iter().map(member).collect());
    if version >= 7 { answer.with_protocol_type(Some(text(&joined.protocol_type))) } else { answer }
}

fn described(answer: DescribedGroup, group: &Group, version: i16) -> DescribedGroup {
    let member = |(name, member): (&String, &super::group::Member)| {
        let line = DescribedGroupMember::default()
            .with_member_id(text(name))
            .with_client_id(text(&member.client_id))
            .with_client_host(text(&member.client_host))
            .with_member_metadata(member.metadata(&group.protocol).unwrap_or_default())
            .with_member_assignment(member.assignment.clone());
        if version >= 4 { line.with_group_instance_id(member.instance.as_deref().map(text)) } else { line }
    };
    answer
        .with_group_state(text(group.state.name()))
        .with_protocol_type(text(&group.protocol_type))
        .with_protocol_data(text(&group.protocol))
        .with_members(group.members.iter().map(member).collect())
}
