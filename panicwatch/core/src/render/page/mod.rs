//! The page: its static files, and the view of one incident as a standalone file.
//!
//! There is no framework and no external asset. Text of the watched program reaches the page as JSON only,
//! and the page inserts it into text nodes only. This module does not depend on requests.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine as _, prelude::BASE64_STANDARD as STANDARD};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::incident::{
    Frame, Incident, escape,
    frame_class::{self, Class},
    title,
};

/// The document at `/`.
pub const INDEX: &str = include_str!("index.html");

const STYLE: &str = include_str!("page.css");
const COMMON: &str = include_str!("common.js");
const TIMELINE: &str = include_str!("timeline.js");
const INCIDENT: &str = include_str!("incident.js");
const APP: &str = include_str!("app.js");

/// A file below `/page/`.
#[derive(Debug)]
pub struct File {
    /// File name below `/page/`.
    pub name: &'static str,
    /// Media type of the response.
    pub media_type: &'static str,
    /// Contents of the file.
    pub text: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// All files below `/page/`.
pub const FILES: &[File] = &[
    File { name: "page.css", media_type: "text/css; charset=utf-8", text: STYLE },
    File { name: "common.js", media_type: SCRIPT, text: COMMON },
    File { name: "timeline.js", media_type: SCRIPT, text: TIMELINE },
    File { name: "incident.js", media_type: SCRIPT, text: INCIDENT },
    File { name: "app.js", media_type: SCRIPT, text: APP },
    File { name: "icon.svg", media_type: "image/svg+xml", text: include_str!("icon.svg") },
];

/// An incident with the data that the page cannot compute itself.
#[derive(Debug, Serialize)]
pub struct View<'a> {
    /// The incident document.
    incident: &'a Incident,
    /// Class of each frame's code, by function, `@` and file: "user", "library", "std", "runtime".
    classes: BTreeMap<String, &'static str>,
    /// Index of the stack frame that raised the first panic.
    site: Option<usize>,
    /// Title of the incident.
    title: String,
    /// Text of each panic of the chain; null where neither its text nor its type is known.
    values: Vec<Option<Cow<'a, str>>>,
}

impl<'a> View<'a> {
    /// Returns the view of an incident.
    pub fn of(incident: &'a Incident) -> View<'a> {
        let module = incident.process.module.as_deref();
        let mut classes = BTreeMap::new();
        for frame in frames(incident) {
            let key = format!("{}@{}", frame.function, frame.file.as_deref().unwrap_or_default());
            classes.entry(key).or_insert_with(|| class_name(frame_class::of_frame(frame, module)));
        }
        let first = incident.panics.first().and_then(|panic| panic.site.as_ref());
        let site = first.and_then(|site| incident.stack.iter().position(|frame| frame == site));
        let site = site.or_else(|| frame_class::site(&incident.stack, module));
        let values = incident.panics.iter().map(title::of_panic).collect();
        View { incident, classes, site, title: title::title(incident), values }
    }
}

fn class_name(class: Class) -> &'static str {
    match class {
        Class::User => "user",
        Class::ThirdParty => "library",
        Class::Standard => "std",
        Class::Runtime => "runtime",
    }
}

/// Yields all frames that the page shows with a class.
fn frames(incident: &Incident) -> impl Iterator<Item = &Frame> {
    let goroutine = incident.goroutine.iter().flat_map(|g| g.created_by.iter().chain(&g.start));
    let chain = incident.panics.iter().flat_map(|panic| {
        let defers = panic.defers.iter().flat_map(|d| d.function.iter().chain(&d.registered_by));
        let recover = panic.recover.iter().filter_map(|recover| recover.by.as_ref());
        panic.site.iter().chain(defers).chain(recover)
    });
    let ancestry = incident.ancestry.iter().filter_map(|ancestor| ancestor.created_at.as_ref());
    incident.stack.iter().chain(goroutine).chain(chain).chain(ancestry)
}

/// Renders the incident's view as a standalone file, which is the same for the same incident. The content
/// security policy allows scripts and styles by hash, so that nothing in the data can run.
///
/// # Errors
/// When the incident cannot be written as JSON.
pub fn file(incident: &Incident) -> Result<String, serde_json::Error> {
    let data = embeddable(&serde_json::to_string(&View::of(incident))?);
    let script = format!("{COMMON}\n{TIMELINE}\n{INCIDENT}\n{}", include_str!("file.js"));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        hash(&script),
        hash(STYLE)
    );
    Ok(include_str!("file.html")
        .replacen("{{policy}}", &policy, 1)
        .replacen("{{style}}", STYLE, 1)
        .replacen("{{script}}", &script, 1)
        // Last, so that placeholders in the data are not replaced.
        .replacen("{{data}}", &data, 1))
}

/// Escapes JSON for a `<script>` element: with `<` and `&` escaped, it cannot contain an end tag or comment
/// (<https://www.w3.org/TR/2011/WD-html5-author-20110809/the-script-element.html>). JSON has these characters
/// in strings only. Characters that control a terminal are escaped as well, because files are printed.
fn embeddable(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if matches!(c, '<' | '>' | '&') || escape::is_unsafe(c) {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        } else {
            out.push(c);
        }
    }
    out
}

/// Returns the hash of a script or style as in a policy: base64 of SHA-256.
fn hash(text: &str) -> String {
    STANDARD.encode(Sha256::digest(text))
}

#[cfg(test)]
mod tests {
    use super::embeddable;

    #[test]
    fn nothing_in_the_data_ends_the_element_or_steers_a_terminal() {
        let json = serde_json::to_string("</script>&\u{85}\u{9b}31m\u{2028}\u{202e}\u{e0041}").expect("JSON");
        let embedded = embeddable(&json);
        assert!(embedded.is_ascii(), "{embedded}");
        assert!(!embedded.contains(['<', '>', '&']), "{embedded}");
        assert_eq!(
            serde_json::from_str::<String>(&embedded).expect("the same JSON"),
            serde_json::from_str::<String>(&json).expect("JSON")
        );
    }
}
