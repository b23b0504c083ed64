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
mod foreign;
mod health;
mod interrupt;
mod kafka_clients;
#[cfg(test)]
#[cfg(feature = "real-servers")]
mod parity;
mod story;
mod support;
mod tidy;
mod webhook;
