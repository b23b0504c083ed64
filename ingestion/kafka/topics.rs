//! What topics there are, with which settings, and how those of the cluster differ.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use contract::{Error, Partition, Result, SourceId, Topic};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::{CreateTopicsRequest, DescribeConfigsRequest};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::Compression;

use crate::cluster::{Cluster, name};
use crate::failure::{Failure, Outcome, check};
use crate::offsets::{self, Edge};

/// The built-in file.
const BUILT_IN: &str = include_str!("topics.toml");
/// `TOPIC` as Kafka numbers the kinds of what has settings.
const TOPIC_RESOURCE: i8 = 2;
/// The topic of cursors; no source's, so it is not among [`contract::Log::extents`].
pub(crate) const CURSORS: &str = "databroker.cursors";

/// One section of the file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    partitions: Partition,
    replication: i16,
    #[serde(default)]
    config: BTreeMap<String, String>,
}

/// The topics of some sources, by their names on the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Topics {
    prefix: String,
    wanted: BTreeMap<String, Section>,
}

impl Topics {
    /// From a file, or the built-in one.
    ///
    /// # Errors
    /// `Change` when the file is wrong or lacks a topic.
    pub(crate) fn new(file: &str, prefix: &str, sources: &[SourceId]) -> Result<Self> {
        let doing =
            || if file.is_empty() { "understand topics.toml".to_owned() } else { format!("read topics `{file}`") };
        let text = match file {
            "" => BUILT_IN.to_owned(),
            file => std::fs::read_to_string(file).map_err(|cause| Error::change(doing()).because(cause))?,
        };
        let sections: BTreeMap<String, Section> =
            toml::from_str(&text).map_err(|cause| Error::change(doing()).because(cause))?;
        let raw = sources.iter().map(|&source| Topic::raw(source).0);
        let names = raw.chain([Topic::coverage().0, CURSORS.to_owned()]);
        let mut wanted = BTreeMap::new();
        for name in names {
            let general = || name.ends_with(".raw").then(|| sections.get("*.raw")).flatten();
            let section = sections.get(&name).or_else(general).cloned();
            let section =
                section.ok_or_else(|| Error::change(format!("{}: it has no section for `{name}`", doing())))?;
            let (coverage, partitions) = (Topic::coverage().0, section.partitions);
            if !(1..=10_000).contains(&partitions) || (name == coverage && partitions != 1) {
                return Err(Error::change(format!("{}: `{name}` cannot have {partitions} partitions", doing())));
            }
            codec(&section).map_err(|codec| Error::change(format!("{}: codec `{codec}` of `{name}`", doing())))?;
            wanted.insert(format!("{prefix}{name}"), section);
        }
        Ok(Self { prefix: prefix.to_owned(), wanted })
    }

    /// A topic's name on the cluster.
    pub(crate) fn name(&self, topic: &Topic) -> String {
        format!("{}{topic}", self.prefix)
    }

    /// The topics that hold records and coverage, with their names on the cluster.
    pub(crate) fn read(&self) -> impl Iterator<Item = (Topic, &String)> {
        let known = self.wanted.keys().map(|name| (Topic(name[self.prefix.len()..].to_owned()), name));
        known.filter(|(topic, _)| topic.0 != CURSORS)
    }

    /// All names on the cluster.
    pub(crate) fn names(&self) -> Vec<String> {
        self.wanted.keys().cloned().collect()
    }

    /// How what goes to a topic is packed.
    pub(crate) fn compression(&self, name: &str) -> Compression {
        self.wanted.get(name).and_then(|section| codec(section).ok()).unwrap_or(Compression::None)
    }

    /// Creates what is not there.
    ///
    /// # Errors
    /// When the cluster is away or refuses.
    pub(crate) async fn create(&self, cluster: &Cluster) -> Result<Vec<String>> {
        let created = self.create_absent(cluster).await;
        created.map_err(|failure| failure.while_doing("create the topics that are not there"))
    }

    async fn create_absent(&self, cluster: &Cluster) -> Outcome<Vec<String>> {
        cluster.learn(&self.names()).await?;
        let mut absent = Vec::new();
        for (topic, section) in &self.wanted {
            if cluster.leaders(topic).await?.is_none() {
                absent.push((topic, section));
            }
        }
        if absent.is_empty() {
            return Ok(Vec::new());
        }
        let topic = |(topic, section): &(&String, &Section)| {
            let config = |(key, value): (&String, &String)| {
                let value = StrBytes::from_string(value.clone());
                CreatableTopicConfig::default().with_name(StrBytes::from_string(key.clone())).with_value(Some(value))
            };
            CreatableTopic::default()
                .with_name(name(topic))
                .with_num_partitions(section.partitions)
                .with_replication_factor(section.replication)
                .with_configs(section.config.iter().map(config).collect())
        };
        let timeout = i32::try_from(cluster.settings().request_timeout_ms).unwrap_or(i32::MAX);
        let request =
            CreateTopicsRequest::default().with_topics(absent.iter().map(topic).collect()).with_timeout_ms(timeout);
        let answer = cluster.ask_controller(&request).await?;
        for topic in &answer.topics {
            // Another process may have created it meanwhile.
            if topic.error_code != ResponseError::TopicAlreadyExists.code() {
                let reason = topic.error_message.as_ref().map(ToString::to_string).unwrap_or_default();
                check(topic.error_code, || format!("creating `{}` ({reason})", topic.name.as_str()))?;
            }
        }
        let names: Vec<String> = absent.iter().map(|(topic, _)| (*topic).clone()).collect();
        until_led(cluster, &names).await?;
        Ok(names)
    }

