//! `dead list`: which dead letters come first.

use crate::dead::{bury, dead, id, list};
use crate::support::Server;
use crate::terminal::Terminal;

const LIST: [&str; 4] = ["dead", "list", "orders", "billing"];

#[test]
fn a_terminal_lists_the_newest_dead_letters_first_and_a_pipe_the_oldest() {
    let server = Server::start();
    let url = server.url();
    bury(&server, 4);
    let oldest_first: Vec<String> = list(&url, &[]).iter().map(id).collect();
    let newest_first: Vec<String> = oldest_first.iter().rev().cloned().collect();
    let ids = |rest: &[&str]| list(&url, rest).iter().map(id).collect::<Vec<_>>();

    assert_eq!(ids(&["--newest"]), newest_first);
    assert_eq!(ids(&["--newest", "-n", "3"]), newest_first[..3]);
    assert_eq!(ids(&["--before", &newest_first[1]]), newest_first[2..]);
    assert_eq!(ids(&["--after", &oldest_first[1]]), oldest_first[2..]);
    assert_eq!(ids(&["--limit", "1"]), oldest_first[..1]);
    let more = dead(&url, "list", &["--newest", "--max", "2"]).ok().err;
    assert_eq!(more, format!("more: --before {}\n", newest_first[1]));
    for contradiction in [
        ["--newest", "--oldest", ""],
        ["--after", "1-1", "--newest"],
        ["--before", "1-1", "--oldest"],
    ] {
        let given: Vec<&str> = contradiction
            .into_iter()
            .filter(|one| !one.is_empty())
            .collect();
        dead(&url, "list", &given).failed(2);
    }

    let order = |screen: &str| {
        let mut found: Vec<(usize, &String)> = oldest_first
            .iter()
            .map(|id| (screen.find(id.as_str()).expect("every id"), id))
            .collect();
        found.sort_unstable();
        found
            .into_iter()
            .map(|(_, id)| id.clone())
            .collect::<Vec<_>>()
    };
    let (code, screen) = Terminal::start(&url, 100, &LIST).ends();
    assert_eq!((code, order(&screen)), (0, newest_first.clone()));
    let (_, screen) = Terminal::start(&url, 100, &[&LIST[..], &["--oldest"]].concat()).ends();
    assert_eq!(order(&screen), oldest_first);
    let (_, screen) = Terminal::start(&url, 100, &[&LIST[..], &["--json"]].concat()).ends();
    assert_eq!(order(&screen), oldest_first);
}
