//! The settings of the embedded log, section `[log]`.

use contract::{Error, Partition, Result, Topic};
use serde::{Deserialize, Serialize};

pub use crate::codec::Compression;
use crate::kafka::Opened;

const PARTITIONS_MAX: Partition = 1_024;
const CONNECTIONS_MAX: usize = 65_536;
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 4_096..=1 << 30;

/// Section `[log]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Partitions of each source's topic, 1 to 1024. Four let four processors work side by side. It may only
    /// grow: records stay where they are, and an id that comes again after it grew is a duplicate also in another
    /// partition.
    pub partitions: Partition,
    /// Bytes at which a segment file is closed and the next one begun, 4 KiB to 1 GiB. At start only the last segment
    /// is read through, and retention removes whole segments: 64 MiB keep both small and the files few.
    pub segment_bytes_max: u64,
    /// Journal bytes between two entries of a partition's index. A read at any offset looks at the heads of
    /// this much journal at the most; 256 KiB cost 16 bytes of memory per 256 KiB and partition.
    pub index_interval_bytes: u64,
    /// `none`, `lz4` or `zstd` (level 1). See `benches/append.rs` for what each costs and saves.
    pub compression: Compression,
    /// Hours after which a segment goes, once every store has committed all it holds. A week, as in Kafka:
    /// time enough to look at what a source said, byte for byte.
    pub retention_hours: u64,
    /// Bytes of journal beyond which the oldest segments go, once every store has committed all they hold.
    pub retention_bytes: u64,
    /// Bytes of journal at which the log takes nothing more until the stores have caught up, at least twice
    /// `segment_bytes_max`. Before that, segments that every store has committed go early. Keeps a store
    /// that stands still from filling the disk.
    pub disk_bytes_max: u64,
    /// Address and port at which the log answers Kafka's protocol; port 0 takes a free one, empty is off. The default is
    /// Kafka's own port, on loopback: nobody is asked who they are.
    pub kafka_listen: String,
    /// Host and port that Kafka's clients are told to come to; empty is the address at which they came. Needed behind
    /// a proxy or a container's port.
    pub kafka_advertise: String,
    /// Whether `kafka_listen` may be an address that other hosts reach.
    pub kafka_allow_other_hosts: bool,
    /// Topics that Kafka's clients may produce to: names, or beginnings with a `*` behind. A name that is no source's topic
    /// is created at the start, and what a beginning matches when a client asks for it. No source's topic is open by
    /// default: what collectors bring is known to be what the source said.
    pub kafka_produce_topics: Vec<String>,
    /// Connections of Kafka's clients at a time, 1 to 65536; one more waits. A client has two or three.
    pub kafka_connections_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            partitions: 4,
            segment_bytes_max: 64 << 20,
            index_interval_bytes: 256 << 10,
            compression: Compression::default(),
            retention_hours: 168,
            retention_bytes: 10 << 30,
            disk_bytes_max: 20 << 30,
            kafka_listen: "127.0.0.1:9092".to_owned(),
            kafka_advertise: String::new(),
            kafka_allow_other_hosts: false,
            kafka_produce_topics: Vec::new(),
            kafka_connections_max: 256,
        }
    }
}

impl Settings {
    /// The topics that `kafka_produce_topics` names in full.
    pub(crate) fn named_topics(&self) -> impl Iterator<Item = Topic> {
        self.kafka_produce_topics.iter().filter(|text| !text.ends_with('*')).map(|name| Topic(name.clone()))
    }

    pub(crate) fn checked(self) -> Result<Self> {
        let refuse = |text: String| Err(Error::change(format!("open the log with {text}")));
        if !(1..=PARTITIONS_MAX).contains(&self.partitions) {
            return refuse(format!("`log.partitions = {}` (1 to {PARTITIONS_MAX})", self.partitions));
        }
        if !SEGMENT_BYTES.contains(&self.segment_bytes_max) {
            let (least, most) = SEGMENT_BYTES.into_inner();
            return refuse(format!("`log.segment_bytes_max = {}` ({least} to {most})", self.segment_bytes_max));
        }
        if !(1..=CONNECTIONS_MAX).contains(&self.kafka_connections_max) {
            let connections = self.kafka_connections_max;
            return refuse(format!("`log.kafka_connections_max = {connections}` (1 to {CONNECTIONS_MAX})"));
        }
        if self.disk_bytes_max < 2 * self.segment_bytes_max {
            let least = 2 * self.segment_bytes_max;
            return refuse(format!(
                "`log.disk_bytes_max = {}` (at least twice `log.segment_bytes_max`: {least})",
                self.disk_bytes_max
            ));
        }
        Opened::check_setting(&self.kafka_produce_topics)?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_each_limit_is_named_when_broken() {
        assert_eq!(Settings::default().checked().unwrap(), Settings::default());
        let broken = [
            Settings { partitions: 0, ..Settings::default() },
            Settings { segment_bytes_max: 1, ..Settings::default() },
            Settings { kafka_connections_max: 0, ..Settings::default() },
            Settings { disk_bytes_max: 100 << 20, ..Settings::default() },
        ];
        let texts: Vec<String> = broken.map(|settings| settings.checked().unwrap_err().to_string()).into();
        assert_eq!(
            texts,
            [
                "failed to open the log with `log.partitions = 0` (1 to 1024)",
                "failed to open the log with `log.segment_bytes_max = 1` (4096 to 1073741824)",
                "failed to open the log with `log.kafka_connections_max = 0` (1 to 65536)",
                "failed to open the log with `log.disk_bytes_max = 104857600` (at least twice `log.segment_bytes_max`: 134217728)",
            ]
        );
    }

    #[test]
    fn an_unknown_setting_is_refused() {
        let error = serde_json::from_str::<Settings>(r#"{"partition": 3}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `partition`"), "{error}");
        let some = serde_json::from_str::<Settings>(r#"{"compression": "lz4"}"#).unwrap();
        assert_eq!(some, Settings { compression: Compression::Lz4, ..Settings::default() });
    }
}
