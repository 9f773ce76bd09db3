//! Results as Markdown: the tables of `docs/performance.md`, whose text is written by hand around them.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::chart;
use super::results::{PeerFacts, Results, RowFacts, Spread};
use crate::report::grouped;

const PAGE: &str = "performance.md";
const CHART: &str = "performance.svg";
const RESULTS: &str = "performance.json";
const BEGIN: &str = "<!-- measured: begin; scripts/bench writes what follows -->\n";
const END: &str = "<!-- measured: end -->\n";
/// Of one core: from here on the generator may be what limits a figure.
const GENERATOR_BUSY_CORES: f64 = 0.9;

/// One column: a figure, its heading, its digits.
struct Column {
    figure: &'static str,
    heading: &'static str,
    decimals: usize,
}

const fn column(figure: &'static str, heading: &'static str, decimals: usize) -> Column {
    Column { figure, heading, decimals }
}

const IDLE: &[Column] = &[
    column("bytes_per_connection", "resident bytes a connection", 0),
    column("cpu_micros_per_handshake", "CPU µs a handshake + subscribe", 1),
    column("handshakes_per_cpu_second", "handshakes a CPU second", 0),
    column("handshakes_per_second", "handshakes a second", 0),
];

const FLOW: &[Column] = &[
    column("cpu_micros_per_message", "CPU µs a message", 2),
    column("user_micros_per_message", "of these user", 2),
    column("delivered_per_second", "messages a second", 0),
    column("p50_ms", "p50, ms", 1),
    column("p99_ms", "p99, ms", 1),
    column("p999_ms", "p99.9, ms", 1),
    column("messages_per_read", "messages a read", 1),
    column("generator_cpu_micros_per_message", "generator's CPU µs", 2),
];

const LATENCY: &[Column] = &[
    column("p50_ms", "p50, ms", 2),
    column("p99_ms", "p99, ms", 2),
    column("p999_ms", "p99.9, ms", 2),
    column("delivered_per_second", "messages a second", 0),
];

/// The columns of a row, and those of them in which it is compared.
fn columns(row: &RowFacts) -> (&'static [Column], &'static [usize]) {
    match row.name.as_str() {
        "idle" => (IDLE, &[0, 1]),
        name if name.starts_with("neighbour") => (LATENCY, &[1]),
        name if name.contains("half") || name.contains("rate") => (FLOW, &[0, 4]),
        _ => (FLOW, &[0]),
    }
}

/// Rewrites the measured part of the page, the chart and the results in the directory.
pub(super) fn write(results: &Results, docs: &Path) -> Result<()> {
    let path = docs.join(PAGE);
    let page = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let page = replaced(&page, &measured(results))?;
    std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    std::fs::write(docs.join(CHART), chart::draw(results))?;
    std::fs::write(docs.join(RESULTS), serde_json::to_vec_pretty(results)?)?;
    Ok(())
}

/// The page with its measured part replaced.
fn replaced(page: &str, measured: &str) -> Result<String> {
    let (before, rest) = page.split_once(BEGIN).context("the page has no place for results")?;
    let (_, after) = rest.split_once(END).context("the place for results has no end")?;
    Ok(format!("{before}{BEGIN}\n{}\n\n{END}{after}", measured.trim_end()))
}

fn measured(results: &Results) -> String {
    let machine = &results.machine;
    let mut text = format!(
        "{} cores of {}, {} MiB, Linux {}; {} rounds, windows of {} s; commit {}; `{}`. Medians \
         [smallest–largest].\n\n![CPU, memory and latency of every peer]({CHART})\n\n",
        machine.cores,
        machine.cpu,
        machine.memory_mib,
        machine.kernel,
        results.rounds,
        results.window_seconds,
        results.commit,
        results.command
    );
    text += &tables(results);
    text += "\n### Against the best of the others\n\n";
    text += &comparison(results);
    text += "\n### Versions\n\n| peer | version |\n| --- | --- |\n";
    for peer in &results.peers {
        let version = peer.version.as_deref().unwrap_or("was not to be had on this machine");
        writeln!(text, "| {} | {version} |", peer.title).expect("a String takes everything");
    }
    text
}

/// A table for each row.
pub(super) fn tables(results: &Results) -> String {
    let mut text = String::new();
    for row in &results.rows {
        let (columns, _) = columns(row);
        write!(
            text,
            "### {}\n\n`{}`, {} connections.\n\n| peer |",
            row.title,
            row.name,
            grouped(row.connections as f64)
        )
        .expect("a String takes everything");
        for column in columns {
            write!(text, " {} |", column.heading).expect("a String takes everything");
        }
        text += " faults |\n| --- |";
        text += &" ---: |".repeat(columns.len());
        text += " --- |\n";
        for peer in &results.peers {
            text += &line(results, row, peer, columns);
        }
        text.push('\n');
    }
    text
}

fn line(results: &Results, row: &RowFacts, peer: &PeerFacts, columns: &[Column]) -> String {
    if results.of(&row.name, &peer.name).next().is_none() {
        return String::new();
    }
    let mut text = format!("| {} |", peer.title);
    for column in columns {
        let cell = results
            .spread(&row.name, &peer.name, column.figure)
            .map_or_else(|| "–".to_owned(), |spread| spread_text(spread, column.decimals));
        write!(text, " {cell} |").expect("a String takes everything");
    }
    writeln!(text, " {} |", faults(results, row, peer)).expect("a String takes everything");
    text
}

