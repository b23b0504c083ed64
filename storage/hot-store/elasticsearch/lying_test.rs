//! An Elasticsearch that lies.
