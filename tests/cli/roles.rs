//! The roles of the guide, and what the tool does as each of them.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::dead::{bury, id, list};
use crate::run::{Ran, redstart, run, run_with};
use crate::support::Server;

/// A server with the users that the tool prints, each with its password, and dead letters.
fn with_printed_roles() -> Server {
    let server = Server::start();
    bury(&server, 4);
    let printed = redstart(None, &["print", "acl", "--namespace", "shop"]);
    for line in run_with(printed, "").ok().out.lines() {
        let (_, user) = line.split_once("user ").unwrap();
        let (name, rules) = user.split_once(" off ").unwrap();
        let own = format!("on >{name}-secret {rules}");
        let words = [&["ACL", "SETUSER", name][..], &acl_words(&own)].concat();
        let () = server.command(&words);
    }
    server
}

/// Words as an ACL file tells them apart: a selector in parentheses is one word.
fn acl_words(rules: &str) -> Vec<&str> {
    let (mut words, mut start, mut depth) = (Vec::new(), 0, 0);
    for (at, symbol) in rules.char_indices().chain([(rules.len(), ' ')]) {
        match symbol {
            '(' => depth += 1,
            ')' => depth -= 1,
            ' ' if depth == 0 => {
                words.push(&rules[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    words
}

struct Role<'a> {
    server: &'a Server,
    url: String,
}

impl<'a> Role<'a> {
    fn new(server: &'a Server, name: &str) -> Self {
        let user = format!("redis://redstart-{name}:redstart-{name}-secret@");
        let url = server.url().replace("redis://", &user);
        Self { server, url }
    }

    fn run(&self, args: &[&str], input: &str) -> Ran {
        let mut command = redstart(Some(&self.url), args);
        command.env("REDSTART_DEAD_LETTER_EDITING", "true");
        run_with(command, input)
    }

    /// Runs a command that the role may do: it succeeds, and the server denies nothing.
    fn may(&self, line: &str, input: &str) -> Ran {
        let args: Vec<&str> = line.split(' ').collect();
        let ran = self.run(&args, input).ok();
        let denied: Vec<redis::Value> = self.server.command(&["ACL", "LOG"]);
        assert!(denied.is_empty(), "{line}: {denied:?}");
        ran
    }
}

#[test]
fn each_role_does_its_commands_and_nothing_is_denied() {
    let server = with_printed_roles();
    let producer = Role::new(&server, "producer");
    producer.may("publish orders --type t", "1\n2\n");
    producer.may("health", "");

    let viewer = Role::new(&server, "viewer");
    let first = id(&list(&viewer.url, &[])[0]);
    for line in [
        "topics",
        "groups",
        "groups orders",
        "groups show orders billing",
        "groups reset orders billing --to beginning --dry-run",
        "groups reset orders billing --to 1h --dry-run",
        "tail orders",
        "tail orders --from-beginning --envelope",
        "dead summary",
        "dead summary orders billing --by tenant",
        "dead list orders billing --error x",
        &format!("dead show orders billing {first}"),
        "dead export orders billing",
        "dead journal orders billing",
        "dead redrive orders billing --all --dry-run",
        "dead purge orders billing --all --dry-run",
        "retries list orders billing",
        "retries cancel orders billing --all --dry-run",
        "migrate status",
    ] {
        viewer.may(line, "");
    }

    let operator = Role::new(&server, "operator");
    let exported = operator.may("dead export orders billing", "").out;
    let ids: Vec<String> = list(&operator.url, &[]).iter().map(id).collect();
    operator.may(
        &format!("dead redrive orders billing {} --operator ann", ids[0]),
        "",
    );
    let patch = r#"{"payload":{"n":7}}"#;
    operator.may(
        &format!("dead edit orders billing {} --patch -", ids[1]),
        patch,
    );
    operator.may("dead purge orders billing --all --yes --rate 100", "");
    operator.may("dead import orders billing", &exported);
    for line in [
        "dead summary",
        "retries run-now orders billing --all",
        "retries cancel orders billing --all --yes",
        "groups remove orders billing --dry-run --force",
        "topics create sales --retention 7d",
        "groups reset orders billing --to beginning --dry-run",
        "health",
        "migrate up",
        "migrate status",
    ] {
        operator.may(line, "");
    }
    // An administrator removes and resets groups.
    for line in [
        "groups remove orders billing --force --yes",
        "groups reset orders billing --to end --yes",
    ] {
        let args: Vec<_> = line.split(' ').collect();
        let ran = operator.run(&args, "").failed(1);
        assert!(ran.err.contains("lacks the right"), "{ran:?}");
    }
}

#[test]
fn the_rules_are_printed_for_a_namespace_without_a_server() {
    let printed = |args: &[&str]| {
        let mut all = vec!["print", "acl"];
        all.extend(args);
        run(None, &all)
    };
    let ran = printed(&[]).failed(2);
    assert!(ran.err.contains("REDSTART_NAMESPACE"), "{ran:?}");
    printed(&["--namespace", "a b"]).failed(2);
    printed(&["--namespace", "office", "everybody"]).failed(2);
    let all = printed(&["--namespace", "office"]).ok().out;
    assert_eq!(all.lines().count(), 6);
    assert!(!all.contains("shop"), "{all}");
    let two = printed(&["--namespace", "office", "viewer", "producer"])
        .ok()
        .out;
    let names: Vec<&str> = two
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    assert_eq!(names, ["redstart-viewer", "redstart-producer"]);
    let json = printed(&["--namespace", "office", "--json"]).ok().json();
    let roles: BTreeSet<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(roles.len(), 6);
    let viewer: &Value = &json["viewer"];
    assert_eq!(viewer.as_str(), all.lines().nth(4));
}
