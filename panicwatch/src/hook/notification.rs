//! The data that a hook receives besides the document: a link, and the incident's rank in its group. Does no
//! I/O.

use serde::Serialize;

use crate::{
    incident::{Incident, Process},
    store::Standing,
};

/// Number of digits that identify a commit.
const COMMIT: usize = 12;

/// The `notification` object in a hook's JSON. Unknown values are `null`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Notification {
    /// URL of the incident on the page; `None` unless `[http] external_url` is set.
    pub(super) url: Option<String>,
    /// Version of the program's main module, else the commit it was built from.
    pub(super) version: Option<String>,
    /// Incidents of the group so far, including this one.
    pub(super) group_count: Option<u64>,
    /// Whether it is the first of its group.
    pub(super) new: Option<bool>,
}

impl Notification {
    /// Returns the notification for `incident`. `standing` is `None` when the store cannot be read;
    /// `external_url` is empty when none is set.
    pub(super) fn of(incident: &Incident, standing: Option<Standing>, external_url: &str) -> Notification {
        let base = external_url.trim_end_matches('/');
        Notification {
            url: (!base.is_empty()).then(|| format!("{base}/#/incidents/{}", incident.id)),
            version: version(&incident.process),
            group_count: standing.map(|standing| standing.count),
            new: standing.map(|standing| standing.is_first),
        }
    }
}

/// Returns the version of a release, else the commit: "(devel)", the version of a build outside a release,
/// says nothing.
fn version(process: &Process) -> Option<String> {
    let released = process.module_version.clone().filter(|version| version != "(devel)");
    let commit = || Some(process.vcs_revision.as_ref()?.chars().take(COMMIT).collect());
    released.or_else(commit)
}

/// The incident document and its notification: the body of a POST and the input of a command.
#[derive(Debug, Serialize)]
pub(super) struct Body<'a> {
    #[serde(flatten)]
    incident: &'a Incident,
    notification: &'a Notification,
}

impl<'a> Body<'a> {
    /// Combines the two.
    pub(super) fn new(incident: &'a Incident, notification: &'a Notification) -> Body<'a> {
        Body { incident, notification }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incident() -> Incident {
        serde_json::from_str(include_str!("../../tests/incidents/recovered.json")).expect("a document")
    }

    #[test]
    fn a_link_needs_an_external_url() {
        let incident = incident();
        let url = |external: &str| Notification::of(&incident, None, external).url;
        assert_eq!(url(""), None);
        let link = Some(format!("https://box/pw/#/incidents/{}", incident.id));
        assert_eq!((url("https://box/pw"), url("https://box/pw/")), (link.clone(), link));
    }

    #[test]
    fn the_version_is_a_release_or_a_commit() {
        let mut incident = incident();
        let mut version = |module: Option<&str>, commit: Option<&str>| {
            incident.process.module_version = module.map(str::to_owned);
            incident.process.vcs_revision = commit.map(str::to_owned);
            Notification::of(&incident, None, "").version
        };
        let commit = "8c1f0e6b2d5a7794c3f1e2d3b4a5968778695a4b";
        assert_eq!(version(Some("v1.4.2"), Some(commit)).as_deref(), Some("v1.4.2"));
        assert_eq!(version(Some("(devel)"), Some(commit)).as_deref(), Some("8c1f0e6b2d5a"));
        assert_eq!(version(Some("(devel)"), None), None);
        assert_eq!(version(None, None), None);
    }

    #[test]
    fn the_body_is_the_document_and_more() {
        let incident = incident();
        let standing = Standing { count: 3, is_first: false };
        let notification = Notification::of(&incident, Some(standing), "");
        let value = serde_json::to_value(Body::new(&incident, &notification)).expect("JSON");
        assert_eq!(value["notification"]["group_count"], 3);
        assert_eq!(value["notification"]["new"], false);
        assert!(value["notification"]["url"].is_null());
        let text = value.to_string();
        assert_eq!(serde_json::from_str::<Incident>(&text).expect("still a document"), incident);
    }
}
