//! Who is there and what: ApiVersions, Metadata, DescribeCluster, FindCoordinator. There is one node, which leads all
//! and coordinates all. Source: <https://kafka.apache.org/protocol#The_Messages_Metadata>.

use contract::Partition;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, BrokerId, DescribeClusterRequest, DescribeClusterResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::api::APIS;
use super::connection::Peer;
use super::{Kafka, text, topic_of};

/// The number of the one node.
pub(crate) const NODE: BrokerId = BrokerId(0);
const CLUSTER: StrBytes = StrBytes::from_static_str("databroker");
/// Says that no operations are listed, as a server without access lists says it.
const OPERATIONS_NOT_ASKED: i32 = i32::MIN;
const TRANSACTION: i8 = 1;
/// Why transactions are refused; the log has none: a batch is there as soon as it is on disk.
pub(crate) const NO_TRANSACTIONS: &str = "the embedded log has no transactions; produce without `transactional.id`";

/// What is answered, for a client that speaks any version.
pub(crate) fn api_versions() -> ApiVersionsResponse {
    let versions = |api: &super::api::Api| {
        // Old librdkafka takes a broker without Produce v0 for one that knows no compression, and sends without.
        let first = if api.key == ApiKey::Produce { 0 } else { api.first };
        ApiVersion::default().with_api_key(api.key as i16).with_min_version(first).with_max_version(api.last)
    };
    ApiVersionsResponse::default().with_api_keys(APIS.iter().map(versions).collect())
}

pub(crate) fn metadata(kafka: &Kafka, peer: &Peer, request: &MetadataRequest, version: i16) -> MetadataResponse {
    let (host, port) = peer.reached();
    let broker = MetadataResponseBroker::default().with_node_id(NODE).with_host(host).with_port(port);
    let known = kafka.topics();
    // Before version 1 an empty list asked for all.
    let topics = match &request.topics {
        Some(asked) if version > 0 || !asked.is_empty() => asked
            .iter()
            .map(|asked| {
                let name = asked.name.clone().unwrap_or_default();
                let topic = topic_of(&name);
                let partitions = known.iter().find(|(known, _)| *known == topic).map(|(_, count)| *count);
                described(name, partitions)
            })
            .collect(),
        _ => known.iter().map(|(topic, count)| described(TopicName(text(&topic.0)), Some(*count))).collect(),
    };
    let answer = MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(CLUSTER))
        .with_controller_id(NODE)
        .with_topics(topics);
    if (8..=10).contains(&version) { answer.with_cluster_authorized_operations(OPERATIONS_NOT_ASKED) } else { answer }
}

fn described(name: TopicName, partitions: Option<usize>) -> MetadataResponseTopic {
    let answer = MetadataResponseTopic::default().with_name(Some(name));
    let Some(count) = partitions else {
        return answer.with_error_code(ResponseError::UnknownTopicOrPartition.code());
    };
    let partition = |index: Partition| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(NODE)
            .with_leader_epoch(0)
            .with_replica_nodes(vec![NODE])
            .with_isr_nodes(vec![NODE])
    };
    answer.with_partitions((0..count as Partition).map(partition).collect())
}

pub(crate) fn describe_cluster(peer: &Peer, request: &DescribeClusterRequest) -> DescribeClusterResponse {
    let (host, port) = peer.reached();
    let broker = DescribeClusterBroker::default().with_broker_id(NODE).with_host(host).with_port(port);
    let brokers_are_asked = request.endpoint_type == 1;
    let answer = DescribeClusterResponse::default()
        .with_cluster_id(CLUSTER)
        .with_controller_id(NODE)
        .with_cluster_authorized_operations(OPERATIONS_NOT_ASKED);
    if brokers_are_asked {
        answer.with_brokers(vec![broker])
    } else {
        answer
            .with_error_code(ResponseError::UnsupportedEndpointType.code())
            .with_error_message(Some(text("there are no separate controllers")))
            .with_endpoint_type(request.endpoint_type)
    }
}

pub(crate) fn find_coordinator(peer: &Peer, request: &FindCoordinatorRequest, version: i16) -> FindCoordinatorResponse {
    let (host, port) = peer.reached();
    let refused = request.key_type == TRANSACTION;
    if refused {
        super::note_error("FindCoordinator", ResponseError::TransactionalIdAuthorizationFailed);
    }
    let error = if refused { ResponseError::TransactionalIdAuthorizationFailed.code() } else { 0 };
    let message = refused.then(|| text(NO_TRANSACTIONS));
    if version < 4 {
        let answer = FindCoordinatorResponse::default().with_error_code(error);
        let answer = if version > 0 { answer.with_error_message(message) } else { answer };
        return answer.with_node_id(NODE).with_host(host).with_port(port);
    }
    let coordinator = |key: &StrBytes| {
        Coordinator::default()
            .with_key(key.clone())
            .with_node_id(NODE)
            .with_host(host.clone())
            .with_port(port)
            .with_error_code(error)
            .with_error_message(message.clone())
    };
    FindCoordinatorResponse::default().with_coordinators(request.coordinator_keys.iter().map(coordinator).collect())
}
