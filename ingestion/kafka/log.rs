//! The log itself: [`contract::Log`] over a cluster.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use contract::{
    Appended, Batch, Clock, CollectorId, Coverage, Cursor, Error, Extent, Harvest, Log, Partition, Positions,
    RawRecord, RecordId, Result, SourceId, Timestamp, Topic, metric, partition_of,
};
use kafka_protocol::ResponseError;

use crate::cluster::Cluster;
use crate::cursors::{self, Cursors, Stand};
use crate::failure::{Failure, Outcome};
use crate::fetch::Reader;
use crate::group::Member;
use crate::group_members::{self, GroupMember};
use crate::offsets::{self, Committer, Edge};
use crate::open_transactions;
use crate::producer::{Part, Producer, Work};
use crate::record::{Outgoing, understand};
use crate::settings::Settings;
use crate::topics::{CURSORS, Topics};

/// Bytes of one harvest: what a batch may take on a topic as created, and well below what a broker takes in one request.
const HARVEST_BYTES_MAX: usize = 64 << 20;
/// Offsets that are wasted in one batch, and all in all: beyond that the topic is another one, not this one's rest.
const WASTE_AT_ONCE: i64 = 100_000;
const WASTE_MAX: i64 = 100_000_000;

/// Between two tries of what may pass.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Where a harvest of a source goes.
struct Places {
    of_raw: Partition,
    of_cursors: Partition,
    /// The number of the topic of its records.
    topic_id: Option<String>,
}

/// The log of one cluster.
pub struct KafkaLog {
    cluster: Arc<Cluster>,
    topics: Topics,
    cursors: Cursors,
    readers: Mutex<BTreeMap<String, Arc<Reader>>>,
    idle: open_transactions::Watch,
    producers: Mutex<BTreeMap<CollectorId, Arc<Producer>>>,
    clock: Arc<dyn Clock>,
    writes: bool,
    created: Vec<String>,
    /// This process as a member of the group, where it shares the partitions with others.
    member: OnceLock<Arc<Member>>,
}

impl KafkaLog {
    /// Opens the log for `sources`, creating topics that are not there.
    ///
    /// # Errors
    /// `Change` when a setting is wrong or the cluster refuses us, `Retry` when it is away.
    pub async fn open(settings: Settings, sources: &[SourceId], clock: Arc<dyn Clock>) -> Result<Self> {
        let mut log = Self::new(settings, sources, clock, true)?;
        log.reach().await?;
        log.created = log.topics.create(&log.cluster).await?;
        open_transactions::settle_all(&log.cluster, &log.topics.names()).await;
        Ok(log)
    }

    /// Opens what is there to read it; nothing is created, nobody's transactions are taken over.
    ///
    /// # Errors
    /// As `open`.
    pub async fn open_read_only(settings: Settings, sources: &[SourceId], clock: Arc<dyn Clock>) -> Result<Self> {
        let log = Self::new(settings, sources, clock, false)?;
        log.reach().await?;
        Ok(log)
    }

    /// Asks who leads what: first of all, so that a cluster that is away is named as such.
    async fn reach(&self) -> Result<()> {
        let asked = self.cluster.learn(&self.topics.names()).await;
        let servers = &self.cluster.settings().bootstrap_servers;
        asked.map_err(|failure| failure.while_doing(format!("reach Kafka at `{servers}`")))
    }

    fn new(settings: Settings, sources: &[SourceId], clock: Arc<dyn Clock>, writes: bool) -> Result<Self> {
        let topics = Topics::new(&settings.topics_file, &settings.topic_prefix, sources)?;
        let cursors = Cursors::new(topics.name(&Topic(CURSORS.to_owned())));
        let cluster = Arc::new(Cluster::new(settings)?);
        let (readers, idle, producers) = (Mutex::default(), open_transactions::Watch::default(), Mutex::default());
        Ok(Self {
            cluster,
            topics,
            cursors,
            readers,
            idle,
            producers,
            clock,
            writes,
            created: Vec::new(),
            member: OnceLock::new(),
        })
    }

