//! The arguments of `ballast remote`, `ballast replicate` and `ballast region`.

use clap::{Args, Subcommand};

use super::RemoteArgs;

/// `ballast remote …`.
#[derive(Debug, Subcommand)]
pub(crate) enum RemoteCommand {
    /// Follow another region: what it lets go to this one comes here
    ///
    /// Its administrator makes the token: `ballast node join-token NAME --role region`, where NAME
    /// is what this hub's `region.name` says.
    Add {
        /// The other region's name
        name: String,
        /// The token with which this hub joins the other one
        #[arg(long, env = "BALLAST_JOIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
        join_token: String,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Follow a region no more; what came stays
    Remove {
        /// The other region's name
        name: String,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
}

/// `ballast replicate …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ReplicateCommand {
    /// Let repos go to another region
    Create(ReplicateArgs),
    /// Show what goes and comes, and how far each repo is
    Status {
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Let a replication rest
    Pause {
        /// Its name
        name: String,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Let a replication go on that rests
    Resume {
        /// Its name
        name: String,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// End a replication; what went stays where it is
    Remove {
        /// Its name
        name: String,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Compare what came from another region with what it has: each log, and every byte
    ///
    /// Exits with 1 if anything is wrong.
    Verify {
        /// The other region's name
        name: String,
        /// The hub
        #[command(flatten)]
        remote: RemoteArgs,
    },
}

/// `ballast replicate create`.
#[derive(Debug, Args)]
pub(crate) struct ReplicateArgs {
    /// Its name
    pub(crate) name: String,
    /// Repos whose names match, such as `acme/**` or `datasets/acme/*`; may be repeated
    #[arg(long = "match", value_name = "PATTERN", required = true)]
    pub(crate) patterns: Vec<String>,
    /// The region they go to
    #[arg(long, value_name = "REGION")]
    pub(crate) to: String,
    /// How fast at most, such as `400Mbit` or `50MB/s` [default: as fast as it goes]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) limit: Option<u64>,
    /// When, in UTC, such as `20:00-06:00` [default: always]
    #[arg(long, value_name = "TIMES", value_parser = window)]
    pub(crate) window: Option<(u32, u32)>,
    /// The only regions in which repos that match may be kept, separated by commas
    #[arg(long, value_name = "REGIONS", value_delimiter = ',')]
    pub(crate) residency: Vec<String>,
    /// The hub
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

/// `ballast region …`.
#[derive(Debug, Subcommand)]
pub(crate) enum RegionCommand {
    /// Give a repo's home to another region: it takes it when all of it is there
    Move {
        /// The repo: `ns/name`, `datasets/ns/name` or `spaces/ns/name`
        repo: String,
        /// The region
        #[arg(long, value_name = "REGION")]
        to: String,
        /// Where clients reach that region, such as `https://eu.example.com`
        #[arg(long, value_name = "URL")]
        address: String,
        /// The hub that is the repo's home now
        #[command(flatten)]
        remote: RemoteArgs,
    },
    /// Make this region the home of a repo that it follows, as its home is lost
    ///
    /// What the home acknowledged and has not come here is not in the repo any more. If the home
    /// comes back, it follows this region, and keeps that in a repo of its own.
    Promote {
        /// The repo: `ns/name`, `datasets/ns/name` or `spaces/ns/name`
        repo: String,
        /// The hub that is to be the home
        #[command(flatten)]
        remote: RemoteArgs,
    },
}

/// `400Mbit`, as networks are sold, or `50MB/s`; in bytes a second.
fn rate(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no rate\nhint: `400Mbit`, `1Gbit` or `50MB/s`");
    let bits = ["Kbit", "Mbit", "Gbit"].iter().zip([1_000_u64, 1_000_000, 1_000_000_000]);
    for (unit, factor) in bits {
        if let Some(number) = text.strip_suffix(unit) {
            let number: u64 = number.parse().map_err(|_| wrong())?;
            let bits = number.checked_mul(factor).filter(|bits| *bits >= 8);
            return bits.map(|bits| bits / 8).ok_or_else(wrong);
        }
    }
    let bytes = text.strip_suffix("/s").and_then(|size| size.parse::<bytesize::ByteSize>().ok());
    bytes.map(|size| size.as_u64()).filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

/// `20:00-06:00`, in minutes of the day.
fn window(text: &str) -> Result<(u32, u32), String> {
    let minute = |text: &str| {
        let (hour, minute) = text.trim().split_once(':')?;
        let (hour, minute): (u32, u32) = (hour.parse().ok()?, minute.parse().ok()?);
        (hour < 24 && minute < 60).then_some(hour * 60 + minute)
    };
    let parsed = text.split_once('-').and_then(|(from, to)| Some((minute(from)?, minute(to)?)));
    parsed.ok_or_else(|| format!("`{text}` is no window\nhint: `20:00-06:00`, in UTC"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_windows_are_written_as_people_write_them() {
        assert_eq!(rate("400Mbit"), Ok(50_000_000));
        assert_eq!(rate("1Gbit"), Ok(125_000_000));
        assert_eq!(rate("50MB/s"), Ok(50_000_000));
        for wrong in ["", "fast", "0Mbit", "1bit", "50MB", "0MB/s", "-1Mbit"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        assert_eq!(window("20:00-06:00"), Ok((1200, 360)));
        assert_eq!(window("0:05 - 23:59"), Ok((5, 1439)));
        for wrong in ["", "20-06", "24:00-01:00", "10:60-11:00", "10:00"] {
            assert!(window(wrong).is_err(), "{wrong}");
        }
    }
}
