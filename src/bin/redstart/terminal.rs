//! Input and output of a command: results to the standard output, remarks and progress to the
//! error output.

use std::fmt::Display;
use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::ops::Range;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use redstart::dead_letters::{Confirmed, Plan};
use serde::Serialize;

use crate::escape;
use crate::failure::Failure;
use crate::table::{self, Table};

/// The colours that commands use.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Colour {
    Red,
    Green,
    Yellow,
}

/// The terminal, or the pipes in its place. Injected, so that tests can read the output.
pub(crate) struct Terminal<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    json: bool,
    in_is_terminal: bool,
    out_is_terminal: bool,
    out_is_closed: bool,
    err_is_terminal: bool,
}

impl<'a> Terminal<'a> {
    /// Two buffers in place of a terminal.
    #[cfg(test)]
    pub(crate) fn new(out: &'a mut dyn Write, err: &'a mut dyn Write, json: bool) -> Self {
        Self {
            out,
            err,
            json,
            in_is_terminal: false,
            out_is_terminal: false,
            out_is_closed: false,
            err_is_terminal: false,
        }
    }

    /// The standard streams of this process.
    pub(crate) fn of_process(out: &'a mut io::Stdout, err: &'a mut io::Stderr, json: bool) -> Self {
        Self {
            in_is_terminal: io::stdin().is_terminal(),
            out_is_terminal: out.is_terminal(),
            out_is_closed: is_closed(out),
            err_is_terminal: err.is_terminal(),
            out,
            err,
            json,
        }
    }

    /// Whether results are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether the standard input is a terminal, so that a command can ask.
    pub(crate) fn in_is_terminal(&self) -> bool {
        self.in_is_terminal
    }

    /// Whether the standard output is a terminal.
    pub(crate) fn out_is_terminal(&self) -> bool {
        self.out_is_terminal
    }

    /// Whether the error output is a terminal.
    pub(crate) fn err_is_terminal(&self) -> bool {
        self.err_is_terminal
    }

    /// Whether the standard output was closed when the process began, as by `>&-`.
    pub(crate) fn out_is_closed(&self) -> bool {
        self.out_is_closed
    }

    /// Colours a text, unless the output is not a terminal or `NO_COLOR` is set.
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

    /// Confirms a plan: with `yes` at once, else by asking for its word, where it has one.
    ///
    /// # Errors
    ///
    /// When the operator types another word, or the standard input is not a terminal: the content
    /// of a pipe is not consent.
    pub(crate) fn confirm<T>(&mut self, plan: Plan<T>, yes: bool) -> Result<Confirmed<T>, Failure> {
        let Some(word) = plan.confirmation().filter(|_| !yes) else {
            return Ok(plan.confirm_unasked());
        };
        let typed = self.ask(word)?;
        plan.confirm(&typed).map_err(|_| not_confirmed())
    }

    /// Asks the operator to type a word before a step that cannot be undone.
    ///
    /// # Errors
    ///
    /// As [`confirm`](Self::confirm).
    pub(crate) fn confirm_word(&mut self, word: &str) -> Result<(), Failure> {
        if self.ask(word)?.trim() == word {
            return Ok(());
        }
        Err(not_confirmed())
    }

    fn ask(&mut self, word: &str) -> Result<String, Failure> {
        if !self.in_is_terminal {
            let text = "not confirmed: stdin is not a terminal; pass --yes to skip the prompt";
            return Err(Failure::usage(text));
        }
        let _ = write!(self.err, "Type {} to continue: ", escape::text(word));
        let _ = self.err.flush();
        let mut typed = String::new();
        io::stdin().lock().read_line(&mut typed)?;
        Ok(typed)
    }

