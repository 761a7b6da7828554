//! A layer of tower whose service cannot be cloned, as that of `RateLimitLayer`.
//!
//! feature: tower
//! error: `Tower<RateLimitLayer>` is not middleware
//! label: expected `async fn(Delivery, Next) -> Outcome`
//! note: a `tower::Layer` goes in by `with_middleware(Tower(layer))`, feature `tower`, if the service that it makes is `Clone`

use redstart::Router;
use redstart::middleware::Tower;
use std::time::Duration;
use tower::limit::RateLimitLayer;

pub fn router() -> Router {
    let layer = RateLimitLayer::new(10, Duration::from_secs(1));
    Router::new().with_middleware(Tower(layer))
}
