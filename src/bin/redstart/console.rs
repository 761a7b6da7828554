//! Where a command writes: results to one side, remarks and progress to the other.

use std::fmt::Display;
use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::ops::Range;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::Serialize;

use crate::escape;
use crate::failure::Failure;
use crate::table::{self, Table};

/// The colours of a terminal that are used.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Colour {
    Red,
    Green,
    Yellow,
}

/// What a command writes to. Injected, so that commands can be tested.
pub(crate) struct Console<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    json: bool,
    in_is_terminal: bool,
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
            in_is_terminal: false,
            out_is_terminal: false,
            err_is_terminal: false,
        }
    }

    /// The process's own.
    pub(crate) fn of_process(out: &'a mut io::Stdout, err: &'a mut io::Stderr, json: bool) -> Self {
        Self {
            in_is_terminal: io::stdin().is_terminal(),
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

    /// Whether somebody can be asked.
    pub(crate) fn in_is_terminal(&self) -> bool {
        self.in_is_terminal
    }

    /// Whether results go to a terminal.
    pub(crate) fn out_is_terminal(&self) -> bool {
        self.out_is_terminal
    }

    /// A text in a colour, where results go to a terminal whose user has not asked for none.
    pub(crate) fn paint(&self, colour: Colour, text: &str) -> String {
        if !self.out_is_terminal || std::env::var_os("NO_COLOR").is_some_and(|no| !no.is_empty()) {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// Asks for a word to be typed before something is done that cannot be undone.
    ///
    /// # Errors
    ///
    /// When something else is typed; and where there is no terminal to ask on: what a pipe
    /// happens to hold is no consent.
    pub(crate) fn confirm(&mut self, word: &str) -> Result<(), Failure> {
        if !self.in_is_terminal {
            let text = "not confirmed: there is no terminal to ask on; --yes goes on without";
            return Err(Failure::usage(text));
        }
        let _ = write!(self.err, "Type {} to go on: ", escape::text(word));
        let _ = self.err.flush();
        let mut typed = String::new();
        io::stdin().lock().read_line(&mut typed)?;
        if typed.trim() == word {
            return Ok(());
        }
        Err(Failure::new("not confirmed; nothing was done"))
    }

    /// Writes bytes of the result, as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
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

    /// Writes a table. The columns in `numbers` are aligned to the right. Without a header there is
    /// none.
    pub(crate) fn table(
        &mut self,
        header: &[&str],
        rows: &[Vec<String>],
        numbers: Range<usize>,
    ) -> io::Result<()> {
        self.rows(&mut Table::new(header, numbers), rows)
    }

    /// Writes the next rows of a table.
    pub(crate) fn rows(&mut self, table: &mut Table<'_>, rows: &[Vec<String>]) -> io::Result<()> {
        for line in table.portion(rows, width(self.out_is_terminal)) {
            writeln!(self.out, "{line}")?;
        }
        Ok(())
    }

    /// Writes a text of the result, escaped, after a lead that takes so many columns; on a terminal
    /// over as many lines as it needs, each under the beginning of the first.
    pub(crate) fn hanging(&mut self, lead: &str, indent: usize, text: &str) -> io::Result<()> {
        for line in table::hanging(lead, indent, text, width(self.out_is_terminal)) {
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

    /// A remark that is broken between words where a terminal is too narrow for it: not for what is
    /// to be copied.
    pub(crate) fn sentence(&mut self, text: &str) {
        for line in table::hanging("", 0, text, width(self.err_is_terminal)) {
            let _ = writeln!(self.err, "{line}");
        }
    }

    /// A bar on the error output, `{rate}` in its template for how many a second, where that is a terminal; elsewhere one that draws nothing.
    pub(crate) fn progress(&self, length: Option<u64>, template: &str) -> ProgressBar {
        let target = if self.err_is_terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(length, target);
        if let Ok(style) = ProgressStyle::with_template(template) {
            // Whole ones: the default has four digits after the point.
            let rate = |state: &ProgressState, w: &mut dyn std::fmt::Write| {
                let _ = write!(w, "{:.0}/s", state.per_sec());
            };
            bar.set_style(style.with_key("rate", rate).progress_chars("━╸ "));
        }
        bar
    }
}

/// How many columns the terminal has, where it is one.
fn width(is_terminal: bool) -> Option<u16> {
    let size = terminal_size::terminal_size().filter(|_| is_terminal);
    size.map(|(width, _)| width.0)
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
