//! Formats an incident as a message for Slack and compatible services. Does no I/O.
//!
//! Slack interprets `&`, `<` and `>`, and markup such as `*bold*`
//! (<https://api.slack.com/reference/surfaces/formatting#escaping>). Text of a program is formatted as code,
//! without backticks, so that it can neither mention anyone nor imitate text of panicwatch.

use serde::Serialize;

use super::Notification;
use crate::{
    escape,
    incident::{Frame, Incident},
    title,
};

/// Maximum length of a text from the program, in characters, and of the stack, in frames.
const MAX_TEXT: usize = 300;
const MAX_FRAMES: usize = 8;

/// Body of the POST.
#[derive(Debug, Serialize)]
pub(super) struct Message {
    text: String,
}

/// Returns the message for an incident.
pub(super) fn message(incident: &Incident, notification: &Notification) -> Message {
    let process = &incident.process;
    let kind = incident.kind.name().replace('_', " ");
    let outcome = incident.outcome.name();
    let binary = process.binary_name().map_or_else(|| "an unknown program".to_owned(), code);
    let new = if notification.new == Some(true) { "new: " } else { "" };
    let mut text = format!("*{new}{kind}, {outcome}* in {binary}");
    if let Some(version) = &notification.version {
        text.push_str(&format!(" {}", code(version)));
    }
    if let Some(host) = incident.host.as_ref().and_then(|host| host.name.as_ref()) {
        text.push_str(&format!(" on {}", code(host)));
    }
    text.push_str(&format!(", process {}, {}\n", process.pid, incident.time));
    text.push_str(&code(&title::text(incident)));
    let frames = incident.stack.iter().filter(|frame| !frame.function.starts_with("runtime."));
    for frame in frames.take(MAX_FRAMES) {
        text.push_str("\n• ");
        text.push_str(&code(&place(frame)));
    }
    text.push_str(&format!(
        "\nincident {}, group {}",
        link(incident, notification),
        code(&incident.fingerprint)
    ));
    match notification.group_count {
        Some(1) => text.push_str(", 1 incident"),
        Some(count) => text.push_str(&format!(", {count} incidents")),
        None => {}
    }
    Message { text }
}

/// Returns the incident's ID, as a link to the page if there is one. A validated `[http] external_url` has no
/// `<`, `>` or `|`.
fn link(incident: &Incident, notification: &Notification) -> String {
    match &notification.url {
        Some(url) => format!("<{}|{}>", url.replace('&', "&amp;"), incident.id),
        None => code(&incident.id),
    }
}

fn place(frame: &Frame) -> String {
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!("{} {file}:{line}", frame.function),
        _ => frame.function.clone(),
    }
}

/// Formats a program's text as code.
fn code(text: &str) -> String {
    let text = escape::one_line_max(text, MAX_TEXT).replace('`', "'");
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    // Empty code would be two backticks, which would start another code span.
    if text.is_empty() { "(empty)".to_owned() } else { format!("`{text}`") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{incident::Host, store::Standing};

    fn plain(incident: &Incident) -> String {
        message(incident, &Notification::of(incident, None, "")).text
    }

    fn incident() -> Incident {
        serde_json::from_str(include_str!("../../tests/incidents/recovered.json")).expect("a document")
    }

    #[test]
    fn a_program_mentions_nobody_and_leaves_no_code() {
        let mut incident = incident();
        incident.message = Some("` <!channel> & *bold*\n\u{1b}[31m".to_owned() + &"x".repeat(10_000));
        incident.process.exe = Some("/tmp/a`<@U1>".to_owned());
        incident.process.module_version = Some("` <!here>".to_owned());
        let text = plain(&incident);
        assert!(!text.contains(['<', '>', '\u{1b}']), "{text}");
        assert!(text.contains("' &lt;!channel&gt; &amp; *bold*\\n\\x1b[31m"), "{text}");
        for line in text.lines() {
            assert_eq!(line.matches('`').count() % 2, 0, "{line}");
        }
        assert!(text.len() < 4000, "{}", text.len());
    }

    #[test]
    fn a_value_without_text_is_named_by_type_and_fields() {
        let mut incident = incident();
        incident.message = None;
        incident.panics[0].value = crate::incident::Value {
            type_name: Some("*main.QuotaError".to_owned()),
            detail: Some("&{Limit:5 Name:\"<b>\"}".to_owned()),
            ..crate::incident::Value::default()
        };
        let text = plain(&incident);
        assert!(text.contains("`*main.QuotaError{Limit:5 Name:\"&lt;b&gt;\"}`"), "{text}");
    }

    #[test]
    fn what_and_where() {
        let incident = incident();
        let text = plain(&incident);
        assert!(text.starts_with("*panic, recovered* in `"), "{text}");
        assert!(text.contains(&incident.id) && text.contains(&incident.fingerprint), "{text}");
    }

    #[test]
    fn host_version_group_and_link() {
        let mut incident = incident();
        incident.host = Some(Host { name: Some("web-3".to_owned()), boot_id: None });
        incident.process.module_version = Some("v1.4.2".to_owned());
        let text = |count, is_first| {
            let standing = Standing { count, is_first };
            message(&incident, &Notification::of(&incident, Some(standing), "https://box/?a=1&b=2")).text
        };
        let (new, known) = (text(1, true), text(12, false));
        assert!(new.starts_with("*new: panic, recovered* in `shop` `v1.4.2` on `web-3`, process "), "{new}");
        assert!(new.ends_with(", 1 incident"), "{new}");
        assert!(known.starts_with("*panic, recovered* in "), "{known}");
        assert!(known.ends_with(", 12 incidents"), "{known}");
        let link = format!("\nincident <https://box/?a=1&amp;b=2/#/incidents/{0}|{0}>, group", incident.id);
        assert!(known.contains(&link), "{known}");
    }
}
