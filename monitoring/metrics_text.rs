//! The metrics of this process as Prometheus reads them.

use contract::metric::{METRICS, MetricKind};
use contract::{Error, Result};
use metrics::{Key, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// Answers the metrics written so far. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// All metrics in Prometheus' text format.
    /// Source: <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>.
    pub fn render(&self) -> String {
        // Histogram values wait in buffers that only upkeep empties; a scrape is the moment to do it,
        // so that no timer is needed.
        self.handle.run_upkeep();
        self.handle.render()
    }
}

/// Makes every [`contract::Metric`] of this process go to the returned [`Metrics`]. Once per process, before
/// the first metric is written.
///
/// # Errors
/// `Stop` when metrics were installed before.
pub fn install_metrics() -> Result<Metrics> {
    let recorder = build_recorder()?;
    let metrics = Metrics { handle: recorder.handle() };
    metrics::set_global_recorder(recorder)
        .map_err(|cause| Error::stop("install metrics").because(cause.to_string()))?;
    Ok(metrics)
}

fn build_recorder() -> Result<PrometheusRecorder> {
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS {
        if let MetricKind::Histogram(bounds) = metric.kind {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds)
                .map_err(|cause| Error::stop(format!("set the buckets of `{}`", metric.name)).because(cause))?;
        }
    }
    let recorder = builder.build_recorder();
    describe(&recorder);
    Ok(recorder)
}

fn describe(recorder: &PrometheusRecorder) {
    let origin = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));
    for metric in METRICS {
        let (name, help) = (metric.name.into(), metric.help.into());
        match metric.kind {
            MetricKind::Counter => recorder.describe_counter(name, None, help),
            MetricKind::Gauge => recorder.describe_gauge(name, None, help),
            MetricKind::Histogram(_) => recorder.describe_histogram(name, None, help),
        }
        // A counter that is absent until its first increase hides that increase from `rate` and `increase`.
        if metric.kind == MetricKind::Counter && metric.labels.is_empty() {
            recorder.register_counter(&Key::from_name(metric.name), &origin).absolute(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use contract::metric;

    use super::*;

    fn rendered_after(write: impl FnOnce()) -> String {
        let recorder = build_recorder().expect("the metrics of the contract are well formed");
        metrics::with_local_recorder(&recorder, write);
        Metrics { handle: recorder.handle() }.render()
    }

    /// Writes each metric of the contract once and looks for its help, type and value.
    #[test]
    fn every_metric_of_the_contract_is_rendered_with_its_help_and_type() {
        let text = rendered_after(|| {
            for metric in METRICS {
                let labels = vec!["x"; metric.labels.len()];
                match metric.kind {
                    MetricKind::Counter => metric.add(&labels, 3),
                    MetricKind::Gauge => metric.set(&labels, 3.0),
                    MetricKind::Histogram(_) => metric.observe(&labels, 3.0),
                }
            }
        });
        for metric in METRICS {
            let kind = match metric.kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
                MetricKind::Histogram(_) => "histogram",
            };
            assert!(text.contains(&format!("# HELP {} {}", metric.name, metric.help)), "{} in\n{text}", metric.name);
            assert!(text.contains(&format!("# TYPE {} {kind}\n", metric.name)), "{} in\n{text}", metric.name);
        }
    }

    #[test]
    fn a_counter_without_labels_is_zero_from_the_start() {
        let text = rendered_after(|| ());
        assert!(text.contains("\ndatabroker_log_damaged_frames_total 0\n"), "{text}");
    }

    #[test]
    fn a_histogram_has_the_buckets_of_the_contract() {
        let text = rendered_after(|| metric::SEARCH_SECONDS.observe(&["sql"], 0.02));
        assert!(text.contains(r#"databroker_query_seconds_bucket{kind="sql",le="0.01"} 0"#), "{text}");
        assert!(text.contains(r#"databroker_query_seconds_bucket{kind="sql",le="0.025"} 1"#), "{text}");
        assert!(text.contains(r#"databroker_query_seconds_count{kind="sql"} 1"#), "{text}");
    }

    #[test]
    fn label_values_from_outside_cannot_break_the_text() {
        let text = rendered_after(|| metric::REJECTS.add(&["github", "a\"}\nb\\ 1"], 1));
        let line = text.lines().find(|line| line.starts_with("databroker_rejected_records_total{"));
        assert_eq!(line, Some(r#"databroker_rejected_records_total{source="github",kind="a\"}\nb\\ 1"} 1"#));
    }

    #[test]
    fn metrics_are_installed_once_per_process() {
        let metrics = install_metrics().expect("the first time");
        metric::UP.set(&["0.1.0"], 1.0);
        assert!(metrics.render().contains(r#"databroker_up{version="0.1.0"} 1"#));
        let again = install_metrics().err().expect("the second time");
        assert!(again.to_string().starts_with("failed to install metrics: "), "{again}");
    }
}
