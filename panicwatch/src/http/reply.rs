//! Builds responses: JSON with an entity tag, and errors as sentences.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{json, store};

/// Returns a response with a body of media type `kind`.
pub(super) fn text(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Returns an error response whose JSON has the sentence.
pub(super) fn error(status: StatusCode, sentence: &str) -> Response {
    text(status, "application/json", json::safe(serde_json::json!({ "error": sentence }).to_string()))
}

/// Returns the response for an error of the store.
pub(super) fn store_error(error: &store::Error) -> Response {
    match error {
        store::Error::Query(sentence) => self::error(StatusCode::BAD_REQUEST, sentence),
        error => self::error(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

/// Returns a value as JSON, or 304 if the client has it already.
pub(super) fn json(request: &HeaderMap, value: &impl Serialize) -> Response {
    match json::to_string(value) {
        Ok(body) => bytes(request, "application/json", body.into_bytes()),
        Err(failed) => error(StatusCode::INTERNAL_SERVER_ERROR, &failed.to_string()),
    }
}

/// Returns bytes, or 304 if the client has them already.
pub(super) fn bytes(request: &HeaderMap, kind: &'static str, body: Vec<u8>) -> Response {
    let tag: String = Sha256::digest(&body).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{tag}\"");
    let has = |value: &HeaderValue| {
        value.to_str().is_ok_and(|tags| tags == "*" || tags.split(',').any(|t| t.trim() == tag))
    };
    let mut response = if request.get(header::IF_NONE_MATCH).is_some_and(has) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        text(StatusCode::OK, kind, body)
    };
    // Hexadecimal digits in quotes are always a valid header value.
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

pub(super) async fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "there is nothing at this path; see docs/http-api.md")
}

pub(super) async fn not_allowed() -> Response {
    error(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed: the API is read-only")
}
