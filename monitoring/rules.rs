//! Holds `rules.yml` and `prometheus-config.yml` to the metrics that there are.

use std::collections::BTreeSet;

use contract::metric::{METRICS, MetricKind};

const RULES: &str = include_str!("rules.yml");

/// All words of the rules that look like a metric of ours, with their histogram suffix cut.
fn metrics_named() -> BTreeSet<&'static str> {
    let words = RULES.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("databroker_")).map(without_histogram_suffix).collect()
}

fn without_histogram_suffix(word: &'static str) -> &'static str {
    let is_histogram =
        |name: &str| METRICS.iter().any(|m| m.name == name && matches!(m.kind, MetricKind::Histogram(_)));
    let stem = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix));
    stem.filter(|stem| is_histogram(stem)).unwrap_or(word)
}

#[test]
fn every_metric_of_the_rules_exists() {
    let known: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
    let named = metrics_named();
    assert!(named.len() >= 7, "only {named:?} were found");
    assert_eq!(named.difference(&known).collect::<Vec<_>>(), Vec::<&&str>::new(), "not in METRICS");
}

#[test]
fn every_danger_has_an_alert_with_a_severity_and_a_summary() {
    let alerts: Vec<_> = RULES.split("- alert: ").skip(1).collect();
    let names: BTreeSet<_> = alerts.iter().filter_map(|alert| alert.lines().next()).collect();
    let expected =
        ["Down", "ConsumerLag", "LogFull", "LogDamagedFrames", "Rejects", "CoverageMissed", "CollectorSilent"];
    for danger in expected.iter().chain(&["HotExpiryWaiting"]) {
        assert!(names.contains(format!("Databroker{danger}").as_str()), "no alert for {danger}: {names:?}");
    }
    for alert in alerts {
        for part in ["expr: ", "labels: {severity: ", "summary: ", "description: "] {
            assert!(alert.contains(part), "{part:?} is missing in {alert}");
        }
    }
}

/// What never succeeded has neither of the two metrics that tell how long ago it did.
#[test]
fn a_collector_that_never_succeeded_is_silent_too() {
    let (_, alert) = RULES.split_once("- alert: DatabrokerCollectorSilent").expect("an alert");
    let (alert, _) = alert.split_once("annotations:").expect("its end");
    let (_, never) = alert.split_once("or (").expect("a second half");
    let (failed, succeeded) = never.split_once("unless ").expect("an exception");
    assert!(failed.contains("databroker_collector_errors_total offset"), "{never}");
    assert!(succeeded.starts_with("databroker_collector_last_success_timestamp_seconds)"), "{never}");
}

/// `{{ $labels.x }}` of a label that the metric of the alert does not have would print nothing.
#[test]
fn every_label_that_a_summary_prints_belongs_to_a_metric_of_its_alert() {
    for alert in RULES.split("- alert: ").skip(1) {
        let labels: BTreeSet<_> =
            METRICS.iter().filter(|metric| alert.contains(metric.name)).flat_map(|metric| metric.labels).collect();
        for printed in alert.split("$labels.").skip(1).map(|rest| rest.split(' ').next().unwrap_or_default()) {
            assert!(labels.contains(&printed), "`{printed}` in {alert}");
        }
    }
}

#[test]
fn prometheus_scrapes_the_port_and_path_that_serving_answers() {
    let config = include_str!("prometheus-config.yml");
    assert!(config.contains(r#"targets: ["127.0.0.1:8080"]"#) && config.contains("metrics_path: /metrics"), "{config}");
    assert!(config.contains("- rules.yml"), "{config}");
}
