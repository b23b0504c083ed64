//! A real Kafka as the log, chosen by `KAFKA_BOOTSTRAP_SERVERS`.
//!
//! ```text
//! harvest ──► one transaction ──► SOURCE.raw            key = id, value = raw body, headers
//!                                 databroker.coverage   the ledger, a line a record
//!                                 databroker.cursors    collector → cursor, compacted
//! ```
//!
//! | case | how |
//! | --- | --- |
//! | records, coverage and cursor together or not at all | one transaction, all replicas asked (`acks=all`) |
//! | a second instance of a collector | the transactional id is the collector's name: the first one's next append is refused, and it ends |
//! | the answer to a commit is lost | the producer is made anew; a mark in the cursor's record tells whether it was committed |
//! | a process dies in a transaction | its next instance undoes it before it reads the cursor; else brokers do after a while |
//! | readers | `read_committed`, from the offsets that the stores hold: what brokers know of a group is for lag tools only |
//! | the topic was deleted | readers and collectors end and say so; the next start creates it, and a cursor that names the topic before counts as none: what the stores lack is collected again, what they have is told as repeated |
//! | `databroker.cursors` was deleted | appends wait and say so; the next start creates it, and collectors begin anew, as above |
//! | several processes share the partitions | members of one consumer group, see `group.rs`; what counts stands in the stores here too |
//! | the topic was begun anew, or lost its end | an undone transaction takes the offsets up to what the stores hold |
//!
//! The client is our own, of the requests named in `connection.rs`, on messages that `kafka-protocol` generates from Kafka's
//! definitions; ARCHITECTURE.md says why.
#![forbid(unsafe_code)]

mod assign;
mod cluster;
mod connection;
mod consumer;
mod cursors;
mod failure;
mod fetch;
mod group;
mod group_members;
mod log;
mod offsets;
mod open_transactions;
mod producer;
#[cfg(test)]
#[cfg(feature = "real-servers")]
mod real_servers_test;
mod record;
mod sasl;
mod settings;
mod tls;
mod topics;

pub use group::Member;
pub use group_members::GroupMember;
pub use log::KafkaLog;
pub use settings::Settings;
