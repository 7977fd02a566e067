//! `/v2/…/manifests/{tag}`: which GGUF file a quantization means, for clients of the time before
//! they listed the files themselves.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use super::place;
use crate::Gateway;
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::reply;

/// What `latest` prefers, in this order.
const PREFERRED: &[&str] = &["q4_k_m", "q4", "q8_0"];

/// `GET /v2/{namespace}/{name}/manifests/{tag}`.
pub(super) async fn answer(
    gateway: &Arc<Gateway>,
    call: Call,
    name: [&str; 2],
    rest: &[&str],
) -> Answer {
    if call.method != Method::GET && call.method != Method::HEAD {
        return Err(Failure::method("GET, HEAD"));
    }
    let tag = match rest {
        [] => String::new(),
        [tag] => crate::call::decode(tag)?,
        _ => return Err(Failure::no_route()),
    };
    let of = |error| Failure::of(error, &call.caller);
    let repo = place::of_manifest(gateway, &call, name).await?;
    let main = gateway.hub.resolve(&repo, "main").await.map_err(of)?.commit;
    let items = gateway.hub.siblings(&repo, main).await.map_err(of)?;
    let names: Vec<&str> = items.iter().map(|item| item.path.as_str()).collect();
    let Some(weights) = choose(&names, &tag) else {
        let path = format!("a GGUF file for `{tag}`");
        return Err(of(ballast_node::Error::EntryNotFound { path, commit: Some(main) }));
    };
    let file = |path: &str| -> Value {
        let size = items.iter().find(|item| item.path == path).map(|item| item.size);
        json!({"rfilename": path, "size": size})
    };
    let mut manifest = json!({"ggufFile": file(weights)});
    if let Some(projector) = projector(&names) {
        manifest["mmprojFile"] = file(projector);
    }
    reply::json(&manifest)
}

fn is_projector(lower: &str) -> bool {
    lower.contains("mmproj")
}

/// The weights that a tag means.
fn choose<'a>(names: &[&'a str], tag: &str) -> Option<&'a str> {
    let mut files: Vec<(&str, String)> = names
        .iter()
        .map(|name| (*name, name.to_lowercase()))
        .filter(|(_, lower)| lower.ends_with(".gguf") && !is_projector(lower))
        .collect();
    // Of a model in parts the client wants the first, and it finds the others itself.
    files.sort();
    let with = |wanted: &str| {
        let found = files.iter().find(|(_, lower)| has_word(lower, wanted));
        found.map(|(name, _)| *name)
    };
    let tag = tag.to_lowercase();
    if !tag.is_empty() && tag != "latest" {
        return with(&tag);
    }
    let preferred = PREFERRED.iter().find_map(|wanted| with(wanted));
    preferred.or_else(|| files.first().map(|(name, _)| *name))
}

/// Whether a name holds a quantization, not merely one that begins or ends like it: `Q4_K` is not
/// in `IQ4_K`, and `q4` is in `q4_0`.
fn has_word(lower: &str, wanted: &str) -> bool {
    lower.match_indices(wanted).any(|(at, _)| {
        let before = lower[..at].bytes().next_back();
        let after = lower[at + wanted.len()..].bytes().next();
        before.is_none_or(|b| !b.is_ascii_alphanumeric())
            && after.is_none_or(|b| !b.is_ascii_alphanumeric())
    })
}

/// The file that lets a model see; the most precise, if there are several.
fn projector<'a>(names: &[&'a str]) -> Option<&'a str> {
    let found = names.iter().copied().filter(|name| {
        let lower = name.to_lowercase();
        lower.ends_with(".gguf") && is_projector(&lower)
    });
    let rank = |name: &str| {
        let lower = name.to_lowercase();
        ["f16", "bf16", "f32"].iter().position(|kind| has_word(&lower, kind)).unwrap_or(3)
    };
    found.min_by_key(|name| rank(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[&str] =
        &["README.md", "m-IQ4_XS.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-m-f16.gguf"];

    #[test]
    fn a_tag_names_a_quantization() {
        assert_eq!(choose(NAMES, "q8_0"), Some("m-Q8_0.gguf"));
        assert_eq!(choose(NAMES, "latest"), Some("m-Q4_K_M.gguf"));
        assert_eq!(choose(NAMES, ""), Some("m-Q4_K_M.gguf"));
        assert_eq!(choose(NAMES, "Q2_K"), None);
        assert_eq!(choose(&["a.gguf"], "latest"), Some("a.gguf"));
        assert_eq!(choose(&["README.md"], "latest"), None);
    }

    #[test]
    fn a_projector_is_no_model() {
        assert_eq!(projector(NAMES), Some("mmproj-m-f16.gguf"));
        assert_eq!(choose(&["mmproj.gguf"], "latest"), None);
    }
}
