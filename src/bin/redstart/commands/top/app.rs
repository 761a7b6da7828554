//! What `top` shows now, and what a key changes.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use redstart::dead_letters::GroupSummary;
use redstart::topics::ConsumerInFlight;

use super::figures::Row;

/// The column by which groups are sorted, the largest first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sort {
    Lag,
    Oldest,
    Busy,
    Dead,
    Name,
}

impl Sort {
    const ALL: [Self; 5] = [Self::Lag, Self::Oldest, Self::Busy, Self::Dead, Self::Name];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lag => "lag",
            Self::Oldest => "oldest",
            Self::Busy => "busy",
            Self::Dead => "dead",
            Self::Name => "name",
        }
    }

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|one| *one == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }
}

/// An opened group.
#[derive(Clone, Debug, Default)]
pub(super) struct Detail {
    pub(super) consumers: Vec<ConsumerInFlight>,
    pub(super) causes: Option<GroupSummary>,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wish {
    Quit,
    /// Measure now.
    Look,
    Nothing,
}

/// The state of the screen.
#[derive(Debug)]
pub(super) struct App {
    pub(super) rows: Vec<Row>,
    pub(super) sort: Sort,
    pub(super) filter: String,
    /// Whether keys go into the filter.
    pub(super) typing: bool,
    /// Whether new figures are held back.
    pub(super) frozen: bool,
    /// The name of the selected row: it stays selected when the order changes.
    pub(super) selected: Option<String>,
    /// The opened row.
    pub(super) opened: Option<(Row, Detail)>,
    /// The error of the last look, while it fails.
    pub(super) fault: Option<String>,
}

impl App {
    pub(super) fn new(filter: &str) -> Self {
        Self {
            rows: Vec::new(),
            sort: Sort::Lag,
            filter: filter.to_owned(),
            typing: false,
            frozen: false,
            selected: None,
            opened: None,
            fault: None,
        }
    }

    /// The rows to show, in their order.
    pub(super) fn shown(&self) -> Vec<&Row> {
        let wanted = self.filter.to_lowercase();
        let fits = |row: &&Row| row.name().to_lowercase().contains(&wanted);
        let mut rows: Vec<&Row> = self.rows.iter().filter(fits).collect();
        rows.sort_by_cached_key(|row| {
            let group = row.group.as_ref();
            let largest = match self.sort {
                Sort::Lag => u128::from(row.lag()),
                Sort::Oldest => millis(group.and_then(|group| group.oldest_undelivered)),
                Sort::Busy => millis(group.and_then(|group| group.oldest_in_flight)),
                Sort::Dead => u128::from(group.map_or(0, |group| group.dead)),
                Sort::Name => 0,
            };
            (std::cmp::Reverse(largest), row.name())
        });
        rows
    }

    /// The place of the selected row among those shown.
    pub(super) fn place(&self) -> usize {
        let selected = self.selected.as_deref();
        let mut rows = self.shown().into_iter().map(Row::name);
        rows.position(|name| selected == Some(&name)).unwrap_or(0)
    }

    pub(super) fn update(&mut self, rows: Vec<Row>, detail: Option<Detail>) {
        self.fault = None;
        if let Some((opened, shown)) = &mut self.opened {
            let name = opened.name();
            if let Some(row) = rows.iter().find(|row| row.name() == name) {
                *opened = row.clone();
            }
            if let Some(detail) = detail {
                *shown = detail;
            }
        }
        self.rows = rows;
    }

    /// Follows a key.
    pub(super) fn press(&mut self, key: KeyEvent) -> Wish {
        if key.kind == KeyEventKind::Release {
            return Wish::Nothing;
        }
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Wish::Quit;
        }
        if self.typing {
            return self.type_key(key.code);
        }
        match key.code {
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => self.back(),
            KeyCode::Down | KeyCode::Char('j') => self.select(1),
            KeyCode::Up | KeyCode::Char('k') => self.select(-1),
            KeyCode::PageDown => self.select(10),
            KeyCode::PageUp => self.select(-10),
            KeyCode::Enter | KeyCode::Right => return self.open(),
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char(' ') => self.frozen = !self.frozen,
            _ => {}
        }
        Wish::Nothing
    }

    /// Leaves an opened group, or else clears the filter.
    fn back(&mut self) {
        if self.opened.take().is_none() {
            self.filter.clear();
        }
    }

