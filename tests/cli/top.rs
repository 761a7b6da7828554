//! `top` on a terminal.

use crate::dead::bury;
use crate::run::run;
use crate::support::Server;
use crate::terminal::Terminal;

#[test]
fn groups_are_watched_opened_and_left() {
    let server = Server::start();
    let url = server.url();
    run(Some(&url), &["top"]).failed(2);
    bury(&server, 4);
    let mut terminal = Terminal::start(&url, 100, &["top", "--every", "200ms"]);
    terminal.sees("orders/billing");
    terminal.sees("1 group, by lag");
    terminal.presses("s");
    // The terminal gets the characters that change: the order in the title.
    terminal.sees("\u{1b}[1;13H\u{1b}[1moldest");
    terminal.presses("\r");
    terminal.sees("dead letters by cause");
    terminal.sees("exhausted");
    // A screen that was drawn once changes with the figures.
    let before = terminal.screen().matches("rejected").count();
    assert!(before > 0, "{:?}", terminal.screen());
    run(
        Some(&url),
        &["dead", "purge", "orders", "billing", "--all", "--yes"],
    )
    .ok();
    terminal.sees("none");
    terminal.presses("q");
    let (code, screen) = terminal.ends();
    assert_eq!(code, 0, "{screen:?}");
    assert!(
        screen.contains("\u{1b}[?1049l"),
        "the terminal is given back: {screen:?}"
    );
}
