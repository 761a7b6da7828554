//! A route whose handler takes no message.
//!
//! error: this handler takes no message, so the router cannot tell which type it is for
//! label: no argument of this handler implements `Message`
//! note: the handler of a route takes exactly one message; handle all other types with `.otherwise(handler)`

use redstart::{Delivery, Router};

async fn bill(_: Delivery) {}

pub fn router() -> Router {
    Router::new().on(bill)
}
