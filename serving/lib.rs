//! What answers over HTTP: Elasticsearch's REST on one port; SQL, commands, metrics and health on the other.
//!
//! Every endpoint stands once in [`ROUTES`]. A request passes, in this order: the guard (origin, host, token),
//! the limits (requests at a time, seconds), its handler, and on Elasticsearch's port the printer that writes
//! the answer the way the client asked for it.
#![forbid(unsafe_code)]

mod api;
mod elasticsearch;
mod guard;
mod routes;
pub mod rows;
mod server;
mod services;
mod settings;
pub mod table;
#[cfg(test)]
mod testing;

pub use routes::{Door, ROUTES, Route};
pub use server::{Server, serve};
pub use services::{Control, Services, Tail, TailStream, Tailed, exit_code};
pub use settings::Settings;
