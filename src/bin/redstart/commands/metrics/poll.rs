//! One measurement for all scrapes of a time.

use std::time::Duration;

use bytes::Bytes;
use redstart::Container;
use redstart::topics::TopicGauges;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::failure::Failure;
use crate::settings::{NamespaceAccess, Settings};
use redstart::exposition as text;

/// The time limit of a measurement: shorter than the 10 s that Prometheus waits for an answer, so
/// that it sees `redstart_up 0`.
const LIMIT: Duration = Duration::from_secs(8);

/// Measures for scrapes, and keeps the result for a time.
pub(super) struct Poll {
    settings: Settings,
    every: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Connected by the first measurement that reaches the server.
    container: Option<Container>,
    latest: Option<(Instant, Bytes)>,
}

impl Poll {
    pub(super) fn new(settings: Settings, every: Duration) -> Self {
        Self {
            settings,
            every,
            state: Mutex::default(),
        }
    }

    /// The exposition. Concurrent scrapes wait for the same measurement.
    pub(super) async fn text(&self) -> Bytes {
        let mut state = self.state.lock().await;
        if let Some((at, text)) = &state.latest
            && at.elapsed() < self.every
        {
            return text.clone();
        }
        let began = Instant::now();
        let measured = match timeout(LIMIT, self.measure(&mut state.container)).await {
            Ok(measured) => measured.map_err(|failure| failure.line().unwrap_or_default()),
            Err(_) => Err(format!("the server did not answer within {LIMIT:?}")),
        };
        let took = began.elapsed();
        let text = match measured {
            Ok(gauges) => text::of_poll(Some(&gauges), took),
            Err(error) => {
                tracing::error!(error, "cannot measure");
                text::of_poll(None, took)
            }
        };
        let text = Bytes::from(text);
        state.latest = Some((Instant::now(), text.clone()));
        text
    }

    async fn measure(
        &self,
        container: &mut Option<Container>,
    ) -> Result<Vec<TopicGauges>, Failure> {
        if container.is_none() {
            *container = Some(self.settings.connect_for(NamespaceAccess::Read).await?);
        }
        match container {
            Some(container) => Ok(container.topics().gauges().await?),
            None => Ok(Vec::new()),
        }
    }
}
