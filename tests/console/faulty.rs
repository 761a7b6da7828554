//! The console over a store that loses replies, has short pages or changes meanwhile.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use redstart::console::service;
use redstart::envelope::Codec;
use redstart::extract::Payload;
use redstart::memory::MemoryStore;
use redstart::ports::BoxFuture;
use redstart::store::decorate::{Answer, Decorated, Decorator, Next, Op};
use redstart::store::{ScheduleAnswer, ScheduleOp};
use redstart::{Container, Envelope, Error, Outcome, RetryPolicy, SubscribeOptions};

use crate::site::{console, dies, get, hidden, options, post};
use crate::support::{PATIENCE, group, topic, until};

#[derive(Debug, Default)]
struct Plan {
    /// The operation whose replies are lost: the connection breaks after it was done.
    loses: Option<&'static str>,
    /// The value that another program stores after the next read.
    stores: Option<&'static str>,
    /// The operations that ran.
    ran: BTreeSet<&'static str>,
}

/// Lists two retries a page, as a store does where messages are large.
#[derive(Clone, Debug, Default)]
struct Faulty(Arc<Mutex<Plan>>);

impl Decorator for Faulty {
    fn call<'a>(&'a self, op: Op<'a>, mut next: Next<'a>) -> BoxFuture<'a, Result<Answer, Error>> {
        Box::pin(async move {
            let name = op.name();
            self.0.lock().unwrap().ran.insert(name);
            if let Op::Schedule(ScheduleOp::List { at, after, max }) = op {
                let page = next.store.schedule().list(at, after, max.min(2)).await?;
                return Ok(Answer::Schedule(ScheduleAnswer::List(page)));
            }
            let values = next.store.values();
            let answer = next.run(op).await;
            if name == "values.get" {
                let stores = self.0.lock().unwrap().stores.take();
                if let Some(value) = stores {
                    let entries = [("stock", Bytes::from_static(value.as_bytes()))];
                    values.set(&entries, None).await?;
                }
            }
            if self.0.lock().unwrap().loses == Some(name) {
                let kind = redstart::ErrorKind::OutcomeUnknown;
                return Err(Error::new(kind, name, "the connection broke after sending"));
            }
            answer
        })
    }
}

async fn faulty() -> (Container, Faulty) {
    let faulty = Faulty::default();
    let store = Decorated::new(Arc::new(faulty.clone()), MemoryStore::new().store(None));
    let builder = Container::builder()
        .with_store(Arc::new(store))
        .with_service(group("billing"))
        .with_dead_letter_editing(true)
        .with_codec(Codec::Json);
    (builder.connect().await.unwrap(), faulty)
}

#[tokio::test]
async fn a_lost_reply_is_told_as_a_doubt_and_never_as_nothing() {
    let (container, faulty) = faulty().await;
    dies(&container, 1).await;
    let kv = container.kv();
    kv.set("stock", &40).await.unwrap();
    let console = service(container.clone(), options().with_values(true));
    let loses = |name| faulty.0.lock().unwrap().loses = Some(name);

    loses("log.append");
    let fields = [("type", "t"), ("payload", "7")];
    let answer = post(&console, "/topics/orders/publish", &fields).await;
    assert_eq!(answer.status, 503, "{}", answer.text);
    let answer = answer.shows(&["It may have been published; look before you send again."]);
    assert!(!answer.text.contains("Nothing was"), "{}", answer.text);

    loses("values.cas");
    let seen = hidden(&get(&console, "/kv?key=stock").await.ok(), "seen");
    let fields = [
        ("key", "stock"),
        ("seen", &seen),
        ("value", "41"),
        ("ttl", ""),
    ];
    let answer = post(&console, "/kv/set", &fields).await;
    assert_eq!(answer.status, 503, "{}", answer.text);
    let answer = answer.shows(&["It may have been changed; look before you send again."]);
    assert!(!answer.text.contains("Nothing was"), "{}", answer.text);
    assert_eq!(kv.get::<u32>("stock").await.unwrap(), Some(41));

    loses("values.delete_if");
    let seen = hidden(&get(&console, "/kv?key=stock").await.ok(), "seen");
    let fields = [("key", "stock"), ("seen", seen.as_str())];
    let answer = post(&console, "/kv/delete", &fields).await;
    assert_eq!(answer.status, 503, "{}", answer.text);
    let answer = answer.shows(&["It may have been changed; look before you send again."]);
    assert!(!answer.text.contains("Nothing was"), "{}", answer.text);

    let (on, of) = (topic("orders"), group("billing"));
    let newest = container.dead_letters();
    let page = newest.list(&on, &of, &Default::default(), None, 1).await;
    let (id, _) = page.unwrap().items[0].clone();
    let address = format!("/dead/orders/billing/{id}/edit");
    let form = get(&console, &address).await.ok();
    assert!(form.text.contains("name=\"envelope\""), "{}", form.text);
    loses("dead_letters.move_out");
    let edited = [("envelope", "{\"type\":\"order.placed\",\"payload\":9}")];
    let answer = post(&console, &address, &edited).await;
    assert_eq!(answer.status, 503, "{}", answer.text);
    let answer = answer.shows(&["It may have been sent; look before you send again."]);
    assert!(!answer.text.contains("Nothing was"), "{}", answer.text);
}

