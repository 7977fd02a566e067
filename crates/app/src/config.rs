//! Settings: values only, one TOML file, then the environment, then flags.
//!
//! Unknown keys are refused wherever they stand. Components (stores, clocks, engines) are built
//! from these values in `serve.rs` and handed down; no lower crate sees this type.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use ballast_node::gc::GcSettings;
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::args::ConfigArgs;

mod cluster;
mod node;
mod policy;
mod region;
mod scrub;
mod secret;
mod storage;
mod tls;
mod upstream;

pub(crate) use cluster::{CarrierChoice, ClusterConfig, Discover};
pub(crate) use node::NodeConfig;
pub(crate) use policy::PolicyConfig;
pub(crate) use region::RegionConfig;
pub(crate) use scrub::ScrubConfig;
pub(crate) use secret::read_secret;
pub(crate) use storage::StorageConfig;
pub(crate) use tls::TlsConfig;
pub(crate) use upstream::UpstreamConfig;

/// Environment variables that set something begin so.
const PREFIX: &str = "BALLAST_";
/// What begins so and is an argument only.
const NOT_SETTINGS: &[&str] = &["CONFIG", "JOIN_TOKEN"];

/// Every setting of the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The folder that holds everything.
    pub(crate) data: PathBuf,
    /// The address to listen on.
    pub(crate) listen: SocketAddr,
    /// The address that clients use, where it is not the one they connect to.
    pub(crate) public_url: String,
    /// Believe `X-Forwarded-Proto` and `X-Forwarded-Host`; only behind a proxy that sets them.
    pub(crate) trust_forwarded: bool,
    /// Open no socket but those to listen on.
    pub(crate) offline: bool,
    /// The certificate of the hub.
    pub(crate) tls: TlsConfig,
    /// Where the objects are.
    pub(crate) storage: StorageConfig,
    /// Who gets in.
    pub(crate) access: AccessConfig,
    /// The hub of which this one is a mirror.
    pub(crate) upstream: UpstreamConfig,
    /// How it and its peers, nodes and regions, reach each other.
    pub(crate) cluster: ClusterConfig,
    /// Which region this hub is.
    pub(crate) region: RegionConfig,
    /// What it is told as a node of a hub.
    pub(crate) node: NodeConfig,
    /// What the program may use.
    pub(crate) limits: LimitsConfig,
    /// How garbage is collected.
    pub(crate) gc: GcConfig,
    /// How everything is read again.
    pub(crate) scrub: ScrubConfig,
    /// Which files may come in and go out.
    pub(crate) policy: PolicyConfig,
    /// What it writes to its log.
    pub(crate) log: LogConfig,
}

/// Who gets in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AccessConfig {
    /// May public repos be read without a token?
    pub(crate) anonymous_reading: bool,
}

/// What the program may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsConfig {
    /// Memory for cached manifests, footers and trees.
    pub(crate) cache: ByteSize,
    /// Uploads that may be in flight at once; the next one waits.
    pub(crate) uploads: usize,
    /// Threads for hashing, chunking and compression; 0 is one for each core.
    pub(crate) threads: usize,
    /// Connections at once.
    pub(crate) connections: usize,
    /// Connections at once from one address.
    pub(crate) connections_per_address: usize,
    /// Requests a second for each token and each address; 0 is no limit.
    pub(crate) requests_per_second: u32,
    /// Requests at once for each token and each address.
    pub(crate) requests_at_once: u32,
    /// Of these, uploads.
    pub(crate) uploads_at_once: u32,
    /// Of these, downloads.
    pub(crate) downloads_at_once: u32,
}

/// How garbage is collected. Times are written as `3days` or `12h`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GcConfig {
    /// How often a collection begins; empty for never by itself.
    pub(crate) interval: String,
    /// How long an object stays after it was condemned.
    pub(crate) wait: String,
    /// Of how many hundredths at most something must refer to for a xorb to be rewritten.
    pub(crate) rewrite_below: u8,
    /// How much a collection reads and moves at most, as `100MB/s`; empty for no limit.
    pub(crate) rate: String,
}

