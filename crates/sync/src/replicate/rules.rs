//! Which repos go where, and when.

use ballast_format::log::Replication;
use ballast_format::name::{RegionName, RepoKind, RepoName};
use ballast_node::hub::Hub;
use ballast_node::{Error, Result};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Minutes of a day.
const DAY_MINUTES: u32 = 24 * 60;
/// Milliseconds of a minute.
const MINUTE_MS: u64 = 60_000;
/// Patterns of one replication.
const MOST_PATTERNS: usize = 100;
/// Characters of a pattern.
const LONGEST_PATTERN: usize = 300;

/// The rules of one region, ready to be asked.
#[derive(Debug, Default)]
pub struct Rules {
    all: Vec<(RegionName, Replication, GlobSet)>,
}

impl Rules {
    /// What the hub's catalogue says now.
    pub fn of(hub: &Hub) -> Result<Self> {
        let mut all = Vec::new();
        for (name, rules) in hub.replications() {
            let set = patterns(&rules.patterns)?;
            all.push((name, rules, set));
        }
        Ok(Self { all })
    }

    /// By which replication a repo goes to a region, if by any and if it may be kept there.
    pub fn leads(
        &self,
        kind: RepoKind,
        name: &RepoName,
        to: &RegionName,
    ) -> Option<&(RegionName, Replication, GlobSet)> {
        let text = format!("{}{name}", kind.url_prefix());
        let fits = || self.all.iter().filter(|(.., set)| set.is_match(&text));
        if !fits().all(|(_, rules, _)| may_be_in(rules, to)) {
            return None;
        }
        fits().find(|(_, rules, _)| rules.to == *to)
    }

    /// Whether a repo may be kept in a region.
    pub fn may_be_in(&self, kind: RepoKind, name: &RepoName, region: &RegionName) -> bool {
        let text = format!("{}{name}", kind.url_prefix());
        let mut fits = self.all.iter().filter(|(.., set)| set.is_match(&text));
        fits.all(|(_, rules, _)| may_be_in(rules, region))
    }

    /// The replications to a region.
    pub fn to(&self, region: &RegionName) -> Vec<(RegionName, Replication)> {
        let to = self.all.iter().filter(|(_, rules, _)| rules.to == *region);
        to.map(|(name, rules, _)| (name.clone(), rules.clone())).collect()
    }
}

fn may_be_in(rules: &Replication, region: &RegionName) -> bool {
    rules.residency.is_empty() || rules.residency.contains(region)
}

fn patterns(patterns: &[String]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        set.add(glob.map_err(|error| Error::invalid(format!("`{pattern}`: {error}")))?);
    }
    set.build().map_err(|error| Error::invalid(error.to_string()))
}

/// Refuses rules that nothing can follow.
pub fn check_rules(rules: &Replication) -> Result<()> {
    let Replication { patterns: all, to, residency, limit, window, .. } = rules;
    let wrong = if all.is_empty() || all.len() > MOST_PATTERNS {
        format!("a replication has 1 to {MOST_PATTERNS} patterns")
    } else if all.iter().any(|pattern| pattern.len() > LONGEST_PATTERN) {
        format!("a pattern has at most {LONGEST_PATTERN} characters")
    } else if *limit == Some(0) {
        "a limit of 0 is none: pause the replication".to_owned()
    } else if window.is_some_and(|(start, end)| start >= DAY_MINUTES || end >= DAY_MINUTES) {
        "a window is between two minutes of a day".to_owned()
    } else if !residency.is_empty() && !residency.contains(to) {
        format!("`{to}` is none of the regions of its residency")
    } else {
        return patterns(all).map(|_| ());
    };
    Err(Error::invalid(wrong))
}

/// Whether it is time, by a clock of unix milliseconds. A window that begins and ends at the same
/// minute is always open.
pub fn window_is_open(window: Option<(u32, u32)>, now_ms: u64) -> bool {
    let Some((start, end)) = window else { return true };
    let minute = u32::try_from(now_ms / MINUTE_MS % u64::from(DAY_MINUTES)).unwrap_or(0);
    match start.cmp(&end) {
        std::cmp::Ordering::Less => (start..end).contains(&minute),
        std::cmp::Ordering::Equal => true,
        std::cmp::Ordering::Greater => minute >= start || minute < end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replication(patterns: &[&str], to: &str, residency: &[&str]) -> Replication {
        let region = |text: &str| RegionName::parse(text).expect("a name");
        Replication {
            patterns: patterns.iter().map(|text| (*text).to_owned()).collect(),
            to: region(to),
            residency: residency.iter().map(|text| region(text)).collect(),
            limit: None,
            window: None,
            is_paused: false,
        }
    }

    fn rules(all: &[Replication]) -> Rules {
        let named = all.iter().enumerate().map(|(at, rules)| {
            let name = RegionName::parse(&format!("r{at}")).expect("a name");
            (name, rules.clone(), patterns(&rules.patterns).expect("patterns"))
        });
        Rules { all: named.collect() }
    }

    #[test]
    fn repos_go_where_a_pattern_says_and_no_residency_forbids() {
        let rules = rules(&[
            replication(&["acme/**", "datasets/acme/*"], "eu", &["eu", "us"]),
            replication(&["**"], "asia", &[]),
        ]);
        let name = |text| RepoName::parse(text).expect("a name");
        let region = |text| RegionName::parse(text).expect("a name");
        let leads = |kind, text, to| rules.leads(kind, &name(text), &region(to)).is_some();
        assert!(leads(RepoKind::Model, "acme/a", "eu") && leads(RepoKind::Dataset, "acme/d", "eu"));
        assert!(
            !leads(RepoKind::Space, "acme/s", "eu") && !leads(RepoKind::Model, "other/a", "eu")
        );
        assert!(leads(RepoKind::Model, "other/a", "asia"));
        assert!(!leads(RepoKind::Model, "acme/a", "asia"), "it may not be kept there");
        assert!(rules.may_be_in(RepoKind::Model, &name("acme/a"), &region("us")));
        assert!(!rules.may_be_in(RepoKind::Model, &name("acme/a"), &region("mars")));
    }

    #[test]
    fn rules_that_nothing_can_follow_are_refused() {
        let fine = replication(&["acme/**"], "eu", &["eu"]);
        check_rules(&fine).expect("fine");
        let wrong = [
            replication(&[], "eu", &[]),
            replication(&["[a"], "eu", &[]),
            replication(&["a/*"], "eu", &["us"]),
            Replication { limit: Some(0), ..fine.clone() },
            Replication { window: Some((0, 1440)), ..fine.clone() },
        ];
        for wrong in wrong {
            assert!(check_rules(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_window_may_go_over_midnight() {
        let at = |hour: u64, minute: u64| ((20_000 * 24 + hour) * 60 + minute) * MINUTE_MS;
        let night = Some((20 * 60, 6 * 60));
        for (hour, minute, is_open) in
            [(19, 59, false), (20, 0, true), (23, 59, true), (0, 0, true), (6, 0, false)]
        {
            assert_eq!(window_is_open(night, at(hour, minute)), is_open, "{hour}:{minute}");
        }
        assert!(window_is_open(Some((60, 120)), at(1, 30)));
        assert!(!window_is_open(Some((60, 120)), at(2, 0)));
        assert!(window_is_open(None, 0) && window_is_open(Some((5, 5)), 0));
    }
}
