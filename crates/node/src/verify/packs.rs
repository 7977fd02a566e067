//! Checking the packs of a repo: every copy of each, from its first byte to its last.

use std::collections::HashMap;
use std::sync::Arc;

use ballast_format::hash::{ObjectHash, PackHash, Sha256};
use ballast_format::id::RepoId;
use ballast_format::object::{ObjectKind, Pointer, hash_object};
use ballast_format::pack::{FileLink, PackBuilder, PackDirectory, PackedObject};
use ballast_store::index::Table;
use ballast_store::index::schema::ObjectRow;
use ballast_store::keyspace::{CopyKind, CopyName, Key};

use super::{Check, Fault, Found};
use crate::error::{Error, Result};
use crate::state::rows;

/// Contents that are read at once, unless one alone is longer.
const PIECE_BYTES: u64 = 4 << 20;
/// Index rows that are read at once.
const ROWS: usize = 1000;

/// What the packs of a repo hold.
#[derive(Default)]
pub(super) struct Objects {
    /// Objects of which a sound copy was read.
    pub(super) sound: HashMap<ObjectHash, ObjectKind>,
    /// Objects that are damaged wherever they are.
    pub(super) faults: HashMap<ObjectHash, Arc<Fault>>,
    /// Those that are pointers.
    pub(super) pointers: HashMap<ObjectHash, Pointer>,
    /// The large files that commits named.
    pub(super) links: HashMap<Sha256, FileLink>,
}

impl Objects {
    /// Takes in what a pack says of itself.
    fn believe(&mut self, directory: &PackDirectory) {
        for object in &directory.objects {
            self.sound.insert(object.id, object.kind);
            self.pointers.extend(object.pointer.map(|pointer| (object.id, pointer)));
        }
        self.links.extend(directory.links.iter().map(|link| (link.sha256, *link)));
    }
}

impl Check {
    pub(super) async fn packs(&mut self, repo: RepoId, packs: &[PackHash]) -> Result<Objects> {
        let mut objects = Objects::default();
        for pack in packs {
            self.pack(repo, *pack, &mut objects).await?;
        }
        let Objects { sound, faults, .. } = &mut objects;
        faults.retain(|id, _| !sound.contains_key(id));
        Ok(objects)
    }

    async fn pack(&mut self, repo: RepoId, pack: PackHash, objects: &mut Objects) -> Result<()> {
        if self.passes_over(CopyKind::Pack, pack.as_bytes())
            && let Ok((_, directory)) = rows::find_pack(&self.hub, repo, pack).await
        {
            objects.believe(&directory);
            return Ok(());
        }
        let copies = self.hub.store().copies(CopyKind::Pack, *pack.as_bytes()).await?;
        let mut lost: Found = None;
        let mut is_there = false;
        for listed in copies {
            let Key::Copy(copy) = listed.key else {
                continue;
            };
            match self.pack_copy(&copy, pack, objects).await? {
                Some(fault) => {
                    self.hub.distrust(&copy, &fault.problem);
                    lost = Some(fault);
                }
                None => is_there = true,
            }
        }
        if is_there {
            return Ok(());
        }
        let fault = match lost {
            Some(fault) => fault,
            None => self.damaged(&format!("pack `{pack}`"), &"it is missing"),
        };
        self.lost(repo, pack, &fault, objects).await
    }

    /// Checks one copy. A fault means that nobody can say from it what it holds.
    async fn pack_copy(
        &mut self,
        copy: &CopyName,
        pack: PackHash,
        objects: &mut Objects,
    ) -> Result<Found> {
        let key = Key::Copy(*copy);
        let directory = match rows::read_directory(&self.hub, copy).await {
            Ok(directory) if directory.hash == pack => directory,
            Ok(_) => return Ok(Some(self.damaged(&key, &"it holds another pack"))),
            Err(error) => return Ok(Some(self.fault(&key, error)?)),
        };
        let header = PackBuilder::new().header();
        match self.hub.store().get_range(&key, 0..header.len() as u64).await {
            Ok(front) if front == header => {}
            Ok(_) => {
                self.hub.distrust(copy, "it does not begin as a pack");
                self.damaged(&key, &"it does not begin as a pack");
            }
            Err(error) => return Ok(Some(self.fault(&key, error.into())?)),
        }
        objects.links.extend(directory.links.iter().map(|link| (link.sha256, *link)));
        let mut next = 0;
        while next < directory.objects.len() {
            let piece = piece_from(&directory.objects[next..]);
            next += piece.len();
            self.piece(copy, piece, objects).await?;
        }
        Ok(None)
    }

