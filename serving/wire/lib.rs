//! SQL for clients that speak a protocol of their own: PostgreSQL's wire protocol and Arrow Flight SQL.
#![forbid(unsafe_code)]
