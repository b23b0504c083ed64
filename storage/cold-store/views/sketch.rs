//! Counting distinct values in pieces that can be put together: the smallest hashes.
//!
//! `sketch(x)` is the list of the [`SKETCH_HASHES_MAX`] smallest hashes of the values of `x`, ascending. The sketch of all rows is
//! made of the sketches of any parts of them (`sketch_merge`), exactly, so a view's batch and speed layer may each hold one.
//! `estimate(sketch)` is the number of distinct values: exact below that many, else from how dense the hashes lie, to about
//! 3 % (one standard error is 1/√1022).
//!
//! A hash is XXH64 with seed 42 of the value as text, as a signed integer: Spark's `xxhash64(CAST(x AS STRING))`, so that Spark
//! makes the same sketch. Sources: <https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>; Bar-Yossef et al., Counting
//! Distinct Elements in a Data Stream (RANDOM 2002).

use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, ListBuilder, PrimitiveBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, EmitTo, GroupsAccumulator, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use xxhash_rust::xxh64::xxh64;

/// Hashes of a sketch: 8 KiB of them err by about 3 %, and up to here the number is exact.
pub(crate) const SKETCH_HASHES_MAX: usize = 1_024;

/// Spark's.
const SEED: u64 = 42;

/// `sketch(x)`.
pub(crate) fn sketch() -> AggregateUDF {
    AggregateUDF::new_from_impl(SketchFunction {
        of_sketches: false,
        signature: Signature::any(1, Volatility::Immutable),
    })
}

/// `sketch_merge(sketch)`.
pub(crate) fn sketch_merge() -> AggregateUDF {
    AggregateUDF::new_from_impl(SketchFunction {
        of_sketches: true,
        signature: Signature::any(1, Volatility::Immutable),
    })
}

/// `estimate(sketch)`.
pub(crate) fn estimate() -> ScalarUDF {
    let signature = Signature::exact(vec![sketch_type()], Volatility::Immutable);
    ScalarUDF::new_from_impl(Estimate { signature })
}

/// A list of hashes.
pub(crate) fn sketch_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)))
}

/// The smallest hashes, ascending, each once.
#[derive(Clone, Debug, Default)]
struct Sketch(Vec<i64>);

impl Sketch {
    fn add(&mut self, hash: i64) {
        let is_full = self.0.len() == SKETCH_HASHES_MAX;
        if is_full && self.0.last().is_some_and(|&last| hash >= last) {
            return;
        }
        if let Err(place) = self.0.binary_search(&hash) {
            self.0.truncate(SKETCH_HASHES_MAX - 1);
            self.0.insert(place, hash);
        }
    }

    /// Adds the hashes of one row: its text's, or those of its sketch.
    fn add_row(&mut self, row: usize, values: &Values) {
        match values {
            Values::Texts(texts) if texts.is_valid(row) => {
                let text = texts.as_string::<i32>().value(row);
                self.add(xxh64(text.as_bytes(), SEED).cast_signed());
            }
            Values::Sketches(sketches) if sketches.is_valid(row) => {
                let hashes = sketches.value(row);
                hashes.as_primitive::<Int64Type>().iter().flatten().for_each(|hash| self.add(hash));
            }
            Values::Texts(_) | Values::Sketches(_) => {}
        }
    }

    fn size(&self) -> usize {
        self.0.capacity() * size_of::<i64>()
    }
}

/// The argument of a call.
enum Values<'a> {
    Texts(ArrayRef),
    Sketches(&'a ListArray),
}

impl<'a> Values<'a> {
    fn of(array: &'a ArrayRef, of_sketches: bool) -> Result<Self> {
        if of_sketches {
            return Ok(Self::Sketches(array.as_list::<i32>()));
        }
        Ok(Self::Texts(cast(array, &DataType::Utf8)?))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SketchFunction {
    /// Whether it puts sketches together, or makes one of values.
    of_sketches: bool,
    signature: Signature,
}

impl AggregateUDFImpl for SketchFunction {
    fn name(&self) -> &str {
        if self.of_sketches { "sketch_merge" } else { "sketch" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let is_text = |kind: &DataType| {
            matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null)
        };
        match arguments {
            [DataType::List(_)] if self.of_sketches => Ok(sketch_type()),
            // Their texts are the same in every engine.
            [kind] if !self.of_sketches && (kind.is_integer() || is_text(kind)) => Ok(sketch_type()),
            _ if self.of_sketches => plan_err!("`sketch_merge` takes one sketch, not {arguments:?}"),
            _ => plan_err!("`sketch` takes one text or whole number, not {arguments:?}; CAST it AS STRING"),
        }
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[hashes]", arguments.name), sketch_type(), true))])
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(One { of_sketches: self.of_sketches, sketch: Sketch::default() }))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups { of_sketches: self.of_sketches, sketches: Vec::new(), bytes: 0 }))
    }
}

