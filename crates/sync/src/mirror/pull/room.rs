//! How much room files on their way may take.
//!
//! A file that is being fetched counts as all of it. What else lies there are beginnings of files
//! whose fetch broke off: they are worth something only if somebody asks again, and go first, those
//! that nobody touched for longest before others.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ballast_node::error::{Error, Result};
use ballast_node::pool::Pool;

use super::fault;
use super::spool::{ENDING, on_disk};

/// The room of one folder.
pub(super) struct Room {
    folder: PathBuf,
    /// Bytes; 0 for as many as there are.
    limit: u64,
    /// Files that are being fetched, and how long they will be.
    taken: Arc<Taken>,
    /// One at a time makes room.
    turn: tokio::sync::Mutex<()>,
}

type Taken = Mutex<HashMap<PathBuf, u64>>;

/// Room that is given back when this is dropped.
pub(super) struct Held {
    taken: Arc<Taken>,
    path: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.taken).remove(&self.path);
    }
}

impl Room {
    pub(super) fn new(folder: &Path, limit: u64) -> Self {
        let (folder, taken) = (folder.to_owned(), Arc::default());
        Self { folder, limit, taken, turn: tokio::sync::Mutex::new(()) }
    }

    /// Room for a file of so many bytes at this path of the folder. Of files whose fetch broke off
    /// the oldest are given up for it.
    pub(super) async fn take(&self, pool: &Pool, path: PathBuf, size: u64) -> Result<Held> {
        let _turn = self.turn.lock().await;
        if self.limit > 0 && size > self.limit {
            let limit = self.limit;
            let reason = format!(
                "a file of {size} bytes can't be fetched: files on their way have {limit} bytes\n\
                 hint: whoever runs the hub may raise `upstream.spool_limit`"
            );
            return Err(Error::NoRoom { reason });
        }
        let (left, fetched) = {
            let mut taken = lock(&self.taken);
            let others: u64 = taken.values().sum();
            if self.limit > 0 && others + size > self.limit {
                return Err(fault::again("files on their way take all the room that they have"));
            }
            taken.insert(path.clone(), size);
            (self.limit.saturating_sub(others + size), taken.keys().cloned().collect::<Vec<_>>())
        };
        let held = Held { taken: Arc::clone(&self.taken), path };
        if self.limit > 0 {
            let folder = self.folder.clone();
            pool.run(move || give_up(&folder, &fetched, left)).await??;
        }
        Ok(held)
    }
}

fn lock(taken: &Taken) -> MutexGuard<'_, HashMap<PathBuf, u64>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes away the oldest files that are not being fetched, until the others have so many bytes.
fn give_up(folder: &Path, fetched: &[PathBuf], left: u64) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(on_disk(&error)),
    };
    let mut idle = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| on_disk(&error))?;
        let path = entry.path();
        if path.extension().is_none_or(|ending| ending != ENDING) || fetched.contains(&path) {
            continue;
        }
        let about = entry.metadata().map_err(|error| on_disk(&error))?;
        idle.push((about.modified().map_err(|error| on_disk(&error))?, about.len(), path));
    }
    idle.sort_unstable();
    let mut bytes: u64 = idle.iter().map(|(_, length, _)| length).sum();
    for (_, length, path) in idle {
        if bytes <= left {
            break;
        }
        std::fs::remove_file(&path).map_err(|error| on_disk(&error))?;
        tracing::info!(path = %path.display(), bytes = length, "gave up the beginning of a file");
        bytes -= length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    struct Case {
        folder: tempfile::TempDir,
        room: Room,
        pool: Pool,
    }

    impl Case {
        fn new(limit: u64) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let room = Room::new(folder.path(), limit);
            Self { folder, room, pool: Pool::new(1) }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// The beginning of a file, left at some second.
        fn leave(&self, name: &str, bytes: u64, second: u64) {
            let file = File::create(self.path(name)).expect("a file");
            file.set_len(bytes).expect("long enough");
            file.set_modified(UNIX_EPOCH + Duration::from_secs(second)).expect("a time");
        }

        async fn take(&self, name: &str, size: u64) -> Result<Held> {
            self.room.take(&self.pool, self.path(name), size).await
        }
    }

    #[tokio::test]
    async fn what_never_fits_is_told_apart_from_what_does_not_fit_now() {
        let case = Case::new(100);
        let error = case.take("a.part", 101).await.err().expect("too long");
        assert!(matches!(&error, Error::NoRoom { reason } if reason.contains("spool_limit")));
        let held = case.take("a.part", 60).await.expect("room");
        let error = case.take("b.part", 41).await.err().expect("not now");
        assert!(matches!(error, Error::Upstream { .. }), "{error}");
        let other = case.take("b.part", 40).await.expect("room");
        drop((held, other));
        case.take("c.part", 100).await.expect("all was given back");
    }

    #[tokio::test]
    async fn the_oldest_beginnings_go_first_and_no_more_than_needed() {
        let case = Case::new(100);
        for (name, bytes, second) in [("a.part", 30, 3), ("b.part", 30, 1), ("c.part", 30, 2)] {
            case.leave(name, bytes, second);
        }
        case.leave("other.txt", 1000, 0);
        // What is being fetched goes on: it counts as all of it, and is not given up.
        let _held = case.take("b.part", 40).await.expect("room");
        assert!(["a.part", "b.part", "c.part"].iter().all(|name| case.path(name).exists()));
        let _other = case.take("new.part", 25).await.expect("room");
        assert!(!case.path("c.part").exists(), "the oldest that nobody fetches");
        assert!(["a.part", "b.part", "other.txt"].iter().all(|name| case.path(name).exists()));
    }

    #[tokio::test]
    async fn without_a_limit_nothing_goes() {
        let case = Case::new(0);
        case.leave("a.part", 1 << 40, 1);
        let _held = case.take("b.part", 1 << 50).await.expect("room");
        assert!(case.path("a.part").exists());
    }
}