    fn type_key(&mut self, code: KeyCode) -> Wish {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if !c.is_control() => self.filter.push(c),
            _ => {}
        }
        Wish::Nothing
    }

    fn select(&mut self, by: isize) {
        if self.opened.is_some() {
            return;
        }
        let names: Vec<String> = self.shown().into_iter().map(Row::name).collect();
        let last = names.len().saturating_sub(1);
        let at = self.place().saturating_add_signed(by).min(last);
        self.selected = names.get(at).cloned();
    }

    fn open(&mut self) -> Wish {
        if self.opened.is_some() {
            return Wish::Nothing;
        }
        let row = self.shown().get(self.place()).map(|row| (*row).clone());
        let Some(row) = row.filter(|row| row.group.is_some()) else {
            return Wish::Nothing;
        };
        self.selected = Some(row.name());
        self.opened = Some((row, Detail::default()));
        Wish::Look
    }
}

fn millis(duration: Option<std::time::Duration>) -> u128 {
    duration.map_or(0, |duration| duration.as_millis())
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, Instant};

    use super::super::figures::{Figures, fixture};
    use super::*;

    /// Three groups and a topic without groups.
    pub(in crate::commands::top) fn app() -> App {
        let mut orders = fixture::gauges("orders", &["billing", "shipping"]);
        orders.groups[0].lag = 7;
        orders.groups[0].dead = 1_234;
        orders.groups[0].oldest_undelivered = Some(Duration::from_secs(75));
        orders.groups[1].oldest_in_flight = Some(Duration::from_secs(3));
        let mut mails = fixture::gauges("mails", &["sender"]);
        mails.groups[0].lag = 1_000_000;
        let all = vec![orders, mails, fixture::gauges("unread", &[])];
        let mut app = App::new("");
        app.update(Figures::default().take(all, Instant::now()), None);
        app
    }

    pub(in crate::commands::top) fn press(app: &mut App, code: KeyCode) -> Wish {
        app.press(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn names(app: &App) -> Vec<String> {
        app.shown().into_iter().map(Row::name).collect()
    }

    #[test]
    fn groups_are_sorted_by_the_column_that_s_chooses() {
        let mut app = app();
        let by_lag = [
            "mails/sender",
            "orders/billing",
            "orders/shipping",
            "unread",
        ];
        assert_eq!(names(&app), by_lag);
        for first in [
            "orders/billing",
            "orders/shipping",
            "orders/billing",
            "mails/sender",
        ] {
            press(&mut app, KeyCode::Char('s'));
            assert_eq!(names(&app)[0], first, "{:?}", app.sort);
        }
        press(&mut app, KeyCode::Char('s'));
        assert_eq!(app.sort, Sort::Lag);
    }

    #[test]
    fn a_filter_takes_the_keys_until_it_is_done() {
        let mut app = app();
        press(&mut app, KeyCode::Char('/'));
        for c in "BILLq".chars() {
            assert_eq!(press(&mut app, KeyCode::Char(c)), Wish::Nothing);
        }
        assert_eq!(names(&app), [""; 0]);
        press(&mut app, KeyCode::Backspace);
        assert_eq!(names(&app), ["orders/billing"]);
        press(&mut app, KeyCode::Enter);
        assert_eq!(press(&mut app, KeyCode::Char('q')), Wish::Quit);
        press(&mut app, KeyCode::Esc);
        assert_eq!(names(&app).len(), 4);
        let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(app.press(control), Wish::Quit);
    }

    #[test]
    fn the_selected_group_stays_selected_and_opens() {
        let mut app = app();
        press(&mut app, KeyCode::Down);
        assert_eq!(app.selected.as_deref(), Some("orders/billing"));
        press(&mut app, KeyCode::Char('s'));
        assert_eq!(app.place(), 0, "it moved to the top with the new order");
        assert_eq!(press(&mut app, KeyCode::Enter), Wish::Look);
        let opened = app.opened.as_ref().map(|(row, _)| row.name());
        assert_eq!(opened.as_deref(), Some("orders/billing"));
        press(&mut app, KeyCode::Esc);
        assert!(app.opened.is_none());
        press(&mut app, KeyCode::PageDown);
        assert_eq!(
            press(&mut app, KeyCode::Enter),
            Wish::Nothing,
            "a topic has no group to open"
        );
        press(&mut app, KeyCode::PageUp);
        assert_eq!(app.place(), 0);
    }
}
