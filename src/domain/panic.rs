//! Panics of a user's code, as error texts.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The error text of a handler's panic. Drops its payload.
pub(crate) fn panic_text(panic: Box<dyn Any + Send>) -> String {
    panic_text_of("the handler", panic)
}

/// The error text of a panic in a user's component. Drops its payload.
pub(crate) fn panic_text_of(component: &str, panic: Box<dyn Any + Send>) -> String {
    let said = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = match said {
        Some(said) => format!("{component} panicked: {said}"),
        None => format!("{component} panicked"),
    };
    discard(panic);
    text
}

/// Drops the payload of a panic. The payload's own `Drop` may panic too; the payload of that panic
/// is leaked, because its `Drop` may panic again.
pub(crate) fn discard(panic: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::panic_any(Bomb);
        }
    }

    #[test]
    fn a_panic_is_described_and_its_payload_may_panic_while_it_is_dropped() {
        let text = |panic: Box<dyn Any + Send>| panic_text(panic);
        assert_eq!(text(Box::new("no paper")), "the handler panicked: no paper");
        let owned = Box::new("no ink".to_owned());
        assert_eq!(text(owned), "the handler panicked: no ink");
        assert_eq!(text(Box::new(Bomb)), "the handler panicked");
    }
}
