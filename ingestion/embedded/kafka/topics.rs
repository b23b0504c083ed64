//! Which topics are open to others, and CreateTopics and DescribeConfigs.
//!
//! The rule: what `log.kafka_produce_topics` opens may be produced to, and may be created where it is no source's. The
//! topics of sources are there from the start; `databroker.*` are the log's own and never open.

use std::sync::Arc;

use contract::{Partition, Topic};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult};
use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
};

use super::incoming::{BATCH_BYTES_MAX, Refusal};
use super::{Kafka, text, topic_of};

/// Topics that may be there, those of sources included: every frame of the log says where each of their partitions stands.
const TOPICS_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 249;
const OWN_PREFIX: &str = "databroker.";

/// What `log.kafka_produce_topics` says: names, or beginnings of names with a `*` behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Opened(pub(crate) Vec<String>);

impl Opened {
    /// Refuses what no topic can be.
    pub(crate) fn check_setting(setting: &[String]) -> contract::Result<()> {
        let wrong = setting.iter().find(|text| {
            let name = text.strip_suffix('*').unwrap_or(text);
            let is_usable = is_name(name) || text.as_str() == "*";
            !is_usable || name.starts_with(OWN_PREFIX)
        });
        match wrong {
            None => Ok(()),
            Some(text) => Err(contract::Error::change(format!(
                "open `{text}` to Kafka's producers (`log.kafka_produce_topics`): it must be a topic's name, or the \
                 beginning of one and `*`, of letters, digits, `.`, `_` and `-`, and not begin with `{OWN_PREFIX}`"
            ))),
        }
    }

    fn holds(&self, topic: &Topic) -> bool {
        !topic.0.starts_with(OWN_PREFIX)
            && self.0.iter().any(|opened| match opened.strip_suffix('*') {
                Some(beginning) => topic.0.starts_with(beginning),
                None => topic.0 == *opened,
            })
    }

    /// Refuses what is not open.
    pub(crate) fn check(&self, topic: &Topic) -> Result<(), Refusal> {
        if self.holds(topic) {
            return Ok(());
        }
        let reason = format!("`{topic}` is not open to producers (`log.kafka_produce_topics`)");
        Err((ResponseError::TopicAuthorizationFailed, reason))
    }
}

/// Source: `org.apache.kafka.common.internals.Topic`.
fn is_name(name: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name != "." && name != ".." && name.bytes().all(is_legal)
}

pub(crate) async fn create_topics(
    kafka: &Arc<Kafka>,
    request: CreateTopicsRequest,
    version: i16,
) -> CreateTopicsResponse {
    let mut results = Vec::with_capacity(request.topics.len());
    for asked in &request.topics {
        let answer = CreatableTopicResult::default().with_name(asked.name.clone());
        let created = create(kafka, asked, request.validate_only).await;
        results.push(match created {
            Ok(partitions) if version >= 5 => {
                answer.with_num_partitions(partitions).with_replication_factor(1).with_configs(Some(Vec::new()))
            }
            Ok(_) => answer,
            Err((error, reason)) => {
                super::note_error("CreateTopics", error);
                let answer = answer.with_error_code(error.code()).with_error_message(Some(text(&reason)));
                if version >= 5 { answer.with_num_partitions(-1).with_replication_factor(-1) } else { answer }
            }
        });
    }
    CreateTopicsResponse::default().with_topics(results)
}

