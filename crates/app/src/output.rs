//! What commands print: tables for people on a terminal, JSON for programs, errors for both.

use std::io::{self, Write};

use anyhow::Result;
use serde_json::Value;

/// Standard output and standard error, behind one door so that nothing else prints.
pub(crate) struct Output {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
}

impl Output {
    /// The process's own streams.
    pub(crate) fn standard() -> Self {
        Self { out: Box::new(io::stdout()), err: Box::new(io::stderr()) }
    }

    /// One line of the answer.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> Result<()> {
        writeln!(self.out, "{}", text.as_ref())?;
        Ok(self.out.flush()?)
    }

    /// A line about the work itself, which is not part of the answer.
    pub(crate) fn note(&mut self, text: impl AsRef<str>) {
        let _ = writeln!(self.err, "{}", text.as_ref());
    }

    /// The answer as JSON.
    pub(crate) fn json(&mut self, value: &Value) -> Result<()> {
        self.line(serde_json::to_string_pretty(value)?)
    }

    /// An error with its causes; a cause that only repeats what stands before it is left out.
    pub(crate) fn error(&mut self, error: &anyhow::Error) {
        let mut text = String::new();
        for cause in error.chain().map(ToString::to_string) {
            if text.is_empty() {
                text = cause;
            } else if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        let _ = writeln!(self.err, "error: {text}");
    }

    /// Rows under headings, in columns as wide as they need to be.
    pub(crate) fn table(&mut self, headings: &[&str], rows: &[Vec<String>]) -> Result<()> {
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            widest.max(headings.get(column).map_or(0, |heading| heading.len()))
        };
        let widths: Vec<usize> = (0..headings.len()).map(width).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = String::new();
            for (cell, width) in cells.zip(&widths) {
                text.push_str(&format!("{cell:width$}  "));
            }
            text.trim_end().to_owned()
        };
        self.line(line(&mut headings.iter().copied()))?;
        for row in rows {
            self.line(line(&mut row.iter().map(String::as_str)))?;
        }
        Ok(())
    }
}
