//! Results as a picture: one panel per figure, a dot at the median and a line from the smallest to the largest
//! value, on a logarithmic scale, since servers differ by factors.

use std::fmt::Write as _;

use super::results::{Results, Spread};

const PANEL_WIDTH: f64 = 520.0;
const LABEL_WIDTH: f64 = 190.0;
const PLOT_WIDTH: f64 = 240.0;
const LINE_HEIGHT: f64 = 19.0;
const HEAD_HEIGHT: f64 = 44.0;
const FOOT_HEIGHT: f64 = 34.0;
const MARGIN: f64 = 16.0;
const COLUMNS: usize = 2;

const OURS: &str = "#c2410c";
const FLOOR: &str = "#9ca3af";
const OTHERS: &str = "#1d4ed8";

/// A panel: row, figure, heading.
const PANELS: &[(&str, &str, &str)] = &[
    ("idle", "bytes_per_connection", "Resident bytes a connection, 10,000 idle"),
    ("idle", "cpu_micros_per_handshake", "CPU µs a handshake + subscribe"),
    ("fanout-128", "cpu_micros_per_message", "CPU µs a message, 1,000 subscribers, flat out"),
    ("wide-128", "cpu_micros_per_message", "CPU µs a message, 10,000 subscribers, flat out"),
    ("rooms-128", "cpu_micros_per_message", "CPU µs a message, 1,000 rooms of 10"),
    ("rate-128", "cpu_micros_per_message", "CPU µs a message, 20,000 a second"),
    ("nodes-128", "cpu_micros_per_message", "CPU µs a message, two nodes and Redis"),
    ("rate-128", "p99_ms", "p99 latency, ms, 20,000 a second"),
    ("half-128", "p99_ms", "p99 latency, ms, half its own maximum"),
    ("neighbour", "p99_ms", "p99 latency, ms, of a neighbour of 10,000"),
];

/// The chart as SVG.
pub(super) fn draw(results: &Results) -> String {
    let panels: Vec<Panel<'_>> = PANELS.iter().filter_map(|it| Panel::of(results, *it)).collect();
    let (mut body, mut top) = (String::new(), MARGIN);
    for pair in panels.chunks(COLUMNS) {
        for (index, panel) in pair.iter().enumerate() {
            body += &panel.draw(MARGIN + index as f64 * PANEL_WIDTH, top);
        }
        top += pair.iter().map(Panel::height).fold(0.0, f64::max);
    }
    let width = 2.0 * MARGIN + COLUMNS as f64 * PANEL_WIDTH;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n",
        height = top + MARGIN
    )
}

struct Panel<'a> {
    heading: &'static str,
    lines: Vec<(&'a str, &'static str, Spread)>,
}

impl<'a> Panel<'a> {
    fn of(results: &'a Results, (row, figure, heading): (&str, &str, &'static str)) -> Option<Self> {
        let line = |peer: &'a super::results::PeerFacts| {
            let spread = results.spread(row, &peer.name, figure)?;
            (spread.min > 0.0).then_some((peer.title.as_str(), colour(&peer.name), spread))
        };
        let mut lines: Vec<_> = results.peers.iter().filter_map(line).collect();
        lines.sort_by(|(_, _, one), (_, _, other)| one.median.total_cmp(&other.median));
        (!lines.is_empty()).then_some(Self { heading, lines })
    }

    fn height(&self) -> f64 {
        HEAD_HEIGHT + self.lines.len() as f64 * LINE_HEIGHT + FOOT_HEIGHT
    }

    fn draw(&self, left: f64, top: f64) -> String {
        let min = self.lines.iter().map(|(_, _, it)| it.min).fold(f64::INFINITY, f64::min);
        let max = self.lines.iter().map(|(_, _, it)| it.max).fold(0.0, f64::max);
        let (first, last) = (min.log10().floor(), max.log10().ceil().max(min.log10().floor() + 1.0));
        let x = |value: f64| left + LABEL_WIDTH + (value.log10() - first) / (last - first) * PLOT_WIDTH;
        let bottom = top + HEAD_HEIGHT + self.lines.len() as f64 * LINE_HEIGHT;
        let mut svg = format!(
            "<text x=\"{left:.1}\" y=\"{:.1}\" font-weight=\"600\" font-size=\"13\">{}</text>\n",
            top + 20.0,
            self.heading
        );
        for power in first as i32..=last as i32 {
            let value = 10_f64.powi(power);
            let at = x(value);
            writeln!(
                svg,
                "<path d=\"M{at:.1} {:.1}V{bottom:.1}\" stroke=\"#e5e7eb\"/><text x=\"{at:.1}\" y=\"{:.1}\" \
                 fill=\"#6b7280\" text-anchor=\"middle\">{}</text>",
                top + HEAD_HEIGHT - 8.0,
                bottom + 14.0,
                power_of_ten(power)
            )
            .expect("a String takes everything");
        }
        for (index, (title, colour, spread)) in self.lines.iter().enumerate() {
            let y = top + HEAD_HEIGHT + (index as f64 + 0.5) * LINE_HEIGHT;
            writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\" text-anchor=\"end\">{title}</text>\
                 <path d=\"M{:.1} {y:.1}H{:.1}\" stroke=\"{colour}\" stroke-width=\"3\" stroke-opacity=\"0.4\"/>\
                 <circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#374151\">{}</text>",
                left + LABEL_WIDTH - 12.0,
                y + 4.0,
                x(spread.min),
                x(spread.max),
                x(spread.median),
                left + LABEL_WIDTH + PLOT_WIDTH + 12.0,
                y + 4.0,
                number(spread.median)
            )
            .expect("a String takes everything");
        }
        svg
    }
}

fn colour(peer: &str) -> &'static str {
    match peer {
        _ if peer.starts_with("fanfare") => OURS,
        _ if peer.starts_with("floor") => FLOOR,
        _ => OTHERS,
    }
}

/// A mark on the scale, short enough for its place.
fn power_of_ten(power: i32) -> String {
    match power {
        6.. => format!("{}M", 10_f64.powi(power - 6)),
        3..6 => format!("{}k", 10_f64.powi(power - 3)),
        _ => number(10_f64.powi(power)),
    }
}

/// Three digits that matter, in groups.
fn number(value: f64) -> String {
    match value {
        _ if value >= 100.0 => crate::report::grouped(value),
        _ if value >= 10.0 => format!("{value:.1}").trim_end_matches(".0").to_owned(),
        _ => format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}
