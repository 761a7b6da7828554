//! The screen of `top`.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row as Cells, Table, TableState};
use redstart::topics::GroupGauges;

use super::app::{App, Detail};
use super::figures::Row;
use crate::escape;
use crate::table::thousands;

/// The narrowest column of names.
const NAME: u16 = 18;

/// A column beside the name: its header, its width, and the text of a row.
struct Column {
    header: &'static str,
    width: u16,
    text: fn(&Row) -> String,
}

/// The columns in the order in which a narrow terminal gives room to them.
const BY_WORTH: [usize; 9] = [0, 3, 7, 4, 1, 2, 5, 8, 6];

const COLUMNS: [Column; 9] = [
    Column {
        header: "lag",
        width: 9,
        text: |row| count(row, |group| group.lag),
    },
    Column {
        header: "in/s",
        width: 6,
        text: |row| rate(row.published),
    },
    Column {
        header: "out/s",
        width: 6,
        text: |row| rate(row.delivered),
    },
    Column {
        header: "oldest",
        width: 6,
        text: |row| age(row, |group| group.oldest_undelivered),
    },
    Column {
        header: "flight",
        width: 6,
        text: |row| count(row, |group| group.in_flight),
    },
    Column {
        header: "busy",
        width: 6,
        text: |row| age(row, |group| group.oldest_in_flight),
    },
    Column {
        header: "retries",
        width: 7,
        text: |row| count(row, |group| group.scheduled),
    },
    Column {
        header: "dead",
        width: 9,
        text: |row| count(row, |group| group.dead),
    },
    Column {
        header: "died",
        width: 5,
        text: |row| match row.died {
            0 => "-".to_owned(),
            died => thousands(&died.to_string()),
        },
    },
];

fn count(row: &Row, of: fn(&GroupGauges) -> u64) -> String {
    let count = row.group.as_ref().map(of);
    count.map_or_else(|| "-".to_owned(), |count| thousands(&count.to_string()))
}

fn age(row: &Row, of: fn(&GroupGauges) -> Option<Duration>) -> String {
    row.group
        .as_ref()
        .and_then(of)
        .map_or_else(|| "-".to_owned(), brief)
}

fn rate(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(rate) if rate > 0.0 && rate < 10.0 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
    }
}

/// A duration in its largest unit.
fn brief(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{}ms", duration.as_millis()),
        seconds @ 1..100 => format!("{seconds}s"),
        seconds @ 100..6_000 => format!("{}m", seconds / 60),
        seconds @ 6_000..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

pub(super) fn draw(app: &App, frame: &mut Frame<'_>) {
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(headline(app)).style(bold()), head);
    match &app.opened {
        Some((row, detail)) => draw_group(row, detail, body, frame),
        None => draw_groups(app, body, frame),
    }
    frame.render_widget(Paragraph::new(footer(app)), foot);
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn headline(app: &App) -> String {
    if let Some(fault) = &app.fault {
        return format!("figures are old: {}", escape::text(fault));
    }
    let frozen = if app.frozen { "  frozen" } else { "" };
    match &app.opened {
        Some((row, _)) => format!("{}{frozen}", row.name()),
        None => {
            let shown = app.shown();
            let filter = match app.filter.is_empty() && !app.typing {
                true => String::new(),
                false => format!("  filter {}", escape::text(&app.filter)),
            };
            let rows = shown.len();
            let noun = if rows == 1 { "group" } else { "groups" };
            format!("{rows} {noun}, by {}{filter}{frozen}", app.sort.name())
        }
    }
}

fn footer(app: &App) -> &'static str {
    match (&app.opened, app.typing) {
        (Some(_), _) => "esc back  space freeze  q quit",
        (None, true) => "enter done  esc clear",
        (None, false) => "enter open  s sort  / filter  space freeze  q quit",
    }
}

/// The columns that fit beside a name, in their order.
fn columns(width: u16) -> Vec<&'static Column> {
    let mut left = width.saturating_sub(NAME);
    let mut chosen = Vec::new();
    for at in BY_WORTH {
        let needed = COLUMNS[at].width + 1;
        if needed > left {
            break;
        }
        left -= needed;
        chosen.push(at);
    }
    chosen.sort_unstable();
    chosen.into_iter().map(|at| &COLUMNS[at]).collect()
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).right_aligned())
}

