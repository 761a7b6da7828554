//! Every page on both adapters.

use std::collections::BTreeSet;

use redstart::console::service;
use redstart::dead_letters::DeadLetterFilter;
use redstart::{Container, Envelope};

use crate::site::{console, dies, get, in_memory, on_redis, options, retries};
use crate::support::{Server, group, topic, until};

#[tokio::test]
async fn every_page_shows_its_figures_and_its_command_in_memory() {
    every_page(in_memory().await).await;
}

#[tokio::test]
async fn every_page_shows_its_figures_and_its_command_on_redis() {
    let server = Server::start();
    every_page(on_redis(&server).await).await;
}

async fn every_page(container: Container) {
    dies(&container, 7).await;
    retries(&container).await;
    let idle = topic("idle");
    let envelope = Envelope::new("tick", &1).unwrap();
    container.bus().publish(&idle, &envelope).await.unwrap();
    // Nobody takes it, so it grows old.
    let mails = topic("mails");
    container.bus().publish(&mails, &envelope).await.unwrap();
    let console = console(&container);

    let overview = get(&console, "/").await.ok().shows(&[
        "<small>oldest ",
        "billing",
        "billing</a> <small>of <a href=\"/topics/orders\">orders</a>",
        "7 this hour",
        "next in",
        "no group",
        "redstart groups",
        "<svg class=\"spark\"",
    ]);
    assert!(
        overview.text.contains("href=\"/dead/orders/billing\">7<"),
        "{}",
        overview.text
    );

    get(&console, "/topics/orders").await.ok().shows(&[
        "order.placed",
        "the newest first",
        "redstart tail orders --last 50",
    ]);
    get(&console, "/topics/idle")
        .await
        .ok()
        .shows(&["none; messages wait for the first one"]);
    let entries = container
        .topics()
        .latest(&topic("orders"), 1)
        .await
        .unwrap();
    let newest = entries[0].id;
    get(&console, &format!("/topics/orders/entries/{newest}"))
        .await
        .ok()
        .shows(&["cart-6", "region", ">6<", "acme"]);
    get(&console, &format!("/topics/orders?from={newest}"))
        .await
        .ok()
        .shows(&["No entries after"]);
    get(&console, "/topics/orders?from=1970-01-01T00:00:00Z")
        .await
        .ok()
        .shows(&["the oldest first"]);
    assert_eq!(get(&console, "/topics/orders?from=soon").await.status, 400);

    get(&console, "/topics/orders/groups/billing")
        .await
        .ok()
        .shows(&[
            "7</a>",
            "dead letters of the last 24 hours: 7 in total",
            "redstart groups show orders billing",
            "No consumer has joined",
        ]);
    get(&console, "/retries/mails/billing").await.ok().shows(&[
        "the relay is away",
        "in 59 min",
        "redstart retries list mails billing",
    ]);
    get(&console, "/dead").await.ok().shows(&[
        "no stock",
        "2 causes",
        "redstart dead summary",
        "/dead/orders/billing?reason=rejected&amp;fingerprint=no%20stock",
    ]);
    get(&console, "/dead/orders/billing").await.ok().shows(&[
        "7 dead letters",
        "acme",
        "globex",
        "order.placed",
        "redstart dead list --newest orders billing",
    ]);
    let filtered = "/dead/orders/billing?error=DECLINED&tenant=acme";
    let filtered = get(&console, filtered).await.ok().shows(&[
        "2 dead letters",
        "redstart dead list --newest orders billing --error DECLINED --tenant acme",
    ]);
    assert!(!filtered.text.contains("no stock"), "{}", filtered.text);
    get(&console, "/dead/orders/billing?error=nothing")
        .await
        .ok()
        .shows(&["None of 7 dead letters"]);
    get(&console, "/dead/orders/billing?since=soon")
        .await
        .ok()
        .shows(&["or an age, such as 2h"]);

    let dead = container.dead_letters();
    let (on, of) = (topic("orders"), group("billing"));
    let page = dead
        .list(&on, &of, &DeadLetterFilter::default(), None, 1)
        .await
        .unwrap();
    let id = page.items[0].0;
    get(&console, &format!("/dead/orders/billing/{id}"))
        .await
        .ok()
        .shows(&[
            "Timeline",
            "created",
            "published",
            "dead",
            "cart-",
            "region",
            &format!("redstart dead show orders billing {id}"),
        ]);
    let file = get(&console, &format!("/dead/orders/billing/{id}/payload"))
        .await
        .ok();
    assert_eq!(file.header("content-type"), "application/octet-stream");
    assert!(
        file.header("content-disposition")
            .starts_with("attachment; filename=\"orders-billing-")
    );

    get(&console, "/operations")
        .await
        .ok()
        .shows(&["No operations yet"]);
    dead.redrive(&on, &of, &[id]).await.unwrap();
    get(&console, "/doctor")
        .await
        .ok()
        .shows(&["redstart doctor", "Findings, the worst first"]);
    assert_eq!(get(&console, "/healthz").await.ok().text, "ok\n");
    assert_eq!(get(&console, "/readyz").await.ok().text, "ready\n");
}

