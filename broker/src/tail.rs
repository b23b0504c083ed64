//! Rows of a source as they are made: the log's newest records through the processor.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use acquisition::Source;
use async_trait::async_trait;
use cold_store::RowFilter;
use contract::{Error, Log, OffsetRange, Positions, Result, RowsBuilder, Span, Topic};
use futures::stream;
use serving::rows::{Format, RowsWriter};
use serving::{Tail, TailStream, Tailed};
use tokio_util::sync::CancellationToken;

/// Bytes of records that are read at once.
const READ_BYTES_MAX: usize = 1 << 20;

/// How long a read waits for a record.
const READ_WAIT: Duration = Duration::from_secs(5);

/// Tails over a log. Repeats of a record come as often as it was logged; records that cannot be understood do not come.
pub(crate) struct LogTail {
    pub(crate) log: Arc<dyn Log>,
    /// Ends all tails.
    pub(crate) stop: CancellationToken,
}

/// One tail.
struct Following {
    log: Arc<dyn Log>,
    source: &'static Source,
    filter: Option<RowFilter>,
    /// The next offsets.
    at: Positions,
    ready: VecDeque<Tailed>,
    stop: CancellationToken,
}

#[async_trait]
impl Tail for LogTail {
    async fn begin(&self, source: &str, filter: Option<&str>, after: Option<&str>) -> Result<TailStream> {
        let source = acquisition::source(source)?;
        let filter = filter.map(|condition| RowFilter::new(&source.schema.arrow(), condition)).transpose()?;
        let extent = self.log.extent(&Topic::raw(source.id)).await?;
        let mut at = extent.end();
        if let Some(after) = after {
            let start = extent.start();
            for (partition, offset) in parse(after)? {
                // What retention took meanwhile cannot be told; a partition that is gone has nothing to tell.
                if at.0.contains_key(&partition) {
                    at.0.insert(partition, offset.clamp(start.of(partition), at.of(partition)));
                }
            }
        }
        let following =
            Following { log: self.log.clone(), source, filter, at, ready: VecDeque::new(), stop: self.stop.clone() };
        Ok(Box::pin(stream::unfold(Some(following), async |following| {
            let mut following = following?;
            match following.next().await {
                Ok(Some(tailed)) => Some((Ok(tailed), Some(following))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })))
    }
}

impl Following {
    /// The next row; none when all tails end.
    async fn next(&mut self) -> Result<Option<Tailed>> {
        loop {
            if let Some(tailed) = self.ready.pop_front() {
                return Ok(Some(tailed));
            }
            let topic = Topic::raw(self.source.id);
            let batch = tokio::select! {
                batch = self.log.read(&topic, &self.at, READ_BYTES_MAX, READ_WAIT) => batch?,
                () = self.stop.cancelled() => return Ok(None),
            };
            let mut builder = RowsBuilder::new(self.source.schema);
            for record in &batch.records {
                // A dead letter is no row.
                builder.record(record, self.source.processor).unwrap_or_default();
            }
            let range = |(&partition, &to): (&i32, &i64)| OffsetRange { partition, from: self.at.of(partition), to };
            let span = Span { source: self.source.id, ranges: batch.next.0.iter().map(range).collect() };
            let rows = builder.finish(span).silver;
            let chosen = self.filter.as_ref().map_or_else(|| Ok(rows.clone()), |filter| filter.apply(&rows))?;
            self.take(&chosen)?;
            if self.at != batch.next {
                self.at = batch.next;
                self.ready.push_back(Tailed { id: id(&self.at), row: None });
            }
        }
    }

    /// Makes events of rows. Rows of a partition are in the order of their offsets, so an id may name the next of each.
    fn take(&mut self, rows: &arrow::array::RecordBatch) -> Result<()> {
        use arrow::array::AsArray;
        use arrow::datatypes::Int64Type;
        let mut writer = RowsWriter::new(Format::Ndjson, &rows.schema())?;
        let mut lines = Vec::new();
        for piece in writer.batch(rows) {
            lines.extend(piece?);
        }
        let lines = String::from_utf8(lines).map_err(|cause| Error::stop("write a row as JSON").because(cause))?;
        let [partitions, offsets] = [0, 1].map(|place| rows.column(place).as_primitive::<Int64Type>());
        let mut at = self.at.clone();
        for (line, (partition, offset)) in lines.lines().zip(partitions.values().iter().zip(offsets.values())) {
            let partition =
                i32::try_from(*partition).map_err(|cause| Error::stop("read a partition").because(cause))?;
            at.0.insert(partition, offset + 1);
            self.ready.push_back(Tailed { id: id(&at), row: Some(line.to_owned()) });
        }
        Ok(())
    }
}

/// `0:17,1:4`: the next offset of each partition.
fn id(at: &Positions) -> String {
    at.0.iter().map(|(partition, offset)| format!("{partition}:{offset}")).collect::<Vec<_>>().join(",")
}

fn parse(id: &str) -> Result<Vec<(i32, i64)>> {
    let wrong = || Error::change(format!("go on after `{id}`: it must be an event's id, like `0:17,1:4`"));
    let pair = |pair: &str| {
        let (partition, offset) = pair.split_once(':').ok_or_else(wrong)?;
        Ok((partition.parse().map_err(|_| wrong())?, offset.parse().map_err(|_| wrong())?))
    };
    id.split(',').map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written_and_nothing_else_is() {
        let at = Positions([(0, 17), (2, 4)].into());
        assert_eq!(id(&at), "0:17,2:4");
        assert_eq!(parse("0:17,2:4").expect("an id"), [(0, 17), (2, 4)]);
        for wrong in ["", "17", "0:", "a:1", "0:1,"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
