//! TEMPORARY by the lead, to be replaced by the owner of discovery: these three functions must stay
//! with these signatures (the gateway calls them).
use ballast_format::name::RepoKind;

use crate::access::Caller;
use crate::hub::Hub;

/// Whether a card's front matter is YAML; what is wrong otherwise.
pub fn check_card(_card: &str) -> Result<(), String> {
    Ok(())
}

impl Hub {
    /// Repos of a namespace that the caller may see: models, datasets, spaces.
    pub fn count_repos(&self, _caller: &Caller, _namespace: &str) -> (u64, u64, u64) {
        (0, 0, 0)
    }

    /// Every tag that repos of a kind carry, with its group (`license`, `language`, `library`,
    /// `pipeline_tag`, `dataset`, `other`).
    pub fn tags(&self, _caller: &Caller, _kind: RepoKind) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}
