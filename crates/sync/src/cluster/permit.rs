//! Which xorbs a peer may have: signed by the hub, shown to other nodes.
//!
//! A node can't ask the hub about each peer that comes, and must not tell who it is not meant for
//! what it holds. So the hub tells each node in writing what it may have, and nodes check that.

use ballast_format::hash::XorbHash;
use ballast_format::log::NodeRole;
use ballast_format::name::NodeName;
use ballast_format::permit::Permit;
use bytes::Bytes;

use super::{Error, PeerKey, PeerName, PeerRole, Result, SecretKey};

/// Bytes of a signature.
const SIGNATURE_BYTES: usize = 64;

/// Why a permit is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PermitError {
    /// It is none, or a part of one.
    #[error("the permit can't be read")]
    Malformed,
    /// This cluster's hub did not sign it.
    #[error("the permit's signature is wrong")]
    Forged,
    /// It is for another.
    #[error("the permit is for another peer")]
    NotYours,
    /// Its time is over.
    #[error("the permit is over: ask the hub for a new one")]
    Over,
}

/// Writes that `holder` may have these xorbs until then, in unix milliseconds. At most 32,768; who
/// may have more gets several.
pub fn sign_permit(
    key: &SecretKey,
    holder: &PeerName,
    xorbs: &[XorbHash],
    until_ms: u64,
) -> Result<Bytes> {
    let unusable = |error| Error::unusable("the permit", error);
    let (role, name) = holder_of(holder)
        .ok_or_else(|| Error::unusable("the permit", format!("`{holder}` needs none")))?;
    let permit = Permit::new(role, name, until_ms, xorbs.to_vec()).map_err(unusable)?;
    let mut bytes = permit.encode().map_err(unusable)?;
    let signature = key.sign(&bytes);
    bytes.extend_from_slice(&signature);
    Ok(Bytes::from(bytes))
}

/// What a permit is for that `holder` shows, if the owner of `signer` signed it for them and it is
/// not over.
pub fn check_permit(
    bytes: &[u8],
    signer: &PeerKey,
    holder: &PeerName,
    now_ms: u64,
) -> Result<Permit, PermitError> {
    let cut = bytes.split_last_chunk::<SIGNATURE_BYTES>();
    let (signed, signature) = cut.ok_or(PermitError::Malformed)?;
    // Before it is read: what nobody signed is not looked at.
    if !signer.has_signed(signed, signature) {
        return Err(PermitError::Forged);
    }
    let permit = Permit::decode(signed).map_err(|_| PermitError::Malformed)?;
    let is_theirs =
        |(role, name): (NodeRole, NodeName)| role == permit.role && name == permit.holder;
    if !holder_of(holder).is_some_and(is_theirs) {
        return Err(PermitError::NotYours);
    }
    if permit.until_ms <= now_ms {
        return Err(PermitError::Over);
    }
    Ok(permit)
}

/// How a permit names a peer; nothing: it needs none.
fn holder_of(peer: &PeerName) -> Option<(NodeRole, NodeName)> {
    let role = match peer.role() {
        PeerRole::Hub => return None,
        PeerRole::Node => NodeRole::Node,
        PeerRole::Region => NodeRole::Region,
    };
    Some((role, NodeName::parse(peer.as_str()).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const END: u64 = 1000;

    fn peer(role: PeerRole) -> PeerName {
        PeerName::new(role, "gpu-1").expect("a name")
    }

    fn key(byte: u8) -> SecretKey {
        SecretKey::from_bytes(&[byte; 32])
    }

    fn xorb(byte: u8) -> XorbHash {
        XorbHash::from_bytes([byte; 32])
    }

    #[test]
    fn a_permit_is_good_for_its_holder_until_its_end() {
        let node = peer(PeerRole::Node);
        let permit = sign_permit(&key(1), &node, &[xorb(2), xorb(1)], END).expect("signed");
        let check = |bytes: &[u8], signer: &SecretKey, holder: &PeerName, now| {
            check_permit(bytes, &signer.public(), holder, now)
        };
        let read = check(&permit, &key(1), &node, END - 1).expect("good");
        assert_eq!(read.xorbs(), [xorb(1), xorb(2)]);
        assert_eq!(check(&permit, &key(1), &node, END), Err(PermitError::Over));
        assert_eq!(check(&permit, &key(2), &node, 0), Err(PermitError::Forged));
        let other = PeerName::parse("gpu-2").expect("a name");
        for other in [other, peer(PeerRole::Region), peer(PeerRole::Hub)] {
            assert_eq!(check(&permit, &key(1), &other, 0), Err(PermitError::NotYours));
        }
        assert_eq!(check(&permit[..10], &key(1), &node, 0), Err(PermitError::Malformed));
        assert!(sign_permit(&key(1), &peer(PeerRole::Hub), &[], END).is_err());
    }

    #[test]
    fn not_a_bit_of_a_permit_can_be_changed() {
        let node = peer(PeerRole::Node);
        let permit = sign_permit(&key(1), &node, &[xorb(1)], END).expect("signed");
        for bit in 0..permit.len() * 8 {
            let mut bytes = permit.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let checked = check_permit(&bytes, &key(1).public(), &node, 0);
            assert_eq!(checked, Err(PermitError::Forged), "bit {bit}");
        }
        for length in 0..permit.len() {
            assert!(check_permit(&permit[..length], &key(1).public(), &node, 0).is_err());
        }
    }

    #[test]
    fn what_the_hub_signed_for_something_else_is_no_permit() {
        let node = peer(PeerRole::Node);
        let signed = [b"something else".as_slice(), &key(1).sign(b"something else")].concat();
        let checked = check_permit(&signed, &key(1).public(), &node, 0);
        assert_eq!(checked, Err(PermitError::Malformed));
    }

    proptest! {
        #[test]
        fn noise_is_never_good(noise: Vec<u8>) {
            let node = peer(PeerRole::Node);
            prop_assert!(check_permit(&noise, &key(1).public(), &node, 0).is_err());
        }
    }
}
