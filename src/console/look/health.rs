//! Answers for probes.

use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use tokio::time::timeout;

use crate::console::visit::Visit;

/// How long a probe waits for the store.
const LIMIT: Duration = Duration::from_secs(5);

/// The process answers.
pub(in crate::console) async fn alive() -> &'static str {
    "ok\n"
}

/// The process reaches the store. Reasons go to the log, because a probe carries no log-in.
pub(in crate::console) async fn ready(visit: Visit) -> Response {
    let ping = async { visit.app.container.store().inspect().ping().await };
    match timeout(LIMIT, ping).await {
        Ok(Ok(())) => "ready\n".into_response(),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the console does not reach the store");
            (StatusCode::SERVICE_UNAVAILABLE, "no connection\n").into_response()
        }
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "no answer in time\n").into_response(),
    }
}
