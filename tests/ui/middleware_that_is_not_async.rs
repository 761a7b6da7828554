//! Middleware that is not `async`.
//!
//! error: is not middleware
//! label: expected `async fn(Delivery, Next) -> Outcome`

use redstart::middleware::Next;
use redstart::{Delivery, Outcome, Router};

fn ends(_: Delivery, _: Next) -> Outcome {
    Outcome::Ack
}

pub fn router() -> Router {
    Router::new().with_middleware(ends)
}
