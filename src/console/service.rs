//! The service that a web server mounts.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::response::IntoResponse as _;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tower_service::Service;

use super::access::{Access, CHALLENGE, origin};
use super::api;
use super::app::router;
use super::failure::Failure;
use super::headers;
use super::options::ConsoleOptions;
use super::page;
use super::state::App;
use super::visit::Visit;
use crate::container::Container;
use crate::operate::escape;

/// The console of a container, as a service of tower.
///
/// Mount it with axum's `nest_service`, or serve it with hyper. The module's documentation has an
/// example. The service is cheap to clone, and its clones share one state.
pub fn service(container: Container, options: ConsoleOptions) -> ConsoleService {
    let app = Arc::new(App::new(container, options));
    ConsoleService {
        router: router(Arc::clone(&app)),
        app,
    }
}

/// The console as a service. [`service`] makes it.
#[derive(Clone)]
pub struct ConsoleService {
    app: Arc<App>,
    router: axum::Router,
}

impl std::fmt::Debug for ConsoleService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsoleService")
            .field("options", &self.app.options)
            .finish_non_exhaustive()
    }
}

/// The body of an answer.
#[derive(Debug)]
pub struct ConsoleBody(axum::body::Body);

impl Body for ConsoleBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = Pin::new(&mut self.0).poll_frame(cx);
        frame.map_err(|error| error.into_inner())
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl<B> Service<Request<B>> for ConsoleService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<ConsoleBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (app, router) = (Arc::clone(&self.app), self.router.clone());
        let request = request.map(axum::body::Body::new);
        app.tick();
        Box::pin(async move {
            let mut response = answer(&app, router, request).await;
            headers::protect(response.headers_mut());
            Ok(response.map(ConsoleBody))
        })
    }
}

async fn answer(
    app: &Arc<App>,
    mut router: axum::Router,
    mut request: Request<axum::body::Body>,
) -> Response<axum::body::Body> {
    strip(request.uri_mut(), &app.options.base_path);
    let path = request.uri().path().to_owned();
    let (mut parts, body) = request.into_parts();
    let access = (app.options.access)(&parts);
    let visit = Visit {
        app: Arc::clone(app),
        access: access.clone(),
        path,
    };
    // The console's own server found out that the visitor may not come in.
    if let Some(failure) = parts.extensions.remove::<Failure>()
        && !(reads(&parts.method) && is_probe(&visit.path))
    {
        return render(&visit, failure);
    }
    let reads = reads(&parts.method);
    if visit.access == Access::Forbidden && !(reads && is_probe(&visit.path)) {
        let message = "you may not see this console; ask its operators for access";
        return render(&visit, Failure::new(StatusCode::FORBIDDEN, message));
    }
    if !reads {
        if let Some(refused) = refuse_method(&mut router, &parts, &visit).await {
            return refused;
        }
        if let Err(failure) = allow_change(&parts, &visit) {
            return render(&visit, failure);
        }
    }
    parts.extensions.insert(access);
    // The router is always ready, and never fails.
    let Ok(mut response) = router.call(Request::from_parts(parts, body)).await;
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        return render(&visit, failure);
    }
    if let Some(failure) = rejected(&mut response).await {
        return render(&visit, failure);
    }
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        return render_methods(&visit, response.headers_mut().remove(ALLOW));
    }
    response
}

/// Refuses a method that the page does not have, and an address without a page. No page has the method
/// OPTIONS, so the router answers it with those that a page has.
async fn refuse_method(
    router: &mut axum::Router,
    parts: &http::request::Parts,
    visit: &Visit,
) -> Option<Response<axum::body::Body>> {
    let mut question = Request::new(axum::body::Body::empty());
    *question.method_mut() = Method::OPTIONS;
    *question.uri_mut() = parts.uri.clone();
    let Ok(mut answer) = router.call(question).await;
    if let Some(failure) = answer.extensions_mut().remove::<Failure>() {
        return Some(render(visit, failure));
    }
    let methods = answer.headers_mut().remove(ALLOW);
    let text = methods.as_ref().and_then(|methods| methods.to_str().ok());
    let mut each = text.unwrap_or_default().split(',').map(str::trim);
    if each.any(|method| method == parts.method.as_str()) {
        return None;
    }
    Some(render_methods(visit, methods))
}

