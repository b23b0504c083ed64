//! `date_trunc` of times in UTC.
//!
//! DataFusion 55.2 takes times with a zone through a calendar one by one, also where the zone is UTC, in which an hour or a month
//! begins where it does without a zone: in a count by hour that was more work than all else. Here such times lose their zone,
//! are truncated, and get it back.

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::functions::datetime::date_trunc::DateTruncFunc;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// `date_trunc`, in the place of the engine's.
pub(crate) fn date_trunc() -> ScalarUDF {
    ScalarUDF::new_from_impl(DateTrunc(DateTruncFunc::new()))
}

/// The engine's function, which does all but take zones away.
#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc(DateTruncFunc);

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.0.return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        self.0.return_field_from_args(arguments)
    }

    fn output_ordering(&self, arguments: &[ExprProperties]) -> Result<SortProperties> {
        self.0.output_ordering(arguments)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.documentation()
    }

    fn invoke_with_args(&self, mut arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(ColumnarValue::Array(times)) = arguments.args.get(1) else {
            return self.0.invoke_with_args(arguments);
        };
        let zoned = times.data_type().clone();
        let DataType::Timestamp(unit, Some(zone)) = &zoned else { return self.0.invoke_with_args(arguments) };
        if !["UTC", "+00:00", "Z"].contains(&zone.as_ref()) {
            return self.0.invoke_with_args(arguments);
        }
        arguments.args[1] = ColumnarValue::Array(same_numbers(times, &DataType::Timestamp(*unit, None))?);
        let rows = arguments.number_rows;
        let truncated = self.0.invoke_with_args(arguments)?.to_array(rows)?;
        Ok(ColumnarValue::Array(same_numbers(&truncated, &zoned)?))
    }
}

/// Times under another type. A cast alone would take a time without a zone for a local one.
fn same_numbers(times: &ArrayRef, kind: &DataType) -> Result<ArrayRef> {
    Ok(cast(&cast(times, &DataType::Int64)?, kind)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::TimestampMicrosecondArray;
    use arrow::datatypes::{Field, TimeUnit};
    use datafusion::common::ScalarValue;
    use datafusion::common::config::ConfigOptions;

    use super::*;

    fn truncated(function: &dyn ScalarUDFImpl, unit: &str, zone: &str) -> ArrayRef {
        // The seconds around the turn of a year, a leap day, a time before 1970 and none.
        let numbers = [1_420_070_399_999_999, 1_420_070_400_000_000, 1_456_704_001_000_001, -1].map(Some);
        let times = TimestampMicrosecondArray::from_iter(numbers.into_iter().chain([None])).with_timezone(zone);
        let kind = DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into()));
        let field = |name: &str, kind: &DataType| Arc::new(Field::new(name, kind.clone(), true));
        let arguments = ScalarFunctionArgs {
            args: vec![ColumnarValue::Scalar(ScalarValue::from(unit)), ColumnarValue::Array(Arc::new(times))],
            arg_fields: vec![field("unit", &DataType::Utf8), field("time", &kind)],
            number_rows: 5,
            return_field: field("truncated", &kind),
            config_options: Arc::new(ConfigOptions::default()),
        };
        function.invoke_with_args(arguments).expect("it truncates").into_array(5).expect("an array")
    }

    #[test]
    fn times_are_truncated_as_the_engine_does_it_in_utc_and_in_other_zones() {
        let (ours, engines) = (DateTrunc(DateTruncFunc::new()), DateTruncFunc::new());
        for unit in ["microsecond", "second", "minute", "hour", "day", "week", "month", "quarter", "year"] {
            for zone in ["UTC", "+00:00", "+05:45"] {
                assert_eq!(&truncated(&ours, unit, zone), &truncated(&engines, unit, zone), "{unit} {zone}");
            }
        }
    }
}