impl Default for GcConfig {
    fn default() -> Self {
        Self {
            interval: "1day".to_owned(),
            wait: "3days".to_owned(),
            rewrite_below: 0,
            rate: "100MB/s".to_owned(),
        }
    }
}

impl GcConfig {
    /// The same for those who collect.
    pub(crate) fn settings(&self) -> Result<GcSettings> {
        let time = |key: &str, text: &str| {
            humantime::parse_duration(text).with_context(|| {
                format!("`{key}` is `{text}`\nhint: a time such as `12h` or `3days`")
            })
        };
        let interval = match self.interval.as_str() {
            "" => None,
            text => Some(time("gc.interval", text)?),
        };
        let (wait, rewrite_below) = (time("gc.wait", &self.wait)?, self.rewrite_below);
        anyhow::ensure!(
            rewrite_below <= 100,
            "`gc.rewrite_below` is {rewrite_below}\nhint: hundredths, 0 to 100"
        );
        let rate = match self.rate.as_str() {
            "" => None,
            text => Some(bytes_a_second("gc.rate", text)?),
        };
        Ok(GcSettings { interval, wait, rewrite_below, rate, ..GcSettings::default() })
    }
}

/// A size for each second, as people write it.
fn bytes_a_second(key: &str, text: &str) -> Result<u64> {
    let rate = text.strip_suffix("/s").and_then(|rate| rate.parse::<ByteSize>().ok());
    let rate = rate.map(|rate| rate.as_u64()).filter(|rate| *rate > 0);
    rate.with_context(|| format!("`{key}` is `{text}`\nhint: a size for each second, as `20MB/s`"))
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the program writes to its log, which is standard error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogConfig {
    /// `error`, `warn`, `info` or `debug`, for single modules too:
    /// `info,ballast_node=debug`.
    pub(crate) level: String,
    /// How lines look.
    pub(crate) format: LogFormat,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("./ballast-data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            public_url: String::new(),
            trust_forwarded: false,
            offline: false,
            tls: TlsConfig::default(),
            storage: StorageConfig::default(),
            access: AccessConfig::default(),
            upstream: UpstreamConfig::default(),
            cluster: ClusterConfig::default(),
            region: RegionConfig::default(),
            node: NodeConfig::default(),
            limits: LimitsConfig::default(),
            gc: GcConfig::default(),
            scrub: ScrubConfig::default(),
            policy: PolicyConfig::default(),
            log: LogConfig::default(),
        }
    }
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self { anonymous_reading: true }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            cache: ByteSize::mib(64),
            uploads: 64,
            threads: 0,
            connections: 4096,
            connections_per_address: 256,
            requests_per_second: 1000,
            requests_at_once: 1024,
            uploads_at_once: 256,
            downloads_at_once: 768,
        }
    }
}

