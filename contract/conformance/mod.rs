//! Suites that every implementation of a trait must pass.

pub mod hot_store;

pub mod cold_store;
pub mod log;
pub mod real_server;
