//! Handlers of groups: all of them, or page by page.
//!
//! The store returns all groups, sorted; paging and the text filter are implemented here.

use std::sync::Arc;

use axum::{
    extract::{Path, Query as UrlQuery, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::{Deserialize, Serialize};

use super::{
    Site,
    api::{ask, either},
    reply,
};
use crate::store::{Archive, Group};

/// Filter and page of a request for groups.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Query {
    /// Matches groups whose title, class, site, executables or fingerprint contain this text, ignoring case.
    text: Option<String>,
    /// Matches groups behind the position in [`Groups::next`].
    before: Option<String>,
    /// Maximum number of groups to return; `None`: all.
    limit: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Groups {
    groups: Vec<Group>,
    /// Value of [`Query::before`] for the next page; `None` on the last page.
    next: Option<String>,
    /// Number of groups that match, on all pages.
    total: usize,
}

/// `GET /api/v1/groups`: groups, the most recently seen first.
pub(super) async fn groups(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
    query: Result<UrlQuery<Query>, QueryRejection>,
) -> Response {
    let query = match query {
        Ok(UrlQuery(query)) => query,
        Err(error) => return reply::error(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    if query.limit == Some(0) {
        return reply::error(StatusCode::BAD_REQUEST, "limit must be at least 1");
    }
    let groups = ask(&site, |archive: &dyn Archive| archive.groups()).await;
    either(groups.map(|groups| reply::json(&headers, &page(groups, &query))))
}

/// `GET /api/v1/groups/{fingerprint}`: one group.
pub(super) async fn group(
    State(site): State<Arc<Site>>,
    Path(fingerprint): Path<String>,
    headers: HeaderMap,
) -> Response {
    let groups = ask(&site, |archive: &dyn Archive| archive.groups()).await;
    either(groups.map(|groups| match groups.iter().find(|group| group.fingerprint == fingerprint) {
        Some(group) => reply::json(&headers, group),
        None => reply::error(StatusCode::NOT_FOUND, "there is no such group"),
    }))
}

/// Returns one page of `groups`, which are sorted as in [`is_behind`].
fn page(groups: Vec<Group>, query: &Query) -> Groups {
    let text = query.text.as_deref().unwrap_or_default().to_lowercase();
    let mut groups: Vec<Group> = groups.into_iter().filter(|group| contains(group, &text)).collect();
    let total = groups.len();
    if let Some(before) = &query.before {
        groups.retain(|group| is_behind(group, before));
    }
    let more = query.limit.filter(|limit| groups.len() > *limit);
    groups.truncate(more.unwrap_or(usize::MAX));
    let next = more.and_then(|_| groups.last().map(place));
    Groups { groups, next, total }
}

fn contains(group: &Group, text: &str) -> bool {
    let own = [group.title.as_str(), group.fingerprint.as_str()];
    let known = group.class.iter().chain(&group.site).chain(&group.binaries).map(String::as_str);
    text.is_empty() || own.into_iter().chain(known).any(|part| part.to_lowercase().contains(text))
}

/// Returns the position of a group in the list. A new incident moves its group to the front, so a reader that
/// goes from page to page skips no group.
fn place(group: &Group) -> String {
    format!("{},{}", group.last_seen, group.fingerprint)
}

fn is_behind(group: &Group, place: &str) -> bool {
    let (last_seen, fingerprint) = place.split_once(',').unwrap_or((place, ""));
    let own = (group.last_seen.as_str(), group.fingerprint.as_str());
    own.0 < last_seen || own.0 == last_seen && own.1 > fingerprint
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns groups, three per second, sorted as the store sorts them.
    fn groups() -> Vec<Group> {
        let group = |n: usize| Group {
            fingerprint: format!("pw1:{:04}", n % 3),
            title: format!("group {n}"),
            last_seen: format!("2026-01-01T00:{:02}:{:02}Z", 59 - n / 3 / 60, 59 - n / 3 % 60),
            ..Group::default()
        };
        (0..1000).map(group).collect()
    }

    #[test]
    fn every_group_is_on_one_page() {
        let mut query = Query { limit: Some(7), ..Query::default() };
        let mut seen = Vec::new();
        loop {
            let page = page(groups(), &query);
            assert_eq!(page.total, 1000);
            seen.extend(page.groups);
            query.before = page.next;
            if query.before.is_none() {
                break;
            }
        }
        assert_eq!(seen, groups());
        let whole = page(groups(), &Query::default());
        assert_eq!((whole.groups.len(), whole.next), (1000, None));
        let all = page(groups(), &Query { limit: Some(1000), ..Query::default() });
        assert_eq!((all.groups.len(), all.next), (1000, None), "nothing is left for another page");
    }

    #[test]
    fn the_text_is_looked_for_in_all_groups() {
        let text = Some("GROUP 99".to_owned());
        let found = page(groups(), &Query { text, limit: Some(5), ..Query::default() });
        assert_eq!((found.total, found.groups.len()), (11, 5), "99 and 990 to 999");
        assert!(found.next.is_some());
        let none = page(groups(), &Query { text: Some("nowhere".to_owned()), ..Query::default() });
        assert_eq!((none.total, none.next), (0, None));
    }
}