fn draw_groups(app: &App, area: Rect, frame: &mut Frame<'_>) {
    let rows = app.shown();
    if rows.is_empty() {
        let text = match app.rows.is_empty() {
            true => "no topics; publishing or subscribing creates one",
            false => "no group has this in its name; esc clears the filter",
        };
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let columns = columns(area.width);
    let header = columns.iter().map(|one| right(one.header.to_owned()));
    let header = Cells::new([Cell::from("group")].into_iter().chain(header));
    let cells = rows.iter().map(|row| {
        let figures = columns.iter().map(|one| right((one.text)(row)));
        Cells::new([Cell::from(row.name())].into_iter().chain(figures))
    });
    let widths = columns.iter().map(|one| Constraint::Length(one.width));
    let widths = [Constraint::Min(NAME)].into_iter().chain(widths);
    let table = Table::new(cells, widths)
        .header(header.style(bold()))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(app.place());
    frame.render_stateful_widget(table, area, &mut state);
}

fn draw_group(row: &Row, detail: &Detail, area: Rect, frame: &mut Frame<'_>) {
    let mut lines = Vec::new();
    for figures in flow(figures(row), area.width) {
        lines.push(Line::from(figures));
    }
    lines.push(Line::default());
    lines.push(Line::styled("consumers", bold()));
    if detail.consumers.is_empty() {
        lines.push(Line::from("  none"));
    }
    for one in &detail.consumers {
        let idle = one.idle_for.map_or_else(|| "-".to_owned(), brief);
        let mut parts = vec![
            escape::text(&one.consumer),
            format!("in flight {}", thousands(&one.in_flight.to_string())),
        ];
        parts.extend(
            one.longest()
                .map(|longest| format!("busy {}", brief(longest))),
        );
        parts.push(format!("idle {idle}"));
        lines.extend(
            flow(parts, area.width)
                .into_iter()
                .map(|text| Line::from(format!("  {text}"))),
        );
    }
    lines.push(Line::default());
    lines.push(Line::styled("dead letters by cause", bold()));
    match &detail.causes {
        None => lines.push(Line::from("  …")),
        Some(summary) if summary.causes.is_empty() => lines.push(Line::from("  none")),
        Some(summary) => {
            for one in &summary.causes {
                let count = thousands(&one.cause.count.to_string());
                let text = escape::text(&one.cause.fingerprint);
                let text = format!("  {count} × {}  {text}", one.cause.reason);
                lines.push(Line::from(text));
                if let Some(note) = &one.note {
                    let text = escape::text(&note.text);
                    lines.push(Line::from(format!("    note: {text}")));
                }
            }
            if summary.rarer > 0 {
                lines.push(Line::from(format!("  and {} rarer causes", summary.rarer)));
            }
        }
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn figures(row: &Row) -> Vec<String> {
    let mut parts: Vec<String> = COLUMNS
        .iter()
        .map(|column| format!("{} {}", column.header, (column.text)(row)))
        .collect();
    if let Some(group) = &row.group {
        let next = match group.next_retry {
            None => "-".to_owned(),
            Some(millis) if millis < 0 => "overdue".to_owned(),
            Some(millis) => format!("in {}", brief(Duration::from_millis(millis.unsigned_abs()))),
        };
        parts.push(format!("next due {next}"));
    }
    parts
}

/// Parts two spaces apart, in as many lines as they need.
fn flow(parts: Vec<String>, width: u16) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for part in parts {
        let needed = line.chars().count() + 2 + part.chars().count();
        if !line.is_empty() && needed > usize::from(width) {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push_str("  ");
        }
        line.push_str(&part);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::KeyCode;

    use super::super::app::tests::{app, press};
    use super::*;

    fn screen(app: &App, width: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, 12)).unwrap();
        terminal.draw(|frame| draw(app, frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let lines = buffer.content().chunks(usize::from(width));
        lines
            .map(|line| {
                let line: String = line.iter().map(|cell| cell.symbol()).collect();
                line.trim_end().to_owned()
            })
            .collect()
    }

    #[test]
    fn a_wide_terminal_has_every_column_and_a_narrow_one_the_worthiest() {
        let wide = screen(&app(), 100);
        assert_eq!(wide[0], "4 groups, by lag");
        let words = |line: &str| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            words(&wide[1]),
            [
                "group", "lag", "in/s", "out/s", "oldest", "flight", "busy", "retries", "dead",
                "died"
            ]
        );
        assert_eq!(words(&wide[2])[..2], ["mails/sender", "1,000,000"]);
        assert_eq!(
            words(&wide[3]),
            [
                "orders/billing",
                "7",
                "-",
                "-",
                "75s",
                "0",
                "-",
                "0",
                "1,234",
                "-"
            ]
        );
        assert_eq!(
            wide[11],
            "enter open  s sort  / filter  space freeze  q quit"
        );
        let narrow = screen(&app(), 40);
        assert_eq!(words(&narrow[1]), ["group", "lag", "oldest"]);
        assert!(narrow[2].starts_with("mails/sender"), "{narrow:?}");
    }

    #[test]
    fn an_opened_group_shows_its_figures_and_what_it_lacks() {
        let mut app = app();
        press(&mut app, KeyCode::Down);
        press(&mut app, KeyCode::Enter);
        let told = screen(&app, 60).join("\n");
        for part in [
            "orders/billing",
            "lag 7",
            "oldest 75s",
            "dead 1,234",
            "next due -",
            "consumers\n  none",
            "dead letters by cause\n  …",
            "esc back",
        ] {
            assert!(told.contains(part), "{part} in {told}");
        }
    }

    #[test]
    fn a_screen_says_when_its_figures_are_old_filtered_or_frozen() {
        let mut app = app();
        press(&mut app, KeyCode::Char(' '));
        assert_eq!(screen(&app, 80)[0], "4 groups, by lag  frozen");
        press(&mut app, KeyCode::Char('/'));
        press(&mut app, KeyCode::Char('x'));
        let lines = screen(&app, 80);
        assert_eq!(lines[0], "0 groups, by lag  filter x  frozen");
        assert!(lines[1].starts_with("no group has this"), "{lines:?}");
        app.fault = Some("connect: no\u{1b} server".to_owned());
        assert_eq!(
            screen(&app, 80)[0],
            "figures are old: connect: no\\u{1b} server"
        );
    }

    #[test]
    fn a_time_is_brief() {
        let written = [0, 99, 100, 5_999, 6_000, 172_799, 172_800]
            .map(|seconds| brief(Duration::from_secs(seconds)));
        assert_eq!(written, ["0ms", "99s", "1m", "99m", "1h", "47h", "2d"]);
    }
}
