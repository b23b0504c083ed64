//! How the columns of a source stand in a tantivy index.

use std::ops::Bound;

use contract::{Column, Kind, Leaf, RowSchema, Search};
use tantivy::Term;
use tantivy::query::{Query, RangeQuery};
use tantivy::schema::{
    BytesOptions, DateOptions, DateTimePrecision, Field, IndexRecordOption, NumericOptions, Schema, SchemaBuilder,
    TextFieldIndexing, TextOptions,
};
use tantivy::tokenizer::{LowerCaser, TextAnalyzer, TokenizerManager};

use crate::words::Words;

/// The field that holds the row as JSON.
pub(crate) const SOURCE: &str = "_source";

/// The field that lists which columns of words a row has, for `exists`; all other columns are fast and answer it
/// themselves.
pub(crate) const FIELD_NAMES: &str = "_field_names";

/// The name of the analyser of words, Elasticsearch's default. An index whose words were cut in another way names another
/// one, and is built anew.
pub(crate) const STANDARD: &str = "unicode_words";

/// Bytes of a text that is indexed as a whole. A longer one stands in `_source` only, as with Elasticsearch's `ignore_above`;
/// the number is Lucene's limit of a term.
pub(crate) const KEYWORD_BYTES_MAX: usize = 32_766;

/// The fields of the indices of one source.
///
/// | column | indexed | fast (sorts, aggregates, range, exists) |
/// | --- | --- | --- |
/// | text or texts, exact | one raw term each, without frequencies or norms | yes, raw |
/// | text or texts, words | by the words of Elasticsearch's `standard`, with frequencies, positions and norms | no; `exists` asks `_field_names` for the column's name |
/// | boolean | yes | yes |
/// | integer, float | no: most are their own, so terms would cost more than the column, which [`exactly`] reads through | yes |
/// | member of a list of structs | as its kind, once for each struct, under the name `LIST.MEMBER` | as its kind |
/// | timestamp | no: tantivy's terms of dates hold whole seconds only, so a term is asked as a range | yes, microseconds |
/// | `_id` | one raw term | no, but stored |
/// | `_source` | no | no, but stored: the bytes of [`contract::row_json::write_row`] |
pub(crate) struct Fields {
    pub(crate) schema: Schema,
    /// All leaves in the order of the rows, `_id` among them; in an index of an older version, those it has.
    pub(crate) columns: Vec<(&'static Column, Field)>,
    /// For each of `columns`, its place among [`RowSchema::leaves`].
    pub(crate) places: Vec<usize>,
    pub(crate) id: Field,
    pub(crate) source: Field,
    pub(crate) field_names: Field,
}

impl Fields {
    /// The fields of a new index.
    pub(crate) fn new(rows: &'static RowSchema) -> Self {
        let mut builder = Schema::builder();
        for leaf in rows.leaves() {
            add_column(&mut builder, leaf.column);
        }
        builder.add_bytes_field(SOURCE, BytesOptions::default().set_stored());
        builder.add_text_field(FIELD_NAMES, raw_text());
        Self::in_schema(rows, builder.build()).expect("just built from these rows")
    }

    /// The fields of an index that exists. One of an older version may lack columns; they are in `_source` then and
    /// not searched.
    ///
    /// # Errors
    /// What in the schema is not as this version would have made it.
    pub(crate) fn of_index(rows: &'static RowSchema, schema: &Schema) -> Result<Self, String> {
        let fields = Self::in_schema(rows, schema.clone())?;
        let present = Self::new(rows).schema;
        for (_, entry) in schema.fields() {
            let same = present.get_field(entry.name()).is_ok_and(|field| present.get_field_entry(field) == entry);
            if !same {
                return Err(format!("its field `{}` is indexed in another way", entry.name()));
            }
        }
        Ok(fields)
    }

    fn in_schema(rows: &'static RowSchema, schema: Schema) -> Result<Self, String> {
        let needed = |name: &str| schema.get_field(name).map_err(|_| format!("it has no field `{name}`"));
        let (id, source, field_names) = (needed("_id")?, needed(SOURCE)?, needed(FIELD_NAMES)?);
        for place in ["_partition", "_offset"] {
            needed(place)?;
        }
        let known = |(place, leaf): (usize, Leaf)| Some((place, leaf.column, schema.get_field(leaf.column.name).ok()?));
        let known: Vec<_> = rows.leaves().enumerate().filter_map(known).collect();
        let columns = known.iter().map(|&(_, column, field)| (column, field)).collect();
        let places = known.iter().map(|&(place, ..)| place).collect();
        Ok(Self { columns, places, id, source, field_names, schema })
    }

    /// A column and its field by name.
    pub(crate) fn column(&self, name: &str) -> Option<(&'static Column, Field)> {
        self.columns.iter().find(|(column, _)| column.name == name).copied()
    }
}

/// The rows that have a number in a column that is only fast.
pub(crate) fn exactly(number: Term) -> Box<dyn Query> {
    Box::new(RangeQuery::new(Bound::Included(number.clone()), Bound::Included(number)))
}

/// The analysers by name; every index is opened with these.
pub(crate) fn tokenizers() -> TokenizerManager {
    let manager = TokenizerManager::default();
    manager.register(STANDARD, standard());
    manager
}

/// Unicode's words in lower case: Elasticsearch's `standard`.
pub(crate) fn standard() -> TextAnalyzer {
    TextAnalyzer::builder(Words::default()).filter(LowerCaser).build()
}

fn add_column(builder: &mut SchemaBuilder, column: &Column) -> Field {
    match (column.kind, column.search) {
        _ if column.name == "_id" => builder.add_text_field(column.name, raw_text().set_stored()),
        (Kind::Text | Kind::TextList, Search::Exact) => builder.add_text_field(column.name, raw_text().set_fast("raw")),
        (Kind::Text | Kind::TextList, Search::Words) => builder.add_text_field(column.name, words()),
        (Kind::Integer, _) => builder.add_i64_field(column.name, number()),
        (Kind::Float, _) => builder.add_f64_field(column.name, number()),
        (Kind::Boolean, _) => builder.add_bool_field(column.name, number().set_indexed()),
        (Kind::Timestamp, _) => builder.add_date_field(
            column.name,
            DateOptions::default().set_fast().set_precision(DateTimePrecision::Microseconds),
        ),
        (Kind::StructList(_), _) => unreachable!("its members are the leaves"),
    }
}

fn raw_text() -> TextOptions {
    let indexing = TextFieldIndexing::default()
        .set_tokenizer("raw")
        .set_fieldnorms(false)
        .set_index_option(IndexRecordOption::Basic);
    TextOptions::default().set_indexing_options(indexing)
}

fn words() -> TextOptions {
    let indexing =
        TextFieldIndexing::default().set_tokenizer(STANDARD).set_index_option(IndexRecordOption::WithFreqsAndPositions);
    TextOptions::default().set_indexing_options(indexing)
}

fn number() -> NumericOptions {
    NumericOptions::default().set_fast()
}
