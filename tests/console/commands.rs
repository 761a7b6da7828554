//! The command that a page shows runs in the tool, and gives the same.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use redstart::console::{ConsoleService, service};
use redstart::envelope::EntryId;
use redstart::extract::Payload;
use redstart::{Container, Delivery, Envelope, Outcome};
use serde_json::Value;

use crate::site::{Answer, dies, get, hidden, on_redis, options, post, retries};
use crate::support::{PATIENCE, Server, group, letters, topic, until};

/// Texts that a shell, an option or a terminal could take for something else.
const STRANGE: [&str; 8] = [
    "-dash",
    "--tenant",
    "it's \"late\" $(exit 3) `exit 4` \\n",
    "right\u{202e}to left\u{1b}[2J",
    "two\nlines\tand a tab",
    "c:\\temp\\new",
    "* ? [a-z] ~ # & ; | > <b>",
    "ünïcödé \u{1f600}",
];

/// Lets one message with each text in every field die in a group of its own.
async fn strange(container: &Container) {
    let on = topic("strange");
    let handler =
        |Payload(error): Payload<String>, _: Delivery| async { Outcome::dead_letter(error) };
    let subscription = container.bus().subscribe(&on, handler).await.unwrap();
    for text in STRANGE {
        let envelope = Envelope::new(text, &text).unwrap();
        let envelope = envelope.with_tenant(text).with_correlation(text);
        container.bus().publish(&on, &envelope).await.unwrap();
    }
    until("the messages to die", async || {
        let status = container.topics().group(&on, &group("billing")).await;
        (status.unwrap().dead == STRANGE.len() as u64).then_some(())
    })
    .await;
    subscription.unsubscribe(PATIENCE).await;
}

/// The line under "Same as", as a browser copies it.
fn line(page: &Answer) -> String {
    let at = page
        .text
        .find("<div class=\"command\">")
        .expect("a command");
    let text = page.text[at..]
        .split("<code tabindex=\"0\">")
        .nth(1)
        .unwrap();
    let text = text.split("</code>").next().unwrap();
    let text = text.replace("&lt;", "<").replace("&gt;", ">");
    text.replace("&quot;", "\"").replace("&amp;", "&")
}

/// A shell with the tool, for the server of a test.
struct Shell<'a>(&'a Server);