/// The sketch of all rows.
#[derive(Debug)]
struct One {
    of_sketches: bool,
    sketch: Sketch,
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values_of = Values::of(&values[0], self.of_sketches)?;
        (0..values[0].len()).for_each(|row| self.sketch.add_row(row, &values_of));
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::List(Arc::new(lists(std::slice::from_ref(&self.sketch)))))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.sketch.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let states_of = Values::of(&states[0], true)?;
        (0..states[0].len()).for_each(|row| self.sketch.add_row(row, &states_of));
        Ok(())
    }
}

/// A sketch per group.
#[derive(Debug)]
struct Groups {
    of_sketches: bool,
    sketches: Vec<Sketch>,
    /// Of all hashes.
    bytes: usize,
}

impl Groups {
    fn add(&mut self, values: &Values, groups: &[usize], filter: Option<&BooleanArray>, count: usize) {
        self.sketches.resize_with(count, Sketch::default);
        for (row, &group) in groups.iter().enumerate() {
            let is_in = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            if is_in {
                let sketch = &mut self.sketches[group];
                let before = sketch.size();
                sketch.add_row(row, values);
                self.bytes += sketch.size() - before;
            }
        }
    }
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        let values = Values::of(&values[0], self.of_sketches)?;
        self.add(&values, groups, filter, count);
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let emitted = emit.take_needed(&mut self.sketches);
        self.bytes -= emitted.iter().map(Sketch::size).sum::<usize>();
        Ok(Arc::new(lists(&emitted)))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], count: usize) -> Result<()> {
        let states = Values::of(&states[0], true)?;
        self.add(&states, groups, None, count);
        Ok(())
    }

    /// A sketch of each row alone, for data that hardly groups.
    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let mut alone = Self { of_sketches: self.of_sketches, sketches: Vec::new(), bytes: 0 };
        let rows: Vec<usize> = (0..values[0].len()).collect();
        alone.update_batch(values, &rows, filter, rows.len())?;
        alone.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.sketches.capacity() * size_of::<Sketch>() + self.bytes
    }
}

fn lists(sketches: &[Sketch]) -> ListArray {
    let mut lists = ListBuilder::with_capacity(PrimitiveBuilder::<Int64Type>::new(), sketches.len());
    for sketch in sketches {
        lists.values().append_slice(&sketch.0);
        lists.append(true);
    }
    lists.finish()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Estimate {
    signature: Signature,
}

impl ScalarUDFImpl for Estimate {
    fn name(&self) -> &str {
        "estimate"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let Some(sketches) = arrays[0].as_list_opt::<i32>() else {
            return exec_err!("`estimate` takes a sketch, not {}", arrays[0].data_type());
        };
        let estimates = sketches.iter().map(|hashes| hashes.map(|hashes| distinct(hashes.as_primitive())));
        Ok(ColumnarValue::Array(Arc::new(estimates.collect::<Int64Array>())))
    }
}

/// The number of distinct values behind a sketch.
fn distinct(hashes: &Int64Array) -> i64 {
    if hashes.len() < SKETCH_HASHES_MAX {
        return hashes.len() as i64;
    }
    // Of n hashes spread evenly over 0..1 the k-th lies at about k/n.
    let largest = hashes.value(hashes.len() - 1);
    let share = (largest as f64 + 2_f64.powi(63)) / 2_f64.powi(64);
    ((SKETCH_HASHES_MAX - 1) as f64 / share).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch_of(values: impl IntoIterator<Item = u64>) -> Sketch {
        let mut sketch = Sketch::default();
        values.into_iter().for_each(|value| sketch.add(xxh64(value.to_string().as_bytes(), SEED).cast_signed()));
        sketch
    }

    #[test]
    fn hashes_are_those_that_spark_makes() {
        // SELECT xxhash64('Spark'), xxhash64('') on Spark 4.
        assert_eq!(xxh64(b"Spark", SEED).cast_signed(), -4_294_468_057_691_064_905);
        assert_eq!(xxh64(b"", SEED).cast_signed(), -7_444_071_767_201_028_348);
    }

    #[test]
    fn the_sketch_of_all_is_that_of_any_parts_put_together() {
        let whole = sketch_of(0..50_000);
        for cut in [0, 1, 700, 25_000, 50_000] {
            let mut parts = sketch_of(0..cut);
            sketch_of(cut.saturating_sub(300)..50_000).0.into_iter().for_each(|hash| parts.add(hash));
            assert_eq!(parts.0, whole.0, "cut at {cut}");
        }
    }

    #[test]
    fn few_values_are_counted_exactly_and_many_to_a_few_percent() {
        for count in [0, 1, 1_023] {
            assert_eq!(distinct(&Int64Array::from(sketch_of(0..count).0)), count as i64);
        }
        for count in [2_000_i64, 100_000] {
            let found = distinct(&Int64Array::from(sketch_of(0..count as u64).0));
            assert!((found - count).abs() * 100 < count * 10, "{found} of {count}");
        }
    }
}
