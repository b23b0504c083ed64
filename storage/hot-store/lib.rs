//! The embedded hot store: rows of the last days in tantivy indices, one per source and event day,
//! searched in Elasticsearch's query language.
#![forbid(unsafe_code)]

mod checkpoint;
mod directory;
mod document;
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
mod writers;

pub use settings::Settings;
pub use store::TantivyStore;
