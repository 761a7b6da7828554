//! The live regions that somebody looks at.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use maud::Markup;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// A region of a page, by the page's path within the console, and for whom it is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Region {
    pub(super) path: String,
    pub(super) may_change: bool,
}

/// What browsers get: an event and its HTML.
pub(super) type Event = Arc<str>;

/// The regions that somebody looks at.
pub(super) struct Live {
    tasks: Mutex<HashMap<Region, watch::Receiver<Event>>>,
    clients: Arc<Semaphore>,
}

impl Live {
    pub(super) fn new(max_clients: usize) -> Self {
        Self {
            tasks: Mutex::default(),
            clients: Arc::new(Semaphore::new(max_clients.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Admits a page that follows a region; `None` where there are too many.
    pub(super) fn admit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.clients).try_acquire_owned().ok()
    }

    /// Follows a region. The first visitor of a region starts its task, and the task ends with the last.
    pub(super) fn follow(
        &self,
        region: &Region,
        start: impl FnOnce(Region, watch::Sender<Event>),
    ) -> watch::Receiver<Event> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // A task that has ended has dropped its sender.
        tasks.retain(|_, task| task.has_changed().is_ok());
        if let Some(task) = tasks.get(region) {
            return task.clone();
        }
        let (sender, receiver) = watch::channel(Event::from(""));
        // The table keeps one receiver; the task counts the others.
        tasks.insert(region.clone(), receiver.clone());
        start(region.clone(), sender);
        receiver
    }
}

/// An event of a stream. Its data is the HTML.
pub(super) fn event(name: &str, html: Markup) -> String {
    // A line break ends a field of an event.
    let lines = html.into_string().replace('\r', "");
    let lines = lines.lines().map(|line| format!("data: {line}\n"));
    format!("event: {name}\n{}\n", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use maud::html;

    #[test]
    fn each_line_of_a_region_is_a_field_of_its_event() {
        let event = event("region", html! { "a\r\nb\n\nc" });
        assert_eq!(
            event,
            "event: region\ndata: a\ndata: b\ndata: \ndata: c\n\n"
        );
    }
}
