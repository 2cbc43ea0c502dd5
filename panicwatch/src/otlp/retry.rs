//! Classifies refusals of a collector, and computes the pause after one. Does no I/O.
//!
//! <https://opentelemetry.io/docs/specs/otlp/#failures> and
//! <https://opentelemetry.io/docs/specs/otlp/#failures-1>

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// First and longest pause.
const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(60);
/// Longest pause that a collector can request.
const MAX_ASKED: Duration = Duration::from_secs(600);

/// Why a collector did not accept a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What to do with the request.
    pub(super) next: Next,
    /// The reason as a part of a sentence; may contain text of the collector, not escaped.
    pub(super) reason: String,
}

/// What to do with a refused request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Send it again, no earlier than after the pause that the collector requested.
    Retry(Option<Duration>),
    /// Send its incidents in smaller requests, because one of them may be the cause; drop an incident that is
    /// refused alone.
    Split,
    /// Drop it: the collector would refuse any request.
    Drop,
}

impl Refusal {
    /// Classifies the status of a gRPC call. `from_peer`: the collector sent it, as opposed to a failed
    /// connection.
    pub(super) fn of_grpc(status: &Status, from_peer: bool) -> Refusal {
        let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
        let next = match status.code() {
            _ if !from_peer => Next::Retry(None),
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss => Next::Retry(asked),
            // Without a requested pause, it means that the request is too large.
            Code::ResourceExhausted if asked.is_some() => Next::Retry(asked),
            Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented => Next::Drop,
            _ => Next::Split,
        };
        Refusal { next, reason: format!("{:?}: {}", status.code(), status.message()) }
    }

    /// Classifies an HTTP response.
    pub(super) fn of_http(code: u16, retry_after: Option<Duration>, message: &str) -> Refusal {
        let next = match code {
            429 | 502 | 503 | 504 => Next::Retry(retry_after),
            400 | 413 | 422 | 500 => Next::Split,
            _ => Next::Drop,
        };
        let colon = if message.is_empty() { "" } else { ": " };
        Refusal { next, reason: format!("HTTP status {code}{colon}{message}") }
    }

    /// Returns the refusal for a collector that did not respond.
    pub(super) fn unreachable(reason: String) -> Refusal {
        Refusal { next: Next::Retry(None), reason }
    }
}

/// Returns the pause after a number of consecutive failures. It doubles with each failure; `random` picks a
/// value between half and all of it, so that many daemons do not retry at the same time. It is at least the
/// pause that the collector requested.
pub(super) fn pause(failures: u32, asked: Option<Duration>, random: u64) -> Duration {
    let full = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LAST);
    let part = 0.5 + (random % 1024) as f64 / 2048.0;
    full.mul_f64(part).max(asked.unwrap_or_default().min(MAX_ASKED))
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn of(code: Code) -> Next {
        Refusal::of_grpc(&Status::new(code, "no"), true).next
    }

    #[test]
    fn what_the_protocol_says_of_grpc() {
        for code in [Code::Unavailable, Code::Cancelled, Code::DataLoss, Code::OutOfRange, Code::Aborted] {
            assert_eq!(of(code), Next::Retry(None));
        }
        assert_eq!(of(Code::InvalidArgument), Next::Split);
        assert_eq!(of(Code::ResourceExhausted), Next::Split);
        assert_eq!(of(Code::Unauthenticated), Next::Drop);
        assert_eq!(Refusal::of_grpc(&Status::unknown("broken pipe"), false).next, Next::Retry(None));
        let delay = Some(Duration::from_secs(7));
        let details = ErrorDetails::with_retry_info(delay);
        let status = Status::with_error_details(Code::ResourceExhausted, "later", details);
        assert_eq!(Refusal::of_grpc(&status, true).next, Next::Retry(delay));
    }

    #[test]
    fn what_the_protocol_says_of_http() {
        let after = Some(Duration::from_secs(3));
        for code in [429, 502, 503, 504] {
            assert_eq!(Refusal::of_http(code, after, "").next, Next::Retry(after));
        }
        assert_eq!(Refusal::of_http(400, None, "bad").next, Next::Split);
        assert_eq!(Refusal::of_http(401, None, "").next, Next::Drop);
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        let longest = |failures| pause(failures, None, 1023);
        assert!(pause(1, None, 0) == FIRST / 2 && longest(1) <= FIRST);
        assert!(longest(3) > longest(2) && longest(2) > longest(1));
        assert!((LAST / 2..=LAST).contains(&longest(u32::MAX)));
        assert_eq!(pause(1, Some(Duration::from_secs(90)), 0), Duration::from_secs(90));
        assert_eq!(pause(1, Some(Duration::MAX), 0), MAX_ASKED);
    }
}
