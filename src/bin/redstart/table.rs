//! Tables: in plain columns, with lines on a terminal, or without columns where that is narrow.

use std::ops::Range;

use comfy_table::presets::{NOTHING, UTF8_FULL_CONDENSED};
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Width};

use crate::escape;

/// The narrowest text after a lead that is wrapped beside it.
const NARROWEST: usize = 12;
/// The narrowest last column of a table that is wrapped: a text of a few words a line is hard to read.
const NARROWEST_COLUMN: usize = 36;

/// A table that is written in portions, so that a long one needs little memory.
///
/// A terminal gets the last column wrapped to the remaining width. The other columns stay whole,
/// because nobody can copy a wrapped id. Where they leave too little to the last column, each row
/// becomes a line of its cells, with the last one below.
pub(crate) struct Table<'a> {
    header: &'a [&'a str],
    numbers: Range<usize>,
    /// The widths of the columns so far.
    widths: Vec<u16>,
    begun: bool,
    listed: bool,
}

impl<'a> Table<'a> {
    /// The columns in `numbers` are aligned to the right. An empty header writes none.
    pub(crate) fn new(header: &'a [&'a str], numbers: Range<usize>) -> Self {
        Self {
            header,
            numbers,
            widths: vec![0; header.len()],
            begun: false,
            listed: false,
        }
    }

    /// The lines of the next rows, for a terminal of a width or for a pipe.
    pub(crate) fn portion(&mut self, rows: &[Vec<String>], terminal: Option<u16>) -> Vec<String> {
        let grouped;
        let rows = match terminal {
            Some(_) => {
                grouped = self.group_digits(rows);
                &grouped[..]
            }
            // A program reads the numbers of a pipe.
            None => rows,
        };
        let first = !std::mem::replace(&mut self.begun, true);
        let mut table = self.columns(rows, first || terminal.is_some());
        if let Some(width) = terminal {
            let fits = fit(&mut table, width);
            if first {
                self.listed = !fits && !self.header.is_empty();
            }
            if self.listed {
                return self.list(rows, width);
            }
        }
        lines(&table)
    }

    /// The rows with a comma between thousands in the columns of numbers.
    fn group_digits(&self, rows: &[Vec<String>]) -> Vec<Vec<String>> {
        let cell = |(at, cell): (usize, &String)| match self.numbers.contains(&at) {
            true => thousands(cell),
            false => cell.clone(),
        };
        let row = |row: &Vec<String>| row.iter().enumerate().map(cell).collect();
        rows.iter().map(row).collect()
    }

    fn columns(&mut self, rows: &[Vec<String>], header: bool) -> comfy_table::Table {
        let mut table = comfy_table::Table::new();
        if header && !self.header.is_empty() {
            table.set_header(self.header);
        }
        for row in rows {
            table.add_row(row.iter().map(|cell| escape::text(cell)));
        }
        let numbers = self.numbers.clone();
        for column in table
            .column_iter_mut()
            .skip(numbers.start)
            .take(numbers.len())
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.load_preset(NOTHING);
        let widths = table.column_max_content_widths();
        self.widths.resize(widths.len(), 0);
        let columns = table.column_iter_mut().zip(&mut self.widths).zip(widths);
        for ((column, so_far), width) in columns {
            *so_far = width.max(*so_far);
            let padded = so_far.saturating_add(2);
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(padded)));
        }
        table
    }

    /// Each row as its cells, and its text below them.
    fn list(&self, rows: &[Vec<String>], width: u16) -> Vec<String> {
        let last = self.header.len().saturating_sub(1);
        let has_text = !self.numbers.contains(&last);
        let mut all = Vec::new();
        for row in rows {
            let cells = row.iter().enumerate();
            let cells = cells.filter(|(at, cell)| !(has_text && *at == last) && *cell != "-");
            let words = cells.map(|(at, cell)| match self.numbers.contains(&at) {
                true => format!("{} {cell}", self.header[at]),
                false => escape::text(cell),
            });
            all.extend(flow(words, width));
            if let Some(text) = row.get(last).filter(|_| has_text) {
                all.extend(hanging("  ", 2, text, Some(width)));
            }
        }
        all
    }
}

