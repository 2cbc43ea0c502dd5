//! Reports the incidents that are lost when the daemon stops while the disk fails: one log line per incident.

use super::exporters::JSONL;
use crate::{config, escape, incident::Incident, store::Store};

/// Maximum number of incidents logged individually.
const MAX_LINES: usize = 1000;
/// Maximum length of a logged message, in characters.
const MAX_MESSAGE: usize = 300;

/// Logs the incidents that were not stored or not sent.
///
/// # Errors
/// A sentence with the numbers, when there were any.
pub(super) fn report(unstored: &[Incident], store: &Store, jsonl: &config::Jsonl) -> Result<(), String> {
    let unsent = store.unsent_in_memory();
    if unstored.is_empty() && unsent.is_empty() {
        return Ok(());
    }
    for incident in unstored.iter().take(MAX_LINES) {
        let is_in_file = !jsonl.path.is_empty() && store.was_sent(JSONL, &incident.id);
        log::error!("{}", line(incident, is_in_file));
    }
    if unstored.len() > MAX_LINES {
        log::error!(
            "incidents that could not be stored, besides those listed: {}",
            unstored.len() - MAX_LINES
        );
    }
    for (consumer, n) in &unsent {
        log::error!("incidents that were neither stored nor sent to {consumer}: {n}");
    }
    let unsent: u64 = unsent.iter().map(|(_, n)| n).sum();
    Err(format!(
        "incidents not stored before the daemon stopped: {}, deliveries of them not made: {unsent}; see the log",
        unstored.len()
    ))
}

fn line(incident: &Incident, is_in_file: bool) -> String {
    let process = &incident.process;
    let binary = escape::one_line_max(process.binary_name().unwrap_or("an unknown program"), MAX_MESSAGE);
    let message = incident.message.as_deref().unwrap_or("(message unknown)");
    format!(
        "incident {} could not be stored{}: {}, {} in {binary}[{}] at {}: {}",
        incident.id,
        if is_in_file { "; it is in the JSON lines" } else { "" },
        incident.kind.name().replace('_', " "),
        incident.outcome.name(),
        process.pid,
        incident.time,
        escape::one_line_max(message, MAX_MESSAGE)
    )
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use super::*;
    use crate::store::{Outbox, Packed};

    fn incident() -> Incident {
        serde_json::from_str(include_str!("../../tests/incidents/recovered.json")).expect("a document")
    }

    fn store(dir: &Path) -> Arc<Store> {
        Arc::new(Store::open(dir, &[JSONL.to_owned(), "hook:h".to_owned()]).expect("a store").store)
    }

    #[test]
    fn a_line_names_it_and_is_one() {
        let mut incident = incident();
        incident.message = Some("a\n\u{1b}[31mb".to_owned());
        let line = line(&incident, true);
        assert!(line.contains(&incident.id) && line.contains("shop[4711]"), "{line}");
        assert!(line.contains("it is in the JSON lines") && line.ends_with("a\\n\\x1b[31mb"), "{line}");
    }

    #[test]
    fn what_was_not_stored_or_sent_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(dir.path());
        let jsonl = config::Jsonl { path: "/x".to_owned(), ..config::Jsonl::default() };
        assert_eq!(report(&[], &store, &jsonl), Ok(()));
        let incident = incident();
        store.hold(&incident.id, Arc::new(Packed::of(&incident).expect("packed")), true, None);
        Outbox::new(store.clone(), JSONL).done(&[&incident.id]).expect("noted");
        assert!(store.was_sent(JSONL, &incident.id) && !store.was_sent("hook:h", &incident.id));
        let sentence = report(&[incident], &store, &jsonl).expect_err("one is lost");
        assert!(sentence.contains("stopped: 1, deliveries of them not made: 1"), "{sentence}");
    }
}
