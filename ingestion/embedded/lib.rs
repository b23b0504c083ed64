//! embedded-log
