//! The port for people and programs of our own: SQL, commands, metrics, health, and a page that says what runs.

mod answer;
mod commands;
mod page;
mod sql;
mod views;
mod webhooks;

pub(crate) use answer::{no_handler, protect, refuse};
pub(crate) use commands::{command, status};
pub(crate) use page::{live, metrics, page, ready, style};
pub(crate) use sql::sql;
pub(crate) use views::{answer as view, list as list_views};
pub(crate) use webhooks::{PREFIX as WEBHOOKS, webhook};
