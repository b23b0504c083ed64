//! How far the stores are behind the log: the table `ops.lag`, and the sums of it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use cold_store::{DeltaStore, LiveTable};
use contract::{Clock, Error, HotStore, Log, Offset, Partition, Positions, Result, Store, Topic};

use acquisition::Source;

/// How far a store is behind one partition of a source's topic.
pub(crate) struct Lag {
    pub(crate) source: &'static str,
    pub(crate) partition: Partition,
    /// `hot` or `cold`.
    pub(crate) store: &'static str,
    /// The first offset that the log still has.
    pub(crate) log_start: Offset,
    /// The next offset that the log will give.
    pub(crate) log_end: Offset,
    /// The next offset that the store will commit.
    pub(crate) committed: Offset,
    pub(crate) records: i64,
    /// The age of the oldest record that is not committed.
    pub(crate) seconds: f64,
}

/// What lag is measured between.
pub(crate) struct Ends<'a> {
    pub(crate) log: &'a dyn Log,
    pub(crate) hot: &'a dyn HotStore,
    pub(crate) cold: &'a DeltaStore,
    pub(crate) clock: &'a dyn Clock,
}

impl Ends<'_> {
    /// The lag of both stores behind all partitions of a source's topic: first hot, then cold.
    pub(crate) async fn lags(&self, source: &Source) -> Result<Vec<Lag>> {
        let topic = Topic::raw(source.id);
        let extent = self.log.extent(&topic).await?;
        let stores = [("hot", self.hot.committed(source.id).await?), ("cold", self.cold.committed(source.id).await?)];
        let mut lags = Vec::new();
        for (store, at) in stores {
            for (partition, part) in (0..).zip(&extent.partitions) {
                let committed = at.of(partition);
                lags.push(Lag {
                    source: source.id.0,
                    partition,
                    store,
                    log_start: part.start,
                    log_end: part.end,
                    committed,
                    records: (part.end - committed).max(0),
                    seconds: if committed < part.end { self.age(&topic, partition, committed).await } else { 0.0 },
                });
            }
        }
        Ok(lags)
    }

    /// Seconds since the record at an offset was appended; 0 where it cannot be read now.
    async fn age(&self, topic: &Topic, partition: Partition, offset: Offset) -> f64 {
        let first = Positions([(partition, offset)].into());
        let batch = self.log.read(topic, &first, 1, Duration::ZERO).await;
        let appended = batch.ok().and_then(|batch| batch.records.first().map(|record| record.appended_at));
        appended.map_or(0.0, |appended| self.clock.now().since(appended).as_secs_f64())
    }
}

/// The table `ops.lag`.
pub(crate) struct LagTable {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) hot: Arc<dyn HotStore>,
    /// The store shows this table, so it must not be held by it.
    pub(crate) cold: Weak<DeltaStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) sources: &'static [Source],
}

#[async_trait]
impl LiveTable for LagTable {
    fn name(&self) -> &'static str {
        "ops.lag"
    }

    fn schema(&self) -> SchemaRef {
        let field = |name: &str, kind| Field::new(name, kind, false);
        Arc::new(Schema::new(vec![
            field("source", DataType::Utf8),
            field("partition", DataType::Int64),
            field("store", DataType::Utf8),
            field("log_start", DataType::Int64),
            field("log_end", DataType::Int64),
            field("committed", DataType::Int64),
            field("lag_records", DataType::Int64),
            field("lag_seconds", DataType::Float64),
        ]))
    }

    async fn rows(&self) -> Result<RecordBatch> {
        let cold = self.cold.upgrade().ok_or_else(|| Error::stop("measure the lag: the cold store is closed"))?;
        let ends = Ends { log: &*self.log, hot: &*self.hot, cold: &cold, clock: &*self.clock };
        let mut lags = Vec::new();
        for source in self.sources {
            lags.extend(ends.lags(source).await?);
        }
        let integers =
            |of: fn(&Lag) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(lags.iter().map(of))) };
        let texts =
            |of: fn(&Lag) -> &'static str| -> ArrayRef { Arc::new(StringArray::from_iter_values(lags.iter().map(of))) };
        let columns = vec![
            texts(|lag| lag.source),
            integers(|lag| lag.partition.into()),
            texts(|lag| lag.store),
            integers(|lag| lag.log_start),
            integers(|lag| lag.log_end),
            integers(|lag| lag.committed),
            integers(|lag| lag.records),
            Arc::new(Float64Array::from_iter_values(lags.iter().map(|lag| lag.seconds))),
        ];
        RecordBatch::try_new(self.schema(), columns).map_err(|cause| Error::stop("measure the lag").because(cause))
    }
}