    /// Opens what is there to read it, without asking whether the cluster answers: for who does without it, too.
    ///
    /// # Errors
    /// `Change` when a setting is wrong.
    pub fn open_later(settings: Settings, sources: &[SourceId], clock: Arc<dyn Clock>) -> Result<Self> {
        Self::new(settings, sources, clock, false)
    }

    /// This process as a member of the group `kafka.group_id`: it belongs to it once [`Member::run`] runs, and from now on
    /// only members say how far the stores are.
    pub fn member(&self) -> Arc<Member> {
        let topics = || self.topics.read().map(|(topic, name)| (name.clone(), topic)).collect();
        self.member.get_or_init(|| Arc::new(Member::new(self.cluster.clone(), topics()))).clone()
    }

    /// Who shares the partitions at present.
    ///
    /// # Errors
    /// When the cluster is away or does not tell.
    pub async fn group_members(&self) -> Result<Vec<GroupMember>> {
        let topics = self.topics.read().map(|(topic, name)| (name.clone(), topic)).collect();
        let members = self.patiently(|| group_members::of(&self.cluster, &topics)).await;
        members.map_err(|failure| failure.while_doing("ask who shares the partitions"))
    }

    /// The topics that were created at the opening.
    pub fn created(&self) -> &[String] {
        &self.created
    }

    /// How the cluster's topics differ from `topics.toml`, a sentence each.
    ///
    /// # Errors
    /// When the cluster is away or does not tell.
    pub async fn drift(&self) -> Result<Vec<String>> {
        self.topics.drift(&self.cluster).await
    }

    /// Asks again for a while what may pass: a broker that restarts is back within seconds, another leads within fewer.
    async fn patiently<T, A: Future<Output = Outcome<T>> + Send>(
        &self,
        ask: impl Fn() -> A + Send + Sync,
    ) -> Outcome<T> {
        let until = Instant::now() + self.cluster.settings().request_timeout();
        let mut pause = PAUSE_FIRST;
        loop {
            match ask().await {
                Err(failure) if failure.may_pass() && Instant::now() + pause < until => {
                    self.topics.names().iter().for_each(|topic| self.cluster.forget(topic));
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                asked => return asked,
            }
        }
    }

    fn check_writes(&self, doing: &str) -> Result<()> {
        let refused = || Error::change(format!("{doing}: this process has opened the log to read only"));
        self.writes.then_some(()).ok_or_else(refused)
    }

    /// The producer of a collector. There are as many as collectors that this process ran; each takes some hundred bytes.
    fn producer(&self, collector: &CollectorId) -> Arc<Producer> {
        let mut producers = self.producers.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || Arc::new(Producer::new(format!("{}{collector}", self.cluster.settings().topic_prefix)));
        producers.entry(collector.clone()).or_insert_with(made).clone()
    }

    fn reader(&self, topic: &str) -> Arc<Reader> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.entry(topic.to_owned()).or_default().clone()
    }

    /// What a harvest becomes: its records by partition, its coverage, its cursor.
    fn parts(&self, harvest: &Harvest, places: Places, mark: &str, now: Timestamp) -> Result<Vec<Part>> {
        let Places { of_raw, of_cursors, topic_id } = places;
        let mut parts: BTreeMap<(String, Partition), Vec<Outgoing>> = BTreeMap::new();
        let mut bytes = 0;
        let mut add = |topic: String, partition: Partition, record: Outgoing| {
            bytes += record.value.as_ref().map_or(0, Bytes::len) + 2 * record.key.len();
            parts.entry((topic, partition)).or_default().push(record);
        };
        let raw = self.topics.name(&Topic::raw(harvest.source));
        for record in &harvest.records {
            add(raw.clone(), partition_of(record.id.as_str().as_bytes(), of_raw), record.into());
        }
        for line in &harvest.coverage {
            add(self.topics.name(&Topic::coverage()), 0, (&coverage_record(line, now)?).into());
        }
        let cursor = cursors::record(&harvest.collector, &harvest.cursor, mark, topic_id);
        let partition = partition_of(harvest.collector.0.as_bytes(), of_cursors);
        add(self.topics.name(&Topic(CURSORS.to_owned())), partition, cursor);
        if bytes > HARVEST_BYTES_MAX {
            let collector = &harvest.collector;
            return Err(Error::change(format!(
                "append a harvest of `{collector}` with {bytes} bytes (at most {HARVEST_BYTES_MAX})"
            )));
        }
        let part = |((topic, partition), records): ((String, Partition), Vec<Outgoing>)| {
            let compression = self.topics.compression(&topic);
            Part { topic, partition, records, compression }
        };
        Ok(parts.into_iter().map(part).collect())
    }

