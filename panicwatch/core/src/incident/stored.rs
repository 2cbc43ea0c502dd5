//! Incident documents as they were stored: one document, or JSON lines, found and read from bytes.
//!
//! A file may be large, cut short by a crash, or no incident at all: documents are found first and only the one that is
//! wanted is read whole. Must not know files.

use serde::Deserialize;

use crate::incident::{Incident, SCHEMA, escape};

/// What all versions of the document's schema begin with.
const FAMILY: &str = "panicwatch.incident/";

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoredError {
    /// Not a byte but blanks.
    #[error("it is empty: no incident was written to it")]
    Empty,
    /// Not JSON, or not all of it.
    #[error("document {number} is damaged, {reason}; --index shows another of the {whole} that are whole")]
    Damaged {
        /// Which, from 1.
        number: usize,
        /// Where and how.
        reason: String,
        /// How many others can be shown.
        whole: usize,
    },
    /// It does not begin as JSON does.
    #[error("it holds no incident documents: {0}")]
    NotJson(String),
    /// Another JSON document.
    #[error("it is JSON, but no incident: it has no \"schema\" of {FAMILY}…")]
    NoSchema,
    /// Written by a later panicwatch.
    #[error(
        "its schema is {0:?}, and this panicwatch reads {SCHEMA}: use the version that wrote it, or a later one"
    )]
    OtherSchema(String),
    /// The fields are not what they should be.
    #[error("document {number} is not a whole incident: {reason}")]
    Fields {
        /// Which, from 1.
        number: usize,
        /// Where and how.
        reason: String,
    },
    /// No such incident.
    #[error("no incident has the id {0}")]
    NoSuchId(String),
    /// No such number.
    #[error("there is no incident {number}: it has {count}")]
    NoSuchIndex {
        /// What was asked for.
        number: usize,
        /// How many there are.
        count: usize,
    },
}

/// Which of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// The one written last.
    Last,
    /// By number, from 1.
    Index(usize),
    /// By id.
    Id(String),
}

/// The documents of one file.
pub struct Stored<'a> {
    bytes: &'a [u8],
    documents: Vec<Document>,
}

struct Document {
    /// Bytes.
    from: usize,
    to: usize,
    /// What its beginning says, or how it is damaged.
    head: Result<Head, String>,
}

/// What is read of every document.
#[derive(Deserialize)]
struct Head {
    schema: Option<serde_json::Value>,
    id: Option<serde_json::Value>,
}

impl<'a> Stored<'a> {
    /// Finds the documents in `bytes`.
    ///
    /// # Errors
    /// When there are none.
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

    /// How many documents there are, damaged ones too.
    pub fn count(&self) -> usize {
        self.documents.len()
    }

    /// Reads one: the incident, and the document with the fields that only its writer knows.
    ///
    /// # Errors
    /// When there is no such incident, or it cannot be read.
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

/// Where the next document may begin behind one that is damaged: a line that starts with its brace.
fn next(bytes: &[u8], at: usize) -> usize {
    bytes[at..].windows(2).position(|two| two == b"\n{").map_or(bytes.len(), |i| at + i + 1)
}

/// The error with its line in the whole file.
fn place(bytes: &[u8], from: usize, error: &serde_json::Error) -> String {
    let lines = bytes[..from].iter().filter(|b| **b == b'\n').count();
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    // It may quote what the document says.
    let what = escape::one_line_max(what, 300);
    // serde_json counts lines from 1, and gives 0 when it does not know.
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
        assert_eq!(read(&lines, &Pick::Index(4)), Err("there is no incident 4: it has 3".to_owned()));
        assert_eq!(read(&lines, &Pick::Index(0)), Err("there is no incident 0: it has 3".to_owned()));
        assert_eq!(read(&lines, &Pick::Id("D".to_owned())), Err("no incident has the id D".to_owned()));
    }

    #[test]
    fn a_line_cut_short_leaves_the_others() {
        let whole = line("A");
        let text = format!("{whole}\n{}\n{whole}\n{}", &whole[..200], &whole[..100]);
        assert_eq!(read(&text, &Pick::Index(3)), Ok("A".to_owned()));
        let error = read(&text, &Pick::Last).expect_err("it is cut");
        assert_eq!(
            error,
            "document 4 is damaged, EOF while parsing an object at line 4 column 100; --index shows another of the 2 \
             that are whole"
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