    /// Writes bytes to the result, unescaped.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes).map_err(of_output)
    }

    /// Writes one line to the result, unescaped.
    pub(crate) fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.out, "{text}").map_err(of_output)
    }

    /// Writes a value to the result as one line of JSON.
    pub(crate) fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> io::Result<()> {
        let line = escape::to_json(value)?;
        self.line(line)
    }

    /// Writes a table. The columns in `numbers` are aligned to the right. An empty header writes
    /// none.
    pub(crate) fn table(
        &mut self,
        header: &[&str],
        rows: &[Vec<String>],
        numbers: Range<usize>,
    ) -> io::Result<()> {
        self.rows(&mut Table::new(header, numbers), rows)
    }

    /// Shortens a list to what the user asked for; returns how many it leaves out.
    pub(crate) fn cut<T>(list: &mut Vec<T>, max: Option<usize>) -> usize {
        let more = list.len().saturating_sub(max.unwrap_or(usize::MAX));
        list.truncate(list.len() - more);
        more
    }

    /// Says how many a list leaves out.
    pub(crate) fn remark_more(&mut self, more: usize) {
        if more > 0 {
            self.remark(format_args!("{more} more; raise --max to see them"));
        }
    }

    /// Writes the next rows of a table.
    pub(crate) fn rows(&mut self, table: &mut Table<'_>, rows: &[Vec<String>]) -> io::Result<()> {
        for line in table.portion(rows, width(self.out_is_terminal)) {
            self.line(line)?;
        }
        Ok(())
    }

    /// Writes a text to the result, escaped, after a lead of `indent` columns. A terminal gets it
    /// wrapped, each line indented to the first.
    pub(crate) fn hanging(&mut self, lead: &str, indent: usize, text: &str) -> io::Result<()> {
        for line in table::hanging(lead, indent, text, width(self.out_is_terminal)) {
            self.line(line)?;
        }
        Ok(())
    }

    /// Flushes the result.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush().map_err(of_output)
    }

    /// Writes one line to the error output, escaped. Ignores a closed error output.
    pub(crate) fn remark(&mut self, text: impl Display) {
        let text = escape::text(&text.to_string());
        let _ = writeln!(self.err, "{text}");
    }

    /// Writes a value as one line of JSON to the error output. Ignores a closed error output.
    pub(crate) fn remark_json<T: Serialize + ?Sized>(&mut self, value: &T) {
        if let Ok(line) = escape::to_json(value) {
            let _ = writeln!(self.err, "{line}");
        }
    }

    /// Writes lines to the error output, escaped; a terminal gets them wrapped between words. Not
    /// for text that a user copies.
    pub(crate) fn remark_wrapped(&mut self, text: &str) {
        for line in text.lines() {
            for line in table::hanging("", 0, line, width(self.err_is_terminal)) {
                let _ = writeln!(self.err, "{line}");
            }
        }
    }

    /// A progress bar on the error output; one that draws nothing where that is not a terminal.
    /// `{rate}` in the template is the number of items a second.
    pub(crate) fn progress(&self, length: Option<u64>, template: &str) -> ProgressBar {
        let target = if self.err_is_terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(length, target);
        if let Ok(style) = ProgressStyle::with_template(template) {
            // The default shows four digits after the point.
            let rate = |state: &ProgressState, w: &mut dyn std::fmt::Write| {
                let _ = write!(w, "{:.0}/s", state.per_sec());
            };
            bar.set_style(style.with_key("rate", rate).progress_chars("━╸ "));
        }
        bar
    }
}

/// Names the output in an error.
fn of_output(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("the standard output: {error}"))
}

/// Whether the standard output was closed. The runtime then has opened the null device in its place,
/// for reading and writing; a shell opens it for writing only.
#[cfg(unix)]
fn is_closed(out: &io::Stdout) -> bool {
    use rustix::fs::{OFlags, fcntl_getfl, fstat, stat};
    let (Ok(null), Ok(out_is), Ok(flags)) = (stat("/dev/null"), fstat(out), fcntl_getfl(out))
    else {
        return false;
    };
    out_is.st_rdev == null.st_rdev && flags & OFlags::RWMODE == OFlags::RDWR
}

#[cfg(not(unix))]
fn is_closed(_: &io::Stdout) -> bool {
    false
}

fn not_confirmed() -> Failure {
    Failure::new("not confirmed; nothing was changed")
}

/// The width of the terminal; `None` where the output is not one.
fn width(is_terminal: bool) -> Option<u16> {
    let size = terminal_size::terminal_size().filter(|_| is_terminal);
    size.map(|(width, _)| width.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_gets_a_table_in_plain_columns() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let rows = [
            vec!["orders".to_owned(), "7".to_owned()],
            vec!["a\u{1b}".to_owned(), "1234".to_owned()],
        ];
        Terminal::new(&mut out, &mut err, false)
            .table(&["topic", "entries"], &rows, 1..2)
            .unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "topic    entries\norders         7\na\\u{1b}     1234\n"
        );
    }

    #[test]
    fn a_remark_is_escaped_and_goes_to_the_error_output() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        Terminal::new(&mut out, &mut err, false).remark("a\u{1b}");
        assert_eq!(String::from_utf8(err).unwrap(), "a\\u{1b}\n");
        assert!(out.is_empty());
    }
}
