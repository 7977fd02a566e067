//! `quota`: how much a user or an organisation may have.

use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Result;
use bytesize::ByteSize;
use serde_json::{Map, Value, json};

use super::account::done;
use super::text;
use crate::args::{QuotaArg, QuotaCommand};
use crate::client::Client;
use crate::output::Output;

/// `ballast quota …`.
pub(crate) fn quota(command: QuotaCommand, output: &mut Output) -> Result<ExitCode> {
    match command {
        QuotaCommand::Set { name, bytes, repos, remote } => {
            let mut body = Map::new();
            if let Some(bytes) = bytes {
                body.insert("bytes".to_owned(), json!(bytes.0.map(|bytes| bytes.as_u64())));
            }
            if let Some(repos) = repos {
                body.insert("repos".to_owned(), json!(repos.0));
            }
            let answer =
                Client::new(&remote).call("PATCH", &path(&name), Some(&Value::Object(body)))?;
            done(output, remote.json, &answer, &said(&answer))
        }
        QuotaCommand::Show { name, remote } => {
            let answer = Client::new(&remote).call("GET", &path(&name), None)?;
            done(output, remote.json, &answer, &said(&answer))
        }
    }
}

fn path(name: &str) -> String {
    format!("/api/ballast/v1/quotas/{name}")
}

/// A quota in one line.
fn said(answer: &Value) -> String {
    let size =
        |value: &Value| value.as_u64().map(|bytes| ByteSize(bytes).display().iec().to_string());
    let count = |value: &Value| value.as_u64().map(|count| count.to_string());
    let of = |what: &str, show: &dyn Fn(&Value) -> Option<String>| {
        let used = show(&answer[what]["used"]).unwrap_or_default();
        let limit = show(&answer[what]["limit"]).unwrap_or_else(|| "no limit".to_owned());
        (used, limit)
    };
    let (bytes, most_bytes) = of("bytes", &size);
    let (repos, most_repos) = of("repos", &count);
    let name = text(answer, "name");
    format!("`{name}` has {bytes} (of {most_bytes}) in {repos} repos (of {most_repos})")
}

impl<T: FromStr> FromStr for QuotaArg<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> std::result::Result<Self, T::Err> {
        if text == "none" { Ok(Self(None)) } else { text.parse().map(|value| Self(Some(value))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_a_number_or_none() {
        let bytes: QuotaArg<ByteSize> = "10GiB".parse().expect("a size");
        assert_eq!(bytes.0, Some(ByteSize::gib(10)));
        assert_eq!("none".parse::<QuotaArg<u64>>().expect("no limit").0, None);
        assert!("many".parse::<QuotaArg<u64>>().is_err());
        let answer = json!({
            "name": "ann",
            "bytes": {"used": 2048, "limit": 1 << 30},
            "repos": {"used": 3, "limit": null},
        });
        assert_eq!(said(&answer), "`ann` has 2.0 KiB (of 1.0 GiB) in 3 repos (of no limit)");
    }
}