/// The answer to a method that the page does not have, with those that it has.
fn render_methods(visit: &Visit, methods: Option<HeaderValue>) -> Response<axum::body::Body> {
    let message = "this page does not take requests of this kind";
    let failure = Failure::new(StatusCode::METHOD_NOT_ALLOWED, message);
    let mut page = render(visit, failure);
    if let Some(methods) = methods {
        page.headers_mut().insert(ALLOW, methods);
    }
    page
}

/// The failure in the plain answer with which the framework refuses an address: a repeated field, a
/// number out of range, bytes that are not UTF-8.
async fn rejected(response: &mut Response<axum::body::Body>) -> Option<Failure> {
    let kind = response.headers().get(CONTENT_TYPE)?;
    if response.status() != StatusCode::BAD_REQUEST || !kind.as_bytes().starts_with(b"text/plain") {
        return None;
    }
    let body = std::mem::take(response.body_mut());
    let text = axum::body::to_bytes(body, 16 << 10).await.ok()?;
    let text = String::from_utf8_lossy(&text);
    let rule = text
        .strip_prefix("Failed to deserialize query string: ")
        .or_else(|| text.strip_prefix("Invalid URL: "))
        .unwrap_or(&text);
    let rule = escape::excerpt(rule, 300);
    Some(Failure::invalid(format!(
        "the address is not valid: {rule}"
    )))
}

fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Probes of a cluster carry no log-in, and learn nothing about messages.
fn is_probe(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

fn allow_change(parts: &http::request::Parts, visit: &Visit) -> Result<(), Failure> {
    let by_program =
        api::is_api(&visit.path) && api::is_json(&parts.headers) && !origin::is_of_a_browser(parts);
    if !by_program && !origin::is_own(parts) {
        let message = "the request does not come from a page of this console";
        return Err(Failure::new(StatusCode::FORBIDDEN, message));
    }
    if !visit.access.is_operator() {
        let message = "viewers change nothing; ask an operator";
        return Err(Failure::new(StatusCode::FORBIDDEN, message));
    }
    Ok(())
}

fn render(visit: &Visit, failure: Failure) -> Response<axum::body::Body> {
    let status = failure.status;
    let mut response = match api::is_api(&visit.path) {
        true => api::failed(&failure),
        false => page::failed(visit, &failure).into_response(),
    };
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, CHALLENGE);
    }
    let wait = failure.retry_after.map(|wait| wait.as_secs() + 1);
    let wait = wait.or((status == StatusCode::SERVICE_UNAVAILABLE).then_some(5));
    if let Some(seconds) = wait {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Takes the base path off, where the request still has it.
fn strip(uri: &mut Uri, base: &str) {
    let Some(rest) = uri.path().strip_prefix(base) else {
        return;
    };
    if base.is_empty() || !(rest.is_empty() || rest.starts_with('/')) {
        return;
    }
    let path = if rest.is_empty() { "/" } else { rest };
    let whole = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    // A part of a valid path is a valid path.
    let Ok(whole) = PathAndQuery::try_from(whole) else {
        return;
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(whole);
    if let Ok(stripped) = Uri::from_parts(parts) {
        *uri = stripped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_path_is_taken_off_whole_segments_only() {
        for (from, to) in [
            ("/redstart", "/"),
            ("/redstart/", "/"),
            ("/redstart?a=1", "/?a=1"),
            ("/redstart/dead?a=1", "/dead?a=1"),
            ("/redstarts", "/redstarts"),
            ("/dead", "/dead"),
            ("http://h/redstart/dead", "http://h/dead"),
        ] {
            let mut uri: Uri = from.parse().unwrap();
            strip(&mut uri, "/redstart");
            assert_eq!(uri.to_string(), to, "{from}");
        }
    }
}