/// Words that stay whole, two spaces apart; further lines are indented.
fn flow(words: impl Iterator<Item = String>, width: u16) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    let mut columns = 0;
    for word in words {
        let wide = word.chars().count();
        if columns > 0 && columns + 2 + wide > usize::from(width) {
            lines.push(std::mem::replace(&mut line, "  ".to_owned()));
            columns = 2;
        } else if columns > 0 {
            line.push_str("  ");
            columns += 2;
        }
        line.push_str(&word);
        columns += wide;
    }
    lines.push(line);
    lines
}

/// A whole number with a comma between thousands; any other text as it is.
pub(crate) fn thousands(text: &str) -> String {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.to_owned();
    }
    let mut grouped = String::with_capacity(text.len() + text.len() / 3);
    for (at, digit) in text.chars().enumerate() {
        if at > 0 && (text.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A text after a lead of `indent` columns. A terminal gets it wrapped between words and indented
/// to its beginning; on a narrow one, indented by two columns.
pub(crate) fn hanging(lead: &str, indent: usize, text: &str, terminal: Option<u16>) -> Vec<String> {
    let text = escape::text(text);
    let Some(width) = terminal.map(usize::from) else {
        return vec![format!("{lead}{text}")];
    };
    let fits = indent == 0 || indent + NARROWEST <= width;
    let indent = if fits { indent } else { 2 };
    let mut cell = comfy_table::Table::new();
    cell.load_preset(NOTHING);
    cell.add_row([text]);
    // A cell has a space on either side.
    let columns = u16::try_from(width.saturating_sub(indent) + 2).unwrap_or(u16::MAX);
    cell.set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(columns);
    let mut broken = lines(&cell).into_iter();
    let first = if fits {
        format!("{lead}{}", broken.next().unwrap_or_default())
    } else {
        lead.trim_start().to_owned()
    };
    let rest = broken.map(|line| format!("{:indent$}{line}", ""));
    std::iter::once(first.trim_end().to_owned())
        .chain(rest)
        .collect()
}

/// The lines of a table, without the padding at both ends.
fn lines(table: &comfy_table::Table) -> Vec<String> {
    let text = table.to_string();
    let lines = text.lines();
    lines
        .map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end().to_owned())
        .collect()
}

/// Fits a table to a terminal; returns whether it fits.
fn fit(table: &mut comfy_table::Table, width: u16) -> bool {
    let widths = table.column_max_content_widths();
    let Some((last, fixed)) = widths.split_last() else {
        return true;
    };
    // A column has a space on either side, and lines stand around all of them.
    let fixed: usize = fixed.iter().map(|width| usize::from(*width) + 2).sum();
    let needed = fixed + usize::from(*last).min(NARROWEST_COLUMN) + 2;
    let lines = widths.len() + 1;
    if needed > usize::from(width) {
        return false;
    }
    if needed + lines <= usize::from(width) {
        table.load_preset(UTF8_FULL_CONDENSED);
    }
    table
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width);
    let count = widths.len();
    for (at, column) in table.column_iter_mut().enumerate() {
        if at + 1 < count {
            column.set_constraint(ColumnConstraint::ContentWidth);
        } else {
            column.remove_constraint();
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [&str; 3] = ["id", "tries", "error"];

    fn row(cells: [&str; 3]) -> Vec<String> {
        cells.map(str::to_owned).to_vec()
    }

    #[test]
    fn portions_for_a_pipe_share_their_columns() {
        let mut table = Table::new(&HEADER, 1..2);
        let portion = |table: &mut Table<'_>, cells| table.portion(&[row(cells)], None);
        assert_eq!(
            portion(&mut table, ["17-0", "3", "refused"]),
            ["id    tries  error", "17-0      3  refused"]
        );
        assert_eq!(portion(&mut table, ["9-0", "12", "x"]), ["9-0      12  x"]);
        assert_eq!(
            portion(&mut table, ["12345-0", "1", "x"]),
            ["12345-0      1  x"]
        );
        assert_eq!(
            portion(&mut table, ["9-0", "1", "x"]),
            ["9-0          1  x"],
            "as wide as ever"
        );
    }

    #[test]
    fn a_terminal_gets_a_header_over_each_portion_and_lines_where_they_fit() {
        let mut table = Table::new(&HEADER, 1..2);
        for _ in 0..2 {
            let lines = table.portion(&[row(["17-0", "3", "refused by all"])], Some(40));
            assert_eq!(lines[0], "┌──────┬───────┬────────────────┐");
            assert!(lines[1].contains("error"), "{lines:?}");
        }
        let text = "refused by all of the servers that answered in time";
        let lines = Table::new(&HEADER, 1..2).portion(&[row(["17-0", "3", text])], Some(51));
        assert_eq!(
            lines,
            [
                "id    tries  error",
                "17-0      3  refused by all of the servers that",
                "             answered in time"
            ]
        );
    }

    #[test]
    fn a_narrow_terminal_gets_the_text_below_its_cells() {
        let mut table = Table::new(&HEADER, 1..2);
        let rows = [
            row(["17-0", "3", "refused by all of the servers\u{1b}"]),
            row(["9-0", "-", "x"]),
        ];
        let lines = table.portion(&rows, Some(30));
        assert_eq!(
            lines,
            [
                "17-0  tries 3",
                "  refused by all of the",
                "  servers\\u{1b}",
                "9-0",
                "  x",
            ]
        );
        assert_eq!(table.portion(&rows[1..], Some(30)), ["9-0", "  x"]);
    }

    #[test]
    fn cells_that_do_not_fit_a_line_go_on_in_the_next() {
        let mut table = Table::new(&["topic", "group", "lag", "dead"], 2..4);
        let rows = [["orders", "billing", "1500", "7"]
            .map(str::to_owned)
            .to_vec()];
        assert_eq!(
            table.portion(&rows, Some(24)),
            ["orders  billing", "  lag 1,500  dead 7"]
        );
    }

    #[test]
    fn a_wrapped_text_is_indented_where_the_width_allows() {
        let text = "one two three\u{1b}";
        let wrapped = |width| hanging("problem  ", 9, text, width);
        assert_eq!(wrapped(None), ["problem  one two three\\u{1b}"]);
        assert_eq!(wrapped(Some(80)), ["problem  one two three\\u{1b}"]);
        assert_eq!(
            wrapped(Some(21)),
            ["problem  one two", "         three\\u{1b}"]
        );
        assert_eq!(
            wrapped(Some(16)),
            ["problem", "  one two", "  three\\u{1b}"]
        );
        assert_eq!(hanging("    why: ", 9, "one", Some(16)), ["why:", "  one"]);
        assert_eq!(
            hanging("", 0, "one two three", Some(8)),
            ["one two", "three"]
        );
        assert_eq!(hanging("a ", 2, "", Some(80)), ["a"]);
    }

    #[test]
    fn a_terminal_gets_commas_between_thousands_and_a_pipe_gets_none() {
        let rows = [row(["1795-0", "1234567", "4711"]), row(["9-0", "-", "999"])];
        let shown = Table::new(&HEADER, 1..2).portion(&rows, Some(60)).join(" ");
        assert!(shown.contains("1,234,567"), "{shown}");
        assert!(
            shown.contains("1795-0") && shown.contains("4711"),
            "ids and texts stay as they are: {shown}"
        );
        let listed = Table::new(&HEADER, 1..2).portion(&rows, Some(18));
        assert!(
            listed.contains(&"  tries 1,234,567".to_owned()),
            "{listed:?}"
        );
        let piped = Table::new(&HEADER, 1..2).portion(&rows, None).join(" ");
        assert!(piped.contains("1234567"), "{piped}");
        let numbers = ["0", "999", "1000", "123456", ""].map(thousands);
        assert_eq!(numbers, ["0", "999", "1,000", "123,456", ""]);
    }

    #[test]
    fn an_empty_table_is_its_header() {
        assert_eq!(
            Table::new(&HEADER, 0..0).portion(&[], None),
            ["id  tries  error"]
        );
    }
}
