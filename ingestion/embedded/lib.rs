//! The durable partitioned log on this machine's disk: the embedded stand-in for Kafka, in Kafka's record format.
//!
//! One journal for all topics. Each append is one frame that carries its records, its coverage and its cursor, so
//! they enter together or not at all; frames that wait at the same time share one fdatasync. The records of a frame
//! are Kafka RecordBatches v2, byte for byte what the Kafka protocol carries.
//!
//! # On disk (format 1)
//!
//! ```text
//! lock                               held by the one writer; its process id
//! journal/00000000000000000000.log   a segment, named after the number of its first frame
//!   header 24 bytes                  magic, version, first frame's number, CRC32C
//!   frame                            one append; the first of a segment is a snapshot of all cursors
//!     head 44 bytes                  magic, CRC32C of the head, sizes, number, "all below N was durable", time, flags
//!     next offset of every partition before this frame     what damage took is known exactly
//!     batches: topic, partition, records, sizes, Kafka's CRC32C     so the head's checksum covers all
//!     cursors: collector, cursor; also of Kafka's producers and groups
//!     the batches: Kafka RecordBatch v2, none | lz4 | zstd
//! journal/00000000000000000000.index written when its segment is closed: extents and the sparse index, CRC32C
//! quarantine/SEGMENT-byte-N.damaged  a copy of what was found damaged, with a .txt beside it that says why
//! ```
//!
//! Integers of frames and indexes are little-endian, those of Kafka's batches big-endian.
//!
//! # Modules, on the way of a record
//!
//! `log` (the trait) → `encode`, `record_batch`, `codec` (off the commit path) → `writer` (one thread: offsets, frame,
//! fdatasync, segments, retention) → `shared` (what is durable) → `read`, `walk` (out again). `recovery`, `survey`,
//! `quarantine` and `check` deal with damage; `frame`, `segment` and `wire` are the formats; `disk` is what is asked
//! of a disk. [`kafka`] answers Kafka's protocol from all of it.
#![forbid(unsafe_code)]

mod check;
mod codec;
#[cfg(test)]
mod damage_test;
mod disk;
mod encode;
mod frame;
mod hold;
pub mod kafka;
mod log;
#[cfg(test)]
mod log_test;
mod quarantine;
mod read;
mod record_batch;
mod recovery;
mod segment;
mod settings;
mod shared;
#[cfg(test)]
mod sim_disk;
mod survey;
#[cfg(test)]
mod testing;
mod walk;
mod wire;
mod writer;

pub use check::Check;
pub use hold::{hold, hold_together, is_held_together};
pub use log::EmbeddedLog;
pub use recovery::{Cut, Recovery};
pub use settings::{Compression, Settings};
pub use survey::Damage;
