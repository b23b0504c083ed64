//! Columns of lists of structs, built item by item.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{Field, Fields};

use crate::Column;
use crate::rows::ColumnBuilder;
use crate::schema::member_fields;

/// A member of a struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// The struct has none.
    Null,
    /// Of a member that is a text.
    Text(&'a str),
    /// Of a member that is an integer.
    Integer(i64),
}

impl<'a> From<Option<&'a str>> for Value<'a> {
    fn from(text: Option<&'a str>) -> Self {
        text.map_or(Self::Null, Self::Text)
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(number: Option<i64>) -> Self {
        number.map_or(Self::Null, Self::Integer)
    }
}

/// Lists of structs: the members of all of them, and where each list ends.
pub(crate) struct Structs {
    fields: Fields,
    members: Vec<ColumnBuilder>,
    ends: Vec<i32>,
    is_valid: Vec<bool>,
}

impl Structs {
    pub(crate) fn new(members: &[Column]) -> Self {
        let builders = members.iter().map(|member| ColumnBuilder::new(member.kind)).collect();
        Self { fields: member_fields(members), members: builders, ends: Vec::new(), is_valid: Vec::new() }
    }

    pub(crate) fn push<const MEMBERS: usize>(&mut self, values: [Value<'_>; MEMBERS]) {
        assert_eq!(MEMBERS, self.members.len(), "a value for each member");
        for (member, value) in self.members.iter_mut().zip(values) {
            match (member, value) {
                (member, Value::Null) => member.append_null(),
                (ColumnBuilder::Text(builder), Value::Text(text)) => builder.append_value(text),
                (ColumnBuilder::Integer(builder), Value::Integer(number)) => builder.append_value(number),
                (_, value) => panic!("a member of another kind than {value:?}"),
            }
        }
    }

    /// How many lists there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn end_list(&mut self, is_valid: bool) {
        self.ends.push(self.members.first().map_or(0, ColumnBuilder::len) as i32);
        self.is_valid.push(is_valid);
    }

    pub(crate) fn finish(&mut self) -> ListArray {
        let members: Vec<ArrayRef> = self.members.iter_mut().map(ColumnBuilder::finish).collect();
        let structs = StructArray::new(self.fields.clone(), members, None);
        let element = Arc::new(Field::new("element", structs.data_type().clone(), true));
        let starts = std::iter::once(0).chain(self.ends.drain(..)).collect::<Vec<_>>();
        let valid = NullBuffer::from(std::mem::take(&mut self.is_valid));
        ListArray::new(element, OffsetBuffer::new(starts.into()), Arc::new(structs), Some(valid))
    }

    pub(crate) fn refill(&mut self, kept: &ListArray, name: &str) {
        let (first, last) = (kept.value_offsets()[0] as usize, kept.value_offsets()[kept.len()] as usize);
        let structs = kept.values().slice(first, last - first);
        for (member, values) in self.members.iter_mut().zip(structs.as_struct().columns()) {
            member.refill(values, name);
        }
        self.ends = kept.value_offsets()[1..].iter().map(|end| end - first as i32).collect();
        self.is_valid = (0..kept.len()).map(|row| kept.is_valid(row)).collect();
    }
}
