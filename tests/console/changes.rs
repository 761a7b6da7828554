//! Changes of single things: a message, a group, a dead letter, notes and values.

use redstart::Envelope;
use redstart::console::service;

use crate::act::{dead, ended, ids};
use crate::site::{console, dies, get, hidden, in_memory, options, post, post_with};
use crate::support::{group, topic};

#[tokio::test]
async fn a_message_is_published_with_all_of_its_parts() {
    let container = in_memory().await;
    let tick = Envelope::new("tick", &1).unwrap();
    container
        .bus()
        .publish(&topic("idle"), &tick)
        .await
        .unwrap();
    let console = console(&container);
    let fields = [
        ("type", "order.placed"),
        ("key", "k"),
        ("tenant", "acme"),
        ("correlation", "c"),
        ("payload", "{\"n\":12345678901234567890}"),
        ("headers", "a=b=c\n\nd=e"),
    ];
    let done = post(&console, "/topics/idle/publish", &fields).await;
    assert_eq!(done.status, 303, "{}", done.text);
    get(&console, done.header("location"))
        .await
        .ok()
        .shows(&["The message is published."]);
    let newest = container
        .topics()
        .latest(&topic("idle"), 1)
        .await
        .unwrap()
        .pop()
        .unwrap();
    let envelope = newest.envelope.unwrap();
    assert_eq!(envelope.message_type(), "order.placed");
    assert_eq!(
        (envelope.key(), envelope.tenant()),
        (Some("k"), Some("acme"))
    );
    assert_eq!(envelope.headers()["a"], "b=c");
    let bad = [("type", "order.placed"), ("payload", "{\"n\":")];
    let refused = post(&console, "/topics/idle/publish", &bad).await;
    assert_eq!(refused.status, 422);
    // The form keeps what the operator typed.
    refused.shows(&["Nothing was published.", "{&quot;n&quot;:"]);
    // A misspelt topic is not created.
    assert_eq!(
        post(&console, "/topics/idel/publish", &fields).await.status,
        404
    );
    assert_eq!(container.topics().names().await.unwrap().len(), 1);
}