async fn create(kafka: &Kafka, asked: &CreatableTopic, validate_only: bool) -> Result<Partition, Refusal> {
    let topic = topic_of(&asked.name);
    let known = kafka.topics();
    let partitions = match asked.num_partitions {
        -1 if !asked.assignments.is_empty() => asked.assignments.len() as Partition,
        -1 => kafka.log.settings.partitions,
        partitions => partitions,
    };
    let limit = kafka.log.settings.partitions;
    let refuse = |error, reason: String| Err((error, reason));
    if !is_name(&topic.0) {
        return refuse(ResponseError::InvalidTopicException, format!("`{topic}` is no name of a topic"));
    }
    if known.iter().any(|(name, _)| *name == topic) {
        return refuse(ResponseError::TopicAlreadyExists, format!("`{topic}` is there already"));
    }
    if !kafka.opened.holds(&topic) {
        let reason = format!("`{topic}` may not be created: `log.kafka_produce_topics` does not open it");
        return refuse(ResponseError::PolicyViolation, reason);
    }
    if known.len() >= TOPICS_MAX {
        return refuse(ResponseError::PolicyViolation, format!("there are {TOPICS_MAX} topics already"));
    }
    if !(1..=limit).contains(&partitions) {
        return refuse(ResponseError::InvalidPartitions, format!("1 to {limit} partitions (`log.partitions`)"));
    }
    if !matches!(asked.replication_factor, -1 | 1) {
        return refuse(ResponseError::InvalidReplicationFactor, "there is one node, so one replica".to_owned());
    }
    if let Some(config) = asked.configs.first() {
        let reason = format!("`{}` cannot be set: topics follow the section [log] of the settings", config.name);
        return refuse(ResponseError::InvalidConfig, reason);
    }
    if validate_only {
        return Ok(partitions);
    }
    let created = kafka.log.create_topic(&topic, partitions).await;
    created.map(|()| partitions).map_err(|error| (ResponseError::KafkaStorageError, error.to_string()))
}

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// How a value came about: as the server's own setting, or by default.
const STATIC_BROKER: i8 = 4;
const DEFAULT: i8 = 5;
/// Kinds of values.
const STRING: i8 = 2;
const INT: i8 = 3;
const LONG: i8 = 5;

pub(crate) fn describe_configs(
    kafka: &Kafka,
    request: &DescribeConfigsRequest,
    version: i16,
) -> DescribeConfigsResponse {
    let known = kafka.topics();
    let all = configs(kafka);
    let describe = |asked: &kafka_protocol::messages::describe_configs_request::DescribeConfigsResource| {
        let answer = DescribeConfigsResult::default()
            .with_resource_type(asked.resource_type)
            .with_resource_name(asked.resource_name.clone());
        let is_there = match asked.resource_type {
            TOPIC => known.iter().any(|(topic, _)| topic.0 == *asked.resource_name),
            BROKER => true,
            _ => false,
        };
        if !is_there {
            let error = ResponseError::UnknownTopicOrPartition;
            super::note_error("DescribeConfigs", error);
            return answer
                .with_error_code(error.code())
                .with_error_message(Some(text("there is nothing of that name")));
        }
        let is_asked = |name: &str| {
            asked.configuration_keys.as_ref().is_none_or(|keys| keys.iter().any(|key| key.as_str() == name))
        };
        let configs = all.iter().filter(|(name, ..)| is_asked(name));
        let line = |(name, value, source, kind): &(&'static str, String, i8, i8)| {
            let line = DescribeConfigsResourceResult::default()
                .with_name(text(name))
                .with_value(Some(text(value)))
                .with_read_only(true)
                .with_config_source(*source);
            if version >= 3 { line.with_config_type(*kind) } else { line }
        };
        answer.with_configs(configs.map(line).collect())
    };
    DescribeConfigsResponse::default().with_results(request.resources.iter().map(describe).collect())
}

/// What is in force for every topic, in Kafka's words. `compression.type` is `producer`: batches stay as they come.
fn configs(kafka: &Kafka) -> Vec<(&'static str, String, i8, i8)> {
    let settings = &kafka.log.settings;
    let retention_ms = settings.retention_hours.saturating_mul(3_600_000).min(i64::MAX as u64);
    vec![
        ("cleanup.policy", "delete".to_owned(), DEFAULT, STRING),
        ("compression.type", "producer".to_owned(), DEFAULT, STRING),
        ("max.message.bytes", BATCH_BYTES_MAX.to_string(), DEFAULT, INT),
        ("message.timestamp.type", "LogAppendTime".to_owned(), DEFAULT, STRING),
        ("min.insync.replicas", "1".to_owned(), DEFAULT, INT),
        ("retention.bytes", settings.retention_bytes.to_string(), STATIC_BROKER, LONG),
        ("retention.ms", retention_ms.to_string(), STATIC_BROKER, LONG),
        ("segment.bytes", settings.segment_bytes_max.to_string(), STATIC_BROKER, INT),
    ]
}
