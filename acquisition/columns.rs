//! How a source writes down its columns, once: the list and the places by which its processor writes them.

/// `SCHEMA`, and for each column a constant: its place among all columns of a row.
///
/// ```text
/// columns! {
///     "news" by Month
///     TITLE = "title", Text, Words, "The title.";
///     ENCLOSURES = "enclosures", StructList(ENCLOSURE), Exact, "What is attached.";
/// }
/// ```
macro_rules! columns {
    ($source:literal by $period:ident
     $($place:ident = $name:literal, $kind:ident $(($members:ident))?, $search:ident, $doc:literal;)*) => {
        #[expect(non_camel_case_types, clippy::upper_case_acronyms, reason = "numbers the constants of the same names")]
        enum Ordinal { $($place),* }
        $(#[doc = $doc] pub(super) const $place: usize = contract::COMMON.len() + Ordinal::$place as usize;)*

        #[doc = concat!("The source's own columns of `silver.", $source, "`.")]
        pub static SCHEMA: contract::RowSchema = contract::RowSchema {
            source: contract::SourceId($source),
            period: contract::Period::$period,
            columns: &[$(contract::Column {
                name: $name,
                kind: contract::Kind::$kind $(($members))?,
                search: contract::Search::$search,
                doc: $doc,
            }),*],
        };
    };
}

pub(crate) use columns;
