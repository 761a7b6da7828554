//! A console with data in it, and requests to it.

use redstart::console::{Access, ConsoleOptions, ConsoleService, service};
use redstart::envelope::Codec;
use redstart::extract::Payload;
use redstart::memory::MemoryStore;
use redstart::topics::{Retention, TopicSettings};
use redstart::{Container, Delivery, Envelope, Namespace, Outcome, RetryPolicy, SubscribeOptions};
use tower::ServiceExt as _;

use crate::support::{PATIENCE, Server, group, topic, until};

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{}", self.text);
        self
    }

    /// Fails when a part is missing.
    #[track_caller]
    pub(crate) fn shows(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.text.contains(part), "no {part:?} in {}", self.text);
        }
        self
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }
}

/// Sends a request with a body.
pub(crate) async fn send(console: &ConsoleService, request: http::Request<String>) -> Answer {
    let request = request.map(axum::body::Body::from);
    let answer = console.clone().oneshot(request).await.unwrap();
    let (parts, body) = answer.into_parts();
    let bytes = axum::body::to_bytes(axum::body::Body::new(body), 64 << 20)
        .await
        .unwrap();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        text: String::from_utf8_lossy(&bytes).into_owned(),
    }
}

pub(crate) async fn get(console: &ConsoleService, path: &str) -> Answer {
    let request = http::Request::get(path).header("host", "console.test");
    send(console, request.body(String::new()).unwrap()).await
}

/// The visitor that the header names: `operator`, `viewer`, or nobody.
pub(crate) fn options() -> ConsoleOptions {
    ConsoleOptions::with_access(|parts| {
        match parts.headers.get("x-role").map(|role| role.as_bytes()) {
            Some(b"nobody") => Access::Forbidden,
            Some(b"viewer") => Access::Viewer("bob".to_owned()),
            _ => Access::Operator("ann".to_owned()),
        }
    })
}

pub(crate) fn console(container: &Container) -> ConsoleService {
    service(container.clone(), options())
}

pub(crate) async fn in_memory() -> Container {
    let builder = Container::builder().with_memory(MemoryStore::new());
    builder
        .with_namespace(Namespace::new("shop").unwrap())
        .with_service(group("billing"))
        .with_dead_letter_editing(true)
        // Numbers of any length have no form in MessagePack.
        .with_codec(Codec::Json)
        .connect()
        .await
        .unwrap()
}

pub(crate) async fn on_redis(server: &Server) -> Container {
    let builder = crate::support::builder(server);
    builder
        .with_dead_letter_editing(true)
        .connect()
        .await
        .unwrap()
}

/// Lets the topic keep its entries after their group has settled them, so that pages show them.
pub(crate) async fn keep_entries(container: &Container) {
    let settings = TopicSettings::default().with_retention(Retention::Count(10_000));
    let (topics, on) = (container.topics(), topic("orders"));
    topics.create(&on, settings).await.unwrap();
}

/// Publishes `count` messages that die, of two causes and two tenants, and waits for it.
pub(crate) async fn dies(container: &Container, count: u32) {
    let (on, of) = (topic("orders"), group("billing"));
    keep_entries(container).await;
    let before = container.topics().group(&on, &of).await;
    let expected = before.map_or(0, |status| status.dead) + u64::from(count);
    let all: Vec<Envelope> = (0..count)
        .map(|n| {
            let envelope = Envelope::new("order.placed", &n).unwrap();
            let tenant = if n % 2 == 0 { "acme" } else { "globex" };
            envelope
                .with_tenant(tenant)
                .with_correlation(format!("cart-{n}"))
                .with_header("region", "eu")
        })
        .collect();
    for result in container.bus().publish_all(&on, &all).await {
        result.unwrap();
    }
    let handler = async |Payload(n): Payload<u32>, _: Delivery| -> Outcome {
        match n % 3 {
            0 => Outcome::dead_letter(format!("card {n} declined")),
            _ => Outcome::dead_letter("no stock"),
        }
    };
    let subscription = container.bus().subscribe(&on, handler).await.unwrap();
    until("the messages to die", async || {
        let status = container.topics().group(&on, &of).await.unwrap();
        (status.dead >= expected).then_some(())
    })
    .await;
    subscription.unsubscribe(PATIENCE).await;
}

/// Lets one message of the topic `mails` fail once, so that its retry is scheduled far away.
pub(crate) async fn retries(container: &Container) {
    let (on, of) = (topic("mails"), group("billing"));
    let envelope = Envelope::new("mail.sent", &"hello").unwrap();
    container.bus().publish(&on, &envelope).await.unwrap();
    let handler = async |_: Payload<String>| Outcome::retry("the relay is away");
    let hour = std::time::Duration::from_secs(3_600);
    let options = SubscribeOptions::new().with_retry(RetryPolicy::fixed(hour));
    let subscription = container
        .bus()
        .subscribe_with(&on, options, handler)
        .await
        .unwrap();
    until("the retry to be scheduled", async || {
        let status = container.topics().group(&on, &of).await.unwrap();
        (status.scheduled == 1).then_some(())
    })
    .await;
    subscription.unsubscribe(PATIENCE).await;
}

/// Sends a form as the console's own page does.
pub(crate) async fn post(console: &ConsoleService, path: &str, fields: &[(&str, &str)]) -> Answer {
    let headers = [("sec-fetch-site", "same-origin")];
    post_with(console, path, fields, &headers).await
}

pub(crate) async fn post_with(
    console: &ConsoleService,
    path: &str,
    fields: &[(&str, &str)],
    headers: &[(&str, &str)],
) -> Answer {
    let encode = |text: &str| {
        let bytes = text.bytes();
        bytes.map(|byte| format!("%{byte:02X}")).collect::<String>()
    };
    let pairs = fields
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    let body = pairs.collect::<Vec<_>>().join("&");
    let mut request = http::Request::post(path)
        .header("host", "console.test")
        .header("content-type", "application/x-www-form-urlencoded");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(console, request.body(body).unwrap()).await
}

/// The value of a hidden field of a form.
pub(crate) fn hidden(page: &Answer, name: &str) -> String {
    let mark = format!("name=\"{name}\" value=\"");
    let at = page.text.find(&mark);
    let at = at.unwrap_or_else(|| panic!("no field {name} in {}", page.text)) + mark.len();
    page.text[at..].split('"').next().unwrap().to_owned()
}