#[tokio::test]
async fn a_value_that_came_meanwhile_is_not_deleted() {
    let (container, faulty) = faulty().await;
    let kv = container.kv();
    kv.set("stock", &40).await.unwrap();
    let console = service(container.clone(), options().with_values(true));
    let seen = hidden(&get(&console, "/kv?key=stock").await.ok(), "seen");
    faulty.0.lock().unwrap().stores = Some("41");
    let fields = [("key", "stock"), ("seen", seen.as_str())];
    let late = post(&console, "/kv/delete", &fields).await;
    assert_eq!(late.status, 409, "{}", late.text);
    late.shows(&[
        "has changed since the page showed it",
        "Nothing was changed.",
    ]);
    assert_eq!(kv.get::<u32>("stock").await.unwrap(), Some(41));
}

/// Lets `count` messages fail once.
async fn fail(container: &Container, count: u64) {
    let (on, of) = (topic("mails"), group("billing"));
    for n in 0..count {
        let envelope = Envelope::new("mail.sent", &n).unwrap();
        container.bus().publish(&on, &envelope).await.unwrap();
    }
    let handler = async |_: Payload<u32>| Outcome::retry("the relay is away");
    let hour = RetryPolicy::fixed(Duration::from_secs(3_600));
    let options = SubscribeOptions::new().with_retry(hour);
    let bus = container.bus();
    let subscription = bus.subscribe_with(&on, options, handler).await.unwrap();
    until("the retries to be scheduled", async || {
        let status = container.topics().group(&on, &of).await.unwrap();
        (status.scheduled == count).then_some(())
    })
    .await;
    subscription.unsubscribe(PATIENCE).await;
}

#[tokio::test]
async fn short_pages_of_retries_lead_to_the_end_of_the_list() {
    let (container, _) = faulty().await;
    fail(&container, 5).await;
    let console = console(&container);
    let (mut next, mut seen) = (Some("/retries/mails/billing".to_owned()), Vec::new());
    while let Some(address) = next {
        let page = get(&console, &address).await.ok();
        assert!(!page.text.contains("No retries"), "{}", page.text);
        let ids = page.text.split("name=\"id\" value=\"").skip(1);
        seen.extend(ids.map(|text| text.split('"').next().unwrap().to_owned()));
        let (before, link) = ("<a href=\"", "\">Next retries</a>");
        next = page.text.split_once(link).map(|(text, _)| {
            let (_, address) = text.rsplit_once(before).unwrap();
            address.replace("&amp;", "&")
        });
    }
    assert_eq!(seen.len(), 5, "{seen:?}");
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 5, "{seen:?}");
    // A program gets all in one answer, or follows the link of its header.
    let answer = get(&console, "/api/v1/retries/mails/billing").await.ok();
    let all: Vec<serde_json::Value> = serde_json::from_str(&answer.text).unwrap();
    assert_eq!((all.len(), answer.header("link")), (5, ""));
    let first = get(&console, "/api/v1/retries/mails/billing?max=3")
        .await
        .ok();
    let mut all: Vec<serde_json::Value> = serde_json::from_str(&first.text).unwrap();
    assert_eq!(all.len(), 3);
    let link = first.header("link").strip_prefix('<').expect("a link");
    let (address, relation) = link.split_once('>').unwrap();
    assert_eq!(relation, "; rel=\"next\"");
    let rest = get(&console, address).await.ok();
    let rest: Vec<serde_json::Value> = serde_json::from_str(&rest.text).unwrap();
    all.extend(rest);
    let ids: Vec<_> = all.iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids, seen);
}

/// With half a million tenants, all counts of a group are half a million fields.
#[tokio::test]
async fn pages_that_update_each_second_read_no_counts_by_type_and_tenant() {
    let (container, faulty) = faulty().await;
    dies(&container, 3).await;
    let console = console(&container);
    faulty.0.lock().unwrap().ran.clear();
    get(&console, "/").await.ok();
    let group = get(&console, "/topics/orders/groups/billing").await.ok();
    group.shows(&["dead letters of the last 24 hours: 3 in total"]);
    let ran = faulty.0.lock().unwrap().ran.clone();
    assert!(ran.contains("dead_letters.hours"), "{ran:?}");
    assert!(!ran.contains("dead_letters.counts"), "{ran:?}");
}

#[tokio::test]
async fn a_change_of_settings_has_no_selection() {
    let (container, _) = faulty().await;
    dies(&container, 1).await;
    let (topics, on) = (container.topics(), topic("orders"));
    let kept = redstart::topics::Retention::Count(7);
    let settings = redstart::topics::TopicSettings::default().with_retention(kept);
    let plan = topics.plan_settings(&on, settings).await.unwrap();
    let confirmed = plan.confirm("orders").unwrap();
    topics.run_settings(confirmed, "eve").await.unwrap();
    let page = get(&console(&container), "/operations").await.ok();
    let page = page.shows(&["settings", "eve"]);
    assert!(!page.text.contains("too many ids"), "{}", page.text);
}
