//! Middleware that loses the handler's outcome.
//!
//! error: is not middleware
//! label: expected `async fn(Delivery, Next) -> Outcome`
//! note: it returns the outcome: that of `next.run(delivery).await`, or one of its own

use redstart::middleware::Next;
use redstart::{Delivery, Router};

async fn logs(delivery: Delivery, next: Next) {
    println!("{:?}", next.run(delivery).await);
}

pub fn router() -> Router {
    Router::new().with_middleware(logs)
}
