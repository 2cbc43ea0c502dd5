//! Titles of incidents: one rule for the page, `top`, chat messages, groups and exported log records.
//!
//! A title is a pure function of the document. It contains text of the watched program: escape it before
//! display.

use std::borrow::Cow;

use crate::incident::{Incident, Kind, Panic, frame_class};

/// Maximum length of a title, in characters.
const MAX_TITLE: usize = 300;

/// Returns the title: the first non-blank line of [`text`], truncated to `MAX_TITLE` characters.
pub fn title(incident: &Incident) -> String {
    let text = text(incident);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    line.unwrap_or_default().chars().take(MAX_TITLE).collect()
}

/// Returns the message if it is informative, else type and fields of the panic's value, else what is unknown
/// and where it was raised. Never blank.
///
/// For a struct, slice or map Go prints only the address (`(main.T) 0xc000012120`); its fields are more
/// informative.
pub fn text(incident: &Incident) -> Cow<'_, str> {
    let first = incident.panics.iter().find(|panic| !panic.goexit);
    let message = incident.message.as_deref();
    match (message, first) {
        (Some(message), Some(panic)) if is_address(message, panic) => value(panic).unwrap_or(message.into()),
        (Some(message), _) if !message.trim().is_empty() => message.into(),
        (Some(blank), Some(panic)) => match &panic.value.type_name {
            Some(name) => format!("{name} {blank:?}").into(),
            None => format!("{blank:?}").into(),
        },
        (_, Some(panic)) => value(panic).unwrap_or_else(|| unknown(incident)),
        (_, None) if incident.panics.iter().any(|panic| panic.goexit) => "runtime.Goexit".into(),
        (_, None) => unknown(incident),
    }
}

/// Returns the title of one panic of a chain: what Go prints for its value, else its type and fields; `None`
/// when neither is known.
pub fn of_panic(panic: &Panic) -> Option<Cow<'_, str>> {
    if panic.goexit {
        return Some("runtime.Goexit".into());
    }
    let printed = panic.value.printed.as_deref().or(panic.value.text.as_deref());
    match printed {
        Some(printed) if is_address(printed, panic) => value(panic).or(Some(printed.into())),
        Some(printed) => Some(printed.into()),
        None => value(panic),
    }
}

/// Returns type and contents in the form of a Go literal, `*main.QuotaError{Limit:5}`; the type alone when
/// the contents are unknown.
fn value(panic: &Panic) -> Option<Cow<'_, str>> {
    let name = panic.value.type_name.as_deref().filter(|name| !name.is_empty())?;
    let Some(detail) = panic.value.detail.as_deref() else { return Some(name.into()) };
    // The type name already shows that it is a pointer.
    let fields = detail.strip_prefix('&').unwrap_or(detail);
    let between = if fields.starts_with('{') { "" } else { " " };
    Some(format!("{name}{between}{fields}").into())
}

/// Reports whether the message is only the address of a value whose contents are known.
fn is_address(message: &str, panic: &Panic) -> bool {
    let Some(name) = panic.value.type_name.as_deref().filter(|_| panic.value.detail.is_some()) else {
        return false;
    };
    let address = message.strip_prefix('(').and_then(|rest| rest.strip_prefix(name));
    let digits = address.and_then(|rest| rest.strip_prefix(") 0x"));
    digits.is_some_and(|digits| !digits.is_empty() && digits.chars().all(|c| c.is_ascii_hexdigit()))
}

/// Reports whether neither the message nor a value's type is known; the title then names the kind of
/// incident.
pub fn is_unknown(incident: &Incident) -> bool {
    let typed = |panic: &Panic| panic.goexit || panic.value.type_name.is_some();
    incident.message.is_none() && !incident.panics.iter().any(typed)
}