#[tokio::test]
async fn pages_of_things_that_do_not_exist_say_so() {
    let container = in_memory().await;
    dies(&container, 1).await;
    let console = console(&container);
    for (path, part) in [
        ("/nothing", "no page at this address"),
        ("/topics/order", "did you mean orders?"),
        ("/topics/orders/groups/biling", "did you mean billing?"),
        ("/topics/a%20b", "topic &quot;a b&quot;"),
        ("/dead/orders/biling", "did you mean billing?"),
        ("/dead/orders/billing/1-1", "does not have this dead letter"),
        ("/dead/orders/billing/first", "must be &lt;milliseconds&gt;"),
        ("/topics/orders/entries/1-1", "does not have this entry"),
        ("/topics/orders/entries/0-0", "does not have this entry"),
        ("/operations/orders/billing/1", "is a UUID"),
    ] {
        let answer = get(&console, path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.text.contains(part), "{path}: {}", answer.text);
    }
}

#[tokio::test]
async fn the_first_page_of_a_new_namespace_says_what_to_do() {
    let console = console(&in_memory().await);
    get(&console, "/")
        .await
        .ok()
        .shows(&["no topics yet", "redstart publish orders"]);
    get(&console, "/dead")
        .await
        .ok()
        .shows(&["No dead letters."]);
}

#[tokio::test]
async fn a_list_goes_on_where_its_page_ends() {
    let container = in_memory().await;
    dies(&container, 60).await;
    let console = console(&container);
    let first = get(&console, "/dead/orders/billing")
        .await
        .ok()
        .shows(&["50 dead letters"]);
    let at = first
        .text
        .find("/dead/orders/billing?before=")
        .expect("a link to the next page");
    let next = first.text[at..].split('"').next().unwrap().to_owned();
    let second = get(&console, &next).await.ok().shows(&["10 dead letters"]);
    assert!(
        !second.text.contains("Older dead letters"),
        "{}",
        second.text
    );
}

#[tokio::test]
async fn a_value_is_shown_by_its_key_to_viewers_and_only_where_asked_for() {
    use redstart::console::{Access, ConsoleOptions};
    let container = in_memory().await;
    let kv = container.kv();
    let hostile = "</div><script>alert(1)</script>\u{202e}";
    kv.set("plain", &serde_json::json!({"n": [1, hostile]}))
        .await
        .unwrap();
    kv.set(hostile, &hostile).await.unwrap();
    let raw = [("raw", bytes::Bytes::from_static(b"\xff\xfe"))];
    kv.port().set_bytes(raw.to_vec(), None).await.unwrap();
    let day = std::time::Duration::from_secs(86_400);
    let run = async || Ok::<_, std::io::Error>(7);
    let done = redstart::kv::once(&kv, "charged", day, run).await;
    assert!(done.is_ok());
    assert_eq!(get(&console(&container), "/kv?key=plain").await.status, 404);
    let viewer = ConsoleOptions::with_access(|_| Access::Viewer(String::new()));
    let console = service(container.clone(), viewer.with_values(true));
    get(&console, "/kv").await.ok().shows(&[
        "4 keys",
        "href=\"/kv?key=charged\"",
        "<td>mark of a run that happens once</td>",
        "done, 7",
        "0xfffe",
        "redstart kv list<",
        "anonymous · viewer",
        "<a href=\"/kv\" aria-current=\"page\">Values</a>",
    ]);
    let shown = get(&console, "/kv?key=plain").await.ok().shows(&[
        "redstart kv get plain",
        "<dd>JSON</dd>",
        "&lt;script&gt;",
    ]);
    assert!(!shown.text.contains("method=\"post\""), "{}", shown.text);
    let key: String = hostile.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let strange = get(&console, &format!("/kv?key={key}")).await.ok();
    for page in [&shown, &strange] {
        assert_eq!(page.text.matches("<script").count(), 2, "{}", page.text);
    }
    assert!(!shown.text.contains('\u{202e}'), "{}", shown.text);
    // The field of the form has the key as it is, and nothing else has.
    assert_eq!(
        strange.text.matches('\u{202e}').count(),
        1,
        "{}",
        strange.text
    );
    get(&console, "/kv?key=raw").await.ok().shows(&[
        "neither JSON nor MessagePack nor text",
        "ff fe",
        "2 bytes",
    ]);
    get(&console, "/kv?key=charged").await.ok().shows(&[
        ">done<",
        ">7<",
        "redstart kv get charged",
    ]);
    let missing = get(&console, "/kv?key=nothing").await;
    assert_eq!(missing.status, 404);
    missing.shows(&["does not exist"]);
    assert_eq!(get(&console, "/kv?key=%7Bshop%7D").await.status, 400);
}

