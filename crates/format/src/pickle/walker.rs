//! The reader of the stream: cuts bytes into instructions, and passes over what is only content.

use super::array::Inline;
use super::machine::{Machine, Next};
use super::opcode::{Argument, argument};
use super::{MAX_NAME_BYTES, Problem, Report};

/// Bytes of a line or a text that are kept: more than any name has.
const KEPT: usize = MAX_NAME_BYTES + 1;
/// Pickles within arrays within pickles.
const MAX_DEPTH: usize = 2;

/// How far a walker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It needs more bytes.
    Reading,
    /// The pickle is at its end.
    Stopped,
    /// It can't be followed further.
    Failed(Problem),
}

#[derive(Clone, Copy)]
enum State {
    /// An instruction is next.
    Opcode,
    /// So many bytes more of an argument of a fixed length.
    Fixed { left: usize },
    /// The rest of a line, and so many lines behind it.
    Line { more: usize },
    /// The bytes of a length.
    Length { left: usize, signed: bool },
    /// Content, of which the first bytes are kept.
    Content { left: u64 },
    /// The byte that says how much padding an array has, at most this much.
    Padding { alignment: u64, length: u64 },
    /// Bytes of an array.
    Array { left: u64 },
}

/// Follows one pickle. Bytes are handed to it as they come, in pieces of any size.
pub struct Walker {
    /// The machines of pickles that lie in each other; the last one runs.
    machines: Vec<Machine>,
    state: State,
    progress: Progress,
    opcode: u8,
    /// What is kept of the argument.
    kept: Vec<u8>,
    /// The line before the one that is being read.
    line: Vec<u8>,
    /// What inner pickles reported.
    inner: Report,
    /// Bytes that were taken.
    taken: u64,
}

impl Default for Walker {
    fn default() -> Self {
        Self::new()
    }
}

impl Walker {
    /// A walker before the first byte.
    pub fn new() -> Self {
        Self {
            machines: vec![Machine::default()],
            state: State::Opcode,
            progress: Progress::Reading,
            opcode: 0,
            kept: Vec::new(),
            line: Vec::new(),
            inner: Report::default(),
            taken: 0,
        }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Bytes that were taken or passed over.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Takes bytes from the front; how many. Fewer than all only where the pickle ends, or can't
    /// be followed further.
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while self.progress == Progress::Reading && at < bytes.len() {
            at += self.take(&bytes[at..]);
        }
        self.taken += at as u64;
        at
    }

    /// How many of the next bytes are content at which nobody looks; they may be passed over with
    /// [`skip`](Self::skip) instead of being read.
    pub fn skippable(&self) -> u64 {
        match self.state {
            State::Content { left } if !self.keeps() => left,
            State::Array { left } => left,
            _ => 0,
        }
    }

    /// Passes over bytes that are [`skippable`](Self::skippable), at most so many; how many.
    pub fn skip(&mut self, count: u64) -> u64 {
        let count = count.min(self.skippable());
        match &mut self.state {
            State::Content { left } | State::Array { left } => *left -= count,
            _ => return 0,
        }
        self.taken += count;
        self.finish_content();
        count
    }

    /// What was found. Of a pickle that did not come to its end, that too.
    pub fn finish(mut self) -> Report {
        let mut report = self.machines.swap_remove(0).into_report();
        for machine in self.machines {
            merge(&mut report, machine.into_report());
        }
        merge(&mut report, self.inner);
        match self.progress {
            Progress::Stopped => {}
            Progress::Reading => report.note(Problem::Truncated),
            Progress::Failed(problem) => report.note(problem),
        }
        report
    }

    /// Whether the content's first bytes are wanted still.
    fn keeps(&self) -> bool {
        // Of bytes nothing is; of texts and numbers what may be a name or a length.
        !matches!(self.opcode, b'B' | b'C' | 0x8e | 0x96) && self.kept.len() < KEPT
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = KEPT.saturating_sub(self.kept.len()).min(bytes.len());
        self.kept.extend_from_slice(&bytes[..room]);
    }

