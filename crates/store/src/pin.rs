//! Leases that protect what is not yet named by a log.
//!
//! Telling a client "you need not send this" is a promise; the pin is written, durably, before the
//! promise is made (Invariant 8). A pin is never changed: a longer lease is another pin. Whether a
//! pin still counts is for the sweep to decide, by its own clock and with a margin; its kind makes
//! no difference there.

use ballast_format::hash::XorbHash;
use ballast_format::id::UserId;
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};

use crate::env::nonce;
use crate::error::Result;
use crate::keyspace::{Key, PinKind, PinName, Prefix};
use crate::objects::Store;

/// Promises an owner that a xorb stays until then. Durable when it returns.
pub async fn pin(
    store: &Store,
    owner: UserId,
    kind: PinKind,
    xorb: XorbHash,
    until_ms: u64,
) -> Result<PinName> {
    let name = PinName { owner, kind, xorb, until_ms, nonce: nonce(store.env()) };
    // All that it says is in its name, so that a listing reads every pin.
    store.put_new(&Key::Pin(name), Bytes::new()).await?;
    Ok(name)
}

/// All pins, those that have run out too, in no order.
pub fn pins(store: &Store) -> BoxStream<'static, Result<PinName>> {
    store
        .list(&Prefix::Pins)
        .try_filter_map(|listed| {
            let name = if let Key::Pin(name) = listed.key { Some(name) } else { None };
            std::future::ready(Ok(name))
        })
        .boxed()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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
            let kind = if i < 3 { PinKind::Sent } else { PinKind::Told };
            made.push(pin(&store, owner, kind, xorb, 1_700_000_000_000).await?);
        }
        let mut found: Vec<PinName> = pins(&store).try_collect().await?;
        made.sort();
        found.sort();
        assert_eq!(found, made);
        Ok(())
    }
}