    /// Reads objects that lie behind each other, and hashes each.
    async fn piece(
        &mut self,
        copy: &CopyName,
        piece: &[PackedObject],
        objects: &mut Objects,
    ) -> Result<()> {
        let (Some(first), Some(last)) = (piece.first(), piece.last()) else {
            return Ok(());
        };
        let (start, end) = (first.offset, last.offset + last.length);
        let key = Key::Copy(*copy);
        let bytes = match self.hub.store().get_range(&key, start..end).await {
            Ok(bytes) => bytes,
            Err(error) => {
                let fault = self.copy_fault(copy, error.into())?;
                objects.faults.extend(piece.iter().map(|object| (object.id, Arc::clone(&fault))));
                return Ok(());
            }
        };
        let checked = piece.to_vec();
        let verdicts = self.hub.pool().run(move || judge(&checked, &bytes, start));
        for (object, is_sound) in piece.iter().zip(verdicts.await??) {
            self.count(object.length).await?;
            if let Some(pointer) = object.pointer {
                objects.pointers.insert(object.id, pointer);
            }
            if is_sound {
                objects.sound.insert(object.id, object.kind);
            } else {
                let kind = format!("{:?}", object.kind).to_lowercase();
                let problem = format!("the {kind} `{}` has other bytes", object.id);
                self.hub.distrust(copy, &problem);
                let fault = self.damaged(&key, &problem);
                objects.faults.insert(object.id, fault);
            }
        }
        Ok(())
    }

    /// A pack that tells nothing any more: the index knows what was in it.
    async fn lost(
        &mut self,
        repo: RepoId,
        pack: PackHash,
        fault: &Arc<Fault>,
        objects: &mut Objects,
    ) -> Result<()> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let index = self.hub.index();
            let rows = index.scan(Table::Object, repo.as_bytes(), after.as_deref(), ROWS).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            after = Some(last.clone());
            for (key, row) in &rows {
                let row = ObjectRow::decode(row)?;
                let id = key.last_chunk::<20>().copied().map(ObjectHash::from_bytes);
                if let Some(id) = id.filter(|_| row.pack.hash == *pack.as_bytes()) {
                    objects.faults.insert(id, Arc::clone(fault));
                }
            }
        }
    }
}

/// Which of these objects are what they must be; `bytes` begin at `start` of the pack.
pub(crate) fn judge(objects: &[PackedObject], bytes: &[u8], start: u64) -> Result<Vec<bool>> {
    let is_sound = |object: &PackedObject| {
        let from = usize::try_from(object.offset - start).map_err(|_| too_long())?;
        let length = usize::try_from(object.length).map_err(|_| too_long())?;
        let content = bytes.get(from..from + length).ok_or_else(too_long)?;
        let is_pointer = Pointer::parse(content) == object.pointer;
        let is_plain = object.pointer.is_none();
        let id = hash_object(object.kind, content).ok();
        Ok(id == Some(object.id) && (is_pointer || is_plain))
    };
    objects.iter().map(is_sound).collect()
}

/// The objects from the first on that are read at once.
pub(crate) fn piece_from(objects: &[PackedObject]) -> &[PackedObject] {
    let start = objects.first().map_or(0, |object| object.offset);
    let fits = |object: &&PackedObject| object.offset + object.length - start <= PIECE_BYTES;
    let count = objects.iter().take_while(fits).count();
    &objects[..count.max(1).min(objects.len())]
}

fn too_long() -> Error {
    Error::internal("an object is not in the bytes that were read for it")
}
