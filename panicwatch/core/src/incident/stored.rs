//! Incident documents as stored: finds and reads one document, or JSON lines, in a byte slice.
//!
//! The bytes may be large, truncated by a crash, or not an incident at all: all documents are located first,
//! and only the requested one is parsed completely. This module knows no files.

use serde::Deserialize;

use crate::incident::{Incident, SCHEMA, escape};

/// Common prefix of all versions of the document's schema.
const FAMILY: &str = "panicwatch.incident/";

/// Why no incident can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoredError {
    /// There are no bytes except white space.
    #[error("it is empty: no incident was written to it")]
    Empty,
    /// The document is not valid JSON, or is truncated.
    #[error("document {number} is damaged, {reason}; use --index for one of the {whole} that are complete")]
    Damaged {
        /// Number of the document, from 1.
        number: usize,
        /// What is wrong, with line and column.
        reason: String,
        /// Number of undamaged documents.
        whole: usize,
    },
    /// No document could be parsed as JSON.
    #[error("it holds no incident documents: {0}")]
    NotJson(String),
    /// The document is valid JSON of another kind.
    #[error("it is JSON, but not an incident: it has no \"schema\" of {FAMILY}…")]
    NoSchema,
    /// The document was written by a later panicwatch.
    #[error(
        "its schema is {0:?}, and this panicwatch reads {SCHEMA}: use the version that wrote it, or a later one"
    )]
    OtherSchema(String),
    /// A field is missing or has the wrong type.
    #[error("document {number} is not a complete incident: {reason}")]
    Fields {
        /// Number of the document, from 1.
        number: usize,
        /// What is wrong, with line and column.
        reason: String,
    },
    /// No document has the requested id.
    #[error("no incident has the ID {0}")]
    NoSuchId(String),
    /// No document has the requested number.
    #[error("there is no incident {number}: the file has {count}")]
    NoSuchIndex {
        /// The requested number.
        number: usize,
        /// Number of documents found.
        count: usize,
    },
}

/// Selects one of several documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// The last one in the file.
    Last,
    /// By number, from 1.
    Index(usize),
    /// By incident id.
    Id(String),
}

/// The documents found in one file.
pub struct Stored<'a> {
    bytes: &'a [u8],
    documents: Vec<Document>,
}

struct Document {
    /// Start offset in the file's bytes; `to` is the end offset, exclusive.
    from: usize,
    to: usize,
    /// Schema and id of the document, or what is wrong with it.
    head: Result<Head, String>,
}

/// The fields that are read from every document.
#[derive(Deserialize)]
struct Head {
    schema: Option<serde_json::Value>,
    id: Option<serde_json::Value>,
}

impl<'a> Stored<'a> {
    /// Finds the documents in `bytes`.
    ///
    /// # Errors
    /// Returns an error when no document is found.
    pub fn find(bytes: &'a [u8]) -> Result<Self, StoredError> {
        let mut documents = Vec::new();
        let mut at = 0;
        while let Some(begin) = bytes[at..].iter().position(|b| !b.is_ascii_whitespace()) {
            at += begin;
            let mut stream = serde_json::Deserializer::from_slice(&bytes[at..]).into_iter::<Head>();
            let (head, to) = match stream.next() {
                Some(Ok(head)) => (Ok(head), at + stream.byte_offset()),
                Some(Err(error)) => (Err(place(bytes, at, &error)), next(bytes, at)),
                None => break,
            };
            documents.push(Document { from: at, to, head });
            at = to;
        }
        match documents.first() {
            None => Err(StoredError::Empty),
            Some(Document { head: Err(reason), .. }) if documents.iter().all(|d| d.head.is_err()) => {
                Err(StoredError::NotJson(reason.clone()))
            }
            Some(_) => Ok(Self { bytes, documents }),
        }
    }

    /// Returns the number of documents, including damaged ones.
    pub fn count(&self) -> usize {
        self.documents.len()
    }

    /// Reads one document: the parsed incident, and the raw JSON, which retains fields this version does not
    /// know.
    ///
    /// # Errors
    /// Returns an error when there is no such incident, or it cannot be parsed.
    pub fn read(&self, pick: &Pick) -> Result<(Incident, serde_json::Value), StoredError> {
        let i = self.index(pick)?;
        let document = &self.documents[i];
        let number = i + 1;
        let head = document.head.as_ref().map_err(|reason| StoredError::Damaged {
            number,
            reason: reason.clone(),
            whole: self.documents.iter().filter(|d| d.head.is_ok()).count(),
        })?;
        match head.schema.as_ref().and_then(serde_json::Value::as_str) {
            Some(SCHEMA) => {}
            Some(other) if other.starts_with(FAMILY) => {
                return Err(StoredError::OtherSchema(other.to_owned()));
            }
            _ => return Err(StoredError::NoSchema),
        }
        let bytes = &self.bytes[document.from..document.to];
        let fields = |error| StoredError::Fields { number, reason: place(self.bytes, document.from, &error) };
        let incident = serde_json::from_slice(bytes).map_err(fields)?;
        Ok((incident, serde_json::from_slice(bytes).map_err(fields)?))
    }