    async fn places(&self, source: SourceId) -> Outcome<Places> {
        let raw = self.topics.name(&Topic::raw(source));
        let topic_id = self.cluster.topic_id(&raw).await?;
        let [of_raw, of_cursors] = [raw, self.topics.name(&Topic(CURSORS.to_owned()))].map(async |topic| {
            let deleted = || Failure::unheard(format!("`{topic}` was deleted (a start creates it)"));
            Some(self.cluster.partitions(&topic).await?).filter(|count| *count > 0).ok_or_else(deleted)
        });
        Ok(Places { of_raw: of_raw.await?, of_cursors: of_cursors.await?, topic_id })
    }

    /// Whether a cursor speaks of the topic that is there. Of one that was deleted, or lost, it says nothing: what was in it
    /// and in no store is to be collected again, and what the stores have is told as repeated.
    async fn is_current(&self, collector: &CollectorId, stand: &Stand) -> Outcome<bool> {
        let source = collector.0.split('/').next().unwrap_or_default();
        let present = self.cluster.topic_id(&self.topics.name(&Topic(format!("{source}.raw")))).await?;
        Ok(stand.topic_id.is_empty() || present.is_none_or(|id| id == stand.topic_id))
    }

    /// Whether cursors speak of another topic that had this one's name.
    async fn is_anew(&self, topic: &Topic) -> Outcome<bool> {
        let Some(source) = topic.0.strip_suffix(".raw") else { return Ok(false) };
        for (collector, stand) in self.cursors.starting_with(&self.cluster, &format!("{source}/")).await? {
            if !self.is_current(&collector, &stand).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The error of an append: a collector that another instance took over must end.
    fn append_error(&self, collector: &CollectorId, failure: Failure) -> Error {
        if failure.is_fenced() {
            return Error::stop(format!(
                "append to the log: another process runs the collector `{collector}` on the same Kafka and has taken \
                 over; this one ends, and nothing of it is half done (run each collector once, or give each \
                 installation its own `kafka.topic_prefix`)"
            ));
        }
        failure.while_doing("append to the log")
    }

    /// Takes offsets of a partition up to `until` by a transaction that is undone, so that nothing reads them.
    async fn waste(&self, topic: &str, partition: Partition, mut at: i64, until: i64) -> Outcome<()> {
        let producer = Producer::new(format!("{topic}/begin-after"));
        while at < until {
            // The marker of its end takes one offset too.
            let count = (until - at - 1).clamp(1, WASTE_AT_ONCE);
            let empty = || Outgoing { key: Bytes::new(), value: None, headers: Vec::new() };
            let part = Part {
                topic: topic.to_owned(),
                partition,
                records: (0..count).map(|_| empty()).collect(),
                compression: self.topics.compression(topic),
            };
            let (logged_at, mark) = (self.clock.now(), String::new());
            producer.waste(&self.cluster, Work { parts: vec![part], logged_at, mark, fingerprint: 0 }).await?;
            let end = offsets::list(&self.cluster, topic, Edge::End).await?.of(partition);
            if end <= at {
                return Err(Failure::unheard(format!("`{topic}` does not go on behind {at}")));
            }
            at = end;
        }
        Ok(())
    }
}

/// A line of the ledger as a record: its key is the collector, its value the line as JSON.
fn coverage_record(line: &Coverage, now: Timestamp) -> Result<RawRecord> {
    // The fields of a line are text, numbers and names: they are JSON always.
    let body = serde_json::to_vec(line).map_err(|cause| Error::stop("write coverage as JSON").because(cause))?;
    let id = RecordId::from(line.collector.as_str());
    Ok(RawRecord { id, event_time: line.from, fetched_at: now, body: body.into() })
}

/// Tells whether the same harvest is offered again.
fn fingerprint(harvest: &Harvest) -> u64 {
    let mut hash = DefaultHasher::new();
    (&harvest.cursor.0, harvest.records.len(), harvest.coverage.len()).hash(&mut hash);
    for record in &harvest.records {
        (record.id.as_str(), record.event_time.0, record.fetched_at.0, record.body.len()).hash(&mut hash);
    }
    hash.finish()
}

/// What no other transaction is marked with.
fn new_mark() -> Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|cause| Error::stop(format!("get random bytes: {cause}")))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[async_trait]
impl Log for KafkaLog {
    async fn append(&self, harvest: &Harvest) -> Result<Appended> {
        self.check_writes("append to the log")?;
        let started = Instant::now();
        let (collector, now) = (&harvest.collector, self.clock.now());
        let places = self.places(harvest.source).await.map_err(|f| f.while_doing("append to the log"))?;
        let mark = new_mark()?;
        let parts = self.parts(harvest, places, &mark, now)?;
        let work = Work { parts, logged_at: now, mark, fingerprint: fingerprint(harvest) };
        let names: Vec<String> = work.parts.iter().map(|part| part.topic.clone()).collect();
        let appended = self.producer(collector).append(&self.cluster, work, (&self.cursors, collector)).await;
        let written = appended.map_err(|failure| {
            names.iter().for_each(|topic| self.cluster.forget(topic));
            self.append_error(collector, failure)
        })?;
        metric::LOG_APPEND_SECONDS.observe(&[], started.elapsed().as_secs_f64());
        let raw = self.topics.name(&Topic::raw(harvest.source));
        let ranges = written.ranges.into_iter().filter(|(topic, _)| *topic == raw).map(|(_, range)| range);
        Ok(Appended { ranges: ranges.collect(), bytes: written.bytes })
    }

