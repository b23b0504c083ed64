//! The hot store: rows of the last days, one index per source and event day, searched in Elasticsearch's query language.
//! Embedded it is tantivy's indices on this disk; [`ElasticsearchStore`] keeps the same on a real Elasticsearch.
#![forbid(unsafe_code)]

mod checkpoint;
mod directory;
mod document;
mod draft;
#[cfg(test)]
mod draft_test;
mod elasticsearch;
mod error;
mod expiry;
mod fields;
mod index;
mod names;
mod proof;
mod query;
mod recovery;
mod repair;
mod settings;
mod source;
mod store;
#[cfg(test)]
mod tests;
mod words;
mod writers;

pub use elasticsearch::{ElasticsearchSettings, ElasticsearchStore, TemplateState};
pub use settings::Settings;
pub use store::TantivyStore;