/// What was wrong in any round; whether the generator may have been the limit.
fn faults(results: &Results, row: &RowFacts, peer: &PeerFacts) -> String {
    let mut notes: Vec<String> =
        results.of(&row.name, &peer.name).flat_map(|it| it.failures.iter().cloned()).collect();
    notes.sort();
    notes.dedup();
    let busy = results.spread(&row.name, &peer.name, "generator_cores");
    if busy.is_some_and(|cores| cores.median >= GENERATOR_BUSY_CORES) {
        notes.push("generator busy".to_owned());
    }
    let drops = results.spread(&row.name, &peer.name, "kernel_drops").filter(|drops| drops.max > 0.0);
    if let Some(drops) = drops {
        notes.push(format!("kernel dropped {} packets", grouped(drops.max)));
    }
    let text = if notes.is_empty() { "none".to_owned() } else { notes.join("; ") };
    text.replace(['|', '\n'], " ")
}

fn spread_text(spread: Spread, decimals: usize) -> String {
    let number = |value: f64| if decimals == 0 { grouped(value) } else { format!("{value:.decimals$}") };
    let (median, min, max) = (number(spread.median), number(spread.min), number(spread.max));
    if min == max { median } else { format!("{median} [{min}–{max}]") }
}

/// For each row and figure that has a better side: the best of the others, and how many times its value ours is.
fn comparison(results: &Results) -> String {
    let mut text = "| row | figure | Fanfare | best of the others | ratio | floor, 8 a write |\n\
                    | --- | --- | ---: | --- | ---: | ---: |\n"
        .to_owned();
    for row in &results.rows {
        let (columns, compared_in) = columns(row);
        for &index in compared_in {
            text += &compared(results, row, &columns[index]).unwrap_or_default();
        }
    }
    text
}

fn compared(results: &Results, row: &RowFacts, column: &Column) -> Option<String> {
    let median = |peer: &str| results.spread(&row.name, peer, column.figure).map(|it| it.median);
    let ours = median("fanfare")?;
    let others =
        results.peers.iter().filter(|it| !it.name.starts_with("fanfare") && !it.name.starts_with("floor"));
    let best = others
        .filter_map(|peer| Some((peer, median(&peer.name)?)))
        .min_by(|(_, one), (_, other)| one.total_cmp(other));
    let number = |value: f64| spread_text(Spread { median: value, min: value, max: value }, column.decimals);
    let (other, ratio) = best.map_or(("–".to_owned(), "–".to_owned()), |(peer, value)| {
        (format!("{} {}", peer.title, number(value)), format!("{:.2}", ours / value))
    });
    let floor = median("floor8").map_or_else(|| "–".to_owned(), number);
    Some(format!("| {} | {} | {} | {other} | {ratio} | {floor} |\n", row.title, column.heading, number(ours)))
}

#[cfg(test)]
mod tests {
    use super::super::results::{Machine, Measurement};
    use super::*;

    fn results() -> Results {
        let peer = |name: &str, version: Option<&str>| PeerFacts {
            name: name.into(),
            title: format!("the {name}"),
            version: version.map(str::to_owned),
        };
        let measurement = |round, peer: &str, micros: f64, failures: &[&str]| Measurement {
            round,
            peer: peer.into(),
            row: "fanout-128".into(),
            figures: [("cpu_micros_per_message".to_owned(), micros)].into(),
            failures: failures.iter().map(|&it| it.to_owned()).collect(),
        };
        Results {
            machine: Machine { cpu: "a CPU".into(), cores: 2, memory_mib: 3, kernel: "6".into() },
            commit: "abc".into(),
            command: "scripts/bench".into(),
            rounds: 3,
            window_seconds: 3.0,
            peers: vec![peer("fanfare", Some("1")), peer("nats", Some("2")), peer("absent", None)],
            rows: vec![RowFacts { name: "fanout-128".into(), title: "fan-out".into(), connections: 1000 }],
            measurements: vec![
                measurement(0, "fanfare", 2.0, &[]),
                measurement(1, "fanfare", 1.0, &[]),
                measurement(2, "fanfare", 3.0, &[]),
                measurement(0, "nats", 4.0, &["messages lost: 7"]),
            ],
        }
    }

    #[test]
    fn a_table_has_medians_spreads_and_faults() {
        let tables = tables(&results());
        assert!(tables.contains("| the fanfare | 2.00 [1.00–3.00] |"), "{tables}");
        assert!(
            tables.contains("| the nats | 4.00 |") && tables.contains("| messages lost: 7 |"),
            "{tables}"
        );
        assert!(!tables.contains("absent"), "{tables}");
    }

    #[test]
    fn ours_is_compared_with_the_best_of_the_others() {
        let measured = measured(&results());
        assert!(measured.contains("| 2.00 | the nats 4.00 | 0.50 | – |"), "{measured}");
        assert!(measured.contains("| the absent | was not to be had on this machine |"), "{measured}");
    }

    #[test]
    fn only_the_measured_part_of_the_page_is_rewritten() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/performance.md"));
        let page = page.unwrap();
        let once = replaced(&page, "figures\n").unwrap();
        let (before, rest) = once.split_once(BEGIN).unwrap();
        assert!(page.starts_with(before) && rest.starts_with("\nfigures\n"));
        assert_eq!(replaced(&once, "figures\n").unwrap(), once);
        assert!(replaced("a page without a place", "").is_err());
    }

    #[test]
    fn the_chart_shows_whoever_was_measured() {
        let chart = chart::draw(&results());
        assert!(chart.starts_with("<svg ") && chart.ends_with("</svg>\n"));
        assert!(chart.contains(">the fanfare<") && !chart.contains("the absent"), "{chart}");
    }
}
