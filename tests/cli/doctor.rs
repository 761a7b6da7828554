//! `doctor`.

use redstart::topics::TopicSettings;
use serde_json::Value;

use crate::run::{publish, run};
use crate::support::roles::Roles;
use crate::support::{Server, container, finish, topic};
use crate::terminal::Terminal;

fn findings(url: &str, args: &[&str], code: i32) -> Vec<(String, String, String)> {
    let all = [&["doctor", "--json"], args].concat();
    let told = run(Some(url), &all).failed(code).json();
    let text = |one: &Value, name: &str| one[name].as_str().unwrap().to_owned();
    let all = told["findings"].as_array().unwrap().iter();
    all.map(|one| (text(one, "check"), text(one, "severity"), text(one, "what")))
        .collect()
}

fn level(findings: &[(String, String, String)], check: &str) -> String {
    let mut of_check = findings.iter().filter(|(name, ..)| name == check);
    of_check
        .next()
        .unwrap_or_else(|| panic!("no {check} in {findings:?}"))
        .1
        .clone()
}

#[test]
fn the_doctor_finds_what_is_wrong_with_a_server() {
    let mut server = Server::start_with(&["--maxmemory", "256mb"]);
    let url = server.url();
    let found = findings(&url, &[], 0);
    for check in [
        "eviction",
        "persistence",
        "memory",
        "clock",
        "scripts",
        "layout",
        "groups",
    ] {
        assert_eq!(level(&found, check), "ok", "{found:?}");
    }
    assert_eq!(
        server.command::<u64>(&["DBSIZE"]),
        0,
        "looking changes nothing"
    );
    let () = server.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let found = findings(&url, &[], 1);
    assert_eq!(level(&found, "eviction"), "problem");
    let () = server.command(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
    let found = findings(&url, &[], 0);
    assert_eq!(level(&found, "eviction"), "warning");
    findings(&url, &["--strict"], 1);
    let () = server.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let () = server.command(&["CONFIG", "SET", "appendonly", "no"]);
    assert_eq!(level(&findings(&url, &[], 1), "persistence"), "problem");
    let () = server.command(&["CONFIG", "SET", "maxmemory", "1mb"]);
    assert_eq!(level(&findings(&url, &[], 1), "memory"), "problem");
    let () = server.command(&["CONFIG", "SET", "maxmemory", "256mb"]);
    let _: u64 = server.command(&["HSET", "{shop}:schema", "applied:9999", "x"]);
    assert_eq!(level(&findings(&url, &[], 1), "layout"), "problem");
    server.kill();
    let found = findings(&url, &[], 1);
    assert_eq!(
        (found.len(), level(&found, "server")),
        (1, "problem".to_owned())
    );
    run(Some("nonsense"), &["doctor"]).failed(2);
    run(Some(&url), &["doctor", "--stuck-after", "soon"]).failed(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_whose_checks_fail_leaves_the_others_to_be_checked() {
    let server = Server::start();
    let url = server.url();
    let container = container(&server).await;
    for name in ["orders", "payments"] {
        let made = container.topics();
        let made = made.create(&topic(name), TopicSettings::default()).await;
        made.unwrap();
        let _: String = server.command(&[
            "XGROUP",
            "CREATE",
            &format!("{{shop:{name}}}:log"),
            "billing",
            "0",
            "MKSTREAM",
        ]);
    }
    publish(&url, &["--type", "order"], "1\n").ok();
    let () = server.command(&["DEL", "{shop:payments}:log"]);
    let () = server.command(&["SET", "{shop:payments}:log", "x"]);
    let found = findings(&url, &["--stuck-after", "0s"], 1);
    let of_groups = found
        .iter()
        .filter(|(check, level, _)| check == "groups" && level == "problem");
    let of_groups: Vec<&str> = of_groups.map(|(_, _, what)| &**what).collect();
    let [stuck, failed] = of_groups[..] else {
        panic!("{found:?}");
    };
    assert!(stuck.starts_with("orders/billing: no consumer"), "{stuck}");
    assert!(failed.starts_with("payments: not checked: "), "{failed}");
    finish(container).await;
}

#[test]
fn what_a_user_may_not_know_is_unknown() {
    let server = Server::start();
    let () = server.command(&[
        "ACL", "SETUSER", "viewer", "on", ">secret", "~*", "+@all", "-config",
    ]);
    let url = server.url().replace("redis://", "redis://viewer:secret@");
    let found = findings(&url, &[], 0);
    assert_eq!(level(&found, "persistence"), "unknown", "{found:?}");
    assert_eq!(level(&found, "scripts"), "ok", "{found:?}");
}

#[test]
fn a_group_that_nobody_serves_is_named() {
    let server = Server::start();
    let url = server.url();
    publish(&url, &["--type", "t"], "1\n2\n").ok();
    let () = server.command(&["XGROUP", "CREATE", "{shop:orders}:log", "billing", "0"]);
    assert_eq!(
        level(&findings(&url, &[], 0), "groups"),
        "ok",
        "not for long yet"
    );
    let found = findings(&url, &["--stuck-after", "0s"], 1);
    let (.., what) = found.iter().find(|(check, ..)| check == "groups").unwrap();
    assert!(
        what.starts_with("orders/billing: no consumer; 2 not delivered"),
        "{what}"
    );
    let told = run(Some(&url), &["doctor", "--stuck-after", "0s"])
        .failed(1)
        .out;
    assert!(
        told.contains("redstart groups remove orders billing"),
        "{told}"
    );
    assert!(!told.contains('\u{1b}'), "{told:?}");

    let args = ["doctor", "--stuck-after", "0s"];
    let (code, screen) = Terminal::start(&url, 80, &args).ends();
    assert!(
        code == 1 && screen.contains("\u{1b}[31mproblem"),
        "{screen:?}"
    );
    for (columns, indent) in [(80, 27), (48, 27), (30, 2)] {
        let plain = Terminal::start_with(&url, columns, &args, &[("NO_COLOR", "1")]);
        let (_, screen) = plain.ends();
        assert!(!screen.contains('\u{1b}'), "{screen:?}");
        let lines: Vec<&str> = screen.lines().map(str::trim_end).collect();
        let widest = lines.iter().map(|line| line.chars().count()).max();
        assert!(widest.unwrap() <= usize::from(columns), "{screen}");
        let goes_on = |line: &&str| {
            let room = line.len() - line.trim_start().len();
            room == indent && line.contains("billing")
        };
        assert!(lines.iter().any(goes_on), "{screen}");
    }
}

/// What a check says, as an operator reads it.
fn told(url: &str, args: &[&str], check: &str) -> String {
    let out = run(Some(url), &[&["doctor"], args].concat()).out;
    let mut all = out
        .lines()
        .skip_while(|line| line.split_whitespace().nth(1) != Some(check));
    let first = all.next().unwrap_or_default().to_owned();
    let rest = all.take_while(|line| line.starts_with("    "));
    rest.fold(first, |text, line| format!("{text}\n{}", line.trim()))
}

fn add(server: &Server, words: &str) -> String {
    let mut all = vec!["XADD", "{shop:orders}:log"];
    all.extend(words.split(' '));
    server.command(&[&all[..], &["json", r#"{"type":"n","payload":1}"#]].concat())
}

fn read(server: &Server, count: &str) {
    let log = "{shop:orders}:log";
    let words = ["XREADGROUP", "GROUP", "billing", "c1", "COUNT", count];
    let _: redis::Value = server.command(&[&words[..], &["STREAMS", log, ">"]].concat());
}

#[test]
fn an_id_ahead_of_the_clock_is_named() {
    let server = Server::start();
    let url = server.url();
    publish(&url, &["--type", "t"], "1\n").ok();
    assert_eq!(told(&url, &[], "ids"), "");
    add(&server, "1764167000000000-0");
    let text = told(&url, &[], "ids");
    for part in [
        "warning  ids          orders: entry id 1764167000000000-0 is 558",
        "years ahead of the server's clock",
        "why: a producer wrote its own id",
        "fix: let the server choose the ids of all producers (XADD with *)",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn entries_that_left_before_a_group_read_them_are_counted_until_the_count_is_set_right() {
    let server = Server::start();
    let url = server.url();
    publish(&url, &["--type", "t"], "1\n").ok();
    let log = "{shop:orders}:log";
    for group in ["billing", "mail"] {
        let () = server.command(&["XGROUP", "CREATE", log, group, "0"]);
    }
    read(&server, "9");
    assert_eq!(told(&url, &[], "unread"), "");
    for _ in 0..30 {
        add(&server, "MAXLEN 3 *");
    }
    let text = told(&url, &[], "unread");
    assert!(text.starts_with("warning"), "{text}");
    for part in [
        "orders/billing: the group is past 28 entries, and read 1 of them",
        "why: 27 left the topic before the group read them",
        "MAXLEN",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("orders/mail"), "it never read: {text}");
    // Without an append-only file a restart forgets no reads.
    let () = server.command(&["CONFIG", "SET", "appendonly", "no"]);
    let text = told(&url, &[], "unread");
    assert!(
        text.starts_with("problem") && text.contains("27 entries left the topic"),
        "{text}"
    );

    // The command of the advice clears it.
    let text = told(&url, &[], "unread");
    let (_, command) = text
        .split_once("run XGROUP SETID <log of orders> ")
        .unwrap();
    let words = [
        &["XGROUP", "SETID", log][..],
        &command.split(' ').collect::<Vec<_>>(),
    ]
    .concat();
    let () = server.command(&words);
    assert_eq!(told(&url, &[], "unread"), "");
}

#[test]
fn a_delivery_that_is_held_for_long_is_named_with_its_consumer() {
    let server = Server::start();
    let url = server.url();
    publish(&url, &["--type", "t"], "1\n2\n3\n").ok();
    let () = server.command(&["XGROUP", "CREATE", "{shop:orders}:log", "billing", "0"]);
    read(&server, "2");
    assert_eq!(told(&url, &[], "deliveries"), "", "not for long yet");
    let text = told(&url, &["--held-after", "0s"], "deliveries");
    for part in [
        "warning  deliveries   orders/billing: c1 has held 2 entries, the oldest ",
        "; it extended its lease ",
        "fix: read the log of c1",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    run(Some(&url), &["doctor", "--held-after", "-1s"]).failed(2);
}

#[test]
fn a_server_that_takes_no_writes_is_a_problem_with_its_reason() {
    let server = Server::start();
    let url = server.url();
    publish(&url, &["--type", "t"], "1\n").ok();
    assert!(told(&url, &[], "writes").starts_with("ok"));
    for (setting, bad, good, check, part) in [
        ("maxmemory", "1mb", "0", "writes", "memory is full"),
        (
            "min-replicas-to-write",
            "1",
            "0",
            "server",
            "min-replicas-to-write",
        ),
    ] {
        let () = server.command(&["CONFIG", "SET", setting, bad]);
        let text = told(&url, &[], check);
        assert!(text.starts_with("problem") && text.contains(part), "{text}");
        let () = server.command(&["CONFIG", "SET", setting, good]);
    }
    let () = server.command(&["REPLICAOF", "127.0.0.1", "1"]);
    let text = told(&url, &[], "server");
    assert!(
        text.contains("is a replica") && text.contains("connect to the primary"),
        "{text}"
    );
    let () = server.command(&["REPLICAOF", "NO", "ONE"]);
    let () = server.command(&[
        "ACL", "SETUSER", "viewer", "on", ">secret", "~*", "+@all", "-@write",
    ]);
    let viewers = url.replace("redis://", "redis://viewer:secret@");
    let text = told(&viewers, &[], "writes");
    assert!(
        text.starts_with("unknown") && text.contains("this user may not write"),
        "{text}"
    );
}

#[tokio::main(flavor = "current_thread")]
async fn create_with_limit(server: &Server, limit: u64) {
    let container = container(server).await;
    let settings = TopicSettings::default().with_backlog_limit(limit);
    let topics = container.topics();
    topics.create(&topic("orders"), settings).await.unwrap();
    finish(container).await;
}

#[test]
fn the_advice_on_a_backlog_names_the_slowest_group_and_works() {
    let server = Server::start();
    let url = server.url();
    create_with_limit(&server, 10);
    publish(&url, &["--type", "t"], &"1\n".repeat(9)).ok();
    let log = "{shop:orders}:log";
    for (group, start) in [("billing", "0"), ("mail", "$")] {
        let () = server.command(&["XGROUP", "CREATE", log, group, start]);
    }
    read(&server, "2");
    let text = told(&url, &[], "backlog");
    for part in [
        "warning  backlog      orders: keeps 9 unsettled messages, the limit is 10; \
         the slowest group is billing: 7 not delivered, 2 in flight, 0 scheduled, the oldest from ",
        "fix: start more consumers of billing",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (_, command) = text.split_once("run `redstart ").unwrap();
    let (command, _) = command.split_once('`').unwrap();
    let words: Vec<&str> = command.split(' ').chain(["--yes"]).collect();
    run(Some(&url), &words).ok();
    assert_eq!(told(&url, &[], "backlog"), "");
}

#[test]
fn entries_behind_one_that_is_not_settled_count() {
    let server = Server::start();
    let url = server.url();
    create_with_limit(&server, 10);
    let log = "{shop:orders}:log";
    publish(&url, &["--type", "t"], "1\n").ok();
    let () = server.command(&["XGROUP", "CREATE", log, "billing", "0"]);
    read(&server, "1");
    let ids: Vec<String> = (0..8).map(|_| add(&server, "*")).collect();
    read(&server, "9");
    for id in &ids {
        let _: u64 = server.command(&["XACK", log, "billing", id]);
    }
    let text = told(&url, &[], "backlog");
    let part = "keeps 9 unsettled messages, the limit is 10; the slowest group is billing: 0 not delivered, 1 in flight";
    assert!(text.contains(part), "{text}");
    // Settled, and not removed yet.
    let pending: Vec<(String, String, u64, u64)> =
        server.command(&["XPENDING", log, "billing", "-", "+", "1"]);
    let _: u64 = server.command(&["XACK", log, "billing", &pending[0].0]);
    assert_eq!(told(&url, &[], "backlog"), "");
}

#[tokio::test]
async fn the_roles_of_the_guide_may_all_that_the_doctor_asks() {
    let roles = Roles::start().await;
    let producer = roles.container("producer", "web").await;
    let envelope = redstart::Envelope::new("n", &7).unwrap();
    producer
        .bus()
        .publish(&topic("orders"), &envelope)
        .await
        .unwrap();
    let () = roles
        .server
        .command(&["XGROUP", "CREATE", "{shop:orders}:log", "billing", "0"]);
    roles.denied();
    for role in ["operator", "viewer"] {
        let url = roles.url(role);
        let report = tokio::task::spawn_blocking(move || {
            run(Some(&url), &["doctor", "--json", "--held-after", "0s"]).json()
        });
        let report = report.await.unwrap();
        let all = report["findings"].as_array().unwrap();
        let of = |check: &str| all.iter().find(|one| one["check"] == check);
        assert!(of("deliveries").is_none(), "{role}: {report}");
        assert_eq!(of("groups").unwrap()["severity"], "ok", "{role}: {report}");
    }
    // Nobody needs the settings of the server, and a viewer does not write.
    let denied = roles.denied();
    let excused = ["config|get", "xadd"];
    let other = denied
        .iter()
        .find(|one| !excused.iter().any(|word| one.contains(word)));
    assert_eq!(other, None);
}
