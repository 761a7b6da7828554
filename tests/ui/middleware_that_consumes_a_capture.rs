//! Middleware whose future consumes what it captures.
//!
//! error: is not middleware
//! label: expected `async fn(Delivery, Next) -> Outcome`
//! note: a closure names the types of its arguments and owns its captures

use redstart::middleware::Next;
use redstart::{Delivery, Router};

pub fn router(name: String) -> Router {
    Router::new().with_middleware(move |delivery: Delivery, next: Next| async move {
        drop(name);
        next.run(delivery).await
    })
}
