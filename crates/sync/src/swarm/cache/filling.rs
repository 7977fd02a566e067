//! A file on its way into the cache.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use ballast_format::cached_file::{CachedFile, KeptPass};
use ballast_format::hash::Sha256;
use ballast_node::error::{Error, Result};
use bytes::Bytes;

use super::bits::Bits;
use super::folder::Found;
use super::{Cache, OpenFile, Read, Stage};

/// How many bytes arrive until it is written down which chunks are here.
const WRITTEN_DOWN_EACH: u64 = 16 << 20;

/// What came of beginning a file.
pub enum Begun {
    /// All of it is here already.
    Whole(Arc<OpenFile>),
    /// It is to be filled.
    Filling(Filling),
}

/// A file on its way; there is one of these for a file. Who drops it leaves what came for the next.
pub struct Filling {
    cache: Arc<Cache>,
    file: Arc<OpenFile>,
    /// Bytes since it was last written down what is here.
    unwritten: AtomicU64,
}

impl Drop for Filling {
    fn drop(&mut self) {
        if matches!(self.file.stage(), Stage::Filling) {
            self.file.set_stage(Stage::Resting(None));
        }
    }
}

impl Cache {
    /// Begins a file, or goes on with one that was begun. Room for all of it is made first.
    pub async fn begin(self: &Arc<Self>, about: CachedFile) -> Result<Begun> {
        let _turn = self.turn.lock().await;
        let sha256 = about.head.sha256;
        if let Some(file) = self.load(&sha256).await? {
            match file.stage() {
                Stage::Whole => return Ok(Begun::Whole(file)),
                Stage::Filling => {
                    let reason = format!("`{sha256}` is being fetched already");
                    return Err(Error::Conflict { reason });
                }
                Stage::Resting(_) if file.about == about => return Ok(self.filling(file)),
                // It lies in other xorbs by now: peers ask for those.
                Stage::Resting(_) => {
                    drop(file);
                    self.take_away(&sha256).await?;
                }
            }
        }
        let size = about.head.size;
        if size > self.cap_bytes {
            let what = format!("`{sha256}` for the cache (`cache.size`)");
            return Err(Error::TooLarge { what, size, limit: self.cap_bytes });
        }
        self.make_room(size).await?;
        let about = Arc::new(about);
        if let Err(error) = self.make(&about).await {
            // The disk may have less than the cap says.
            let Error::Full = error else { return Err(error) };
            let more = self.state().bytes;
            let victims = self.state().victims(size, more).ok_or(Error::Full)?;
            self.delete(victims).await?;
            self.make(&about).await?;
        }
        let about = Arc::try_unwrap(about).unwrap_or_else(|about| (*about).clone());
        let folder = Arc::clone(&self.folder);
        let content = self.pool.run(move || folder.content(&sha256, false)).await??;
        let now_ms = self.env.now_ms();
        let found =
            Found { head: about.head.clone(), is_whole: false, is_pinned: false, used_ms: now_ms };
        self.state().add(found);
        let none = Bits::none(about.head.chunk_count());
        let file = OpenFile::new(about, content, none, Stage::Resting(None));
        self.keep(&file);
        Ok(self.filling(file))
    }

    /// What a file on its way is made of, and what may be shown of it, if that was kept and is good
    /// still.
    pub async fn recall(&self, sha256: &Sha256) -> Result<Option<(CachedFile, KeptPass)>> {
        let Some(file) = self.file(sha256).await?.filter(|_| !self.is_whole(sha256)) else {
            return Ok(None);
        };
        let (folder, name) = (Arc::clone(&self.folder), *sha256);
        let pass = self.pool.run(move || folder.pass(&name)).await?;
        let pass = pass.filter(|pass| pass.until_ms > self.env.now_ms());
        Ok(pass.map(|pass| (file.about.clone(), pass)))
    }

    async fn make(&self, about: &Arc<CachedFile>) -> Result<()> {
        let (folder, about) = (Arc::clone(&self.folder), Arc::clone(about));
        let now_ms = self.env.now_ms();
        self.pool.run(move || folder.begin(&about, now_ms)).await?
    }

    fn filling(self: &Arc<Self>, file: Arc<OpenFile>) -> Begun {
        file.set_stage(Stage::Filling);
        Begun::Filling(Filling { cache: Arc::clone(self), file, unwritten: AtomicU64::new(0) })
    }
}

impl Filling {
    /// The file.
    pub fn file(&self) -> &Arc<OpenFile> {
        &self.file
    }

    /// Hashes what was here before: what is still right need not be fetched again. How many bytes
    /// that are.
    pub async fn believe(&self) -> Result<u64> {
        let mut chunk = 0;
        while chunk < self.file.about.head.chunk_count() {
            let file = Arc::clone(&self.file);
            chunk = self.cache.pool.run(move || file.believe(chunk)).await??;
        }
        Ok(self.sound_bytes())
    }

