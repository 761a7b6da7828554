//! Shows a router: two types of messages in one subscription, state, parts of the delivery, an error that
//! decides, a time limit, and a type that no handler takes.
//!
//! Output:
//!
//! ```text
//! invoice for order 1, 1250 cents, tenant acme, attempt 1
//! order 1 is cancelled
//! invoice for order 3, 40 cents, no tenant, attempt 2
//! dead letter of shop::refund: rejected, no such order
//! dead letter of orders/billing: unhandled, no handler for type "order.viewed"; handled here: order.cancelled, order.placed, order.refunded
//! ```

use std::fmt;
use std::time::Duration;

use redstart::dead_letters::DeadLetterFilter;
use redstart::extract::{Attempt, FromRef, Tenant};
use redstart::handler::RouteOptions;
use redstart::{
    Container, Envelope, Error, Group, Message, Outcome, RetryPolicy, Router, State,
    SubscribeOptions, Topic,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

const ORDERS: Topic = Topic::from_static("orders");
const BILLING: Group = Group::from_static("billing");

#[derive(Deserialize, Serialize)]
struct Placed {
    id: u32,
    cents: u64,
}

impl Message for Placed {
    const TYPE: &'static str = "order.placed";
}

#[derive(Deserialize, Serialize)]
struct Cancelled {
    id: u32,
}

impl Message for Cancelled {
    const TYPE: &'static str = "order.cancelled";
}

#[derive(Deserialize, Serialize)]
struct Refunded {
    id: u32,
}

impl Message for Refunded {
    const TYPE: &'static str = "order.refunded";
}

/// A real printer is a connection pool or a client.
#[derive(Clone)]
struct Printer(mpsc::UnboundedSender<String>);

impl Printer {
    fn print(&self, line: String) {
        let _ = self.0.send(line);
    }
}

/// The state of the application. Handlers take parts of it.
struct App {
    printer: Printer,
}

impl FromRef<App> for Printer {
    fn from_ref(app: &App) -> Self {
        app.printer.clone()
    }
}

#[derive(Debug)]
enum ShopError {
    OutOfPaper,
    NoSuchOrder,
}

impl fmt::Display for ShopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfPaper => "out of paper",
            Self::NoSuchOrder => "no such order",
        })
    }
}

impl std::error::Error for ShopError {}

/// Arguments come in any order: the message, parts of the state, parts of the delivery.
async fn placed(
    State(printer): State<Printer>,
    order: Placed,
    tenant: Option<Tenant>,
    Attempt(attempt): Attempt,
) -> Result<(), ShopError> {
    if order.id == 3 && attempt == 1 {
        return Err(ShopError::OutOfPaper); // an error means: try again
    }
    let tenant = tenant.map_or("no tenant".to_owned(), |tenant| {
        format!("tenant {}", tenant.0)
    });
    printer.print(format!(
        "invoice for order {}, {} cents, {tenant}, attempt {attempt}",
        order.id, order.cents
    ));
    Ok(())
}

async fn cancelled(State(printer): State<Printer>, order: Cancelled) {
    printer.print(format!("order {} is cancelled", order.id));
}

async fn refund(_: Refunded) -> Result<(), ShopError> {
    Err(ShopError::NoSuchOrder)
}

fn router(app: App) -> Router<App> {
    let slow = RouteOptions::new()
        .with_name("shop::refund")
        .with_timeout(Duration::from_secs(5));
    Router::with_state(app)
        .on(placed)
        .on(cancelled)
        .on_with(slow, refund)
        .on_cause(|error: &ShopError| match error {
            ShopError::NoSuchOrder => Some(Outcome::dead_letter(error.to_string())),
            ShopError::OutOfPaper => None, // the retry policy decides
        })
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let container = Container::builder()
        .with_memory(redstart::memory::MemoryStore::new())
        .with_service(BILLING)
        .connect()
        .await?;
    let bus = container.bus();
    let (sender, mut lines) = mpsc::unbounded_channel();
    let app = App {
        printer: Printer(sender),
    };
    let retry = RetryPolicy::fixed(Duration::from_millis(10));
    let options = SubscribeOptions::new()
        .with_concurrency(1)
        .with_retry(retry);
    bus.subscribe_with(&ORDERS, options, router(app)).await?;

    // `send` takes the type from the message; an envelope carries more.
    let order = Placed { id: 1, cents: 1250 };
    let envelope = Envelope::new(Placed::TYPE, &order)?.with_tenant("acme");
    bus.publish(&ORDERS, &envelope).await?;
    bus.send(&ORDERS, &Cancelled { id: 1 }).await?;
    bus.send(&ORDERS, &Refunded { id: 2 }).await?;
    bus.publish(&ORDERS, &Envelope::new("order.viewed", &1)?)
        .await?;
    bus.send(&ORDERS, &Placed { id: 3, cents: 40 }).await?;

    for _ in 0..3 {
        if let Some(line) = lines.recv().await {
            println!("{line}");
        }
    }
    // The shutdown writes all outcomes.
    container.shutdown(Duration::from_secs(10)).await;
    let (dead, all) = (container.dead_letters(), DeadLetterFilter::default());
    let page = dead.list(&ORDERS, &BILLING, &all, None, 10).await?;
    let ids: Vec<_> = page.items.iter().map(|(id, _)| *id).collect();
    for letter in dead.get(&ORDERS, &BILLING, &ids).await? {
        let (handler, reason) = (letter.handler, letter.reason);
        println!("dead letter of {handler}: {reason}, {}", letter.error);
    }
    Ok(())
}
