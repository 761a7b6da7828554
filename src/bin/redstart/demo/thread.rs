//! A worker of the demo as a thread of this process, for the store in memory.
//!
//! The worker has its own runtime. Killing it drops that runtime: all its work stops, and nothing
//! is settled or released, as when a process dies.

use std::io;
use std::thread;

use redstart::{Container, memory::MemoryStore};
use tokio::sync::{mpsc, oneshot};

use super::orders::{Event, Orders};
use super::worker::{Task, Voice, serve};
use crate::failure::Failure;

/// A running thread. Dropping it kills its runtime.
#[derive(Debug)]
pub(super) struct ThreadWorker {
    dismissal: Option<oneshot::Sender<()>>,
    kill: Option<oneshot::Sender<()>>,
    ended: Option<oneshot::Receiver<Result<(), String>>>,
}

impl ThreadWorker {
    pub(super) fn start(
        at: usize,
        store: &MemoryStore,
        orders: &Orders<'_>,
        sender: &mpsc::Sender<(usize, Event)>,
    ) -> io::Result<Self> {
        let (dismissal, dismissed) = oneshot::channel();
        let (kill, killed) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let task = Task {
            topic: orders.topic.clone(),
            group: orders.group.clone(),
            work: orders.work,
        };
        let builder = Container::builder()
            .with_memory(store.clone())
            .with_namespace(orders.namespace.clone());
        let sender = sender.clone();
        let voice = Voice::Channel(at, sender.clone());
        let living = async move {
            let container = builder.connect().await?;
            serve(&container, task, voice, async {
                let _ = dismissed.await;
            })
            .await
        };
        thread::Builder::new()
            .name(format!("demo-worker-{}", at + 1))
            .spawn(move || {
                let result = runtime.block_on(async {
                    tokio::select! {
                        biased;
                        _ = killed => Err("killed".to_owned()),
                        result = living => result.map_err(|failure: Failure| {
                            failure.line().unwrap_or_default()
                        }),
                    }
                });
                drop(runtime);
                let _ = sender.blocking_send((at, Event::Ended));
                let _ = end.send(result);
            })?;
        Ok(Self {
            dismissal: Some(dismissal),
            kill: Some(kill),
            ended: Some(ended),
        })
    }

    pub(super) fn dismiss(&mut self) {
        self.dismissal = None;
    }

    pub(super) fn kill(&mut self) {
        self.kill = None;
    }

    pub(super) async fn end(&mut self) -> Result<(), String> {
        match self.ended.take() {
            Some(ended) => ended
                .await
                .unwrap_or_else(|_| Err("the thread panicked".to_owned())),
            None => Ok(()),
        }
    }
}