impl Shell<'_> {
    fn try_run(&self, line: &str, more: &str) -> Output {
        let tool = Path::new(env!("CARGO_BIN_EXE_redstart"));
        let own = OsString::from(tool.parent().unwrap());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let all = std::iter::once(own.into()).chain(std::env::split_paths(&path));
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{line} {more}"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("REDSTART_") {
                command.env_remove(name);
            }
        }
        command
            .env("PATH", std::env::join_paths(all).unwrap())
            .env("REDSTART_REDIS_URL", self.0.url())
            .env("REDSTART_NAMESPACE", "shop")
            .env("REDSTART_DEAD_LETTER_EDITING", "true")
            .stdin(Stdio::null());
        command.output().unwrap()
    }

    fn run(&self, line: &str, more: &str) -> String {
        let output = self.try_run(line, more);
        assert!(output.status.success(), "{line} {more}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The lines of a command's JSON.
    fn json(&self, page: &Answer, more: &str) -> Vec<Value> {
        let out = self.run(&line(page), &format!("{more} --json"));
        out.lines()
            .map(|one| serde_json::from_str(one).unwrap())
            .collect()
    }

    fn ids(&self, page: &Answer) -> BTreeSet<String> {
        let all = self.json(page, "");
        all.iter()
            .map(|one| one["id"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// The ids to which a page links under an address.
fn linked(page: &Answer, address: &str) -> BTreeSet<String> {
    let mark = format!("href=\"{address}/");
    let parts = page.text.split(&mark).skip(1);
    let ids = parts.map(|part| part.split('"').next().unwrap());
    let is_id = |id: &&str| id.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    ids.filter(is_id).map(str::to_owned).collect()
}

/// A text in an address.
fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

async fn ground(server: &Server) -> (Container, ConsoleService) {
    let container = on_redis(server).await;
    dies(&container, 12).await;
    retries(&container).await;
    strange(&container).await;
    let console = service(container.clone(), options().with_values(true));
    (container, console)
}

#[tokio::test]
async fn commands_of_pages_that_show_give_the_same() {
    let server = Server::start();
    let (container, console) = ground(&server).await;
    let shell = Shell(&server);

    let overview = get(&console, "/").await.ok();
    let [groups] = &shell.json(&overview, "")[..] else {
        panic!()
    };
    for one in groups.as_array().unwrap() {
        let (topic, dead) = (
            one["topic"].as_str().unwrap(),
            one["dead"].as_u64().unwrap(),
        );
        let link = format!("href=\"/dead/{topic}/billing\">{dead}<");
        assert_eq!(overview.text.contains(&link), dead > 0, "{link}");
    }

    let newest = get(&console, "/topics/orders").await.ok();
    let entries = linked(&newest, "/topics/orders/entries");
    assert_eq!(entries.len(), 12);
    assert_eq!(shell.ids(&newest), entries);
    // By number: as texts, 1-10 comes before 1-2.
    let by_number = |id: &&String| id.parse::<EntryId>().unwrap();
    let mut sorted: Vec<&String> = entries.iter().collect();
    sorted.sort_by_key(by_number);
    let middle = sorted[5];
    for (place, count) in [("from", 6), ("before", 5)] {
        let page = get(&console, &format!("/topics/orders?{place}={middle}"))
            .await
            .ok();
        let shown = linked(&page, "/topics/orders/entries");
        assert_eq!(shown.len(), count, "{place}");
        assert_eq!(shell.ids(&page), shown, "{place}");
    }
    let entry = get(&console, &format!("/topics/orders/entries/{middle}"))
        .await
        .ok();
    let shown = shell.json(&entry, "");
    assert_eq!(
        (shown.len(), shown[0]["id"].as_str()),
        (1, Some(middle.as_str()))
    );
    assert!(
        entry
            .text
            .contains(shown[0]["envelope"]["id"].as_str().unwrap())
    );

    let of_group = get(&console, "/topics/orders/groups/billing").await.ok();
    assert_eq!(shell.json(&of_group, "")[0]["dead"], 12);
    let waiting = get(&console, "/retries/mails/billing").await.ok();
    for id in shell.ids(&waiting) {
        assert!(
            waiting
                .text
                .contains(&format!("name=\"id\" value=\"{id}\"")),
            "{id}"
        );
    }

    let causes = get(&console, "/dead").await.ok();
    let summary = shell.json(&causes, "");
    let rows = summary[0].as_array().unwrap();
    assert_eq!(rows.len(), 2 + STRANGE.len());
    assert_eq!(
        causes
            .text
            .matches("<th class=\"wrap\" scope=\"row\">")
            .count(),
        rows.len()
    );

    container.kv().set("stock:-1", &"<b>").await.unwrap();
    for (key, value) in [("stock:-1", "<b>"), ("-x '", "y")] {
        container.kv().set(key, &value).await.unwrap();
        let page = get(&console, &format!("/kv?key={}", encode(key)))
            .await
            .ok();
        let words = line(&page).replace("kv get", "kv get --json");
        let shown: Value = serde_json::from_str(&shell.run(&words, "")).unwrap();
        assert_eq!(shown["value"], value);
    }

    let page = get(&console, "/kv?prefix=-x").await.ok();
    let listed = shell.json(&page, "");
    assert_eq!((listed.len(), &listed[0]["key"]), (1, &Value::from("-x '")));

    let letter = letters(&container, &topic("strange"), &group("billing")).await[0].id;
    let page = get(&console, &format!("/dead/strange/billing/{letter}"))
        .await
        .ok();
    assert_eq!(shell.json(&page, "")[0]["id"], letter.to_string());
    let doctor = get(&console, "/doctor").await.ok();
    // A warning ends the doctor with another code.
    let output = shell.try_run(&line(&doctor), "--json");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for finding in report["findings"].as_array().unwrap() {
        let check = finding["check"].as_str().unwrap();
        assert!(
            doctor.text.contains(&format!("<td>{check}</td>")),
            "{check}"
        );
    }
}

#[tokio::test]
async fn the_command_of_a_filter_lists_the_same_dead_letters() {
    let server = Server::start();
    let (container, console) = ground(&server).await;
    let shell = Shell(&server);
    let middle = letters(&container, &topic("orders"), &group("billing")).await[5].id;
    for (filter, count) in [
        (String::new(), 12),
        ("error=DECLINED".to_owned(), 4),
        ("error_pattern=card+%5B0-5%5D+declined".to_owned(), 2),
        ("fingerprint=no+stock&reason=rejected".to_owned(), 8),
        ("type=order.placed&tenant=acme".to_owned(), 6),
        ("no_tenant=1".to_owned(), 0),
        ("correlation=cart-3".to_owned(), 1),
        ("since=2h&until=2031-03-01T14:00:00Z".to_owned(), 12),
        ("min_attempts=1&max_attempts=1&redriven=no".to_owned(), 12),
        ("redriven=yes".to_owned(), 0),
        (format!("before={middle}"), 5),
    ] {
        let page = get(&console, &format!("/dead/orders/billing?{filter}"))
            .await
            .ok();
        let shown = linked(&page, "/dead/orders/billing");
        assert_eq!(shown.len(), count, "{filter}");
        assert_eq!(shell.ids(&page), shown, "{}", line(&page));
    }
    let fields = ["error", "fingerprint", "type", "tenant", "correlation"];
    for (number, text) in STRANGE.into_iter().enumerate() {
        // Two fields of each text: a run of the tool takes its time.
        for field in [fields[number % 5], fields[(number + 2) % 5]] {
            let address = format!("/dead/strange/billing?{field}={}", encode(text));
            let page = get(&console, &address).await.ok();
            let shown = linked(&page, "/dead/strange/billing");
            assert!(shown.len() == 1 || field == "fingerprint", "{field} {text}");
            assert_eq!(shell.ids(&page), shown, "{}", line(&page));
        }
    }
}

#[tokio::test]
async fn commands_of_pages_that_change_do_what_their_preview_says() {
    let server = Server::start();
    let (container, console) = ground(&server).await;
    let shell = Shell(&server);
    let dead = async |on: &str| {
        let status = container
            .topics()
            .group(&topic(on), &group("billing"))
            .await;
        status.unwrap().dead
    };
    let id = letters(&container, &topic("orders"), &group("billing")).await[0].id;
    let sweep = "/dead/orders/billing/sweep";
    let pace = "rate=6%2C000&ramp=1m30s&stop=5+%25&note=-+it%27s+OPS-7";
    let text = encode(STRANGE[2]);
    for (address, count) in [
        (format!("{sweep}?action=redrive&all=1&{pace}"), 12),
        (
            format!("{sweep}?action=redrive&error=declined&tenant=acme"),
            2,
        ),
        (format!("{sweep}?action=redrive&id={id}"), 1),
        (
            format!("{sweep}?action=publish&to=copies&error=declined"),
            4,
        ),
        (format!("{sweep}?action=purge&all=1&since=1h&note=x"), 12),
        (
            format!("/dead/strange/billing/sweep?action=purge&type={text}&all=1"),
            1,
        ),
        (
            "/retries/mails/billing/plan?all=1&action=run-now".to_owned(),
            1,
        ),
        (
            "/retries/mails/billing/plan?all=1&action=cancel".to_owned(),
            1,
        ),
    ] {
        let page = get(&console, &address).await.ok();
        assert!(
            page.text.contains(&format!("<strong>{count} ")),
            "{address}: {}",
            page.text
        );
        assert_eq!(
            shell.json(&page, "--dry-run")[0]["matching"],
            count,
            "{}",
            line(&page)
        );
    }
    let used = get(&console, "/topics/orders/groups/billing/remove")
        .await
        .ok();
    let refused = shell.try_run(&line(&used), "--yes");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert_eq!(
        (dead("orders").await, dead("strange").await),
        (12, STRANGE.len() as u64)
    );

    // One of them for real, and an edit by a patch, because an editor needs a terminal.
    let page = get(
        &console,
        &format!("{sweep}?action=redrive&error=declined&tenant=acme"),
    )
    .await
    .ok();
    // What dies after the preview stays.
    dies(&container, 12).await;
    shell.run(&line(&page), "");
    assert_eq!(dead("orders").await, 22);
    let id = letters(&container, &topic("orders"), &group("billing")).await[0].id;
    let edit = get(&console, &format!("/dead/orders/billing/{id}/edit"))
        .await
        .ok();
    let patch = r#"echo '{"tenantId":"other"}' |"#;
    shell.run(&format!("{patch} {}", line(&edit)), "--patch -");
    assert_eq!(dead("orders").await, 21);

    // A form that was refused for one line shows the command with all others.
    let fields = [
        ("type", "it's placed"),
        ("key", "-k"),
        ("tenant", "acme <b>"),
        (
            "payload",
            "{\n  \"cents\": 18446744073709551615,\r\n \"t\": \"it's $(exit 3)\"\n}",
        ),
        ("headers", "region=eu west\nwrong\nempty="),
    ];
    let refused = post(&console, "/topics/orders/publish", &fields).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    shell.run(&line(&refused), "");
    let newest = shell.run("redstart tail orders --last 1 --json", "");
    let newest: Value = serde_json::from_str(&newest).unwrap();
    let envelope = &newest["envelope"];
    assert_eq!(
        (&envelope["type"], &envelope["tenantId"]),
        (&"it's placed".into(), &"acme <b>".into())
    );
    assert_eq!(envelope["headers"]["region"], "eu west");
    assert_eq!(envelope["payload"]["t"], "it's $(exit 3)");
    assert!(
        newest.to_string().contains("18446744073709551615"),
        "{newest}"
    );

    // The journal of all groups has both, and the page of each has its group's.
    let operations = get(&console, "/operations").await.ok();
    let all = shell.json(&operations, "");
    assert_eq!(all.len(), 2, "{all:?}");
    for one in &all {
        let (operation, on) = (one["operation"].as_str().unwrap(), &one["topic"]);
        assert_eq!(
            (on.as_str(), one["group"].as_str()),
            (Some("orders"), Some("billing"))
        );
        let address = format!("/operations/orders/billing/{operation}");
        assert!(operations.text.contains(&address), "{address}");
        let page = get(&console, &address).await.ok();
        assert_eq!(shell.json(&page, "").len(), 2);
    }
}

#[tokio::test]
async fn a_preview_that_takes_long_says_how_far_it_came_and_counts_on_demand() {
    let container = crate::site::in_memory().await;
    dies(&container, 1_500).await;
    let console = service(
        container.clone(),
        options().with_search_time(Duration::ZERO),
    );
    let sweep = "/dead/orders/billing/sweep";
    let filter = "action=redrive&type=order.placed";
    let part = get(&console, &format!("{sweep}?{filter}"))
        .await
        .ok()
        .shows(&[
            "Found so far",
            "1,000 dead letters",
            "searched 1,000 of 1,500 dead letters in its time",
            "Count all",
            "redstart dead redrive orders billing --type order.placed",
        ]);
    // A count that may be too small is nothing to confirm.
    assert!(!part.text.contains("method=\"post\""), "{}", part.text);
    let whole = format!("{sweep}?{filter}&all=1&count_all=1");
    let whole = get(&console, &whole)
        .await
        .ok()
        .shows(&["1,500 dead letters", "Type <strong>1,500</strong>"]);
    let up_to = hidden(&whole, "up_to");
    let fields = [
        ("action", "redrive"),
        ("all", "1"),
        ("type", "order.placed"),
        ("up_to", up_to.as_str()),
    ];
    // Neither does the count so far confirm anything.
    let refused = post(
        &console,
        sweep,
        &[&fields[..], &[("typed", "1000")]].concat(),
    )
    .await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    let begun = post(
        &console,
        sweep,
        &[&fields[..], &[("typed", "1500")]].concat(),
    )
    .await;
    assert_eq!(begun.status, 303, "{}", begun.text);

    // A list says how far it came, too.
    let rare = get(&console, "/dead/orders/billing?error=nothing-like-this")
        .await
        .ok();
    assert!(
        rare.text.contains("None of") || rare.text.contains("This page searched"),
        "{}",
        rare.text
    );
}
