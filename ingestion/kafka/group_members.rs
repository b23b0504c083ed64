//! Who is in the group and has what, as the coordinator tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use contract::{Partition, Topic};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};
use kafka_protocol::protocol::StrBytes;

use crate::assign::Place;
use crate::cluster::{Cluster, Coordinates};
use crate::consumer::read_share;
use crate::failure::Outcome;

/// A member of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// Its name, which the coordinator gave it.
    pub member: String,
    /// Where it runs.
    pub host: String,
    /// What it has.
    pub partitions: BTreeMap<Topic, BTreeSet<Partition>>,
}

/// The members of the group `kafka.group_id`; none where there is no such group.
pub(crate) async fn of(cluster: &Cluster, topics: &BTreeMap<String, Topic>) -> Outcome<Vec<GroupMember>> {
    let group = cluster.settings().group_id.clone();
    let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(StrBytes::from_string(group.clone()))]);
    let code = |answer: &DescribeGroupsResponse| {
        (answer.groups.first().map_or(0, |group| group.error_code), "asking for the members")
    };
    let answer = cluster.ask_coordinator(Coordinates::Group, &group, &request, Duration::ZERO, code).await?;
    let mut members = Vec::new();
    for member in answer.groups.into_iter().flat_map(|group| group.members) {
        let mut partitions: BTreeMap<Topic, BTreeSet<Partition>> = BTreeMap::new();
        for (name, partition) in read_share::<BTreeSet<Place>>(member.member_assignment)? {
            // Another program's topics are not ours to tell of.
            let Some(topic) = topics.get(&name) else { continue };
            partitions.entry(topic.clone()).or_default().insert(partition);
        }
        let (id, host) = (member.member_id.to_string(), member.client_host.trim_start_matches('/').to_owned());
        members.push(GroupMember { member: id, host, partitions });
    }
    members.sort_by(|one, other| one.member.cmp(&other.member));
    Ok(members)
}
