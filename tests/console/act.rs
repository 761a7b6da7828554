//! What operators do: previews, confirmations, the journal, and who may.

use redstart::console::{ConsoleService, service};
use redstart::dead_letters::DeadLetterFilter;
use redstart::envelope::EntryId;
use redstart::extract::Payload;
use redstart::{Container, Outcome};

use crate::site::{
    Answer, console, dies, get, hidden, in_memory, on_redis, options, post, post_with, retries,
};
use crate::support::{PATIENCE, Server, group, topic, until};

pub(crate) async fn dead(container: &Container) -> u64 {
    let status = container
        .topics()
        .group(&topic("orders"), &group("billing"))
        .await;
    status.unwrap().dead
}

pub(crate) async fn ids(container: &Container) -> Vec<EntryId> {
    let all = DeadLetterFilter::default();
    let (on, of) = (topic("orders"), group("billing"));
    let page = container
        .dead_letters()
        .list(&on, &of, &all, None, 1_000)
        .await
        .unwrap();
    page.items.iter().map(|(id, _)| *id).collect()
}

/// Waits for the end of the operation to which an answer leads, and returns its page.
pub(crate) async fn ended(console: &ConsoleService, answer: &Answer) -> Answer {
    assert_eq!(answer.status, 303, "{}", answer.text);
    let address = answer.header("location").to_owned();
    until("the operation to end", async || {
        let page = get(console, &address).await.ok();
        page.text.contains("<dt>Result</dt>").then_some(page)
    })
    .await
}

#[tokio::test]
async fn all_that_match_are_redriven_up_to_the_preview_in_memory() {
    all_that_match(in_memory().await).await;
}

#[tokio::test]
async fn all_that_match_are_redriven_up_to_the_preview_on_redis() {
    let server = Server::start();
    all_that_match(on_redis(&server).await).await;
}

async fn all_that_match(container: Container) {
    dies(&container, 12).await;
    let console = console(&container);
    let sweep = "/dead/orders/billing/sweep";
    let preview = get(
        &console,
        &format!("{sweep}?action=redrive&error=no+stock&tenant=acme"),
    )
    .await
    .ok();
    let preview = preview.shows(&[
        "4 dead letters",
        "what dies from now on stays",
        "Redrive 4 dead letters",
        "redstart dead redrive orders billing --error 'no stock' --tenant acme",
    ]);
    let up_to = hidden(&preview, "up_to");
    let command = format!("--tenant acme --up-to {up_to}<");
    let preview = preview.shows(&[command.as_str()]);
    assert!(!preview.text.contains("--rate"), "{}", preview.text);
    // Four more of these die between the look and the click.
    dies(&container, 12).await;
    let confirmed = |typed: &'static str| {
        [
            ("action", "redrive"),
            ("all", "1"),
            ("error", "no stock"),
            ("tenant", "acme"),
            ("typed", typed),
        ]
    };
    let with = |typed: &'static str| [&confirmed(typed)[..], &[("up_to", up_to.as_str())]].concat();
    for (typed, part) in [("", "type 4 to confirm"), ("8", "4 dead letters match now")] {
        let refused = post(&console, sweep, &with(typed)).await;
        assert_eq!(refused.status, 422, "{}", refused.text);
        refused.shows(&[part, "nothing was changed"]);
    }
    // Without the watermark of a preview nothing runs.
    assert_eq!(post(&console, sweep, &confirmed("4")).await.status, 400);
    assert_eq!(dead(&container).await, 24);
    let begun = post(&console, sweep, &with("4")).await;
    ended(&console, &begun).await.shows(&[
        "redrive",
        "<dd>ann</dd>",
        "<dd>4</dd>",
        "done; 4 taken, 8 skipped, 0 missing",
    ]);
    assert_eq!(dead(&container).await, 20);
    get(&console, "/operations")
        .await
        .ok()
        .shows(&["1 operation", "ann", "done"]);
}

