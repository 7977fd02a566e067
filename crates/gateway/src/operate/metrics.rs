//! Counts of what the gateway does. A handful of atomics: cheaper than any registry, and nothing a
//! caller names becomes a label.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;

/// Which part of the gateway answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// The hub API.
    Hub,
    /// Xet.
    Xet,
    /// LFS.
    Lfs,
    /// Operations.
    Operate,
}

const DIALECTS: [(Dialect, &str); 4] = [
    (Dialect::Hub, "hub"),
    (Dialect::Xet, "xet"),
    (Dialect::Lfs, "lfs"),
    (Dialect::Operate, "operate"),
];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// All counts, from the start of the process.
#[derive(Default)]
pub(crate) struct Metrics {
    answers: [[AtomicU64; CLASSES.len()]; DIALECTS.len()],
    /// Connections that are open now.
    pub(crate) open_connections: AtomicU64,
    /// Requests whose bodies we are waiting for.
    pub(crate) waiting_bodies: AtomicU64,
    /// Connections that were refused because there were too many.
    pub(crate) refused_connections: AtomicU64,
}

impl Metrics {
    /// Counts an answer.
    pub(crate) fn answered(&self, dialect: Dialect, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        self.answers[dialect as usize][class].fetch_add(1, Ordering::Relaxed);
    }

    /// Everything, one line each.
    pub(crate) fn text(&self) -> String {
        let mut out = String::from("# TYPE gateway_answers_total counter\n");
        for ((_, dialect), counts) in DIALECTS.iter().zip(&self.answers) {
            for (class, count) in CLASSES.iter().zip(counts) {
                let count = count.load(Ordering::Relaxed);
                let labels = format!("dialect=\"{dialect}\",status=\"{class}\"");
                let _ = writeln!(out, "gateway_answers_total{{{labels}}} {count}");
            }
        }
        let mut one = |name: &str, kind: &str, value: &AtomicU64| {
            let value = value.load(Ordering::Relaxed);
            let _ = writeln!(out, "# TYPE {name} {kind}\n{name} {value}");
        };
        one("gateway_open_connections", "gauge", &self.open_connections);
        one("gateway_waiting_bodies", "gauge", &self.waiting_bodies);
        one("gateway_refused_connections_total", "counter", &self.refused_connections);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_dialect_and_class() {
        let metrics = Metrics::default();
        metrics.answered(Dialect::Xet, StatusCode::NOT_FOUND);
        metrics.answered(Dialect::Xet, StatusCode::GONE);
        metrics.answered(Dialect::Hub, StatusCode::OK);
        let text = metrics.text();
        assert!(text.contains("gateway_answers_total{dialect=\"xet\",status=\"4xx\"} 2\n"));
        assert!(text.contains("gateway_answers_total{dialect=\"hub\",status=\"2xx\"} 1\n"));
        assert!(text.contains("gateway_open_connections 0\n"));
    }

    #[test]
    fn the_table_is_in_the_order_of_the_dialects() {
        for (index, (dialect, _)) in DIALECTS.iter().enumerate() {
            assert_eq!(*dialect as usize, index);
        }
    }
}