    /// How the topics of the cluster differ from the file, a sentence each.
    ///
    /// # Errors
    /// When the cluster is away or does not tell.
    pub(crate) async fn drift(&self, cluster: &Cluster) -> Result<Vec<String>> {
        let drift = self.drift_of(cluster).await;
        drift.map_err(|failure| failure.while_doing("compare the topics with topics.toml"))
    }

    async fn drift_of(&self, cluster: &Cluster) -> Outcome<Vec<String>> {
        let mut drift = Vec::new();
        let mut present = Vec::new();
        cluster.learn(&self.names()).await?;
        for (topic, section) in &self.wanted {
            match cluster.partitions(topic).await? {
                0 => drift.push(format!("topic `{topic}` is not there; `up` creates it")),
                partitions => {
                    present.push((topic, section));
                    let wanted = section.partitions;
                    if partitions != wanted {
                        drift.push(format!("topic `{topic}` has {partitions} partitions, not {wanted}"));
                    }
                }
            }
        }
        let resource = |(topic, section): &(&String, &Section)| {
            let keys = section.config.keys().map(|key| StrBytes::from_string(key.clone())).collect();
            DescribeConfigsResource::default()
                .with_resource_type(TOPIC_RESOURCE)
                .with_resource_name(StrBytes::from_string((*topic).clone()))
                .with_configuration_keys(Some(keys))
        };
        let request = DescribeConfigsRequest::default().with_resources(present.iter().map(resource).collect());
        for result in cluster.ask_any(&request).await?.results {
            let topic = result.resource_name.to_string();
            check(result.error_code, || format!("asking for the settings of `{topic}`"))?;
            let Some(section) = self.wanted.get(&topic) else { continue };
            for config in result.configs {
                let (key, has) = (config.name.to_string(), config.value.map(|value| value.to_string()));
                let wanted = section.config.get(&key).cloned();
                if has != wanted {
                    let say = |value: Option<String>| value.unwrap_or_else(|| "nothing".to_owned());
                    drift.push(format!("topic `{topic}` has `{key}` at `{}`, not `{}`", say(has), say(wanted)));
                }
            }
        }
        Ok(drift)
    }
}

/// Waits until the leader of every partition of new topics answers for it: named first, it is ready a little later.
async fn until_led(cluster: &Cluster, topics: &[String]) -> Outcome<()> {
    let until = Instant::now() + cluster.settings().request_timeout();
    for topic in topics {
        loop {
            let listed = offsets::list(cluster, topic, Edge::End).await;
            match listed {
                Ok(end) if !end.0.is_empty() => break,
                Err(failure) if Instant::now() > until || !failure.may_pass() => return Err(failure),
                Ok(_) if Instant::now() > until => return Err(Failure::unheard(format!("`{topic}` does not appear"))),
                Ok(_) | Err(_) => {}
            }
            cluster.forget(topic);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

fn codec(section: &Section) -> Result<Compression, String> {
    match section.config.get("compression.type").map(String::as_str) {
        None | Some("uncompressed" | "producer") => Ok(Compression::None),
        Some("gzip") => Ok(Compression::Gzip),
        Some("snappy") => Ok(Compression::Snappy),
        Some("lz4") => Ok(Compression::Lz4),
        Some("zstd") => Ok(Compression::Zstd),
        Some(other) => Err(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: &[SourceId] = &[SourceId("dns"), SourceId("github")];

    #[test]
    fn every_source_has_its_topic_beside_coverage_and_cursors() {
        let topics = Topics::new("", "lab-", SOURCES).unwrap();
        let names = ["lab-databroker.coverage", "lab-databroker.cursors", "lab-dns.raw", "lab-github.raw"];
        assert_eq!(topics.names(), names);
        assert_eq!(topics.compression("lab-dns.raw"), Compression::Zstd);
        let read: Vec<String> = topics.read().map(|(topic, _)| topic.0).collect();
        assert_eq!(read, ["databroker.coverage", "dns.raw", "github.raw"]);
    }

    #[test]
    fn a_file_may_name_one_source_alone_and_is_checked() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let with = |more: &str| {
            std::fs::write(path, format!("{BUILT_IN}\n{more}")).unwrap();
            Topics::new(path, "", SOURCES)
        };
        let topics = with("[\"dns.raw\"]\npartitions = 9\nreplication = 1\n").unwrap();
        assert_eq!((topics.wanted["dns.raw"].partitions, topics.wanted["github.raw"].partitions), (9, 4));
        for wrong in ["partitions = 0\nreplication = 1", "partitions = 2\nreplicas = 1"] {
            assert!(with(&format!("[\"dns.raw\"]\n{wrong}\n")).is_err(), "{wrong}");
        }
        let unknown = "[\"dns.raw\"]\npartitions = 1\nreplication = 1\nconfig = {\"compression.type\" = \"rar\"}\n";
        assert!(with(unknown).unwrap_err().to_string().contains("rar"));
    }
}
