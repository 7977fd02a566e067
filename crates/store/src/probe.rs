//! Does this backend keep its promises? (Invariant 10)
//!
//! Some stores ignore the condition on a put and answer "stored"; some check, then write, and let
//! two writers win. Both lose entries of logs. So every backend is tried at the start, whatever it
//! calls itself: one key written twice, several writers racing on one key, and what was written
//! read and listed. A backend that fails may serve reads, and no log may grow on it.

use std::fmt;

use bytes::Bytes;
use futures_util::future;
use futures_util::stream::TryStreamExt;

use crate::env::nonce;
use crate::error::{Error, Result};
use crate::keyspace::{Key, Prefix};
use crate::objects::{Put, Store};

/// How many writers race on one key.
const RACERS: usize = 8;

/// How often they race: a store that checks, then writes, may be lucky now and then.
const ROUNDS: u32 = 5;

const BODY_LIMIT: u64 = 4096;

/// What a backend was seen to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one promise, kept or broken")]
pub struct Promises {
    /// A second put of a key is refused, and the first one's bytes stay.
    pub refuses_second: bool,
    /// Of several puts of a key at once, one wins, and its bytes are there.
    pub single_winner: bool,
    /// What was put can be read.
    pub reads_its_write: bool,
    /// What was put is listed.
    pub lists_its_write: bool,
}

impl Promises {
    /// Are all of them kept?
    pub fn all_kept(&self) -> bool {
        self.broken().is_empty()
    }

    /// The broken ones, in words.
    pub fn broken(&self) -> Vec<&'static str> {
        [
            (self.refuses_second, "it overwrites an object that must not be overwritten"),
            (self.single_winner, "it lets several writers of one object win"),
            (self.reads_its_write, "it does not return what was just written"),
            (self.lists_its_write, "it does not list what was just written"),
        ]
        .into_iter()
        .filter_map(|(kept, words)| (!kept).then_some(words))
        .collect()
    }
}

impl fmt::Display for Promises {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.broken().as_slice() {
            [] => out.write_str("the store keeps its promises"),
            broken => write!(out, "the store breaks its promises: {}", broken.join("; ")),
        }
    }
}

/// Tries the store. An error means that it could not be tried, which says nothing about it.
pub async fn probe(store: &Store) -> Result<Promises> {
    let probe = nonce(store.env());
    let promises = try_all(store, probe).await;
    clean_up(store, probe).await;
    promises
}

async fn try_all(store: &Store, nonce: u64) -> Result<Promises> {
    let key = Key::Probe { nonce, number: 0 };
    let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
    let mut promises = Promises {
        refuses_second: false,
        single_winner: true,
        reads_its_write: false,
        lists_its_write: false,
    };
    // Nobody else can have chosen the name: where the store says that it exists, an answer was lost
    // and the client has asked again.
    let put = store.put_absent(&key, first.clone()).await?;
    promises.reads_its_write = read(store, &key).await?.as_ref() == Some(&first);
    if put == Put::Exists && !promises.reads_its_write {
        return Ok(promises);
    }
    let refused = store.put_absent(&key, second).await? == Put::Exists;
    promises.refuses_second = refused && read(store, &key).await? == Some(first);
    promises.lists_its_write = lists(store, nonce, key).await?;
    for round in 1..=ROUNDS {
        if !race(store, Key::Probe { nonce, number: round }).await? {
            promises.single_winner = false;
            break;
        }
    }
    Ok(promises)
}

async fn read(store: &Store, key: &Key) -> Result<Option<Bytes>> {
    store.get(key, BODY_LIMIT).await
}

async fn lists(store: &Store, nonce: u64, key: Key) -> Result<bool> {
    let found: Vec<_> = store.list(&Prefix::ProbesOf(nonce)).try_collect().await?;
    Ok(found.iter().any(|listed| listed.key == key))
}

/// Does one race have one winner, whose bytes are there?
async fn race(store: &Store, key: Key) -> Result<bool> {
    let bodies: Vec<Bytes> =
        (0..RACERS).map(|racer| Bytes::from(format!("racer {racer}"))).collect();
    let puts = bodies.iter().map(|body| store.put_absent(&key, body.clone()));
    let answers = future::join_all(puts).await;
    let found = read(store, &key).await?;

    let (mut winners, mut doubtful) = (Vec::new(), 0);
    for (answer, body) in answers.into_iter().zip(&bodies) {
        match answer {
            Ok(Put::Stored) => winners.push(body),
            Ok(Put::Exists) => {}
            Err(Error::Unavailable { .. }) => doubtful += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(match (winners.as_slice(), &found) {
        ([winner], Some(found)) => found == *winner,
        // The winner's answer was lost; if the client asked again, it heard that it exists.
        ([], Some(found)) => bodies.contains(found),
        ([], None) => doubtful == RACERS,
        _ => false,
    })
}

/// What is left behind is small, and harms nobody.
async fn clean_up(store: &Store, nonce: u64) {
    for number in 0..=ROUNDS {
        let key = Key::Probe { nonce, number };
        if let Err(error) = store.sweep(&key).await {
            tracing::debug!(%key, %error, "a probe left an object behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::StreamExt;
    use object_store::memory::InMemory;

    use super::*;
    use crate::env::quick::QuickEnv;

    #[tokio::test]
    async fn an_honest_store_keeps_its_promises_and_is_left_clean() -> Result<()> {
        let store = Store::new(Arc::new(InMemory::new()), QuickEnv::shared());
        let promises = probe(&store).await?;
        assert!(promises.all_kept(), "{promises}");
        assert_eq!(promises.to_string(), "the store keeps its promises");
        assert_eq!(store.list(&Prefix::All).count().await, 0);
        Ok(())
    }

    #[test]
    fn what_is_broken_is_said() {
        let promises = Promises {
            refuses_second: false,
            single_winner: true,
            reads_its_write: true,
            lists_its_write: false,
        };
        assert!(!promises.all_kept());
        assert_eq!(
            promises.to_string(),
            "the store breaks its promises: it overwrites an object that must not be overwritten; \
             it does not list what was just written"
        );
    }
}
