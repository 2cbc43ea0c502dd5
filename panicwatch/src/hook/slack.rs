//! An incident as a message for Slack and what is compatible with it. Pure.
//!
//! `&`, `<` and `>` are all that steers Slack besides its marks for bold and the like
//! (<https://api.slack.com/reference/surfaces/formatting#escaping>); a program's text stands in code, without backticks, so
//! that it can neither mention anybody nor pass for our own words.

use serde::Serialize;

use crate::{
    escape,
    incident::{Frame, Incident},
    title,
};

/// Characters of a program's text that are shown at once, and frames of the stack.
const MAX_TEXT: usize = 300;
const MAX_FRAMES: usize = 8;

/// The body of the POST.
#[derive(Debug, Serialize)]
pub(super) struct Message {
    text: String,
}

/// The message.
pub(super) fn message(incident: &Incident) -> Message {
    let process = &incident.process;
    let kind = incident.kind.name().replace('_', " ");
    let outcome = incident.outcome.name();
    let binary = process.binary_name().map_or_else(|| "an unknown program".to_owned(), code);
    let mut text = format!("*{kind}, {outcome}* in {binary}, process {}, {}", process.pid, incident.time);
    text.push('\n');
    text.push_str(&code(&title::text(incident)));
    let frames = incident.stack.iter().filter(|frame| !frame.function.starts_with("runtime."));
    for frame in frames.take(MAX_FRAMES) {
        text.push_str("\n• ");
        text.push_str(&code(&place(frame)));
    }
    text.push_str(&format!("\nincident {}, group {}", code(&incident.id), code(&incident.fingerprint)));
    Message { text }
}

fn place(frame: &Frame) -> String {
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!("{} {file}:{line}", frame.function),
        _ => frame.function.clone(),
    }
}

/// A program's text as code.
fn code(text: &str) -> String {
    let text = escape::one_line_max(text, MAX_TEXT).replace('`', "'");
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    // Empty code is two backticks, which open another.
    if text.is_empty() { "(empty)".to_owned() } else { format!("`{text}`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incident() -> Incident {
        serde_json::from_str(include_str!("../../tests/incidents/recovered.json")).expect("a document")
    }

    #[test]
    fn a_program_mentions_nobody_and_leaves_no_code() {
        let mut incident = incident();
        incident.message = Some("` <!channel> & *bold*\n\u{1b}[31m".to_owned() + &"x".repeat(10_000));
        incident.process.exe = Some("/tmp/a`<@U1>".to_owned());
        let text = message(&incident).text;
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
        let text = message(&incident).text;
        assert!(text.contains("`*main.QuotaError{Limit:5 Name:\"&lt;b&gt;\"}`"), "{text}");
    }

    #[test]
    fn what_and_where() {
        let incident = incident();
        let text = message(&incident).text;
        assert!(text.starts_with("*panic, recovered* in `"), "{text}");
        assert!(text.contains(&incident.id) && text.contains(&incident.fingerprint), "{text}");
    }
}
