//! Tests of the whole: they run `databroker` as a user does.

mod crash;
mod crash_dnstap;
mod crash_up;
mod foreign;
mod health;
mod interrupt;
mod kafka_clients;
mod story;
mod support;
mod tidy;
mod webhook;
