//! SQL for clients that speak a protocol of their own: PostgreSQL's and Arrow Flight SQL.
//!
//! | what a client may expect | how it is held |
//! | --- | --- |
//! | what was collected until now | each statement is planned and run in a session of its own, see [`Database::session`]; a prepared one is planned anew when it is run |
//! | it can only read | what is no query is refused (25006), but for what drivers say when they connect: `SET`, `SHOW`, `BEGIN`, … |
//! | limits as everywhere | memory, spill, rows and time are those of [`Session::run`]; beside them so many connections and statements at a time, and a time in which a client must have taken its rows |
//! | a cancelled statement ends | its plan is dropped, also while it computes: PostgreSQL's CancelRequest, Flight's CancelFlightInfo and CancelQuery, or a stream that the client drops |
//! | errors that programs understand | SQLSTATE and place, see [`contract::QueryFault`] |
//!
//! An address that others reach needs the token. PostgreSQL's clients prove that they know it by SCRAM-SHA-256, so that it is
//! never sent; Flight's send it. Neither protocol is encrypted here: beyond a trusted network, put a tunnel before it.
#![forbid(unsafe_code)]

mod database;
mod flight;
mod listener;
mod postgres;
mod server;
mod settings;
mod statements;
#[cfg(test)]
mod testing;

pub use database::{Database, Session};
/// What [`Session`] is made of.
pub use datafusion::{error::DataFusionError, logical_expr::LogicalPlan, prelude::SessionContext};
pub use server::{Server, serve};
pub use settings::Settings;
