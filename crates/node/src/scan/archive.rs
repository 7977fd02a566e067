//! Archives: the directory, the header in front of each entry, and the pickles among the contents.
//! Only these are read, by ranges; the numbers of tensors are passed over.

use std::ops::Range;

use ballast_format::archive::{
    self, Directory, Entry, Flaw, Local, MAX_LOCAL_BYTES, Method, Place, TAIL_BYTES,
};
use ballast_format::pickle::{Problem, Progress, Report, Walker};
use bytes::Bytes;
use futures_util::StreamExt as _;
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

use super::config;
use super::content::{
    Form, HEAD_BYTES, MAX_CONFIG_BYTES, Objects, add_guess, form, objects, too_large,
};
use super::name::{Class, is_storage};
use super::source::{Budget, Source};
use super::stream::{Found, feed, pickles};
use super::verdict::{Scan, Status};
use crate::error::Result;

/// Entries of which the contents are looked at.
const MAX_LOOKED_AT: usize = 20_000;
/// Contents up to this length are read as a whole, and compared with their checksum.
const MAX_CHECKED_BYTES: u64 = 16 << 20;
/// What is said of an archive in an archive.
const INNER: &str = "there is an archive in the archive";
/// What is unpacked in one step.
const UNPACKED_AT_ONCE: usize = 64 << 10;

/// Scans a whole file that is an archive.
pub(super) async fn scan(source: &Source, scan: &mut Scan, budget: &mut Budget) -> Result<()> {
    scan.kind("zip");
    let size = source.size();
    let mut directory = Directory::default();
    let tail = source.read(size.saturating_sub(TAIL_BYTES)..size).await?;
    if let Some(end) = archive::find(&tail, size, &mut directory) {
        let bytes = source.read(end.offset..end.offset.saturating_add(end.length)).await?;
        archive::read(&bytes, &end, &mut directory);
        entries(source, &mut directory, end.offset, scan, budget).await?;
    }
    scan.flaws(&directory.flaws);
    Ok(())
}

async fn entries(
    source: &Source,
    directory: &mut Directory,
    directory_start: u64,
    scan: &mut Scan,
    budget: &mut Budget,
) -> Result<()> {
    let entries = std::mem::take(&mut directory.entries);
    let mut before: Option<(&Entry, u64)> = None;
    for (number, entry) in entries.iter().enumerate() {
        if number >= MAX_LOOKED_AT || !budget.spend(MAX_LOCAL_BYTES) {
            directory.note(Flaw::TooLarge);
            return Ok(());
        }
        let header = entry.offset..entry.offset.saturating_add(MAX_LOCAL_BYTES);
        let head = source.read(header).await?;
        let local = Local::read(&head);
        let place = archive::compare(entry, local.as_ref(), directory);
        let fits = match before {
            Some((before, end)) => archive::follows(before, end, entry.offset),
            None => entry.offset == 0,
        };
        if !fits {
            directory.note(Flaw::Gap);
        }
        let Some(place) = place else { return Ok(()) };
        before = Some((entry, place.end));
        if is_storage(&entry.name) && entry.method == Method::Stored {
            continue;
        }
        content(source, entry, place, directory, scan, budget).await?;
    }
    if let Some((last, end)) = before
        && !archive::follows(last, end, directory_start)
    {
        directory.note(Flaw::Gap);
    }
    Ok(())
}

/// Looks at the content of an entry.
async fn content(
    source: &Source,
    entry: &Entry,
    place: Place,
    directory: &mut Directory,
    scan: &mut Scan,
    budget: &mut Budget,
) -> Result<()> {
    if entry.packed == 0 || entry.is_encrypted {
        return Ok(());
    }
    let class = Class::of(&entry.name);
    let range = place.start..place.end;
    match entry.method {
        Method::Stored => {
            check_content(source, entry, range.clone(), directory, budget).await?;
            let end = (range.start + HEAD_BYTES).min(range.end);
            let head = source.read(range.start..end).await?;
            stored(source, range, (class, &head), scan, budget).await
        }
        Method::Deflated => deflated(source, entry, range, class, directory, scan, budget).await,
        // It was noted that it can't be read.
        Method::Other(_) => Ok(()),
    }
}

