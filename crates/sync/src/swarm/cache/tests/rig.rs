//! A cache in a folder.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ballast_testkit::clock::SimEnv;
use bytes::Bytes;
use futures_util::TryStreamExt as _;

use super::*;
use crate::cluster::PeerName;
use crate::swarm::sample::Sample;

pub(super) struct Rig {
    pub(super) folder: tempfile::TempDir,
    pub(super) env: Arc<SimEnv>,
    pub(super) cap_bytes: u64,
    pub(super) cache: Arc<Cache>,
}

impl Rig {
    pub(super) async fn new(cap_bytes: u64) -> Result<Self> {
        let (folder, env) = (tempfile::tempdir().expect("a folder"), SimEnv::new(1));
        let cache = Self::open_in(folder.path(), &env, cap_bytes).await?;
        Ok(Self { folder, env, cap_bytes, cache })
    }

    pub(super) async fn open_in(
        folder: &Path,
        env: &Arc<SimEnv>,
        cap_bytes: u64,
    ) -> Result<Arc<Cache>> {
        let settings = CacheSettings { folder: folder.to_owned(), cap_bytes };
        // A permit is a list of xorbs.
        let check: CheckPermit = Box::new(|_: &PeerName, permit: &[u8]| {
            let xorbs = permit.as_chunks().0.iter().map(|hash| XorbHash::from_bytes(*hash));
            Ok(Permitted { xorbs: xorbs.collect(), until_ms: u64::MAX })
        });
        Cache::open(settings, Pool::new(0), Arc::clone(env) as _, check).await
    }

    /// The process ends and another one begins; nothing of the old one may be in use.
    pub(super) async fn reopen(&mut self) -> Result<()> {
        let nowhere = tempfile::tempdir().expect("a folder");
        let other = Self::open_in(nowhere.path(), &self.env, 1).await?;
        let old = std::mem::replace(&mut self.cache, other);
        assert_eq!(Arc::strong_count(&old), 1, "the cache is in use");
        drop(old);
        self.cache = Self::open_in(self.folder.path(), &self.env, self.cap_bytes).await?;
        Ok(())
    }

    pub(super) async fn begin(&self, sample: &Sample) -> Result<Filling> {
        match self.cache.begin(sample.about.clone()).await? {
            Begun::Filling(filling) => Ok(filling),
            Begun::Whole(_) => panic!("it is whole"),
        }
    }

    pub(super) async fn fill(&self, sample: &Sample) -> Result<()> {
        let filling = self.begin(sample).await?;
        for term in 0..sample.about.head.terms.len() {
            let chunks = sample.about.head.chunks_of(term);
            filling.write(chunks.clone(), sample.bytes(chunks)).await?;
        }
        filling.finish().await.map(|_| ())
    }

    pub(super) async fn read_all(&self, sample: &Sample) -> Result<Vec<u8>> {
        let file = self.cache.file(&sample.sha256()).await?.expect("it is here");
        let read: Vec<Bytes> = self.cache.stream(&file, 0..u64::MAX).try_collect().await?;
        Ok(read.concat())
    }

    pub(super) fn here(&self, samples: &[Sample]) -> Vec<bool> {
        samples.iter().map(|sample| self.cache.is_whole(&sample.sha256())).collect()
    }

    pub(super) fn path(&self, sample: &Sample, ending: &str) -> PathBuf {
        self.folder.path().join(format!("{}{ending}", sample.sha256()))
    }

    /// Changes a byte of a whole file.
    pub(super) fn damage(&self, sample: &Sample, place: u64) {
        let path = self.path(sample, "");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        let file = fs::File::options().read(true).write(true).open(path).expect("it is ours");
        let mut byte = [0];
        file.read_exact_at(&mut byte, place).expect("it is long enough");
        file.write_all_at(&[!byte[0]], place).expect("it can be written");
    }

    /// How the files of the cache end.
    pub(super) fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.path()).expect("a folder");
        let names = names.map(|entry| entry.expect("an entry").file_name());
        let names = names.map(|name| name.into_string().expect("text"));
        let mut endings: Vec<String> =
            names.filter_map(|name| name.get(64..).map(str::to_owned)).collect();
        endings.sort();
        endings
    }
}
