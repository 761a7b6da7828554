//! The cost of a hundred idle subscriptions, beside a hundred blocked reads.

use std::sync::Arc;
use std::time::Duration;

use redstart::{Container, Topic};

use crate::bench::Bench;
use crate::meter::{Meter, Spent};
use crate::pair::Side;
use crate::server::Server;
use crate::{ours, raw};

const SUBSCRIPTIONS: usize = 100;
/// Subscribing has costs of its own, which are over by then.
const SETTLE: Duration = Duration::from_secs(2);

pub(super) async fn measure(bench: &mut Bench) {
    let duration = Duration::from_secs(if bench.options.quick { 5 } else { 20 });
    let figures = [
        ("idle/commands", "commands/s"),
        ("idle/client-cpu", "% of a core"),
        ("idle/server-cpu", "% of a core"),
    ];
    let server = &bench.server;
    bench
        .report
        .measure(figures, async |side| {
            let topics: Vec<Topic> = (0..SUBSCRIPTIONS).map(|_| server.fresh_topic()).collect();
            let before = server.commands();
            let (commands, spent) = match side {
                Side::Ours => idle(server, &topics, duration).await,
                Side::Raw => {
                    let spent = raw::idle(server, &topics, duration).await;
                    (server.commands() - before, spent)
                }
            };
            server.flush();
            let share = |cpu: Duration| cpu.as_secs_f64() / spent.taken.as_secs_f64() * 100.0;
            [
                commands / spent.taken.as_secs_f64(),
                share(spent.client_cpu),
                share(spent.server_cpu),
            ]
        })
        .await;
}

async fn idle(server: &Server, topics: &[Topic], duration: Duration) -> (f64, Spent) {
    let container = subscribed(server, topics).await;
    tokio::time::sleep(SETTLE).await;
    let before = server.commands();
    let meter = Meter::start(server);
    tokio::time::sleep(duration).await;
    let spent = meter.stop();
    let commands = server.commands() - before;
    ours::finish(container).await;
    (commands, spent)
}

async fn subscribed(server: &Server, topics: &[Topic]) -> Container {
    let container = server.connect().await;
    for topic in topics {
        ours::counting(&container, topic, 16, &Arc::default()).await;
    }
    container
}
