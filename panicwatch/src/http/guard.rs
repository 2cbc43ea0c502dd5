//! Access control, and the headers that restrict what a browser may do with a response.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::Response,
};
use sha2::{Digest as _, Sha256};

use super::{Site, reply};

/// Content security policy: a page may load only what this server serves, and no other page may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Adds the security headers to every response.
pub(super) async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    protect(response.headers_mut());
    response
}

/// Adds the security headers to a response.
pub(super) fn protect(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// Requires the token, if one is configured.
pub(super) async fn token(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let Some(wanted) = site.token() else { return next.run(request).await };
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    // Comparing hashes takes the same time wherever the first difference is.
    if Sha256::digest(shown) == Sha256::digest(&wanted) {
        return next.run(request).await;
    }
    let mut response = reply::error(StatusCode::UNAUTHORIZED, "a token is required: Authorization: Bearer …");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// Protects a loopback address without a token against DNS rebinding: a foreign page could let its own name
/// resolve to 127.0.0.1 and read the responses. So the `Host` header must name this machine.
pub(super) async fn host(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if site.token().is_some() || is_local(host) {
        return next.run(request).await;
    }
    reply::error(
        StatusCode::FORBIDDEN,
        "the Host header must be localhost: without a token only this machine may read",
    )
}

fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let address: Option<std::net::IpAddr> = name.parse().ok();
    name.is_empty()
        || name.eq_ignore_ascii_case("localhost")
        || address.is_some_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine() {
        for host in ["localhost", "LOCALHOST:9464", "127.0.0.1:9464", "127.9.9.9", "[::1]:9464", ""] {
            assert!(is_local(host), "{host}");
        }
        for host in
            ["evil.example", "evil.example:9464", "127.0.0.1.evil.example", "[2001:db8::1]:80", "10.0.0.1"]
        {
            assert!(!is_local(host), "{host}");
        }
    }
}