    async fn cursor(&self, collector: &CollectorId) -> Result<Option<Cursor>> {
        if self.writes {
            // Whoever asks is about to append: an earlier instance must not go on behind the cursor that is answered.
            let producer = self.producer(collector);
            let taken = self.patiently(|| producer.take_over(&self.cluster)).await;
            taken.map_err(|failure| self.append_error(collector, failure))?;
        }
        let found = self.patiently(|| self.cursors.of(&self.cluster, collector)).await;
        let found = found.map_err(|failure| failure.while_doing("read a cursor"))?;
        let Some(stand) = found else { return Ok(None) };
        let is_current = self.patiently(|| self.is_current(collector, &stand)).await;
        if is_current.map_err(|failure| failure.while_doing("read a cursor"))? {
            return Ok(Some(stand.cursor));
        }
        tracing::warn!(%collector, "`{collector}` begins anew: the topic that its cursor speaks of was deleted");
        Ok(None)
    }

    async fn cursors(&self, prefix: &str) -> Result<Vec<(CollectorId, Cursor)>> {
        let doing = |failure: Failure| failure.while_doing("read cursors");
        let found = self.patiently(|| self.cursors.starting_with(&self.cluster, prefix)).await.map_err(doing)?;
        let mut current = Vec::new();
        for (collector, stand) in found {
            if self.patiently(|| self.is_current(&collector, &stand)).await.map_err(doing)? {
                current.push((collector, stand.cursor));
            }
        }
        Ok(current)
    }

