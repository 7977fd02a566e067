//! Opening the index, and deciding whether it may be believed.
//!
//! It is believed only if the last stop was orderly, its schema is ours, and its engine opens. In
//! every other case the folder is emptied and whoever asked is told to rebuild (Invariant 6). The
//! sign of an orderly stop is a file of our own: the engine may open cleanly with rows missing.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Index;
use super::handle::IndexHandle;
use super::schema::SCHEMA;
use super::sled as engine;
use crate::error::{Error, Result};

type Engine = Arc<dyn Index>;

/// What was found in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The index as it was left.
    Clean,
    /// An empty index, to be filled from the object store; then call
    /// [`IndexHandle::mark_whole`].
    Rebuild {
        /// Why, for a person.
        reason: String,
    },
}

/// Opens the index in a folder of its own. Call once in a process, before anything is served.
pub fn open(folder: &Path) -> Result<(IndexHandle, Opened)> {
    open_for(folder, "")
}

/// The same, for an index that may have been made from another store; `store` says which this is.
pub fn open_for(folder: &Path, store: &str) -> Result<(IndexHandle, Opened)> {
    let files = Files::of(folder, store);
    fs::create_dir_all(folder).map_err(|error| Error::folder(folder, &error))?;
    let (engine, opened) = match open_as_left(&files)? {
        Ok(engine) => (engine, Opened::Clean),
        Err(reason) => {
            files.clear()?;
            (open_engine(&files.engine)?, Opened::Rebuild { reason })
        }
    };
    let whole = opened == Opened::Clean;
    let handle = IndexHandle::start(engine, Some(files), whole)?;
    Ok((handle, opened))
}

/// The index as it was left, or why it may not be believed.
fn open_as_left(files: &Files) -> Result<std::result::Result<Engine, String>> {
    if let Some(reason) = files.doubt()? {
        return Ok(Err(reason));
    }
    // From here on an index without a marker is one that was not closed.
    files.remove_marker()?;
    Ok(open_engine(&files.engine).map_err(|error| error.to_string()))
}

/// The files of an index.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    engine: PathBuf,
    schema: PathBuf,
    marker: PathBuf,
    /// What the file called `schema` must say.
    stamp: String,
}

impl Files {
    pub(super) fn of(folder: &Path, store: &str) -> Self {
        Self {
            stamp: format!("{SCHEMA} {store}").trim_end().to_owned(),
            folder: folder.to_owned(),
            engine: folder.join("sled"),
            schema: folder.join("schema"),
            marker: folder.join("clean"),
        }
    }

    /// Says that the stop was orderly: the next start believes what is here.
    pub(super) fn mark_clean(&self) -> Result<()> {
        write_durably(&self.folder, &self.marker, "clean\n")
            .map_err(|error| Error::folder(&self.marker, &error))
    }

    /// Throws away what is here and opens an empty engine.
    pub(super) fn begin_anew(&self) -> Result<Engine> {
        self.clear()?;
        open_engine(&self.engine)
    }

    /// Why the index may not be believed, if so.
    fn doubt(&self) -> Result<Option<String>> {
        let Some(schema) = read_if_there(&self.schema)? else {
            return Ok(Some("there is none yet".into()));
        };
        let (found, ours) = (schema.trim(), self.stamp.as_str());
        if found.split(' ').next() != ours.split(' ').next() {
            return Ok(Some(format!("its schema is `{found}`, and this program's is `{ours}`")));
        }
        if found != ours {
            return Ok(Some("it was made from another store".into()));
        }
        if read_if_there(&self.marker)?.is_none() {
            return Ok(Some("the last stop was not clean".into()));
        }
        Ok(None)
    }

    fn remove_marker(&self) -> Result<()> {
        fs::remove_file(&self.marker)
            .and_then(|()| sync_folder(&self.folder))
            .map_err(|error| Error::folder(&self.marker, &error))
    }

    /// Empties the folder and notes our schema. The marker goes first and the schema comes last:
    /// a crash in between leaves something that is not believed.
    fn clear(&self) -> Result<()> {
        self.try_clear().map_err(|error| Error::folder(&self.folder, &error))
    }

    fn try_clear(&self) -> io::Result<()> {
        absent_is_fine(fs::remove_file(&self.marker))?;
        absent_is_fine(fs::remove_file(&self.schema))?;
        sync_folder(&self.folder)?;
        absent_is_fine(fs::remove_dir_all(&self.engine))?;
        write_durably(&self.folder, &self.schema, &format!("{}\n", self.stamp))
    }
}

/// The engine may panic when it opens a damaged folder, so it opens in a thread that may die.
fn open_engine(folder: &Path) -> Result<Engine> {
    let path = folder.to_owned();
    let opening = std::thread::Builder::new().name("index-open".into()).spawn(move || {
        catch_unwind(AssertUnwindSafe(|| engine::Sled::open(&path)))
            .unwrap_or_else(|_| Err(Error::index("its engine panicked while opening")))
    });
    let opened = opening
        .map_err(|error| Error::index(format!("no thread to open it: {error}")))?
        .join()
        .unwrap_or_else(|_| Err(Error::index("its engine panicked while opening")));
    opened.map(|engine| -> Engine { Arc::new(engine) })
}

fn read_if_there(path: &Path) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::folder(path, &error)),
    }
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn write_durably(folder: &Path, path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    sync_folder(folder)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
