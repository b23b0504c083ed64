//! Tests of the whole: they run `databroker` as a user does.

mod crash;
mod foreign;
mod story;
mod support;
mod tidy;