async fn stored(
    source: &Source,
    range: Range<u64>,
    (class, head): (Class, &[u8]),
    scan: &mut Scan,
    budget: &mut Budget,
) -> Result<()> {
    if class == Class::Config {
        if range.end - range.start > MAX_CONFIG_BYTES {
            too_large(scan);
        } else {
            config::look(&source.read(range.clone()).await?, scan);
        }
    }
    match form(class, head) {
        Form::Zip | Form::Packed(_) => scan.note(Status::Suspicious, INNER),
        // The weights of a Keras model, whose configuration stands beside them.
        Form::Hdf5 => scan.kind("hdf5"),
        Form::Array => super::content::array(source, range, scan, budget).await?,
        Form::Pickle => {
            let found = pickles(source, range, budget).await?;
            found.reports.into_iter().for_each(|report| scan.add(report));
        }
        Form::Perhaps => {
            let size = range.end - range.start;
            let found = pickles(source, range, budget).await?;
            add_guess(found, size, class, scan);
        }
        Form::Other => {}
    }
    Ok(())
}

/// Compares short content with its checksum: some readers do, others do not.
async fn check_content(
    source: &Source,
    entry: &Entry,
    range: Range<u64>,
    directory: &mut Directory,
    budget: &mut Budget,
) -> Result<()> {
    if entry.packed > MAX_CHECKED_BYTES || !budget.spend(entry.packed) {
        return Ok(());
    }
    let mut hasher = crc32fast::Hasher::new();
    let mut length = 0;
    let mut stream = source.open(range).await?;
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        length += piece.len() as u64;
        hasher.update(&piece);
    }
    if (length, hasher.finalize()) != (entry.packed, entry.crc32) {
        directory.note(Flaw::WrongContent);
    }
    Ok(())
}

/// Unpacks an entry step by step, and follows the pickle in it.
async fn deflated(
    source: &Source,
    entry: &Entry,
    range: Range<u64>,
    class: Class,
    directory: &mut Directory,
    scan: &mut Scan,
    budget: &mut Budget,
) -> Result<()> {
    let mut unpacker = Unpacker::new();
    let mut stream = source.open(range).await?;
    let mut target: Option<Target> = None;
    let mut head = Vec::new();
    while let Some(piece) = stream.next().await {
        let mut packed = piece?;
        loop {
            let (after, rest, unpacked) =
                source.hub().pool().run(move || unpacker.step(packed)).await?;
            (unpacker, packed) = (after, rest);
            // What did not fit waits inside.
            let has_more = !packed.is_empty() || unpacked.len() == UNPACKED_AT_ONCE;
            if head.is_empty() {
                let first = usize::try_from(HEAD_BYTES).unwrap_or(unpacked.len());
                head.extend_from_slice(&unpacked[..first.min(unpacked.len())]);
            }
            let to = target.get_or_insert_with(|| Target::of(class, form(class, &head)));
            to.take(source, unpacked, budget).await?;
            if !has_more || unpacker.is_at_end() || budget.is_spent() {
                break;
            }
        }
        if unpacker.is_at_end() || budget.is_spent() {
            break;
        }
    }
    if budget.is_spent() {
        too_large(scan);
    }
    if !unpacker.gave(entry) {
        directory.note(Flaw::WrongContent);
    }
    if let Some(target) = target {
        target.finish(class, unpacker.length, scan);
    }
    Ok(())
}

/// What unpacked content goes to.
struct Target {
    form: Form,
    walker: Option<Walker>,
    /// The header of an array, until it is known whether objects follow.
    header: Vec<u8>,
    /// Pickles that ended.
    found: Found,
    array: Option<Objects>,
    /// A configuration, as far as it is looked into.
    config: Option<Vec<u8>>,
}

impl Target {
    fn of(class: Class, form: Form) -> Self {
        let walks = matches!(form, Form::Pickle | Form::Perhaps);
        let walker = walks.then(Walker::new);
        let config = (class == Class::Config).then(Vec::new);
        Self { form, walker, header: Vec::new(), found: Found::default(), array: None, config }
    }