/// Pages of keys lead through all that begin with a text, and no page is without bounds.
#[tokio::test]
async fn keys_are_listed_page_by_page() {
    let server = Server::start();
    for container in [in_memory().await, on_redis(&server).await] {
        let kv = container.kv();
        let hour = std::time::Duration::from_secs(3_600);
        let keys: Vec<String> = (0..130).map(|n| format!("cart:{n}*<b>")).collect();
        for key in &keys {
            kv.set_with_ttl(key, &1, hour).await.unwrap();
        }
        let other = vec![("other", bytes::Bytes::from("x".repeat(5_000)))];
        kv.port().set_bytes(other, None).await.unwrap();
        let console = service(container.clone(), options().with_values(true));
        let (mut seen, mut address) = (BTreeSet::new(), "/kv?prefix=cart%3A".to_owned());
        for round in 0.. {
            let page = get(&console, &address)
                .await
                .ok()
                .shows(&["value=\"cart:\"", "redstart kv list --prefix cart:"]);
            assert!(
                !page.text.contains("<b>") && !page.text.contains("other"),
                "{}",
                page.text
            );
            let links = page.text.split("href=\"/kv?key=").skip(1);
            let links: Vec<&str> = links.map(|link| link.split('"').next().unwrap()).collect();
            assert!(!links.is_empty() && links.len() < 130, "{}", page.text);
            seen.extend(links.iter().map(|link| (*link).to_owned()));
            assert!(round < 10, "the pages do not end");
            let Some(next) = page.text.split("href=\"/kv?prefix=").nth(1) else {
                break;
            };
            let next = next.split('"').next().unwrap().replace("&amp;", "&");
            address = format!("/kv?prefix={next}");
        }
        assert_eq!(seen.len(), 130);
        let one = get(&console, "/kv?key=cart%3A7%2A%3Cb%3E").await.ok();
        one.shows(&["<dd>in 59 min</dd>", "cart:7*&lt;b&gt;"]);
        get(&console, "/kv?prefix=oth")
            .await
            .ok()
            .shows(&["1 key<", "never", "5,000", "xxx…"]);
        let none = get(&console, "/kv?prefix=nothing").await.ok();
        none.shows(&["No key here begins with"]);
        for bad in ["prefix=%7Bshop", "from=x", "key=%7Bshop"] {
            let refused = get(&console, &format!("/kv?{bad}")).await;
            assert_eq!(refused.status, 400, "{bad}");
        }
        // A value beyond 1 MiB is not read whole.
        let large = vec![("large", bytes::Bytes::from(vec![0xff_u8; 2 << 20]))];
        kv.port().set_bytes(large, None).await.unwrap();
        let page = get(&console, "/kv?key=large").await.ok();
        let page = page.shows(&[
            "too long to be shown whole",
            "2,097,152 bytes",
            "more bytes",
        ]);
        assert!(
            page.text.len() < 40_000 && !page.text.contains("/kv/set"),
            "{}",
            page.text.len()
        );
    }
}

#[tokio::test]
async fn the_dead_letters_of_a_conversation_are_one_link_away() {
    let container = in_memory().await;
    dies(&container, 6).await;
    // The carts come again.
    dies(&container, 6).await;
    let console = console(&container);
    let of_cart = get(&console, "/dead/orders/billing?correlation=cart-4")
        .await
        .ok();
    let of_cart = of_cart.shows(&["2 dead letters, the newest first"]);
    let letter = of_cart
        .text
        .split("class=\"mono\" href=\"/dead/orders/billing/")
        .nth(1)
        .unwrap();
    let letter = letter.split('"').next().unwrap();
    let letter = get(&console, &format!("/dead/orders/billing/{letter}"))
        .await
        .ok();
    letter.shows(&["href=\"/dead/orders/billing?correlation=cart-4\""]);
}

/// The figures of a group come as charts, too.
#[tokio::test]
async fn a_group_shows_lag_rate_and_latency_as_charts() {
    let container = in_memory().await;
    dies(&container, 2).await;
    let console = console(&container);
    // The overview measures.
    get(&console, "/").await.ok();
    until("the first point", async || {
        let page = get(&console, "/topics/orders/groups/billing").await.ok();
        page.text.contains("The last 15 minutes").then_some(page)
    })
    .await
    .shows(&[
        "lag in 15 minutes: between 0 and 0",
        "<dt>Delivered a minute</dt>",
        "<dt>Age of the oldest undelivered</dt>",
    ]);
}
