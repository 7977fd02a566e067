//! What nodes say, read: nothing of it is believed before it was looked at.

use std::net::{IpAddr, SocketAddr};

use ballast_format::hash::{Sha256, XorbHash};
use ballast_proto::v1;

use crate::swarm::plan::{Place, STRIPES};

/// The longest name of a site or a rack.
const LONGEST_PLACE: usize = 64;

/// A report that makes no sense: what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Senseless(pub(super) &'static str);

/// What a node says of itself.
#[derive(Clone, Debug)]
pub(super) struct Presence {
    pub(super) address: SocketAddr,
    pub(super) site: String,
    pub(super) rack: String,
    pub(super) upload: Option<u64>,
}

impl Presence {
    /// Where it stands, as plans have it.
    pub(super) fn place(&self) -> Place {
        Place { site: number(&[&self.site]), rack: number(&[&self.site, &self.rack]) }
    }
}

/// What stands for a place that is called so. Two that share a number by chance are taken to be
/// one, which costs time and harms nothing.
pub(super) fn number(names: &[&str]) -> u32 {
    let mut hasher = blake3::Hasher::new();
    for name in names {
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
    }
    let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Reads what a node that calls from an address says of itself.
pub(super) fn read_presence(
    presence: &v1::Presence,
    from: Option<IpAddr>,
) -> Result<Presence, Senseless> {
    let address: Result<SocketAddr, _> = presence.address.parse();
    let mut address = address.map_err(|_| Senseless("the node's address is none"))?;
    if address.ip().is_unspecified() {
        address.set_ip(from.ok_or(Senseless("the node's address is not known"))?);
    }
    if address.port() == 0 {
        return Err(Senseless("the node's address has no port"));
    }
    if presence.site.len() > LONGEST_PLACE || presence.rack.len() > LONGEST_PLACE {
        return Err(Senseless("the name of a site or a rack is too long"));
    }
    let upload = (presence.upload > 0).then_some(presence.upload);
    let (site, rack) = (presence.site.clone(), presence.rack.clone());
    Ok(Presence { address, site, rack, upload })
}

/// A file's name.
pub(super) fn read_sha256(bytes: &[u8]) -> Result<Sha256, Senseless> {
    let bytes = bytes.try_into().map_err(|_| Senseless("a SHA-256 does not have 32 bytes"))?;
    Ok(Sha256::from_bytes(bytes))
}

/// A xorb's name.
pub(super) fn read_xorb(bytes: &[u8]) -> Result<XorbHash, Senseless> {
    let bytes = bytes.try_into().map_err(|_| Senseless("a xorb's hash does not have 32 bytes"))?;
    Ok(XorbHash::from_bytes(bytes))
}

/// How many pieces it has of each stripe.
pub(super) fn read_held(held: &[u32]) -> Result<Vec<u32>, Senseless> {
    if held.len() > STRIPES as usize {
        return Err(Senseless("there are not so many stripes"));
    }
    Ok(held.to_vec())
}
