//! More than 20,000 rows of all four sources: those of the samples, each several times with other ids, times, words and
//! numbers, from a seed.

use std::sync::Arc;

use acquisition::{Context, Source};
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use contract::{LogRecord, OffsetRange, Rows, RowsBuilder, Search, Span, Timestamp, bronze_schema, dead_letter_schema};

/// What the clock says: 2026-11-22T12:00:00Z.
pub(super) const NOW: Timestamp = Timestamp(1_795_348_800_000_000);

/// How often each row of a sample stands there.
const COPIES: i64 = 4;

/// The rows lie within so many milliseconds before [`NOW`]: nine days.
const SPREAD_MS: i64 = 9 * 86_400_000;

const WORDS: [&str; 8] = ["error", "harbour", "quantum", "fix", "parser", "weather", "don't", "x86_64"];

/// All rows of a source, as one span of partition 0.
pub(super) async fn of(source: &Source) -> Rows {
    let sample = sample(source).await;
    let copies: Vec<_> = (0..COPIES).map(|copy| vary(source, &sample, copy)).collect();
    let silver = arrow::compute::concat_batches(&sample.schema(), &copies).unwrap();
    let range = OffsetRange { partition: 0, from: 0, to: silver.num_rows() as i64 };
    Rows {
        span: Span { source: source.id, ranges: vec![range] },
        bronze: RecordBatch::new_empty(bronze_schema()),
        silver,
        dead_letters: RecordBatch::new_empty(dead_letter_schema()),
        duplicates: 0,
    }
}

async fn sample(source: &Source) -> RecordBatch {
    let mut collector = (source.sample)(&Context { clock: Arc::new(|| NOW), ..Context::default() }).collector;
    let mut cursor = contract::Cursor::default();
    let mut builder = RowsBuilder::new(source.schema);
    let mut offset = 0;
    loop {
        let harvest = collector.poll(&cursor).await.unwrap();
        cursor = harvest.cursor;
        for record in harvest.records {
            builder.record(&LogRecord { partition: 0, offset, appended_at: NOW, record }, source.processor).unwrap();
            offset += 1;
        }
        if harvest.poll_again_in.is_none() {
            let ranges = vec![OffsetRange { partition: 0, from: 0, to: offset }];
            return builder.finish(Span { source: source.id, ranges }).silver;
        }
    }
}

fn vary(source: &Source, sample: &RecordBatch, copy: i64) -> RecordBatch {
    let rows = sample.num_rows() as i64;
    let columns = source.schema.all().zip(sample.columns()).map(|(column, values)| {
        match (column.name, column.kind.data_type()) {
            ("_offset", _) => {
                Arc::new(Int64Array::from_iter_values((0..rows).map(|row| copy * rows + row))) as ArrayRef
            }
            ("_partition", _) => values.clone(),
            ("_id", _) if copy > 0 => texts(values, |_, text| format!("{text}.v{copy}")),
            ("event_time", _) => times(values, |row, _| NOW.0 - mixed(row, copy) % SPREAD_MS * 1_000),
            (_, DataType::Timestamp(..)) => times(values, |row, time| time - mixed(row, copy) % SPREAD_MS * 1_000),
            (_, DataType::Utf8) if column.search == Search::Words && copy > 0 => {
                texts(values, |row, text| other_words(text, mixed(row, copy)))
            }
            (_, DataType::Int64) if copy > 0 => {
                let numbers = values.as_primitive::<Int64Type>();
                Arc::new(
                    (0..rows)
                        .zip(numbers)
                        .map(|(row, number)| Some(number? + mixed(row, copy) % 5))
                        .collect::<Int64Array>(),
                )
            }
            _ => values.clone(),
        }
    });
    RecordBatch::try_new(sample.schema(), columns.collect()).unwrap()
}

fn texts(values: &ArrayRef, change: impl Fn(i64, &str) -> String) -> ArrayRef {
    let texts = values.as_string::<i32>().iter();
    Arc::new((0..).zip(texts).map(|(row, text)| Some(change(row, text?))).collect::<StringArray>())
}

fn times(values: &ArrayRef, change: impl Fn(i64, i64) -> i64) -> ArrayRef {
    let times = values.as_primitive::<TimestampMicrosecondType>().iter();
    let changed = (0..).zip(times).map(|(row, time)| Some(change(row, time?)));
    Arc::new(changed.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

/// The words from another one on, with one more.
fn other_words(text: &str, mixed: i64) -> String {
    let mut words: Vec<&str> = text.split(' ').collect();
    let places = words.len();
    words.rotate_left(mixed as usize % places);
    words.insert(mixed as usize / 7 % places, WORDS[mixed as usize % WORDS.len()]);
    words.join(" ")
}

/// A number without a pattern (splitmix64), not negative.
fn mixed(row: i64, copy: i64) -> i64 {
    let mut mixed = (row as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (copy as u64) << 32;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 2) as i64
}
