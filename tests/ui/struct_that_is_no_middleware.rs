//! A struct that does not implement `Middleware`, such as a layer of tower without `Tower`.
//!
//! error: `TimeoutLayer` is not middleware
//! label: expected `async fn(Delivery, Next) -> Outcome`
//! note: a struct can be middleware where it implements `Middleware`
//! note: a `tower::Layer` goes in by `with_middleware(Tower(layer))`, feature `tower`

use redstart::Router;

pub struct TimeoutLayer;

pub fn router() -> Router {
    Router::new().with_middleware(TimeoutLayer)
}
