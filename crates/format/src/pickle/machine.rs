//! The machine that a pickle is a program for, with stack, marks and memo as Python has them, and
//! with values that are names or nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::array::{self, Inline};
use super::value::{Value, may_be_name};
use super::{
    Import, MAX_IMPORTS, MAX_MEMO, MAX_STACK, MAX_STORAGES, MAX_TEXT_BYTES, Problem, Report, allow,
};

/// Dictionaries whose content is kept: the latest ones, and so many entries of each.
const KEPT_DICTS: usize = 64;
const MAX_DICT: usize = 32;
/// What `joblib` puts in front of an array.
const WRAPPER: (&str, &str) = ("joblib.numpy_pickle", "NumpyArrayWrapper");

/// What comes after an instruction.
pub(super) enum Next {
    /// The next instruction.
    Step,
    /// Nothing: the pickle is at its end.
    Stop,
    /// Something that is no instruction.
    Inline(Inline),
}

/// What a dictionary has; nothing where that is not known in full.
type Entries = Option<Vec<(Arc<str>, Value)>>;

#[derive(Default)]
pub(super) struct Machine {
    pub(super) report: Report,
    stack: Vec<Value>,
    /// Where on the stack each mark is.
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
    dicts: VecDeque<Entries>,
    /// The number of the first dictionary that is kept.
    first_dict: u64,
    text_bytes: usize,
    /// The number of each import.
    numbers: HashMap<(String, String), usize>,
    /// Whether persistent ids were seen that are no storages.
    strange_ids: bool,
}

impl Machine {
    /// The report at the end.
    pub(super) fn into_report(mut self) -> Report {
        self.report.storages_known = !self.strange_ids;
        self.report
    }

    /// Carries out an instruction with its argument; lines come without their ends.
    pub(super) fn step(
        &mut self,
        opcode: u8,
        argument: &[u8],
        line: &[u8],
    ) -> Result<Next, Problem> {
        match opcode {
            b'.' => {
                let value = self.pop()?;
                if let Value::Int(number) = value
                    && self.report.number.is_none()
                {
                    self.report.number = Some(number.to_le_bytes().to_vec());
                }
                return Ok(Next::Stop);
            }
            b'b' => return self.build(),
            b'(' => self.mark()?,
            b'0' => self.drop_top()?,
            b'1' => drop(self.pop_mark()?),
            b'2' => self.push(self.top()?.clone())?,
            // Values of which nothing needs to be known.
            b'N' | 0x88 | 0x89 | b'G' | b'F' | b']' | 0x8f | b'B' | b'C' | 0x8e | 0x96 | 0x97 => {
                self.push(Value::Other)?;
            }
            0x98 => drop(self.top()?),
            0x80 => check_protocol(argument)?,
            0x95 => {}
            b'J' | b'K' | b'M' | b'I' | b'L' | 0x8a | 0x8b => self.number(opcode, argument)?,
            b'S' | b'T' | b'U' | b'V' | b'X' | 0x8c | 0x8d => self.text(opcode, argument)?,
            b'}' => self.new_dict(Some(Vec::new()))?,
            b')' | b't' | 0x85..=0x87 => self.tuple(opcode)?,
            b'd' | b'l' | 0x91 => self.collect(opcode)?,
            b'a' | b'e' | 0x90 | b's' | b'u' => self.fill(opcode)?,
            b'c' => self.global(line, argument)?,
            0x93 => self.stack_global()?,
            b'i' | b'o' | b'R' | 0x81 | 0x92 => self.call(opcode, line, argument)?,
            b'P' | b'Q' => self.persistent(opcode)?,
            0x82..=0x84 => {
                self.report.note(Problem::Extension);
                self.push(Value::Other)?;
            }
            _ => self.remember(opcode, argument)?,
        }
        Ok(Next::Step)
    }