#[tokio::test]
async fn only_an_unused_group_is_removed_by_its_name() {
    let container = in_memory().await;
    dies(&container, 1).await;
    let console = console(&container);
    let remove = "/topics/orders/groups/billing/remove";
    get(&console, remove)
        .await
        .ok()
        .shows(&["A group in use stays", "redstart groups remove"]);
    let used = post(&console, remove, &[("typed", "billing")]).await;
    assert_eq!(used.status, 409);
    let all = ids(&container).await;
    let (on, of) = (topic("orders"), group("billing"));
    container
        .dead_letters()
        .purge(&on, &of, &all)
        .await
        .unwrap();
    get(&console, remove)
        .await
        .ok()
        .shows(&["Type <strong>billing</strong>"]);
    assert_eq!(
        post(&console, remove, &[("typed", "bill")]).await.status,
        422
    );
    assert_eq!(container.topics().groups(&on).await.unwrap().len(), 1);
    let removed = post(&console, remove, &[("typed", "billing")]).await;
    get(&console, removed.header("location"))
        .await
        .ok()
        .shows(&["The group is removed."]);
    assert!(container.topics().groups(&on).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_dead_letter_is_edited_and_goes_back() {
    let container = in_memory().await;
    dies(&container, 1).await;
    let console = console(&container);
    let id = ids(&container).await[0];
    let edit = format!("/dead/orders/billing/{id}/edit");
    get(&console, &edit)
        .await
        .ok()
        .shows(&["As it died", "order.placed"]);
    let broken = post(&console, &edit, &[("envelope", "{")]).await;
    assert_eq!(broken.status, 422);
    assert_eq!(dead(&container).await, 1);
    let envelope = "{\"type\":\"order.placed\",\"payload\":7}";
    let done = post(&console, &edit, &[("envelope", envelope)]).await;
    assert_eq!(done.status, 303, "{}", done.text);
    assert_eq!(dead(&container).await, 0);
    get(&console, "/operations")
        .await
        .ok()
        .shows(&["edit", "ann"]);
}

#[tokio::test]
async fn an_export_has_what_the_tool_imports() {
    let container = in_memory().await;
    dies(&container, 6).await;
    let console = console(&container);
    let file = get(&console, "/dead/orders/billing/export?error=declined")
        .await
        .ok();
    assert_eq!(
        file.header("content-disposition"),
        "attachment; filename=\"orders-billing.ndjson\""
    );
    let lines = file
        .text
        .lines()
        .map(redstart::dead_letters::DeadLetter::from_json);
    let letters = lines.collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(letters.len(), 2);
    let id = ids(&container).await[3];
    let one = get(&console, &format!("/dead/orders/billing/export?id={id}"))
        .await
        .ok();
    assert_eq!(one.text.lines().count(), 1);
    assert!(one.text.contains(&id.to_string()), "{}", one.text);
}

#[tokio::test]
async fn what_was_purged_comes_back_from_its_export() {
    let container = in_memory().await;
    dies(&container, 6).await;
    let console = console(&container);
    let sweep = "/dead/orders/billing/sweep";
    let preview = get(
        &console,
        "/dead/orders/billing/sweep?action=purge&error=declined&all=1",
    );
    let preview = preview.await.ok().shows(&["Export them first"]);
    let file = preview
        .text
        .split("A purge removes messages for good. <a href=\"")
        .nth(1);
    let file = file
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .replace("&amp;", "&");
    let file = get(&console, &file).await.ok();
    let up_to = hidden(&preview, "up_to");
    let fields = [
        ("action", "purge"),
        ("all", "1"),
        ("error", "declined"),
        ("typed", "2"),
        ("up_to", up_to.as_str()),
    ];
    let begun = post(&console, sweep, &fields).await;
    ended(&console, &begun).await.shows(&["done; 2 taken"]);
    assert_eq!(dead(&container).await, 4);
    let lines = file.text.lines();
    let letters = lines.map(redstart::dead_letters::DeadLetter::from_json);
    let letters = letters.collect::<Result<Vec<_>, _>>().unwrap();
    let (on, of) = (topic("orders"), group("billing"));
    let back = container
        .dead_letters()
        .import(&on, &of, &letters, false)
        .await;
    assert_eq!((back.unwrap().len(), dead(&container).await), (2, 6));
    let again = get(&console, "/dead/orders/billing?error=declined")
        .await
        .ok();
    again.shows(&["2 dead letters, the newest first"]);
}

#[tokio::test]
async fn causes_and_operations_carry_notes() {
    let container = in_memory().await;
    dies(&container, 3).await;
    let console = console(&container);
    let note = "/dead/orders/billing/note";
    let fields = [
        ("reason", "rejected"),
        ("fingerprint", "no stock"),
        ("note", "OPS-7 <b>late</b>"),
    ];
    let saved = post(&console, note, &fields).await;
    assert_eq!(saved.status, 303, "{}", saved.text);
    let address = saved.header("location").to_owned();
    get(&console, &address).await.ok().shows(&[
        "OPS-7 &lt;b&gt;late",
        "ann, <time",
        "2 dead letters",
    ]);
    get(&console, "/dead")
        .await
        .ok()
        .shows(&["OPS-7 &lt;b&gt;late"]);
    let gone = post(&console, note, &[("fingerprint", "no stock"), ("note", "")]).await;
    assert_eq!(gone.status, 303);
    let page = get(&console, &address).await.ok();
    assert!(!page.text.contains("OPS-7"), "{}", page.text);
    let id = ids(&container).await[0].to_string();
    let sweep = [
        ("action", "redrive"),
        ("id", id.as_str()),
        ("note", "OPS-8"),
    ];
    let begun = post(&console, "/dead/orders/billing/sweep", &sweep).await;
    ended(&console, &begun)
        .await
        .shows(&["OPS-8", "redriven_by="]);
    get(&console, "/operations").await.ok().shows(&["OPS-8"]);
}

/// A value is changed only while it is as its page has shown it.
#[tokio::test]
async fn values_are_stored_and_deleted_as_they_were_shown() {
    let container = in_memory().await;
    let kv = container.kv();
    let hour = std::time::Duration::from_secs(3_600);
    kv.set_with_ttl("stock", &40, hour).await.unwrap();
    let console = service(container.clone(), options().with_values(true));
    let page = get(&console, "/kv?key=stock").await.ok();
    let page = page.shows(&[
        "Change the value",
        ">40</textarea>",
        "name=\"ttl\" value=\"3",
    ]);
    let seen = hidden(&page, "seen");
    let set = async |value: &str, ttl: &str, seen: &str| {
        let fields = [
            ("key", "stock"),
            ("seen", seen),
            ("value", value),
            ("ttl", ttl),
        ];
        post(&console, "/kv/set", &fields).await
    };
    for (value, ttl, part) in [
        ("forty", "", "not JSON"),
        ("", "", "not JSON"),
        ("41", "soon", "time to live: must be a time such as"),
        ("41", "-5s", "time to live: must be a time such as"),
        ("41", "0s", "a time to live"),
    ] {
        let refused = set(value, ttl, &seen).await;
        let refused = refused.shows(&[part, "Nothing was changed", "action=\"/kv/set\""]);
        assert!(matches!(refused.status, 400 | 422), "{value} {ttl}");
    }
    let stored = set(" 18446744073709551616 ", "2h", &seen).await;
    assert_eq!(stored.status, 303, "{}", stored.text);
    let stored = get(&console, stored.header("location")).await.ok();
    stored.shows(&[
        "The value is stored",
        "18446744073709551616",
        "<dt>Expires</dt><dd>in ",
    ]);
    // The form of an older page changes nothing.
    for path in ["/kv/set", "/kv/delete"] {
        let fields = [
            ("key", "stock"),
            ("seen", seen.as_str()),
            ("value", "7"),
            ("ttl", ""),
        ];
        let late = post(&console, path, &fields).await;
        assert_eq!(late.status, 409, "{path}: {}", late.text);
        late.shows(&["has changed since the page showed it", "7"]);
    }
    let page = get(&console, "/kv?key=stock").await.ok();
    let fields = [("key", "stock"), ("seen", &hidden(&page, "seen"))];
    let deleted = post(&console, "/kv/delete", &fields).await;
    let deleted = get(&console, deleted.header("location")).await.ok();
    deleted.shows(&["The value is deleted", "No keys here"]);
    // An absent key is created, and not over one that came meanwhile.
    let absent = get(&console, "/kv?key=stock")
        .await
        .shows(&["Create the value"]);
    let seen = hidden(&absent, "seen");
    kv.set("stock", &1).await.unwrap();
    assert_eq!(set("2", "", &seen).await.status, 409);
    kv.delete("stock").await.unwrap();
    assert_eq!(set("{\"a\":1}", "", &seen).await.status, 303);
    assert!(kv.exists("stock").await.unwrap());

    let run = async || Ok::<_, std::io::Error>(7);
    assert!(redstart::kv::once(&kv, "charged", hour, run).await.is_ok());
    let page = get(&console, "/kv?key=charged").await.ok();
    let page = page.shows(&["the next caller runs the work again"]);
    assert!(!page.text.contains("/kv/set"), "{}", page.text);
    let fields = [
        ("key", "charged"),
        ("seen", &hidden(&page, "seen")),
        ("value", "1"),
    ];
    let refused = post(&console, "/kv/set", &fields).await;
    assert_eq!(refused.status, 422);
    refused.shows(&["mark of a run"]);
    assert_eq!(post(&console, "/kv/delete", &fields).await.status, 303);

    // Viewers, other sites and a console that only reads change nothing.
    let fields = [("key", "stock"), ("seen", "absent"), ("value", "1")];
    let read_only = options().with_values(true).with_read_only(true);
    let read_only = service(container.clone(), read_only);
    let without = service(container.clone(), options());
    for path in ["/kv/set", "/kv/delete"] {
        let viewer = [("sec-fetch-site", "same-origin"), ("x-role", "viewer")];
        for headers in [&viewer[..], &[("sec-fetch-site", "cross-site")]] {
            assert_eq!(
                post_with(&console, path, &fields, headers).await.status,
                403
            );
        }
        assert_eq!(post(&read_only, path, &fields).await.status, 404);
        assert_eq!(post(&without, path, &fields).await.status, 404);
    }
    let page = get(&read_only, "/kv?key=stock").await.ok();
    assert!(!page.text.contains("method=\"post\""), "{}", page.text);
}
