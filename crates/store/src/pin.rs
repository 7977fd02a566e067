//! Leases that protect what is not yet named by a log.
//!
//! Telling a client "you need not send this" is a promise; the pin is written, durably, before the
//! promise is made (Invariant 8). A pin is never changed: a longer lease is another pin. Whether a
//! pin still counts is for the sweep to decide, by its own clock and with a margin; why it was
//! made makes no difference there.

use ballast_format::id::UserId;
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};

use crate::env::nonce;
use crate::error::Result;
use crate::keyspace::{Key, Leased, PinName, Prefix};
use crate::objects::Store;

/// Promises an owner that something stays until then. Durable when it returns.
pub async fn pin(store: &Store, owner: UserId, leased: Leased, until_ms: u64) -> Result<PinName> {
    let name = PinName { owner, leased, until_ms, nonce: nonce(store.env()) };
    // All that it says is in its name, so that a listing reads every pin.
    store.put_new(&Key::Pin(name), Bytes::new()).await?;
    Ok(name)
}

/// All pins, those that have run out too, in no order.
pub fn pins(store: &Store) -> BoxStream<'static, Result<PinName>> {
    listed(store, &Prefix::Pins)
}

/// The same of one owner.
pub fn pins_of(store: &Store, owner: UserId) -> BoxStream<'static, Result<PinName>> {
    listed(store, &Prefix::PinsOf(owner))
}

fn listed(store: &Store, prefix: &Prefix) -> BoxStream<'static, Result<PinName>> {
    store
        .list(prefix)
        .try_filter_map(|listed| {
            let name = if let Key::Pin(name) = listed.key { Some(name) } else { None };
            std::future::ready(Ok(name))
        })
        .boxed()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ballast_format::hash::{ShardHash, XorbHash};
    use object_store::memory::InMemory;

    use super::*;
    use crate::env::quick::QuickEnv;

    #[tokio::test]
    async fn pins_are_listed_as_they_were_made_and_never_collide() -> Result<()> {
        let store = Store::new(Arc::new(InMemory::new()), QuickEnv::shared());
        let owner = UserId::from_bytes([1; 16]);
        let mut made = Vec::new();
        for i in 0..5_u8 {
            let xorb = XorbHash::from_bytes([i / 2; 32]);
            let leased = if i < 3 { Leased::Sent(xorb) } else { Leased::Told(xorb) };
            made.push(pin(&store, owner, leased, 1_700_000_000_000).await?);
        }
        let other = UserId::from_bytes([2; 16]);
        let theirs = Leased::Registered(ShardHash::from_bytes([9; 32]));
        made.push(pin(&store, other, theirs, 1_700_000_000_000).await?);
        let found: Vec<PinName> = pins_of(&store, other).try_collect().await?;
        assert_eq!(found, made[5..]);
        let mut found: Vec<PinName> = pins(&store).try_collect().await?;
        made.sort();
        found.sort();
        assert_eq!(found, made);
        Ok(())
    }
}