    fn index(&self, pick: &Pick) -> Result<usize, StoredError> {
        let count = self.documents.len();
        match pick {
            Pick::Last => Ok(count - 1),
            Pick::Index(number) => {
                let missing = StoredError::NoSuchIndex { number: *number, count };
                number.checked_sub(1).filter(|i| *i < count).ok_or(missing)
            }
            Pick::Id(id) => {
                let has = |head: &Head| head.id.as_ref().and_then(serde_json::Value::as_str) == Some(id);
                let found = self.documents.iter().rposition(|d| d.head.as_ref().is_ok_and(has));
                found.ok_or_else(|| StoredError::NoSuchId(id.clone()))
            }
        }
    }
}

/// Returns the offset at which the document after a damaged one may begin: the next line that starts with
/// `{`.
fn next(bytes: &[u8], at: usize) -> usize {
    bytes[at..].windows(2).position(|two| two == b"\n{").map_or(bytes.len(), |i| at + i + 1)
}

/// Formats the error with its line number in the whole file.
fn place(bytes: &[u8], from: usize, error: &serde_json::Error) -> String {
    let lines = bytes[..from].iter().filter(|b| **b == b'\n').count();
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    // serde_json may quote text of the document.
    let what = escape::one_line_max(what, 300);
    // serde_json counts lines from 1; 0 means unknown.
    format!("{what} at line {} column {}", lines + error.line().max(1), error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = include_str!("../../../tests/incidents/deadlock.json");

    fn line(id: &str) -> String {
        let mut value: serde_json::Value = serde_json::from_str(ONE).expect("JSON");
        value["id"] = id.into();
        value.to_string()
    }

    fn read(text: &str, pick: &Pick) -> Result<String, String> {
        let read = Stored::find(text.as_bytes()).and_then(|stored| stored.read(pick));
        read.map(|(incident, _)| incident.id).map_err(|error| error.to_string())
    }

    #[test]
    fn one_document_or_many_lines() {
        assert!(read(ONE, &Pick::Last).is_ok(), "over several lines");
        let lines = format!("{}\n{}\n\n{}\n", line("A"), line("B"), line("C"));
        assert_eq!(Stored::find(lines.as_bytes()).map(|s| s.count()).ok(), Some(3));
        assert_eq!(read(&lines, &Pick::Last), Ok("C".to_owned()));
        assert_eq!(read(&lines, &Pick::Index(1)), Ok("A".to_owned()));
        assert_eq!(read(&lines, &Pick::Id("B".to_owned())), Ok("B".to_owned()));
        assert_eq!(read(&lines, &Pick::Index(4)), Err("there is no incident 4: the file has 3".to_owned()));
        assert_eq!(read(&lines, &Pick::Index(0)), Err("there is no incident 0: the file has 3".to_owned()));
        assert_eq!(read(&lines, &Pick::Id("D".to_owned())), Err("no incident has the ID D".to_owned()));
    }

    #[test]
    fn a_line_cut_short_leaves_the_others() {
        let whole = line("A");
        let text = format!("{whole}\n{}\n{whole}\n{}", &whole[..200], &whole[..100]);
        assert_eq!(read(&text, &Pick::Index(3)), Ok("A".to_owned()));
        let error = read(&text, &Pick::Last).expect_err("it is cut");
        assert_eq!(
            error,
            "document 4 is damaged, EOF while parsing an object at line 4 column 100; use --index for one of the 2 \
             that are complete"
        );
        assert!(read(&text, &Pick::Index(2)).expect_err("cut").starts_with("document 2 is damaged"));
    }

    #[test]
    fn what_is_no_incident_is_refused() {
        let error = |text: &str| read(text, &Pick::Last).expect_err("no incident");
        assert_eq!(error(" \n\n"), "it is empty: no incident was written to it");
        assert!(error("panic: oh\n").starts_with("it holds no incident documents: expected value at line 1"));
        assert!(error("{\"a\": 1}").contains("no \"schema\""));
        assert!(error("{\"schema\": 5}").contains("no \"schema\""));
        assert!(error("{\"schema\": \"panicwatch.incident/9\"}").contains("reads panicwatch.incident/1"));
        assert!(error("[1, 2]").contains("no \"schema\""));
        let torn = ONE.replace("\"stack_elided\"", "\"stack_elide\"");
        assert!(error(&torn).contains("missing field `stack_elided`"), "{}", error(&torn));
    }

    #[test]
    fn fields_that_nobody_knows_stay_in_the_document() {
        let text = ONE.replacen('{', "{\"new\": 18446744073709551615,", 1);
        let stored = Stored::find(text.as_bytes()).expect("a document");
        let (_, value) = stored.read(&Pick::Last).expect("an incident");
        assert_eq!(value["new"], u64::MAX);
    }
}