#[tokio::test]
async fn selected_dead_letters_are_redriven_and_purged() {
    let container = in_memory().await;
    dies(&container, 6).await;
    let console = console(&container);
    let all: Vec<String> = ids(&container)
        .await
        .iter()
        .map(ToString::to_string)
        .collect();
    let sweep = "/dead/orders/billing/sweep";
    let chosen = format!("{sweep}?action=redrive&id={}&id={}", all[0], all[1]);
    let preview = get(&console, &chosen)
        .await
        .ok()
        .shows(&["Redrive 2 dead letters"]);
    assert!(!preview.text.contains("name=\"typed\""), "{}", preview.text);
    let begun = post(
        &console,
        sweep,
        &[("action", "redrive"), ("id", &all[0]), ("id", &all[1])],
    )
    .await;
    ended(&console, &begun).await.shows(&["done; 2 taken"]);
    // A purge asks for the count, also for one.
    let chosen = format!("{sweep}?action=purge&id={}", all[2]);
    get(&console, &chosen)
        .await
        .ok()
        .shows(&["removes messages for good", "Export them first"]);
    let fields = [("action", "purge"), ("id", all[2].as_str())];
    assert_eq!(post(&console, sweep, &fields).await.status, 422);
    assert_eq!(dead(&container).await, 4);
    let begun = post(&console, sweep, &[&fields[..], &[("typed", "1")]].concat()).await;
    ended(&console, &begun)
        .await
        .shows(&["purge", "done; 1 taken"]);
    assert_eq!(dead(&container).await, 3);
    // Ids that are gone begin nothing.
    let gone = post(&console, sweep, &[("action", "redrive"), ("id", &all[0])]).await;
    assert!(
        gone.header("location").contains("did=nothing-matched"),
        "{gone:?}"
    );
    get(&console, gone.header("location"))
        .await
        .ok()
        .shows(&["Nothing was changed"]);
    let nothing = get(&console, &format!("{sweep}?action=redrive")).await;
    assert_eq!(nothing.status, 422);
    nothing.shows(&["select dead letters first"]);
}

