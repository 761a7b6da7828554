//! A function as a publish hook.
//!
//! error: is not a publish hook
//! label: expected a type that implements `PublishHook`
//! note: implement `PublishHook` with `before`, `after` or both

use redstart::container::ContainerBuilder;
use redstart::{Container, Envelope, Topic};

fn stamp(_: &Topic, envelope: &mut Envelope) {
    envelope.set_header("region", "eu");
}

pub fn builder() -> ContainerBuilder {
    Container::builder().with_publish_hook(stamp)
}
