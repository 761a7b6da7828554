//! `Tower` around a value that is not a layer of tower.
//!
//! feature: tower
//! error: `Tower<Duration>` is not middleware
//! label: expected `async fn(Delivery, Next) -> Outcome`

use redstart::Router;
use redstart::middleware::Tower;
use std::time::Duration;

pub fn router() -> Router {
    Router::new().with_middleware(Tower(Duration::from_secs(1)))
}
