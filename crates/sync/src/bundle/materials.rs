//! The bill of materials: which models a bundle brings, with their files, hashes and licences, in
//! `CycloneDX` 1.5.

use ballast_format::hash::{BundleHash, Sha256};
use ballast_format::name::RepoKind;
use ballast_node::access::Repo;
use ballast_node::download::{Content, TreeItem};
use ballast_node::hub::Hub;
use cyclonedx_bom::models::bom::UrnUuid;
use cyclonedx_bom::models::component::{Classification, Component, Components};
use cyclonedx_bom::models::hash::{Hash, HashAlgorithm, HashValue, Hashes};
use cyclonedx_bom::models::license::{License, LicenseChoice, Licenses};
use cyclonedx_bom::models::metadata::Metadata;
use cyclonedx_bom::models::property::{Properties, Property};
use cyclonedx_bom::models::tool::{Tool, Tools};
use cyclonedx_bom::prelude::{Bom, NormalizedString, SpdxIdentifier, SpecVersion};
use sha2::Digest as _;

use super::error::{Error, Result};
use super::plan::{Chosen, files_at};

/// The bill of a bundle. Its bytes depend on the bundle alone.
pub(super) async fn bill(hub: &Hub, bundle: BundleHash, chosen: &[Chosen]) -> Result<Vec<u8>> {
    let mut components = Vec::new();
    for chosen in chosen {
        for commit in &chosen.commits {
            let mut files = Vec::new();
            for item in files_at(hub, &chosen.repo, *commit).await? {
                if item.large.is_some_and(|large| matches!(large.content, Content::Upstream(_))) {
                    // It is left out.
                    continue;
                }
                let sha256 = sha256_of(hub, &chosen.repo, &item).await?;
                files.push((item, sha256));
            }
            components.push(repo_component(chosen, &commit.to_string(), &files));
        }
    }
    let tool = Tool {
        name: Some(NormalizedString::new("ballast")),
        version: Some(NormalizedString::new(env!("CARGO_PKG_VERSION"))),
        ..Tool::default()
    };
    let metadata = Metadata { tools: Some(Tools::List(vec![tool])), ..Metadata::default() };
    let bom = Bom {
        serial_number: Some(serial_number(&bundle)?),
        metadata: Some(metadata),
        components: Some(Components(components)),
        ..Bom::default()
    };
    let mut bytes = Vec::new();
    let written = bom.output_as_json(&mut bytes, SpecVersion::V1_5);
    written.map_err(|error| Error::refused(format!("writing the bill of materials: {error}")))?;
    Ok(bytes)
}

/// Large files are named by their SHA-256; of others it is computed.
async fn sha256_of(hub: &Hub, repo: &Repo, item: &TreeItem) -> Result<Sha256> {
    if let Some(large) = &item.large {
        return Ok(large.sha256);
    }
    let content = hub.raw_blob(repo, item, u64::MAX).await?;
    let hashed = hub.pool().run(move || sha2::Sha256::digest(&content)).await?;
    Ok(Sha256::from_bytes(hashed.into()))
}

/// A UUID of version 8 that is made of the bundle's hash.
fn serial_number(bundle: &BundleHash) -> Result<UrnUuid> {
    let mut bytes: [u8; 16] = *bundle.as_bytes().first_chunk().expect("a hash has 32 bytes");
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = super::key::hex(&bytes);
    let parts = [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]];
    let urn = UrnUuid::new(format!("urn:uuid:{}", parts.join("-")));
    urn.map_err(|_| Error::refused("the bill of materials would have no name"))
}

fn repo_component(chosen: &Chosen, commit: &str, items: &[(TreeItem, Sha256)]) -> Component {
    let repo = &chosen.repo;
    let class = match repo.kind() {
        RepoKind::Model => Classification::MachineLearningModel,
        RepoKind::Dataset => Classification::Data,
        RepoKind::Space => Classification::Application,
    };
    let full = format!("{}{}", repo.kind().url_prefix(), repo.name());
    let mut component = Component::new(class, repo.name().name(), commit, None);
    component.bom_ref = Some(format!("{full}@{commit}"));
    component.group = Some(NormalizedString::new(repo.name().namespace().as_str()));
    component.description = repo.record.description.as_deref().map(NormalizedString::new);
    component.licenses = chosen.license.as_deref().map(|license| {
        // A name that SPDX does not have is still what the card says.
        let known = SpdxIdentifier::imprecise(license.to_owned()).ok().map(|id| id.to_string());
        let choice = match known.filter(|known| known.eq_ignore_ascii_case(license)) {
            Some(known) => License::license_id(&known),
            None => License::named_license(license),
        };
        Licenses(vec![LicenseChoice::License(choice)])
    });
    component.properties = repo
        .record
        .upstream
        .as_deref()
        .map(|upstream| Properties(vec![Property::new("ballast:upstream", upstream)]));
    let files = items.iter().map(|(item, sha256)| file_component(&full, commit, item, sha256));
    component.components = Some(Components(files.collect()));
    component
}

fn file_component(repo: &str, commit: &str, item: &TreeItem, sha256: &Sha256) -> Component {
    let mut component = Component::new(Classification::File, &item.path, commit, None);
    component.version = None;
    component.bom_ref = Some(format!("{repo}@{commit}/{}", item.path));
    let content = HashValue(sha256.to_string());
    component.hashes = Some(Hashes(vec![Hash { alg: HashAlgorithm::SHA_256, content }]));
    let size = Property::new("ballast:size", &item.size.to_string());
    component.properties = Some(Properties(vec![size]));
    component
}
