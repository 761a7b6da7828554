//! Where a command writes: results to one side, remarks and progress to the other.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};
use std::ops::Range;

use comfy_table::presets::{NOTHING, UTF8_FULL_CONDENSED};
use comfy_table::{CellAlignment, Table};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::escape;

/// What a command writes to. Injected, so that commands can be tested.
pub(crate) struct Console<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    json: bool,
    out_is_terminal: bool,
    err_is_terminal: bool,
}

impl<'a> Console<'a> {
    /// A console that is no terminal.
    #[cfg(test)]
    pub(crate) fn new(out: &'a mut dyn Write, err: &'a mut dyn Write, json: bool) -> Self {
        Self {
            out,
            err,
            json,
            out_is_terminal: false,
            err_is_terminal: false,
        }
    }

    /// The process's own.
    pub(crate) fn of_process(out: &'a mut io::Stdout, err: &'a mut io::Stderr, json: bool) -> Self {
        Self {
            out_is_terminal: out.is_terminal(),
            err_is_terminal: err.is_terminal(),
            out,
            err,
            json,
        }
    }

    /// Whether the results are for programs.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Writes one line of the result, as it is.
    pub(crate) fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// Writes one line of the result for programs.
    pub(crate) fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> io::Result<()> {
        let line = escape::to_json(value)?;
        self.line(line)
    }

    /// Writes a table: with lines on a terminal, in plain columns elsewhere. The columns in
    /// `numbers` are aligned to the right. Without a header there is none.
    pub(crate) fn table(
        &mut self,
        header: &[&str],
        rows: &[Vec<String>],
        numbers: Range<usize>,
    ) -> io::Result<()> {
        let mut table = Table::new();
        table.load_preset(if self.out_is_terminal {
            UTF8_FULL_CONDENSED
        } else {
            NOTHING
        });
        if !header.is_empty() {
            table.set_header(header);
        }
        for row in rows {
            table.add_row(row.iter().map(|cell| escape::text(cell)));
        }
        for column in table
            .column_iter_mut()
            .skip(numbers.start)
            .take(numbers.len())
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for line in table.to_string().lines() {
            // Without lines around it a table begins and ends with the space of its padding.
            let line = line.strip_prefix(' ').unwrap_or(line).trim_end();
            writeln!(self.out, "{line}")?;
        }
        Ok(())
    }

    /// Gives on what has been written so far.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// A remark beside the result. Who has closed the error output does not want to know.
    pub(crate) fn remark(&mut self, text: impl Display) {
        let text = escape::text(&text.to_string());
        let _ = writeln!(self.err, "{text}");
    }

    /// A bar on the error output where that is a terminal; elsewhere one that draws nothing.
    pub(crate) fn progress(&self, length: Option<u64>, template: &str) -> ProgressBar {
        let target = if self.err_is_terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(length, target);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸ "));
        }
        bar
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_without_a_terminal_is_plain_columns() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let rows = [
            vec!["orders".to_owned(), "7".to_owned()],
            vec!["a\u{1b}".to_owned(), "1234".to_owned()],
        ];
        Console::new(&mut out, &mut err, false)
            .table(&["topic", "entries"], &rows, 1..2)
            .unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "topic    entries\norders         7\na\\u{1b}     1234\n"
        );
    }

    #[test]
    fn a_remark_is_escaped_and_stays_off_the_result() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        Console::new(&mut out, &mut err, false).remark("a\u{1b}");
        assert_eq!(String::from_utf8(err).unwrap(), "a\\u{1b}\n");
        assert!(out.is_empty());
    }
}
