//! The port for people and programs of our own: SQL, commands, metrics, health, and a page that says what runs.

mod answer;
mod commands;
mod openapi;
mod page;
mod sql;
mod tail;
mod views;
mod webhooks;

pub(crate) use answer::{no_handler, protect, refuse};
pub(crate) use commands::{command, status};
pub(crate) use openapi::openapi;
pub(crate) use page::{live, metrics, page, ready, style};
pub(crate) use sql::sql;
pub(crate) use tail::tail;
pub(crate) use views::{answer as view, list as list_views};
pub(crate) use webhooks::{PREFIX as WEBHOOKS, webhook};
