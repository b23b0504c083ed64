//! Tests of the whole: they run `databroker` as a user does.

mod crash;
mod crash_dnstap;
mod crash_up;
#[cfg(test)]
#[cfg(feature = "real-servers")]
mod elasticsearch;
#[cfg(test)]
#[cfg(feature = "real-servers")]
mod engines;
mod examples;
mod export;
#[cfg(test)]
#[cfg(feature = "real-servers")]
mod faults;
mod foreign;
mod health;
mod interrupt;
#[cfg(test)]
#[cfg(feature = "real-servers")]
mod kafka_admin;
mod kafka_clients;
mod openapi;
#[cfg(test)]
#[cfg(feature = "real-servers")]
mod parity;
mod reprocess;
#[cfg(test)]
#[cfg(feature = "real-servers")]
mod s3;
#[cfg(test)]
#[cfg(feature = "real-servers")]
mod sharing;
#[cfg(test)]
#[cfg(feature = "real-servers")]
mod spark;
mod sql_clients;
mod story;
mod support;
mod tail;
mod tidy;
#[cfg(test)]
#[cfg(feature = "real-servers")]
mod topics;
mod views;
mod webhook;
