//! What is answered: every API with its versions and the shape of its request.
//!
//! Source: <https://kafka.apache.org/protocol>. The highest version stands where the next one brings nothing that a
//! log on one machine has (topic ids, leaders elsewhere, transactions, the consumer protocol of KIP-848).

use kafka_protocol::messages::ApiKey;

use super::shape::Field::{Blob, Each, Fixed, List, Text};
use super::shape::{Item, always, between, since};

/// An API that is answered.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) key: ApiKey,
    /// The name that metrics and log lines have for it.
    pub(crate) name: &'static str,
    pub(crate) first: i16,
    pub(crate) last: i16,
    /// From here on lengths are of variable size and every struct ends with tagged fields.
    pub(crate) flexible: i16,
    pub(crate) shape: &'static [Item],
}

impl Api {
    pub(crate) fn of(key: i16) -> Option<&'static Self> {
        APIS.iter().find(|api| api.key as i16 == key)
    }
}

const TOPIC_PARTITIONS: &[Item] = &[always(Text), always(Each(&Fixed(4)))];

/// All of them.
pub(crate) const APIS: &[Api] = &[
    api(
        ApiKey::Produce,
        "Produce",
        (3, 11, 9),
        &[
            always(Text),
            always(Fixed(6)),
            always(List(&[always(Text), always(List(&[always(Fixed(4)), always(Blob)]))])),
        ],
    ),
    api(
        ApiKey::Fetch,
        "Fetch",
        (4, 12, 12),
        &[
            always(Fixed(17)),
            since(7, Fixed(8)),
            always(List(&[
                always(Text),
                always(List(&[
                    always(Fixed(4)),
                    since(9, Fixed(4)),
                    always(Fixed(8)),
                    since(12, Fixed(4)),
                    since(5, Fixed(8)),
                    always(Fixed(4)),
                ])),
            ])),
            since(7, List(TOPIC_PARTITIONS)),
            since(11, Text),
        ],
    ),
    api(
        ApiKey::ListOffsets,
        "ListOffsets",
        (1, 7, 6),
        &[
            always(Fixed(4)),
            since(2, Fixed(1)),
            always(List(&[always(Text), always(List(&[always(Fixed(4)), since(4, Fixed(4)), always(Fixed(8))]))])),
        ],
    ),
    api(
        ApiKey::Metadata,
        "Metadata",
        (0, 12, 9),
        &[
            always(List(&[since(10, Fixed(16)), always(Text)])),
            since(4, Fixed(1)),
            between(8, 10, Fixed(1)),
            since(8, Fixed(1)),
        ],
    ),
    api(
        ApiKey::OffsetCommit,
        "OffsetCommit",
        (2, 8, 8),
        &[
            always(Text),
            always(Fixed(4)),
            always(Text),
            since(7, Text),
            between(2, 4, Fixed(8)),
            always(List(&[always(Text), always(List(&[always(Fixed(12)), since(6, Fixed(4)), always(Text)]))])),
        ],
    ),
    api(
        ApiKey::OffsetFetch,
        "OffsetFetch",
        (1, 8, 6),
        &[
            between(1, 7, Text),
            between(1, 7, List(TOPIC_PARTITIONS)),
            since(8, List(&[always(Text), always(List(TOPIC_PARTITIONS))])),
            since(7, Fixed(1)),
        ],
    ),
    api(
        ApiKey::FindCoordinator,
        "FindCoordinator",
        (0, 4, 3),
        &[between(0, 3, Text), since(1, Fixed(1)), since(4, Each(&Text))],
    ),
    api(
        ApiKey::JoinGroup,
        "JoinGroup",
        (0, 9, 6),
        &[
            always(Text),
            always(Fixed(4)),
            since(1, Fixed(4)),
            always(Text),
            since(5, Text),
            always(Text),
            always(List(&[always(Text), always(Blob)])),
            since(8, Text),
        ],
    ),
    api(ApiKey::Heartbeat, "Heartbeat", (0, 4, 4), &[always(Text), always(Fixed(4)), always(Text), since(3, Text)]),
    api(
        ApiKey::LeaveGroup,
        "LeaveGroup",
        (0, 5, 4),
        &[always(Text), between(0, 2, Text), since(3, List(&[always(Text), always(Text), since(5, Text)]))],
    ),
    api(
        ApiKey::SyncGroup,
        "SyncGroup",
        (0, 5, 4),
        &[
            always(Text),
            always(Fixed(4)),
            always(Text),
            since(3, Text),
            since(5, Text),
            since(5, Text),
            always(List(&[always(Text), always(Blob)])),
        ],
    ),
    api(ApiKey::DescribeGroups, "DescribeGroups", (0, 5, 5), &[always(Each(&Text)), since(3, Fixed(1))]),
    api(ApiKey::ListGroups, "ListGroups", (0, 5, 3), &[since(4, Each(&Text)), since(5, Each(&Text))]),
    api(ApiKey::ApiVersions, "ApiVersions", (0, 4, 3), &[since(3, Text), since(3, Text)]),
    api(
        ApiKey::CreateTopics,
        "CreateTopics",
        (2, 7, 5),
        &[
            always(List(&[
                always(Text),
                always(Fixed(6)),
                always(List(&[always(Fixed(4)), always(Each(&Fixed(4)))])),
                always(List(&[always(Text), always(Text)])),
            ])),
            always(Fixed(5)),
        ],
    ),
    api(ApiKey::InitProducerId, "InitProducerId", (0, 4, 2), &[always(Text), always(Fixed(4)), since(3, Fixed(10))]),
    api(
        ApiKey::DescribeConfigs,
        "DescribeConfigs",
        (1, 4, 4),
        &[always(List(&[always(Fixed(1)), always(Text), always(Each(&Text))])), always(Fixed(1)), since(3, Fixed(1))],
    ),
    api(ApiKey::DescribeCluster, "DescribeCluster", (0, 1, 0), &[always(Fixed(1)), since(1, Fixed(1))]),
    api(ApiKey::DeleteGroups, "DeleteGroups", (0, 2, 2), &[always(Each(&Text))]),
];

const fn api(key: ApiKey, name: &'static str, (first, last, flexible): (i16, i16, i16), shape: &'static [Item]) -> Api {
    Api { key, name, first, last, flexible, shape }
}