fn unknown(incident: &Incident) -> Cow<'static, str> {
    let what = match incident.kind {
        Kind::Panic => "panic of unknown value",
        Kind::FatalError => "fatal error, message unknown",
        Kind::Throw => "runtime throw, message unknown",
        Kind::Signal => "unknown signal",
    };
    let raised = incident.panics.first().and_then(|panic| panic.site.as_ref());
    let module = incident.process.module.as_deref();
    let of_stack = || frame_class::site(&incident.stack, module).and_then(|i| incident.stack.get(i));
    match raised.or_else(of_stack) {
        Some(frame) => format!("{what} in {}", frame.function).into(),
        None => what.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::Value;

    #[expect(clippy::disallowed_methods, reason = "a test reads what it compares with")]
    fn incident(name: &str) -> Incident {
        let path = format!("{}/../tests/incidents/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&std::fs::read(path).expect("a sample")).expect("an incident")
    }

    fn of(message: Option<&str>, type_name: Option<&str>, detail: Option<&str>) -> Incident {
        let mut incident = incident("recovered");
        incident.message = message.map(str::to_owned);
        incident.panics[0].value = Value {
            type_name: type_name.map(str::to_owned),
            detail: detail.map(str::to_owned),
            ..Value::default()
        };
        incident
    }

    #[test]
    fn a_message_is_its_own_title() {
        assert_eq!(title(&incident("recovered")), "runtime error: index out of range [6] with length 3");
        assert_eq!(title(&incident("deadlock")), "all goroutines are asleep - deadlock!");
        assert_eq!(title(&incident("exited_in_init")), "no schema:", "the first line");
        assert_eq!(text(&incident("exited_in_init")), "no schema:\n  table orders\n  table items");
        assert_eq!(title(&of(Some("\n\n  second\nthird"), Some("string"), None)), "second");
        assert_eq!(title(&of(Some(&"x".repeat(2000)), Some("string"), None)).len(), MAX_TITLE);
    }

    #[test]
    fn a_value_without_text_is_titled_by_type_and_fields() {
        for (type_name, detail, want) in [
            ("*main.QuotaError", Some("&{Limit:5 Name:\"a\"}"), "*main.QuotaError{Limit:5 Name:\"a\"}"),
            ("main.Failed", Some("{Code:5}"), "main.Failed{Code:5}"),
            ("main.Codes", Some("[1 2 3]"), "main.Codes [1 2 3]"),
            ("main.Set", Some("map[3 entries]"), "main.Set map[3 entries]"),
            ("*main.Opaque", None, "*main.Opaque"),
        ] {
            assert_eq!(title(&of(None, Some(type_name), detail)), want);
        }
    }

    #[test]
    fn an_address_is_no_title_where_the_fields_are_known() {
        let go = "(main.T) 0xc000012120";
        assert_eq!(title(&of(Some(go), Some("main.T"), Some("{A:1}"))), "main.T{A:1}");
        assert_eq!(title(&of(Some(go), Some("main.T"), None)), go, "nothing better is known");
        let said = "(main.T) 0xc000012120 is no account";
        assert_eq!(title(&of(Some(said), Some("main.T"), Some("{A:1}"))), said, "a message of the program");
    }

    #[test]
    fn nothing_is_titled_by_nothing() {
        assert_eq!(title(&of(Some(""), Some("string"), None)), "string \"\"");
        assert_eq!(
            title(&of(Some(" \n"), Some("*errors.errorString"), None)),
            "*errors.errorString \" \\n\""
        );
        let mut unknown = of(None, None, None);
        let site = unknown.panics[0].site.as_ref().map(|site| site.function.clone()).expect("a site");
        assert_eq!(title(&unknown), format!("panic of unknown value in {site}"));
        unknown.panics[0].site = None;
        unknown.stack.clear();
        assert_eq!(title(&unknown), "panic of unknown value");
        assert!(is_unknown(&unknown) && !is_unknown(&of(None, Some("main.T"), None)));
        unknown.panics[0].goexit = true;
        assert_eq!(title(&unknown), "runtime.Goexit");
        for (kind, want) in [
            (Kind::FatalError, "fatal error, message unknown"),
            (Kind::Throw, "runtime throw, message unknown"),
            (Kind::Signal, "unknown signal"),
        ] {
            let bare = Incident { kind, panics: Vec::new(), ..unknown.clone() };
            assert_eq!(title(&bare), want);
        }
    }
}