    async fn read(&self, topic: &Topic, from: &Positions, body_bytes_max: usize, wait: Duration) -> Result<Batch> {
        let name = self.topics.name(topic);
        let until = Instant::now() + wait;
        if from.0.is_empty() {
            tokio::time::sleep(wait).await;
            return Ok(Batch::default());
        }
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let fetched = self.reader(&name).fetch(&self.cluster, &name, from, body_bytes_max, left).await;
            let fetched = fetched.map_err(|failure| {
                if failure.is(&[ResponseError::OffsetOutOfRange]) {
                    return Error::stop(format!(
                        "read `{topic}`: retention removed what stood there, or the topic was begun anew"
                    ))
                    .because(failure.to_string());
                }
                failure.while_doing(format!("read `{topic}`"))
            })?;
            // A broker may answer early with nothing. The ends of transactions alone bring no record, but move on.
            let is_over = fetched.next != *from || left.is_zero();
            if is_over {
                if fetched.next == *from {
                    self.idle.look(&self.cluster, &name, from).await;
                }
                let records = fetched.records.into_iter().map(|(partition, record)| understand(partition, record));
                return Ok(Batch { records: records.collect(), next: fetched.next, lost: Vec::new() });
            }
        }
    }

    async fn extents(&self) -> Result<BTreeMap<Topic, Extent>> {
        let mut extents = BTreeMap::new();
        for (topic, name) in self.topics.read() {
            let extent = self.patiently(|| offsets::extent(&self.cluster, name)).await;
            let extent = extent.map_err(|failure| failure.while_doing("read the extents of the log"))?;
            if !extent.partitions.is_empty() {
                extents.insert(topic, extent);
            }
        }
        Ok(extents)
    }

    async fn extent(&self, topic: &Topic) -> Result<Extent> {
        let name = self.topics.name(topic);
        let extent = self.patiently(|| offsets::extent(&self.cluster, &name)).await;
        extent.map_err(|failure| failure.while_doing(format!("read how far `{topic}` reaches")))
    }

    async fn begin_after(&self, topic: &Topic, committed: &Positions) -> Result<()> {
        self.check_writes("go on behind what the stores hold")?;
        let name = self.topics.name(topic);
        let doing = || format!("go on in `{topic}` behind what the stores hold");
        let extent = self.extent(topic).await?;
        for (&partition, &next) in &committed.0 {
            let Some(at) = usize::try_from(partition).ok().and_then(|place| extent.partitions.get(place)) else {
                let count = extent.partitions.len();
                return Err(Error::change(format!("{}: partition {partition} of {count} is not there", doing())));
            };
            if at.end >= next {
                continue;
            }
            if next - at.end > WASTE_MAX {
                return Err(Error::change(format!(
                    "{}: partition {partition} ends at {}, and they hold all below {next}; is it another Kafka?",
                    doing(),
                    at.end
                )));
            }
            tracing::warn!(%topic, partition, from = at.end, to = next, "the log ends before what the stores hold");
            let wasted = async {
                self.waste(&name, partition, at.end, next).await?;
                // Of a topic that was made anew nothing counts that somebody wrote who did not know.
                let is_empty = at.start == at.end || at.start == 0 && self.is_anew(topic).await?;
                match is_empty {
                    true => offsets::delete_below(&self.cluster, &name, partition, next).await,
                    false => Ok(()),
                }
            };
            wasted.await.map_err(|failure| failure.while_doing(doing()))?;
        }
        Ok(())
    }

    fn is_dense(&self) -> bool {
        false
    }

    async fn release(&self, topic: &Topic, positions: &Positions) -> Result<()> {
        self.check_writes("say how far the stores are")?;
        if positions.0.is_empty() {
            return Ok(());
        }
        let (name, group) = (self.topics.name(topic), &self.cluster.settings().group_id);
        if let Some(member) = self.member.get() {
            member.note(&name, positions);
            return Ok(());
        }
        let at = [(name, positions.clone())].into();
        let committed = offsets::commit(&self.cluster, group, &at, Committer::alone()).await;
        committed.map_err(|failure| failure.while_doing("say how far the stores are"))
    }
}
