//! Suites that every implementation of a trait must pass.

pub mod hot_drafts;
pub mod hot_store;

pub mod cold_store;
mod cold_store_shared;
pub mod log;
pub mod network;
pub mod real_server;
pub mod rounds;
