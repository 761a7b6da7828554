//! Middleware that takes its arguments in the wrong order.
//!
//! error: is not middleware
//! label: expected `async fn(Delivery, Next) -> Outcome`

use redstart::middleware::Next;
use redstart::{Delivery, Outcome, Router};

async fn swapped(next: Next, delivery: Delivery) -> Outcome {
    next.run(delivery).await
}

pub fn router() -> Router {
    Router::new().with_middleware(swapped)
}
