//! What holds for every metric, whoever adds the next one.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use fanfare_metrics::{
    ApiMethod, BrokerCall, Carrier, Command, Metrics, Outcome, Refusal, Sacrifice, document,
};

/// Name and type of every family that a node serves.
fn families(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

/// The value of one series, its labels spelt as Prometheus does.
fn value(metrics: &Metrics, series: &str) -> f64 {
    let text = metrics.render();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is not served")).parse().unwrap()
}

#[test]
fn names_obey_the_conventions_of_prometheus() {
    let text = Metrics::new().render();
    for (name, kind) in families(&text) {
        assert!(name.starts_with("fanfare_") || name.starts_with("process_"), "{name} lacks the prefix");
        assert!(name.bytes().all(|it| matches!(it, b'a'..=b'z' | b'_')), "{name} is not snake case");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        for scaled in ["_ms", "_us", "_millis", "_micros", "_minutes", "_kb", "_kib", "_mb", "_percent"] {
            assert!(!name.trim_end_matches("_total").ends_with(scaled), "{name} is not in a base unit");
        }
        for suffix in ["_count", "_sum", "_bucket"] {
            assert!(!name.ends_with(suffix), "{name} would collide with a histogram's series");
        }
        let duration = ["duration", "latency", "elapsed"].iter().any(|it| name.contains(it));
        assert!(!duration || name.contains("seconds"), "{name} measures time in seconds and says so");
    }
}

/// The series of a new node are all it will ever have, whatever is counted with whatever numbers.
#[test]
fn no_series_is_made_after_the_start() {
    let series = |metrics: &Metrics| -> BTreeSet<String> {
        let text = metrics.render();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.rsplit_once(' ').unwrap().0.into())
            .collect()
    };
    let metrics = Metrics::new();
    let before = series(&metrics);
    for code in 0..=u16::MAX {
        metrics.connection_opened(Carrier::WebSocket);
        metrics.connection_closed(code);
        metrics.command_refused(code);
        metrics.api_request(ApiMethod::Other, code);
    }
    metrics.handshake_refused(Refusal::Draining);
    metrics.command_received(Command::Unknown);
    metrics.broker_call(BrokerCall::Watch, Outcome::Timeout, Duration::MAX);
    metrics.fanned_out(u64::MAX, u64::MAX, Duration::MAX);
    metrics.publish_to_write(Duration::MAX);
    assert_eq!(series(&metrics), before);
    assert!(before.len() < 720, "{} series for one node", before.len());
}

#[test]
fn facts_move_the_series_they_name() {
    let metrics = Metrics::new();
    for _ in 0..3 {
        metrics.connection_opened(Carrier::WebSocket);
    }
    metrics.connection_closed(4508);
    metrics.connection_closed(3333);
    metrics.subscription_added();
    metrics.subscription_added();
    metrics.subscription_removed();
    metrics.channel_opened();
    metrics.read(2, 100);
    metrics.written(3, 700);
    metrics.written(1, 50);
    metrics.outbox_queued(500);
    metrics.outbox_queued(-120);
    metrics.outbox_dropped(Sacrifice::Conflate, 3);
    metrics.fanned_out(2, 100, Duration::from_micros(30));
    metrics.publish_to_write(Duration::from_micros(50));
    metrics.publish_to_write(Duration::from_secs(60));
    metrics.broker_call(BrokerCall::Publish, Outcome::Ok, Duration::from_millis(1));
    metrics.broker_call(BrokerCall::Publish, Outcome::Timeout, Duration::from_secs(2));
    metrics.publications_received(7);
    metrics.publication_heard(Duration::from_millis(30));
    metrics.connections_limit(5_000);
    metrics.broker_connected(true);
    metrics.api_request(ApiMethod::Publish, 503);

    assert_eq!((metrics.connections(), metrics.subscriptions(), metrics.channels()), (1, 1, 1));
    assert_eq!((metrics.messages_sent(), metrics.messages_received()), (4, 2));
    for (series, expected) in [
        ("fanfare_connections", 1.0),
        ("fanfare_connections_accepted_total", 3.0),
        ("fanfare_connections_closed_total{code=\"4508\"}", 1.0),
        ("fanfare_connections_closed_total{code=\"other\"}", 1.0),
        ("fanfare_messages_sent_total", 4.0),
        ("fanfare_sent_bytes_total", 750.0),
        ("fanfare_writes_total", 2.0),
        ("fanfare_received_bytes_total", 100.0),
        ("fanfare_outbox_bytes", 380.0),
        ("fanfare_outbox_dropped_total{policy=\"conflate\"}", 3.0),
        ("fanfare_outbox_dropped_total{policy=\"drop_oldest\"}", 0.0),
        ("fanfare_fanout_publications_total", 2.0),
        ("fanfare_fanout_receivers_bucket{le=\"10\"}", 0.0),
        ("fanfare_fanout_receivers_bucket{le=\"100\"}", 1.0),
        ("fanfare_publish_to_write_seconds_bucket{le=\"0.00005\"}", 1.0),
        ("fanfare_publish_to_write_seconds_bucket{le=\"10\"}", 1.0),
        ("fanfare_publish_to_write_seconds_bucket{le=\"+Inf\"}", 2.0),
        ("fanfare_publish_to_write_seconds_count", 2.0),
        ("fanfare_publish_to_write_seconds_sum", 60.00005),
        ("fanfare_broker_call_seconds_count{call=\"publish\"}", 2.0),
        ("fanfare_broker_call_errors_total{call=\"publish\",outcome=\"timeout\"}", 1.0),
        ("fanfare_broker_call_errors_total{call=\"publish\",outcome=\"unavailable\"}", 0.0),
        ("fanfare_broker_connected", 1.0),
        ("fanfare_broker_publications_received_total", 7.0),
        ("fanfare_publish_to_heard_seconds_bucket{le=\"0.025\"}", 0.0),
        ("fanfare_publish_to_heard_seconds_bucket{le=\"0.05\"}", 1.0),
        ("fanfare_connections_limit", 5_000.0),
        ("fanfare_api_requests_total{method=\"publish\",status=\"5xx\"}", 1.0),
        (concat!("fanfare_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
    ] {
        assert_eq!(value(&metrics, series), expected, "{series}");
    }
    assert!(value(&metrics, "process_resident_memory_bytes") > 0.0);
}

#[test]
fn every_served_metric_is_documented() {
    let text = Metrics::new().render();
    let page = document();
    for name in families(&text).keys() {
        assert!(page.contains(&format!("| `{name}` |")), "{name} is missing");
    }
}

/// `FANFARE_WRITE_DOCS=1` rewrites the page instead.
#[test]
fn the_page_is_not_stale() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    #[expect(clippy::disallowed_methods, reason = "a switch for people who run the tests, not configuration")]
    if std::env::var("FANFARE_WRITE_DOCS").is_ok_and(|it| it == "1") {
        std::fs::write(&path, document()).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == document(),
        "docs/metrics.md is stale: FANFARE_WRITE_DOCS=1 cargo test -p fanfare-metrics"
    );
}
