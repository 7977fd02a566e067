//! `[scrub]`: how everything that is stored is read again.

use anyhow::{Context as _, Result};
use ballast_node::verify::ScrubSettings;
use serde::{Deserialize, Serialize};

/// How everything is read again, to find what a disk forgot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ScrubConfig {
    /// How much is read at most, as `20MB/s`.
    pub(crate) rate: String,
    /// How often all of it is read; empty for never.
    pub(crate) interval: String,
}

impl Default for ScrubConfig {
    fn default() -> Self {
        Self { rate: "20MB/s".to_owned(), interval: "14days".to_owned() }
    }
}

impl ScrubConfig {
    /// The same for those who read.
    pub(crate) fn settings(&self) -> Result<ScrubSettings> {
        let rate = super::bytes_a_second("scrub.rate", &self.rate)?;
        let interval = match self.interval.as_str() {
            "" => None,
            text => {
                let interval = humantime::parse_duration(text).ok().filter(|time| !time.is_zero());
                Some(interval.with_context(|| {
                    format!("`scrub.interval` is `{text}`\nhint: a time such as `14days`")
                })?)
            }
        };
        Ok(ScrubSettings { rate, interval })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rates_and_times_are_written_as_people_write_them() {
        let of = |rate: &str, interval: &str| {
            ScrubConfig { rate: rate.to_owned(), interval: interval.to_owned() }.settings()
        };
        let good = of("1MiB/s", "2h").unwrap();
        assert_eq!((good.rate, good.interval), (1 << 20, Some(Duration::from_hours(2))));
        assert_eq!(of("20MB/s", "").unwrap().interval, None);
        assert_eq!(ScrubConfig::default().settings().unwrap(), ScrubSettings::default());
        for (rate, interval) in [
            ("20MB", "1day"),
            ("0B/s", "1day"),
            ("fast/s", "1day"),
            ("1MB/s", "0s"),
            ("1MB/s", "x"),
        ] {
            let error = of(rate, interval).unwrap_err().to_string();
            assert!(error.contains("`scrub.") && error.contains("hint:"), "{error}");
        }
    }
}
