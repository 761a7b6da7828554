//! The key-value store.

use std::time::Duration;

use redstart::{
    Kv,
    kv::{Once, once},
};

use crate::meter::{Meter, Spent};
use crate::server::Server;
use crate::work::{Order, SIZE, Work};

/// Does `count` operations from as many tasks as the pool has connections, each on a key of its own.
pub(crate) async fn kv(server: &Server, work: Work, count: u64, tasks: u64) -> Spent {
    let kv = Kv::connect(&server.url, None).expect("the URL is ours");
    let order = Order::new(1, SIZE);
    for task in 0..tasks {
        let key = format!("ours-{task}");
        kv.delete(&key).await.expect("deleted");
        if !matches!(work, Work::Incr) {
            kv.set(&key, &order).await.expect("set");
        }
    }
    let meter = Meter::start(server);
    let mut running = tokio::task::JoinSet::new();
    for task in 0..tasks {
        let (kv, order) = (kv.clone(), order.clone());
        running.spawn(async move {
            let key = format!("ours-{task}");
            for number in 0..count / tasks {
                match work {
                    Work::Get => {
                        let found: Option<Order> = kv.get(&key).await.expect("get");
                        assert!(found.is_some());
                    }
                    Work::Set => kv.set(&key, &order).await.expect("set"),
                    Work::Incr => {
                        kv.incr(&key, 1).await.expect("incr");
                    }
                    Work::Cas => {
                        let swapped = kv.cas(&key, Some(&order), &order, None).await.expect("cas");
                        assert!(swapped);
                    }
                    Work::Once => {
                        let (key, day) = (format!("{key}-{number}"), Duration::from_secs(86_400));
                        let result = once(&kv, &key, day, async || Ok::<_, ()>(number)).await;
                        assert!(matches!(result, Ok(Once::Executed(_))));
                    }
                }
            }
        });
    }
    running.join_all().await;
    meter.stop()
}