#[tokio::test]
async fn a_sweep_is_stopped_and_resumed() {
    let container = in_memory().await;
    dies(&container, 60).await;
    let console = console(&container);
    let sweep = "/dead/orders/billing/sweep";
    let preview = get(&console, &format!("{sweep}?action=redrive&all=1"))
        .await
        .ok();
    let up_to = hidden(&preview, "up_to");
    let begun = post(
        &console,
        sweep,
        &[
            ("action", "redrive"),
            ("all", "1"),
            ("typed", "60"),
            ("up_to", &up_to),
            ("rate", "40"),
        ],
    )
    .await;
    let operation = begun.header("location").to_owned();
    get(&console, &operation)
        .await
        .ok()
        .shows(&["running", " of 60", ">Stop<", "<progress"]);
    let stopped = post(&console, &format!("{operation}/stop"), &[]).await;
    assert_eq!(stopped.status, 303);
    get(&console, stopped.header("location"))
        .await
        .ok()
        .shows(&["is stopped", "not ended", ">Resume<"]);
    let left = dead(&container).await;
    assert!(left > 0, "the sweep stopped before its end");
    // It runs no more: a second stop has nothing to stop.
    assert_eq!(
        post(&console, &format!("{operation}/stop"), &[])
            .await
            .status,
        409
    );
    let resumed = post(&console, &format!("{operation}/resume"), &[]).await;
    ended(&console, &resumed).await.shows(&["<dd>60</dd>"]);
    assert_eq!(dead(&container).await, 0);
    assert_eq!(
        post(&console, &format!("{operation}/resume"), &[])
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn a_sweep_stops_by_itself_when_its_messages_die_again() {
    let container = in_memory().await;
    dies(&container, 60).await;
    let console = console(&container);
    let handler = async |_: Payload<u32>| Outcome::dead_letter("no stock");
    let bus = container.bus();
    let subscription = bus.subscribe(&topic("orders"), handler).await.unwrap();
    let sweep = "/dead/orders/billing/sweep";
    let preview = get(&console, &format!("{sweep}?action=redrive&all=1"))
        .await
        .ok();
    let up_to = hidden(&preview, "up_to");
    let fields = [
        ("action", "redrive"),
        ("all", "1"),
        ("typed", "60"),
        ("up_to", &up_to),
        ("rate", "40"),
        ("stop", "5"),
    ];
    let begun = post(&console, sweep, &fields).await;
    let page = ended(&console, &begun).await;
    assert!(page.text.contains("stopped: "), "{}", page.text);
    assert!(page.text.contains(" died again"), "{}", page.text);
    until("the rest to die again", async || {
        (dead(&container).await == 60).then_some(())
    })
    .await;
    subscription.unsubscribe(PATIENCE).await;
}

#[tokio::test]
async fn retries_run_now_or_are_cancelled() {
    let container = in_memory().await;
    retries(&container).await;
    let console = console(&container);
    let scheduled = async || {
        let retries = container.retries();
        let all = retries
            .list(&topic("mails"), &group("billing"), None, 9)
            .await;
        all.unwrap().len()
    };
    let plan = "/retries/mails/billing/plan?all=1";
    get(&console, &format!("{plan}&action=run-now"))
        .await
        .ok()
        .shows(&["tried at once", "--all"]);
    get(&console, &format!("{plan}&action=cancel"))
        .await
        .ok()
        .shows(&["removed for good"]);
    let cancel = [("action", "cancel"), ("all", "1")];
    let refused = post(&console, "/retries/mails/billing", &cancel).await;
    assert_eq!(refused.status, 422);
    assert_eq!(scheduled().await, 1);
    let preview = get(&console, &format!("{plan}&action=run-now")).await.ok();
    let shown = hidden(&preview, "shown");
    let run = [
        ("action", "run-now"),
        ("all", "1"),
        ("shown", &shown),
        ("typed", "1"),
    ];
    let ran = post(&console, "/retries/mails/billing", &run).await;
    assert_eq!(ran.status, 303, "{}", ran.text);
    get(&console, ran.header("location"))
        .await
        .ok()
        .shows(&["1 retry run now."]);
    assert_eq!(scheduled().await, 0);
    assert_eq!(
        post(&console, "/retries/mails/billing", &[("action", "cancel")])
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn only_the_retries_of_the_preview_are_run_or_cancelled() {
    let container = in_memory().await;
    let console = console(&container);
    let (on, of) = (topic("mails"), group("billing"));
    let list = async || {
        let all = container.retries().list(&on, &of, None, 9).await.unwrap();
        all.iter().map(|retry| retry.id).collect::<Vec<_>>()
    };
    retries(&container).await;
    let plan = "/retries/mails/billing/plan?all=1&action=cancel";
    let shown = hidden(&get(&console, plan).await.ok(), "shown");
    // Another retry takes the place of the one that the preview showed.
    let gone = container.retries().cancel(&on, &of, &list().await).await;
    assert_eq!(gone.unwrap().moved.len(), 1);
    retries(&container).await;
    let fields = |action, shown| {
        [
            ("action", action),
            ("all", "1"),
            ("typed", "1"),
            ("shown", shown),
        ]
    };
    for (action, shown) in [("cancel", &*shown), ("run-now", &shown), ("cancel", "")] {
        let answer = post(&console, "/retries/mails/billing", &fields(action, shown)).await;
        assert_eq!(answer.status, 422, "{}", answer.text);
        answer.shows(&["not the retries of the preview", "1 retry"]);
        assert_eq!(list().await.len(), 1);
    }
    let shown = hidden(&get(&console, plan).await.ok(), "shown");
    let answer = post(
        &console,
        "/retries/mails/billing",
        &fields("cancel", &shown),
    )
    .await;
    assert_eq!(answer.status, 303, "{}", answer.text);
    assert_eq!(list().await, Vec::new());
}

/// Each route that changes something, with fields that would be right.
async fn changes(container: &Container) -> Vec<(String, Vec<(&'static str, String)>)> {
    let id = ids(container).await[0];
    let text = |pairs: &[(&'static str, &str)]| {
        pairs
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect()
    };
    vec![
        (
            "/dead/orders/billing/sweep".to_owned(),
            text(&[("action", "purge"), ("id", &id.to_string()), ("typed", "1")]),
        ),
        (
            format!("/dead/orders/billing/{id}/edit"),
            text(&[("envelope", "{\"type\":\"order.placed\",\"payload\":7}")]),
        ),
        (
            "/retries/mails/billing".to_owned(),
            text(&[("action", "cancel"), ("all", "1"), ("typed", "1")]),
        ),
        (
            "/topics/orders/publish".to_owned(),
            text(&[("type", "t"), ("payload", "1")]),
        ),
        (
            "/dead/orders/billing/note".to_owned(),
            text(&[("fingerprint", "f"), ("note", "n")]),
        ),
        (
            "/topics/orders/groups/billing/remove".to_owned(),
            text(&[("typed", "billing")]),
        ),
        (
            format!("/operations/orders/billing/{}/stop", uuid::Uuid::nil()),
            Vec::new(),
        ),
        (
            format!("/operations/orders/billing/{}/resume", uuid::Uuid::nil()),
            Vec::new(),
        ),
    ]
}

/// Everything that a change could change.
async fn figures(container: &Container) -> String {
    format!("{:?}", container.topics().list().await.unwrap())
}

#[tokio::test]
async fn nobody_changes_anything_without_the_right() {
    let container = in_memory().await;
    dies(&container, 1).await;
    retries(&container).await;
    let (own, before) = (console(&container), figures(&container).await);
    let same = ("sec-fetch-site", "same-origin");
    for (path, fields) in changes(&container).await {
        let fields: Vec<(&str, &str)> = fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        for headers in [
            vec![],
            vec![("sec-fetch-site", "cross-site")],
            vec![("sec-fetch-site", "same-site")],
            vec![("sec-fetch-site", "none")],
            vec![("origin", "http://evil.test")],
            vec![("origin", "null")],
            vec![same, ("x-role", "viewer")],
            vec![same, ("x-role", "nobody")],
        ] {
            let answer = post_with(&own, &path, &fields, &headers).await;
            assert_eq!(answer.status, 403, "{path} {headers:?}: {}", answer.text);
        }
        assert_eq!(figures(&container).await, before, "{path}");
    }
}

#[tokio::test]
async fn a_read_only_console_has_no_route_that_changes() {
    let container = in_memory().await;
    dies(&container, 1).await;
    retries(&container).await;
    let before = figures(&container).await;
    let console = service(container.clone(), options().with_read_only(true));
    for (path, fields) in changes(&container).await {
        let fields: Vec<(&str, &str)> = fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let answer = post(&console, &path, &fields).await;
        assert!(
            [404, 405].contains(&answer.status),
            "{path}: {}",
            answer.status
        );
    }
    assert_eq!(figures(&container).await, before);
    // Pages offer nothing, and an operator still sees what a sweep would do.
    let id = ids(&container).await[0];
    for path in [
        "/".to_owned(),
        "/topics/orders".to_owned(),
        "/topics/orders/groups/billing".to_owned(),
        "/retries/mails/billing".to_owned(),
        "/dead/orders/billing".to_owned(),
        format!("/dead/orders/billing/{id}"),
        "/dead/orders/billing/sweep?all=1&action=purge".to_owned(),
    ] {
        let page = get(&console, &path).await.ok();
        assert!(
            !page.text.contains("method=\"post\""),
            "{path}: {}",
            page.text
        );
    }
}
