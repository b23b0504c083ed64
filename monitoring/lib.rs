//! What watches the stages: metrics for Prometheus, the health of the process, and its logs.
//!
//! Beside the code lie `prometheus-config.yml` (what Prometheus scrapes) and `rules.yml` (what it alerts on).
#![forbid(unsafe_code)]

mod health;
mod logs;
mod metrics_text;
#[cfg(test)]
mod rules;

pub use health::{Health, State};
pub use logs::{Format, Guard, Settings, install_logs};
pub use metrics_text::{Metrics, install_metrics};