    /// One step of reading; takes at least a byte.
    fn take(&mut self, bytes: &[u8]) -> usize {
        match self.state {
            State::Opcode => {
                self.begin(bytes[0]);
                1
            }
            State::Fixed { left } => {
                let count = left.min(bytes.len());
                self.keep(&bytes[..count]);
                match left - count {
                    0 => self.step(),
                    left => self.state = State::Fixed { left },
                }
                count
            }
            State::Line { more } => self.take_line(bytes, more),
            State::Length { left, signed } => {
                let count = left.min(bytes.len());
                self.keep(&bytes[..count]);
                match left - count {
                    0 => self.counted(signed),
                    left => self.state = State::Length { left, signed },
                }
                count
            }
            State::Content { left } => {
                let count = cut(left, bytes.len());
                if self.keeps() {
                    self.keep(&bytes[..count]);
                }
                self.state = State::Content { left: left - count as u64 };
                self.finish_content();
                count
            }
            State::Padding { alignment, length } => {
                let padding = u64::from(bytes[0]);
                match length.checked_add(padding) {
                    // Other lengths may be instructions to a reader that knows of no arrays.
                    Some(left) if (1..=alignment).contains(&padding) => {
                        self.state = State::Array { left };
                    }
                    _ => self.progress = Progress::Failed(Problem::Array),
                }
                1
            }
            State::Array { left } => {
                let count = cut(left, bytes.len());
                self.state = State::Array { left: left - count as u64 };
                self.finish_content();
                count
            }
        }
    }

    fn begin(&mut self, opcode: u8) {
        self.opcode = opcode;
        self.kept.clear();
        self.line.clear();
        match argument(opcode) {
            None => self.progress = Progress::Failed(Problem::Malformed),
            Some(Argument::None) => self.step(),
            Some(Argument::Fixed(left)) => self.state = State::Fixed { left },
            Some(Argument::Lines(count)) => self.state = State::Line { more: count - 1 },
            Some(Argument::Counted(left)) => self.state = State::Length { left, signed: false },
            Some(Argument::Signed) => self.state = State::Length { left: 4, signed: true },
        }
    }

    fn take_line(&mut self, bytes: &[u8], more: usize) -> usize {
        let Some(end) = bytes.iter().position(|b| *b == b'\n') else {
            self.keep(bytes);
            return bytes.len();
        };
        self.keep(&bytes[..end]);
        // A name of which the end is not kept would be another one.
        if self.kept.len() >= KEPT && matches!(self.opcode, b'c' | b'i') {
            self.progress = Progress::Failed(Problem::TooLarge);
        } else if more > 0 {
            self.line = std::mem::take(&mut self.kept);
            self.state = State::Line { more: more - 1 };
        } else {
            self.step();
        }
        end + 1
    }

    /// A length was read: content follows.
    fn counted(&mut self, signed: bool) {
        let mut whole = [0; 8];
        whole[..self.kept.len()].copy_from_slice(&self.kept);
        let left = u64::from_le_bytes(whole);
        // Neither Python's lengths nor files are longer.
        let is_negative = if signed { left > i32::MAX as u64 } else { left > i64::MAX as u64 };
        if is_negative {
            self.progress = Progress::Failed(Problem::Malformed);
            return;
        }
        self.kept.clear();
        self.state = State::Content { left };
        self.finish_content();
    }

    fn finish_content(&mut self) {
        match self.state {
            State::Content { left: 0 } => self.step(),
            State::Array { left: 0 } => self.state = State::Opcode,
            _ => {}
        }
    }

    /// The instruction is whole.
    fn step(&mut self) {
        self.state = State::Opcode;
        let depth = self.machines.len();
        let Some(machine) = self.machines.last_mut() else { return };
        match machine.step(self.opcode, &self.kept, &self.line) {
            Err(problem) => self.progress = Progress::Failed(problem),
            Ok(Next::Step) => {}
            Ok(Next::Stop) if depth == 1 => self.progress = Progress::Stopped,
            Ok(Next::Stop) => {
                let inner = self.machines.pop().map(Machine::into_report).unwrap_or_default();
                merge(&mut self.inner, inner);
            }
            Ok(Next::Inline(Inline::Bytes { alignment, length })) => {
                self.state = State::Padding { alignment, length };
            }
            Ok(Next::Inline(Inline::Pickle)) => {
                // To a reader that knows of no arrays it would be one pickle with the outer one.
                machine.report.note(Problem::Array);
                if depth >= MAX_DEPTH {
                    self.progress = Progress::Failed(Problem::TooLarge);
                } else {
                    self.machines.push(Machine::default());
                }
            }
        }
    }
}

fn cut(left: u64, length: usize) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(length)
}

/// Adds what an inner pickle imports to what the outer one does.
fn merge(report: &mut Report, inner: Report) {
    for import in inner.imports {
        if report.imports.contains(&import) {
            continue;
        }
        // The bound is of each machine; those that lie in each other are few, those in a row
        // are not.
        if report.imports.len() >= 2 * super::MAX_IMPORTS {
            report.note(Problem::TooLarge);
            break;
        }
        report.imports.push(import);
    }
    for problem in inner.problems {
        report.note(problem);
    }
    report.calls += inner.calls;
}
