//! What all pages share.

use crate::container::Container;

use super::options::ConsoleOptions;
use super::page::Links;
use super::poll::Poll;

/// One console.
pub(super) struct App {
    pub(super) container: Container,
    pub(super) options: ConsoleOptions,
    pub(super) links: Links,
    pub(super) poll: Poll,
}

impl App {
    pub(super) fn new(container: Container, options: ConsoleOptions) -> Self {
        Self {
            links: Links::new(&options.base_path),
            poll: Poll::new(container.clone(), container.doctor()),
            container,
            options,
        }
    }
}
