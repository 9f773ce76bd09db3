//! What a node counts, read as Prometheus reads it.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::http;

/// One scrape.
#[derive(Clone, Debug)]
pub struct Samples(HashMap<String, f64>);

impl Samples {
    /// Scrapes a node's internal listener.
    ///
    /// # Panics
    /// When what it serves is not Prometheus' text format.
    pub async fn of(internal: SocketAddr) -> Self {
        let response = http::get(internal, "/metrics").await;
        assert_eq!(response.status, 200, "{}", response.head);
        Self::parse(response.text())
    }

    /// Reads what was scraped.
    ///
    /// # Panics
    /// When it is not Prometheus' text format.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a series and its value");
            (series.to_owned(), value.parse().expect("a value is a number"))
        });
        Self(samples.collect())
    }

    /// The value of a series, spelt `name` or `name{label="value"}`.
    ///
    /// # Panics
    /// When there is no such series: every one exists from the start.
    #[must_use]
    pub fn value(&self, series: &str) -> f64 {
        *self.0.get(series).unwrap_or_else(|| panic!("there is no series {series}"))
    }

    /// The sum of all series of a family.
    #[must_use]
    pub fn sum(&self, family: &str) -> f64 {
        let of_it = |series: &&String| series.split('{').next() == Some(family);
        self.0.keys().filter(of_it).map(|series| self.0[series]).sum()
    }
}
