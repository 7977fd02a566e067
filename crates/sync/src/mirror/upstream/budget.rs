//! How many requests an upstream still lets us make, as its answers say.
//!
//! The public hub counts calls of its API and requests for files apart, and says in every answer
//! what is left: `RateLimit: "api";r=120;t=55`. What it says is remembered, so that nobody asks
//! while nothing is left, and so that a metric can show it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderMap;

/// The longest time that an upstream may tell us to wait; longer ones are cut to it.
const LONGEST: Duration = Duration::from_hours(1);
/// What a refusal without a time means.
pub(super) const UNSTATED: Duration = Duration::from_secs(10);
/// Longer names of a limit are no names.
const MAX_NAME: usize = 64;

/// What a request counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Calls of the API.
    Api,
    /// Requests for files.
    Files,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 2] = [Self::Api, Self::Files];

    /// As metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Files => "files",
        }
    }
}

/// What is left for one class of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// What the upstream calls the limit.
    pub name: String,
    /// Requests that may still be made.
    pub remaining: u64,
    /// In how long the count starts anew, from now.
    pub resets_in: Duration,
}

/// What an answer said, and when it stops being true.
#[derive(Clone, Debug)]
struct Said {
    name: String,
    remaining: u64,
    until: Duration,
}

/// What is left, by class.
#[derive(Debug, Default)]
pub(super) struct Budgets(Mutex<[Option<Said>; 2]>);

impl Budgets {
    /// Takes note of what an answer says; `now` is the monotonic clock.
    pub(super) fn note(&self, class: Class, headers: &HeaderMap, now: Duration) {
        let Some((name, remaining, reset)) =
            headers.get("ratelimit").and_then(|value| value.to_str().ok()).and_then(parse)
        else {
            return;
        };
        let until = now.saturating_add(reset.min(LONGEST));
        self.lock()[class as usize] = Some(Said { name, remaining, until });
    }

    /// Takes note of a refusal: nothing is left for so long.
    pub(super) fn exhausted(&self, class: Class, wait: Duration, now: Duration) {
        let mut all = self.lock();
        let name = all[class as usize].take().map_or_else(|| class.name().to_owned(), |s| s.name);
        let until = now.saturating_add(wait.min(LONGEST));
        all[class as usize] = Some(Said { name, remaining: 0, until });
    }

    /// How long nothing may be asked, if nothing is left.
    pub(super) fn closed_for(&self, class: Class, now: Duration) -> Option<Duration> {
        let all = self.lock();
        let said = all[class as usize].as_ref().filter(|said| said.remaining == 0)?;
        said.until.checked_sub(now).filter(|wait| !wait.is_zero())
    }

    /// What is left of a class, if the upstream has said so and it is still true.
    pub(super) fn left(&self, class: Class, now: Duration) -> Option<Budget> {
        let said = self.lock()[class as usize].clone()?;
        let resets_in = said.until.checked_sub(now).filter(|left| !left.is_zero())?;
        Some(Budget { name: said.name, remaining: said.remaining, resets_in })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, [Option<Said>; 2]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads `"api";r=0;t=55`.
fn parse(text: &str) -> Option<(String, u64, Duration)> {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next()?.trim_matches('"');
    let (mut remaining, mut reset) = (None, None);
    for part in parts {
        match part.split_once('=') {
            Some(("r", number)) => remaining = number.parse().ok(),
            Some(("t", number)) => reset = number.parse().ok(),
            _ => {}
        }
    }
    let named = !name.is_empty() && name.len() <= MAX_NAME && name.is_ascii();
    named.then_some((name.to_owned(), remaining?, Duration::from_secs(reset?)))
}

/// How long a refusal tells us to wait.
pub(super) fn told_to_wait(headers: &HeaderMap) -> Duration {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let limited = text("ratelimit").and_then(parse).filter(|(_, remaining, _)| *remaining == 0);
    let after = text("retry-after").and_then(|value| value.trim().parse().ok());
    let stated = match (limited, after) {
        // The count starts anew within that second, so one more.
        (Some((_, _, reset)), _) => reset.saturating_add(Duration::from_secs(1)),
        (None, Some(seconds)) => Duration::from_secs(seconds),
        (None, None) => UNSTATED,
    };
    stated.min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn what_is_left_is_remembered_until_the_count_starts_anew() {
        let budgets = Budgets::default();
        let at = Duration::from_secs;
        assert_eq!(budgets.left(Class::Api, at(0)), None);
        budgets.note(Class::Api, &headers(&[("ratelimit", "\"api\";r=7;t=55")]), at(100));
        let left = budgets.left(Class::Api, at(110)).expect("it was said");
        assert_eq!((left.name.as_str(), left.remaining, left.resets_in), ("api", 7, at(45)));
        assert_eq!(budgets.closed_for(Class::Api, at(110)), None);
        budgets.note(Class::Api, &headers(&[("ratelimit", "\"api\";r=0;t=50")]), at(110));
        assert_eq!(budgets.closed_for(Class::Api, at(120)), Some(at(40)));
        assert_eq!(budgets.closed_for(Class::Files, at(120)), None);
        assert_eq!(budgets.closed_for(Class::Api, at(160)), None);
        assert_eq!(budgets.left(Class::Api, at(160)), None);
    }

    #[test]
    fn a_refusal_says_how_long_to_wait() {
        let waits = |pairs: &[(&'static str, &str)]| told_to_wait(&headers(pairs)).as_secs();
        assert_eq!(waits(&[("ratelimit", "\"api\";r=0;t=55")]), 56);
        assert_eq!(waits(&[("ratelimit", "\"api\";r=0;t=55"), ("retry-after", "3")]), 56);
        assert_eq!(waits(&[("ratelimit", "\"api\";r=4;t=55"), ("retry-after", "3")]), 3);
        assert_eq!(waits(&[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")]), UNSTATED.as_secs());
        assert_eq!(waits(&[]), UNSTATED.as_secs());
        assert_eq!(waits(&[("retry-after", "99999999999")]), LONGEST.as_secs());
        assert_eq!(waits(&[("ratelimit", "\"api\";r=0;t=18446744073709551615")]), 3600);
    }

    #[test]
    fn what_is_no_limit_is_ignored() {
        for wrong in ["", "api", "\"api\"", "\"api\";r=1", "\"api\";t=1", "\"api\";r=-1;t=1", ";;"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert_eq!(parse(" \"a\" ; t=1 ; r=2"), Some(("a".to_owned(), 2, Duration::from_secs(1))));
    }
}
