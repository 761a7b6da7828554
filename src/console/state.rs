//! What all pages share.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use crate::container::Container;

use super::act::running::Sweeps;
use super::options::ConsoleOptions;
use super::page::Links;
use super::poll::Poll;
use super::regions::Live;

/// One console.
pub(super) struct App {
    pub(super) container: Container,
    pub(super) options: ConsoleOptions,
    pub(super) links: Links,
    pub(super) poll: Poll,
    pub(super) sweeps: Sweeps,
    pub(super) live: Live,
    ticking: OnceLock<()>,
}

impl App {
    pub(super) fn new(container: Container, options: ConsoleOptions) -> Self {
        Self {
            links: Links::new(&options.base_path),
            poll: Poll::new(container.clone(), container.doctor()),
            sweeps: Sweeps::default(),
            live: Live::new(options.max_clients),
            ticking: OnceLock::new(),
            container,
            options,
        }
    }

    /// Measures also while nobody looks, so that the sparklines have no gaps. The first request starts
    /// it, because a service may be made outside of a runtime.
    pub(super) fn tick(self: &Arc<Self>) {
        self.ticking.get_or_init(|| {
            tokio::spawn(measure(Arc::downgrade(self)));
        });
    }
}

/// Between two measurements while nobody looks.
const QUIET: Duration = Duration::from_secs(15);

async fn measure(app: Weak<App>) {
    while let Some(app) = app.upgrade() {
        app.poll.look().await;
        drop(app);
        tokio::time::sleep(QUIET).await;
    }
}