    /// Takes what other files of the cache have of this one; how many bytes that are.
    pub async fn take_local(&self) -> Result<u64> {
        let mut taken = 0;
        for term in 0..self.file.about.head.terms.len() {
            let xorb = self.file.about.head.terms[term].xorb;
            let mut others = self.cache.with_xorb(&xorb);
            others.retain(|sha256| *sha256 != self.file.sha256());
            for other in others {
                if let Some(other) = self.cache.file(&other).await? {
                    taken += self.take_from(&other, term).await?;
                }
            }
        }
        Ok(taken)
    }

    async fn take_from(&self, other: &Arc<OpenFile>, term: usize) -> Result<u64> {
        let (said, first) = {
            let head = &self.file.about.head;
            (head.terms[term].clone(), head.chunks_of(term).start)
        };
        let mut taken = 0;
        for (theirs, from) in other.places_of(&said.xorb, &said.chunks) {
            let mine = first + (from - said.chunks.start);
            let mut at = theirs.start;
            while at < theirs.end {
                let here = mine + (at - theirs.start);
                let run = other.readable(&(at..theirs.end));
                at = run.end;
                if !other.has(run.start) || self.is_here_or_differs(other, &run, here) {
                    continue;
                }
                match other.read(&self.cache.pool, run.clone()).await? {
                    Read::Here(bytes) => {
                        taken += self.write(here..here + (run.end - run.start), bytes).await?;
                    }
                    Read::Missing => {}
                    Read::Damaged(_) => self.cache.damaged(other).await,
                }
            }
        }
        Ok(taken)
    }

    /// Whether there is nothing to take, or what is said of the two does not agree.
    fn is_here_or_differs(&self, other: &OpenFile, theirs: &Range<u32>, mine: u32) -> bool {
        let pairs = theirs.clone().zip(mine..);
        let mine = mine..mine + (theirs.end - theirs.start);
        self.file.has_sound(mine)
            || pairs.into_iter().any(|(theirs, mine)| {
                let (other, own) = (&other.about, &self.file.about);
                other.hash_of(theirs) != own.hash_of(mine)
                    || other.length_of(theirs) != own.length_of(mine)
            })
    }

    /// Writes chunks of one term, which were hashed; how many bytes are new.
    pub async fn write(&self, chunks: Range<u32>, bytes: Bytes) -> Result<u64> {
        let file = Arc::clone(&self.file);
        let new = self.cache.pool.run(move || file.write(&chunks, &bytes)).await??;
        let unwritten = self.unwritten.fetch_add(new, Ordering::Relaxed) + new;
        if unwritten >= WRITTEN_DOWN_EACH {
            self.unwritten.store(0, Ordering::Relaxed);
            self.write_down().await?;
        }
        Ok(new)
    }

    /// Keeps what may be shown of the file, in case the node starts again while its hub is away.
    pub async fn keep_pass(&self, pass: KeptPass) {
        let folder = Arc::clone(&self.cache.folder);
        let kept = self.cache.pool.run(move || folder.write_pass(&pass)).await;
        if let Ok(Err(error)) | Err(error) = kept {
            let sha256 = self.file.sha256();
            tracing::debug!(file = %sha256, %error, "it cannot go on without the hub");
        }
    }

    /// How many bytes are here.
    pub fn sound_bytes(&self) -> u64 {
        self.file.sound_bytes()
    }

    async fn write_down(&self) -> Result<()> {
        let (folder, file) = (Arc::clone(&self.cache.folder), Arc::clone(&self.file));
        let write = move || {
            let count = file.about.head.chunk_count();
            folder.write_held(file.sha256(), count, &file.claims())
        };
        self.cache.pool.run(write).await?
    }

    /// Ends it before all came: what came stays, for whoever goes on. `why` is what those hear who
    /// wait for more.
    pub async fn rest(self, why: Option<Error>) -> Result<()> {
        let written = self.write_down().await;
        self.file.set_stage(Stage::Resting(why));
        written
    }

    /// All has come: if it has the SHA-256 that it must have, it is in the cache from now on.
    pub async fn finish(self) -> Result<Arc<OpenFile>> {
        let file = Arc::clone(&self.file);
        let total = self.cache.pool.run(move || file.total()).await??;
        let sha256 = self.file.sha256();
        let _turn = self.cache.turn.lock().await;
        match total {
            Some(total) if total == sha256 => {}
            None => return Err(Error::internal(format!("`{sha256}` is not all here"))),
            Some(total) => {
                // Each chunk is what the hub said: then what the hub said is wrong.
                let what = format!("what the hub says of `{sha256}` makes `{total}`");
                self.cache.take_away(&sha256).await?;
                self.file.set_stage(Stage::Resting(Some(Error::corrupt(what.clone()))));
                return Err(Error::corrupt(what));
            }
        }
        let (folder, file) = (Arc::clone(&self.cache.folder), Arc::clone(&self.file));
        self.cache.pool.run(move || folder.finish(&sha256, file.content())).await??;
        let mut state = self.cache.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = state.files.get_mut(&sha256) {
            entry.is_whole = true;
        }
        state.generation += 1;
        drop(state);
        self.file.set_stage(Stage::Whole);
        Ok(Arc::clone(&self.file))
    }
}