    async fn take(&mut self, source: &Source, piece: Bytes, budget: &mut Budget) -> Result<()> {
        const LONGEST_HEADER: usize = 1 << 16;
        let mut rest = piece;
        if let Some(config) = &mut self.config
            && config.len() as u64 <= MAX_CONFIG_BYTES
        {
            config.extend_from_slice(&rest);
        }
        if self.form == Form::Array && self.walker.is_none() && self.array.is_none() {
            self.header.extend_from_slice(&rest);
            let objects = objects(&self.header);
            match objects {
                // The header may not be whole yet.
                Objects::Unclear if self.header.len() < LONGEST_HEADER => return Ok(()),
                Objects::From(at) => {
                    let at = usize::try_from(at).unwrap_or(usize::MAX).min(self.header.len());
                    rest = Bytes::copy_from_slice(&self.header[at..]);
                    self.walker = Some(Walker::new());
                }
                Objects::None | Objects::Unclear => {}
            }
            self.array = Some(objects);
            self.header = Vec::new();
        }
        while !rest.is_empty() {
            let Some(walker) = self.walker.take() else {
                budget.spend(rest.len() as u64);
                return Ok(());
            };
            let (walker, taken) = feed(source, walker, rest.clone(), budget).await?;
            rest = rest.slice(usize::try_from(taken).unwrap_or(rest.len())..);
            match walker.progress() {
                Progress::Reading => {
                    self.walker = Some(walker);
                    return Ok(());
                }
                Progress::Stopped => {
                    self.found.is_whole = true;
                    self.push(walker.finish());
                    // Only where more follows is there another one.
                    if !rest.is_empty() {
                        self.walker = Some(Walker::new());
                    }
                }
                Progress::Failed(_) => self.push(walker.finish()),
            }
        }
        Ok(())
    }

    fn push(&mut self, report: Report) {
        const MAX_PICKLES: usize = 1000;
        if self.found.reports.len() < MAX_PICKLES {
            self.found.reports.push(report);
        } else if let Some(last) = self.found.reports.last_mut() {
            last.note(Problem::TooLarge);
        }
    }

    fn finish(mut self, class: Class, size: u64, scan: &mut Scan) {
        if let Some(walker) = self.walker.take() {
            self.found.reports.push(walker.finish());
        }
        if self.form == Form::Array {
            scan.kind("numpy");
            if !matches!(self.array, Some(Objects::None | Objects::From(_))) {
                scan.kind("pickle");
                scan.note(Status::Suspicious, "the array's header can't be read");
            }
        }
        match self.config {
            Some(config) if config.len() as u64 > MAX_CONFIG_BYTES => too_large(scan),
            Some(config) => config::look(&config, scan),
            None => {}
        }
        match self.form {
            Form::Zip | Form::Packed(_) => scan.note(Status::Suspicious, INNER),
            Form::Hdf5 => scan.kind("hdf5"),
            Form::Perhaps => add_guess(self.found, size, class, scan),
            _ => self.found.reports.into_iter().for_each(|report| scan.add(report)),
        }
    }
}

/// Unpacks content, a bounded piece at a time.
struct Unpacker {
    state: Box<InflateState>,
    hasher: crc32fast::Hasher,
    taken: u64,
    length: u64,
    is_done: bool,
    is_broken: bool,
}

impl Unpacker {
    fn new() -> Self {
        let state = InflateState::new_boxed(DataFormat::Raw);
        let hasher = crc32fast::Hasher::new();
        Self { state, hasher, taken: 0, length: 0, is_done: false, is_broken: false }
    }

    fn is_at_end(&self) -> bool {
        self.is_done || self.is_broken
    }

    /// Whether what came out, and all that went in, is what the headers say.
    fn gave(&self, entry: &Entry) -> bool {
        let said = (entry.packed, entry.size, entry.crc32);
        self.is_done && (self.taken, self.length, self.hasher.clone().finalize()) == said
    }

    /// Unpacks a piece; what is left of the packed bytes, and what came out.
    fn step(mut self, packed: Bytes) -> (Self, Bytes, Bytes) {
        let mut out = vec![0; UNPACKED_AT_ONCE];
        let result = inflate(&mut self.state, &packed, &mut out, MZFlush::None);
        let rest = packed.slice(result.bytes_consumed.min(packed.len())..);
        out.truncate(result.bytes_written);
        self.hasher.update(&out);
        self.taken += result.bytes_consumed as u64;
        self.length += out.len() as u64;
        let goes_on = result.bytes_consumed > 0 || result.bytes_written > 0;
        match result.status {
            Ok(MZStatus::StreamEnd) => self.is_done = true,
            Ok(_) if goes_on => {}
            // There was nothing left of the piece.
            Ok(_) | Err(MZError::Buf) if packed.is_empty() => {}
            Ok(_) | Err(_) => self.is_broken = true,
        }
        (self, rest, Bytes::from(out))
    }
}