    /// Where the values above the last mark begin: nothing may be taken from below.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn push(&mut self, value: Value) -> Result<(), Problem> {
        if self.stack.len() >= MAX_STACK {
            return Err(Problem::TooLarge);
        }
        self.stack.push(value);
        Ok(())
    }

    fn mark(&mut self) -> Result<(), Problem> {
        if self.marks.len() >= MAX_STACK {
            return Err(Problem::TooLarge);
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, Problem> {
        if self.stack.len() <= self.floor() {
            return Err(Problem::Underflow);
        }
        self.stack.pop().ok_or(Problem::Underflow)
    }

    fn top(&self) -> Result<&Value, Problem> {
        if self.stack.len() <= self.floor() {
            return Err(Problem::Underflow);
        }
        self.stack.last().ok_or(Problem::Underflow)
    }

    /// `POP`: of nothing above a mark, the mark.
    fn drop_top(&mut self) -> Result<(), Problem> {
        match self.pop() {
            Ok(_) => Ok(()),
            Err(problem) => self.marks.pop().map(|_| ()).ok_or(problem),
        }
    }

    /// Takes all above the last mark, and the mark.
    fn pop_mark(&mut self) -> Result<Vec<Value>, Problem> {
        let mark = self.marks.pop().ok_or(Problem::Underflow)?;
        Ok(self.stack.split_off(mark))
    }

    fn number(&mut self, opcode: u8, argument: &[u8]) -> Result<(), Problem> {
        let little = |bytes: &[u8], signed: bool| {
            let fill = if signed && bytes.last().is_some_and(|b| *b >= 0x80) { 0xff } else { 0 };
            let mut whole = [fill; 8];
            whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
            Some(i64::from_le_bytes(whole))
        };
        let number = match opcode {
            b'I' | b'L' => {
                let text = std::str::from_utf8(argument).unwrap_or_default();
                text.trim().trim_end_matches('L').parse().ok()
            }
            b'J' => little(argument, true),
            b'K' | b'M' => little(argument, false),
            _ => {
                if self.stack.is_empty() && self.memo.is_empty() {
                    // Some files begin with a pickle that is one number.
                    self.report.number = Some(argument.to_vec());
                }
                little(argument, true)
            }
        };
        self.push(number.map_or(Value::Other, Value::Int))
    }

    fn text(&mut self, opcode: u8, argument: &[u8]) -> Result<(), Problem> {
        let text = match opcode {
            // What has escapes is no name that was found.
            b'S' => match argument {
                [open @ (b'\'' | b'"'), text @ .., close] if open == close => text,
                _ => b"\\",
            },
            _ => argument,
        };
        let value = match std::str::from_utf8(text) {
            Ok(text) if may_be_name(text.as_bytes()) && !text.contains('\\') => self.keep(text),
            _ => Value::Other,
        };
        self.push(value)
    }

    /// A text, as long as there is room for texts.
    fn keep(&mut self, text: &str) -> Value {
        self.text_bytes = self.text_bytes.saturating_add(text.len() + 32);
        if self.text_bytes > MAX_TEXT_BYTES {
            return Value::Other;
        }
        Value::Text(text.into())
    }

    fn tuple(&mut self, opcode: u8) -> Result<(), Problem> {
        let items = match opcode {
            b')' => Vec::new(),
            b't' => self.pop_mark()?,
            _ => {
                let mut items = Vec::new();
                for _ in 0x85..=opcode {
                    items.push(self.pop()?);
                }
                items.reverse();
                items
            }
        };
        self.push(Value::tuple(&items))
    }

    /// Lists, dictionaries and sets from what is above the mark.
    fn collect(&mut self, opcode: u8) -> Result<(), Problem> {
        let items = self.pop_mark()?;
        if opcode == b'd' { self.new_dict(pairs(items)) } else { self.push(Value::Other) }
    }

    fn new_dict(&mut self, entries: Entries) -> Result<(), Problem> {
        let number = self.first_dict + self.dicts.len() as u64;
        self.dicts.push_back(entries);
        if self.dicts.len() > KEPT_DICTS {
            self.dicts.pop_front();
            self.first_dict += 1;
        }
        self.push(Value::Dict(number))
    }

    fn entries(&mut self, number: u64) -> Option<&mut Entries> {
        let at = number.checked_sub(self.first_dict)?;
        self.dicts.get_mut(usize::try_from(at).ok()?)
    }

    /// Puts items into what lies below them.
    fn fill(&mut self, opcode: u8) -> Result<(), Problem> {
        let new = match opcode {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_mark()?,
        };
        let filled = self.top()?.clone();
        if let Value::Global(_) = filled {
            self.report.note(Problem::ChangesImport);
        }
        if let (b's' | b'u', Value::Dict(number)) = (opcode, filled)
            && let Some(entries) = self.entries(number)
        {
            *entries = match (entries.take(), pairs(new)) {
                // What has more entries than a description has is no description.
                (Some(old), Some(new)) if old.len() + new.len() <= MAX_DICT => {
                    Some(old.into_iter().chain(new).collect())
                }
                _ => None,
            };
        }
        Ok(())
    }

    fn import(&mut self, module: &str, name: &str) -> Value {
        let key = (module.to_owned(), name.to_owned());
        if let Some(at) = self.numbers.get(&key) {
            return Value::Global(*at);
        }
        if self.report.imports.len() >= MAX_IMPORTS {
            self.report.note(Problem::TooLarge);
            return Value::Other;
        }
        let number = self.report.imports.len();
        self.numbers.insert(key.clone(), number);
        let safety = allow::safety(module, name);
        let (module, name) = key;
        self.report.imports.push(Import { module, name, safety });
        Value::Global(number)
    }

    fn global(&mut self, module: &[u8], name: &[u8]) -> Result<(), Problem> {
        // Python reads these lines as UTF-8 and stops where they are not.
        let module = std::str::from_utf8(module).map_err(|_| Problem::Malformed)?;
        let name = std::str::from_utf8(name).map_err(|_| Problem::Malformed)?;
        let value = self.import(module, name);
        self.push(value)
    }

    fn stack_global(&mut self) -> Result<(), Problem> {
        let (name, module) = (self.pop()?, self.pop()?);
        let value = if let (Some(module), Some(name)) = (module.text(), name.text()) {
            self.import(module, name)
        } else {
            self.report.note(Problem::ComputedImport);
            Value::Other
        };
        self.push(value)
    }

    fn call(&mut self, opcode: u8, module: &[u8], name: &[u8]) -> Result<(), Problem> {
        let (callee, argument) = match opcode {
            b'i' => {
                let arguments = self.pop_mark()?;
                self.global(module, name)?;
                (self.pop()?, arguments.first().cloned())
            }
            b'o' => {
                let mut arguments = self.pop_mark()?.into_iter();
                (arguments.next().ok_or(Problem::Underflow)?, arguments.next())
            }
            _ => {
                if opcode == 0x92 {
                    self.pop()?;
                }
                let arguments = self.pop()?;
                let first = arguments.items().and_then(|items| items.first().cloned());
                (self.pop()?, first)
            }
        };
        self.report.calls += 1;
        let text = argument.as_ref().and_then(Value::text).map(Arc::clone);
        let made = if let Value::Global(import) = callee {
            Value::Made(import, text)
        } else {
            self.report.note(Problem::ComputedCall);
            Value::Other
        };
        self.push(made)
    }

    /// `BUILD`: gives a state. Of an instance that is its own affair; an import itself would be
    /// changed for the whole program.
    fn build(&mut self) -> Result<Next, Problem> {
        let state = self.pop()?;
        let built = self.top()?.clone();
        self.report.calls += 1;
        match built {
            Value::Global(_) => self.report.note(Problem::ChangesImport),
            Value::Made(import, _) if self.is_wrapper(import) => {
                let entries = match state {
                    Value::Dict(number) => self.entries(number).and_then(|entries| entries.clone()),
                    _ => None,
                };
                let dtype = |import: usize| {
                    let found = self.report.imports.get(import);
                    found.is_some_and(|found| found.module == "numpy" && found.name == "dtype")
                };
                let described = entries.and_then(|entries| array::described(&entries, dtype));
                return described.map(Next::Inline).ok_or(Problem::Array);
            }
            _ => {}
        }
        Ok(Next::Step)
    }

    fn is_wrapper(&self, import: usize) -> bool {
        let found = self.report.imports.get(import);
        found.is_some_and(|import| (import.module.as_str(), import.name.as_str()) == WRAPPER)
    }

    /// Persistent ids: the loading program gives the value. Tensors' storages are named so.
    fn persistent(&mut self, opcode: u8) -> Result<(), Problem> {
        let id = if opcode == b'Q' { self.pop()? } else { Value::Other };
        let storage = id.items().and_then(|items| {
            let [kind, Value::Global(class), Value::Text(key), _, numel, ..] = items else {
                return None;
            };
            kind.text().filter(|kind| &***kind == "storage")?;
            let import = self.report.imports.get(*class)?;
            let bytes = numel.count()?.checked_mul(element_bytes(&import.name)?)?;
            Some((key.to_string(), bytes))
        });
        match storage {
            Some((key, bytes)) if self.report.storages.len() < MAX_STORAGES => {
                let known = self.report.storages.insert(key, bytes);
                self.strange_ids |= known.is_some_and(|known| known != bytes);
            }
            _ => self.strange_ids = true,
        }
        self.push(Value::Other)
    }

    /// Puts into the memo, and gets out of it.
    fn remember(&mut self, opcode: u8, argument: &[u8]) -> Result<(), Problem> {
        let place = match opcode {
            0x94 => self.memo.len() as u64,
            b'g' | b'p' => {
                // Python takes more forms of numbers than this; they are not written by anybody.
                let digits = std::str::from_utf8(argument).ok();
                let digits = digits.filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
                digits.and_then(|text| text.parse().ok()).ok_or(Problem::Malformed)?
            }
            _ => {
                let mut whole = [0; 8];
                let part = whole.get_mut(..argument.len()).ok_or(Problem::Malformed)?;
                part.copy_from_slice(argument);
                u64::from_le_bytes(whole)
            }
        };
        if matches!(opcode, b'g' | b'h' | b'j') {
            let value = self.memo.get(&place).ok_or(Problem::Underflow)?.clone();
            return self.push(value);
        }
        let value = self.top()?.clone();
        self.memo.insert(place, value);
        if self.memo.len() > MAX_MEMO {
            return Err(Problem::TooLarge);
        }
        Ok(())
    }
}

fn check_protocol(argument: &[u8]) -> Result<(), Problem> {
    match argument {
        [0..=5] => Ok(()),
        _ => Err(Problem::Protocol),
    }
}

/// Keys and values in turn, as entries; nothing if there are many, or keys that are no names.
fn pairs(items: Vec<Value>) -> Entries {
    let pair = |pair: &[Value]| match pair {
        [Value::Text(key), value] => Some((Arc::clone(key), value.clone())),
        _ => None,
    };
    if items.len() > 2 * MAX_DICT {
        return None;
    }
    items.chunks(2).map(pair).collect()
}

/// The bytes of one element of a storage class of `torch`.
fn element_bytes(class: &str) -> Option<u64> {
    Some(match class {
        "ByteStorage" | "CharStorage" | "BoolStorage" | "QInt8Storage" | "QUInt8Storage"
        | "UntypedStorage" => 1,
        "HalfStorage" | "BFloat16Storage" | "ShortStorage" => 2,
        "FloatStorage" | "IntStorage" | "QInt32Storage" => 4,
        "DoubleStorage" | "LongStorage" | "ComplexFloatStorage" => 8,
        "ComplexDoubleStorage" => 16,
        _ => return None,
    })
}
