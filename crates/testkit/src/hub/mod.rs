//! A public hub in this process: its API with the shapes that were recorded from the real one, and
//! everything that goes wrong with it.
//!
//! It limits requests, sends bytes from another host, answers slowly, wrongly, or not at all, and
//! counts what it sends. It holds what a test puts there.

mod answer;
mod api;
mod body;
mod cas;
mod files;
mod repos;
mod troubles;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_format::hash::{FileHash, ObjectHash};
use ballast_format::name::{RepoKind, RepoName};
use ballast_store::env::RealEnv;
use bytes::Bytes;
use hyper::service::service_fn;

use self::repos::{Packed, Xorbs};
use crate::clock::Dice;
use crate::served::Served;

pub use self::repos::Repo;
pub use self::troubles::{Lie, Redirect, Troubles};

/// The token that it accepts.
pub const TOKEN: &str = "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH";
/// Where bytes come from that come from elsewhere.
pub const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// What it knows and what it counted.
#[derive(Debug)]
struct State {
    env: RealEnv,
    inner: Mutex<Inner>,
    /// Where bytes come from that come from elsewhere.
    elsewhere: Mutex<String>,
}

#[derive(Debug)]
struct Inner {
    dice: Dice,
    troubles: Troubles,
    repos: Vec<Repo>,
    xorbs: Xorbs,
    files: HashMap<FileHash, Arc<Packed>>,
    /// Whether large files get a Xet hash when they are added.
    xet: bool,
    sent: HashMap<String, u64>,
    asked: Vec<String>,
    /// Requests of each class in the current window, and when it began.
    windows: [(u64, Duration); 2],
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, key: &str, bytes: u64) {
        *self.lock().sent.entry(key.to_owned()).or_default() += bytes;
    }

    fn elsewhere(&self) -> String {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The hub, and the host that sends its large files.
#[derive(Debug)]
pub struct PublicHub {
    hub: Served,
    bytes: Served,
    state: Arc<State>,
}

impl PublicHub {
    /// Starts it without repos; what goes wrong later follows from the seed.
    pub fn start(seed: u64) -> io::Result<Self> {
        let state = Arc::new(State {
            env: RealEnv::new(),
            inner: Mutex::new(Inner {
                dice: Dice::new(seed),
                troubles: Troubles::default(),
                repos: Vec::new(),
                xorbs: HashMap::new(),
                files: HashMap::new(),
                xet: false,
                sent: HashMap::new(),
                asked: Vec::new(),
                windows: [(0, Duration::ZERO); 2],
            }),
            elsewhere: Mutex::default(),
        });
        let serve = |address, is_hub| {
            let state = Arc::clone(&state);
            let service = service_fn(move |request| {
                let state = Arc::clone(&state);
                async move { answer::answer(state, request, is_hub).await }
            });
            Served::start(address, service)
        };
        let hub = serve(Ipv4Addr::LOCALHOST.into(), true)?;
        let bytes = serve(ELSEWHERE, false)?;
        bytes.endpoint().clone_into(&mut state.elsewhere.lock().expect("nobody has it yet"));
        Ok(Self { hub, bytes, state })
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &str {
        self.hub.endpoint()
    }

    /// Large files that are added from now on can be had by Xet as well.
    pub fn offer_xet(&self) {
        self.state.lock().xet = true;
    }

    /// What goes wrong from now on.
    pub fn set_troubles(&self, troubles: Troubles) {
        self.state.lock().troubles = troubles;
    }

    /// Cuts all connections and lets none stand, until it is told that it can be reached again.
    pub fn set_reachable(&self, reachable: bool) {
        self.hub.set_reachable(reachable);
        self.bytes.set_reachable(reachable);
    }

    /// A commit on `main` of a model that sets these files; the repo is made if it is not there.
    pub fn push(&self, name: &str, files: &[(&str, &[u8])]) -> ObjectHash {
        let bytes = |content: &[u8]| Some(Bytes::copy_from_slice(content));
        let changes: Vec<_> = files.iter().map(|(path, content)| (*path, bytes(content))).collect();
        self.commit(RepoKind::Model, name, "main", &changes)
    }

    /// A commit that sets files and takes away those with no content; the repo and the branch are
    /// made if they are not there.
    pub fn commit(
        &self,
        kind: RepoKind,
        name: &str,
        branch: &str,
        changes: &[(&str, Option<Bytes>)],
    ) -> ObjectHash {
        let name = RepoName::parse(name).expect("a test's name is right");
        let inner = &mut *self.state.lock();
        let known = inner.repos.iter().position(|repo| repo.kind == kind && repo.name == name);
        let place = known.unwrap_or_else(|| {
            inner.repos.push(Repo::new(kind, name));
            inner.repos.len() - 1
        });
        let repo = &mut inner.repos[place];
        let id = repo.commit(branch, changes, inner.xet.then_some(&mut inner.xorbs));
        let files = repo.revisions[&id].files.values();
        let packed = files.filter_map(|file| file.packed.clone());
        inner.files.extend(packed.map(|packed| (packed.file, packed)));
        id
    }

    /// A commit on `main` of a model with all files of a folder.
    pub fn push_folder(&self, name: &str, folder: &Path) -> io::Result<ObjectHash> {
        let mut files: Vec<(String, Bytes)> = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(next) = folders.pop() {
            for entry in std::fs::read_dir(next)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(inside) = path.strip_prefix(folder) {
                    let inside = inside.to_string_lossy().into_owned();
                    files.push((inside, Bytes::from(std::fs::read(&path)?)));
                }
            }
        }
        let changes: Vec<_> =
            files.iter().map(|(path, bytes)| (path.as_str(), Some(bytes.clone()))).collect();
        Ok(self.commit(RepoKind::Model, name, "main", &changes))
    }

    /// Points a tag at a commit.
    pub fn tag(&self, name: &str, tag: &str, commit: ObjectHash) {
        self.change(name, |repo| {
            repo.tags.insert(tag.to_owned(), commit);
        });
    }

    /// Changes a repo that is there.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Repo)) {
        let inner = &mut *self.state.lock();
        let repo = inner.repos.iter_mut().find(|repo| repo.name.to_string() == name);
        change(repo.expect("a test changes what is there"));
    }

    /// Deletes a repo.
    pub fn delete(&self, name: &str) {
        self.state.lock().repos.retain(|repo| repo.name.to_string() != name);
    }

    /// Bytes of a file that were sent, wherever from: `org/name/path`; or of a xorb: its hash.
    pub fn sent(&self, key: &str) -> u64 {
        self.state.lock().sent.get(key).copied().unwrap_or(0)
    }

    /// Bytes of files and xorbs that were sent.
    pub fn sent_in_all(&self) -> u64 {
        self.state.lock().sent.values().sum()
    }

    /// Requests that had this in their address since the last time that the count was cleared.
    pub fn asked(&self, part: &str) -> usize {
        self.state.lock().asked.iter().filter(|asked| asked.contains(part)).count()
    }

    /// Counts anew.
    pub fn clear_counts(&self) {
        let inner = &mut *self.state.lock();
        inner.sent.clear();
        inner.asked.clear();
    }
}