impl LimitsConfig {
    /// What types alone can't say.
    fn check(&self) -> Result<()> {
        let default = Self::default();
        for (key, value, default) in [
            ("uploads", self.uploads, default.uploads),
            ("connections", self.connections, default.connections),
            (
                "connections_per_address",
                self.connections_per_address,
                default.connections_per_address,
            ),
            ("requests_at_once", self.requests_at_once as usize, default.requests_at_once as usize),
            ("uploads_at_once", self.uploads_at_once as usize, default.uploads_at_once as usize),
            (
                "downloads_at_once",
                self.downloads_at_once as usize,
                default.downloads_at_once as usize,
            ),
        ] {
            if value == 0 {
                bail!("`limits.{key}` is 0\nhint: at least 1; the default is {default}");
            }
        }
        Ok(())
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

impl Config {
    /// Reads the file, the environment and the flags, each over the one before.
    pub(crate) fn load(args: &ConfigArgs) -> Result<Self> {
        let file = match &args.config {
            None => Table::new(),
            Some(path) => std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the configuration file `{}`", path.display()))
                .and_then(|text| {
                    parse(&text).with_context(|| format!("in `{}`", path.display()))
                })?,
        };
        Self::layer(file, std::env::vars(), args)
    }

    fn layer(
        mut table: Table,
        environment: impl Iterator<Item = (String, String)>,
        args: &ConfigArgs,
    ) -> Result<Self> {
        for (name, value) in environment {
            if let Some(key) = name.strip_prefix(PREFIX).filter(|key| !NOT_SETTINGS.contains(key)) {
                set(&mut table, &name, key, &value)?;
            }
        }
        if let Some(data) = &args.data {
            table.insert("data".to_owned(), Value::String(data.display().to_string()));
        }
        if let Some(listen) = args.listen {
            table.insert("listen".to_owned(), Value::String(listen.to_string()));
        }
        if args.offline {
            table.insert("offline".to_owned(), Value::Boolean(true));
        }
        let config: Self = Value::Table(table).try_into().map_err(explain)?;
        config.check()?;
        Ok(config)
    }

    /// What types alone can't say.
    fn check(&self) -> Result<()> {
        let url = &self.public_url;
        let has_scheme = url.starts_with("http://") || url.starts_with("https://");
        if !url.is_empty() && (!has_scheme || url.ends_with('/')) {
            bail!(
                "`public_url` is `{url}`\nhint: write scheme and host, without a slash at the end: \
                 `https://models.example.com`"
            );
        }
        self.storage.check()?;
        if self.offline && self.storage.location(&self.data)?.is_shared() {
            bail!(
                "`offline` is set, and `storage.url` is `{}`, which needs the network\n\
                 hint: keep the objects in a folder, or take `offline` away",
                self.storage.url
            );
        }
        self.tls.check()?;
        self.upstream.check()?;
        self.cluster.check(self.offline)?;
        self.region.settings(&self.public_url)?;
        self.node.check()?;
        self.limits.check()?;
        self.gc.settings()?;
        self.scrub.settings()?;
        self.policy.policy()?;
        tracing_subscriber::EnvFilter::try_new(&self.log.level)
            .with_context(|| format!("`log.level` is `{}`", self.log.level))?;
        Ok(())
    }

    /// The settings as a TOML file would give them.
    pub(crate) fn to_toml(&self) -> Result<String> {
        Ok(toml::to_string(self)?)
    }
}

fn parse(text: &str) -> Result<Table> {
    let table: Table = text.parse()?;
    // Parsed to the real type as well, for an error that names the line.
    toml::from_str::<Config>(text)?;
    Ok(table)
}

/// Puts `BALLAST_SECTION_KEY=value` where the file would have it.
fn set(table: &mut Table, variable: &str, key: &str, text: &str) -> Result<()> {
    let known = Value::try_from(Config::default())?;
    let key = key.to_lowercase();
    let known = known.as_table().context("settings are a table")?;
    let sections = known.iter().filter_map(|(name, value)| Some((name, value.as_table()?)));
    for (section, keys) in sections {
        let Some(inner) = key.strip_prefix(section.as_str()).and_then(|k| k.strip_prefix('_'))
        else {
            continue;
        };
        if let Some(default) = keys.get(inner) {
            let entry = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
            let entry = entry.as_table_mut().context("a section is a table")?;
            entry.insert(inner.to_owned(), like(default, variable, text)?);
            return Ok(());
        }
    }
    let Some(default) = known.get(&key).filter(|value| !value.is_table()) else {
        bail!(
            "unknown setting `{variable}` in the environment\n\
             hint: `{PREFIX}` and a key of deploy/config.example.toml, such as \
             `{PREFIX}ACCESS_ANONYMOUS_READING`"
        );
    };
    table.insert(key, like(default, variable, text)?);
    Ok(())
}

/// Reads text as the type that the default has.
fn like(default: &Value, variable: &str, text: &str) -> Result<Value> {
    let context = || format!("`{variable}` is `{text}`");
    Ok(match default {
        Value::Boolean(_) => Value::Boolean(text.parse().with_context(context)?),
        Value::Integer(_) => Value::Integer(text.parse().with_context(context)?),
        Value::Array(_) => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            Value::Array(parts.map(|part| Value::String(part.to_owned())).collect())
        }
        _ => Value::String(text.to_owned()),
    })
}

fn explain(error: toml::de::Error) -> anyhow::Error {
    anyhow::anyhow!("{}", error.to_string().trim_end())
}

#[cfg(test)]
mod tests;
