//! BM25 over several indices as if they were one: a term that is rare on one day only must not win there.

use tantivy::Term;
use tantivy::query::Bm25StatisticsProvider;
use tantivy::schema::Field;

use crate::index::OpenIndex;

/// The sums over all indices, asked with the fields of one of them.
pub(super) struct Statistics<'a> {
    pub(super) indices: &'a [OpenIndex],
    /// The index whose fields the questions name.
    pub(super) asking: &'a OpenIndex,
}

impl Statistics<'_> {
    /// Sums `of` over all indices that have the column of `field`, each with its own field.
    fn sum(&self, field: Field, of: impl Fn(&OpenIndex, Field) -> tantivy::Result<u64>) -> tantivy::Result<u64> {
        let name = self.asking.fields.schema.get_field_name(field);
        let mut sum = 0;
        for index in self.indices {
            // Indices of other sources number their fields otherwise.
            if let Ok(field) = index.fields.schema.get_field(name) {
                sum += of(index, field)?;
            }
        }
        Ok(sum)
    }
}

impl Bm25StatisticsProvider for Statistics<'_> {
    fn total_num_tokens(&self, field: Field) -> tantivy::Result<u64> {
        self.sum(field, |index, field| index.searcher.total_num_tokens(field))
    }

    fn total_num_docs(&self) -> tantivy::Result<u64> {
        let mut sum = 0;
        for index in self.indices {
            sum += index.searcher.total_num_docs()?;
        }
        Ok(sum)
    }

    fn doc_freq(&self, term: &Term) -> tantivy::Result<u64> {
        let Some(text) = term.value().as_str().map(str::to_owned) else {
            // Only terms of text are scored by their frequency; all others have the score 1.
            return self.asking.searcher.doc_freq(term);
        };
        self.sum(term.field(), |index, field| index.searcher.doc_freq(&Term::from_field_text(field, &text)))
    }
}
