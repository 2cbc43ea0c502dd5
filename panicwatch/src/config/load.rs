//! Reading the configuration: TOML, then the environment on top, every problem told at once.

use std::{fmt, ops::Range};

use serde::Deserialize as _;
use toml::{Table, Value};

use super::{Config, check};

/// Something that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: "panicwatch.toml:3", or the variable.
    pub at: String,
    /// As a sentence.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// Prefix of the variables that override keys.
const PREFIX: &str = "PANICWATCH_";

impl Config {
    /// Reads `text`, the file `name` (empty: none, all defaults hold), and what of `env` overrides it:
    /// `PANICWATCH_TABLE_KEY`. Lists are written as in the file, or with commas.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn load(
        text: &str,
        name: &str,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Config, Vec<Problem>> {
        let mut table: Table = toml::from_str(text).map_err(|error| {
            let what = error.message().lines().collect::<Vec<_>>().join(" ");
            vec![Problem { at: position(name, text, error.span()), what }]
        })?;
        let schema = schema();
        let mut problems = Vec::new();
        unknown_keys(&table, &schema, "", &mut |key, what| {
            problems.push(Problem { at: line_of(name, text, key), what });
        });
        let mut env: Vec<_> = env.into_iter().filter(|(variable, _)| variable.starts_with(PREFIX)).collect();
        env.sort();
        for (variable, value) in env {
            if let Err(what) = set(&mut table, &schema, &variable[PREFIX.len()..], &value) {
                problems.push(Problem { at: variable, what });
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        // One table after the other: each tells of what is wrong with it.
        for (key, value) in &table {
            let one = Table::from_iter([(key.clone(), value.clone())]);
            if let Err(error) = Config::deserialize(one) {
                let what = error.message().lines().collect::<Vec<_>>().join(" ");
                problems.push(Problem { at: line_of(name, text, key), what: format!("[{key}] {what}") });
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let config = Config::deserialize(table)
            .map_err(|error| vec![Problem { at: name.to_owned(), what: error.message().to_owned() }])?;
        let wrong = check::problems(&config);
        if wrong.is_empty() {
            return Ok(config);
        }
        let located = |(key, what): (String, String)| Problem { at: line_of(name, text, &key), what };
        Err(wrong.into_iter().map(located).collect())
    }
}

/// Keys of which a change takes effect only when the daemon is started anew.
pub fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (as_table(old), as_table(new));
    let fixed = ["recorder", "store", "http", "metrics", "otlp", "jsonl", "hook", "limits"];
    let changed = fixed.into_iter().filter(|name| old.get(*name) != new.get(*name));
    changed.map(|name| format!("[{name}]")).collect()
}

fn as_table(config: &Config) -> Table {
    // Everything in it can be written as TOML: a test does.
    Table::try_from(config).unwrap_or_default()
}

/// All keys there are: those of the defaults, and of one element of each list of tables.
fn schema() -> Table {
    let full = Config {
        watch: super::Watch {
            include: vec![super::Selector::default()],
            exclude: vec![super::Selector::default()],
            ..super::Watch::default()
        },
        hook: vec![super::Hook { processes: vec![super::Selector::default()], ..super::Hook::default() }],
        ..Config::default()
    };
    as_table(&full)
}

/// Tables whose keys are anybody's.
const FREE: [&str; 2] = ["otlp.headers", "hook.headers"];

fn unknown_keys(table: &Table, schema: &Table, path: &str, found: &mut impl FnMut(&str, String)) {
    for (key, value) in table {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let Some(known) = schema.get(key) else {
            found(key, format!("there is no key {full}{}", nearest(key, schema)));
            continue;
        };
        if FREE.contains(&full.as_str()) {
            continue;
        }
        match (value, known) {
            (Value::Table(table), Value::Table(schema)) => unknown_keys(table, schema, &full, found),
            (Value::Array(list), Value::Array(schemas)) => {
                let Some(Value::Table(schema)) = schemas.first() else { continue };
                for element in list.iter().filter_map(Value::as_table) {
                    unknown_keys(element, schema, &full, found);
                }
            }
            _ => {}
        }
    }
}

fn nearest(key: &str, schema: &Table) -> String {
    let near = schema.keys().map(|known| (strsim::jaro_winkler(key, known), known));
    let best = near.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(likeness, _)| *likeness > 0.7);
    best.map_or_else(
        || format!("; there are {}", schema.keys().cloned().collect::<Vec<_>>().join(", ")),
        |(_, known)| format!("; did you mean {known}?"),
    )
}

/// Overrides a key: `name` is "STORE_MAX_BYTES", "HTTP_TLS_CERT". A name of no table is somebody else's.
fn set(table: &mut Table, schema: &Table, name: &str, text: &str) -> Result<(), String> {
    let name = name.to_ascii_lowercase();
    let of_table =
        |known: &&String| name.strip_prefix(known.as_str()).is_some_and(|rest| rest.starts_with('_'));
    let Some(first) = schema.keys().find(of_table) else { return Ok(()) };
    let Some(Value::Table(keys)) = schema.get(first) else {
        return Err(format!("[[{first}]] cannot be set by the environment; write it into the file"));
    };
    let rest = &name[first.len() + 1..];
    // `PANICWATCH_RECORDER_SLOTS` and the like are switches of the recorder itself.
    if first == "recorder" && rest == "slots" {
        return Ok(());
    }
    let inner = table.entry(first.clone()).or_insert_with(|| Value::Table(Table::new()));
    let Some(inner) = inner.as_table_mut() else { return Err(format!("{first} is no table")) };
    if let Some(known) = keys.get(rest).filter(|known| !known.is_table()) {
        inner.insert(rest.to_owned(), value(text, known)?);
        return Ok(());
    }
    match keys.iter().find(|(key, known)| known.is_table() && rest.starts_with(&format!("{key}_"))) {
        Some((key, known)) => {
            let nested = Table::from_iter([(key.clone(), known.clone())]);
            let free = FREE.contains(&format!("{first}.{key}").as_str());
            if free {
                return Err(format!(
                    "{first}.{key} cannot be set by the environment; write it into the file"
                ));
            }
            set(inner, &nested, rest, text)
        }
        None => Err(format!("there is no key {rest} in [{first}]{}", nearest(rest, keys))),
    }
}

fn value(text: &str, known: &Value) -> Result<Value, String> {
    let parsed =
        || toml::from_str::<Table>(&format!("v = {text}")).ok().and_then(|mut table| table.remove("v"));
    match known {
        Value::String(_) => Ok(Value::String(text.to_owned())),
        Value::Array(_) => match parsed() {
            Some(Value::Array(list)) => Ok(Value::Array(list)),
            _ => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Ok(Value::Array(parts.map(|part| Value::String(part.to_owned())).collect()))
            }
        },
        Value::Float(_) => text.parse().map(Value::Float).map_err(|_| format!("{text:?} is no number")),
        known => parsed()
            .filter(|value| value.same_type(known))
            .ok_or_else(|| format!("{text:?} is no {}", known.type_str())),
    }
}

fn position(name: &str, text: &str, span: Option<Range<usize>>) -> String {
    match span {
        Some(span) => format!("{name}:{}", text[..span.start.min(text.len())].lines().count().max(1)),
        None => name.to_owned(),
    }
}

/// The line of a key, or of the table of that name, as far as one can be found.
fn line_of(name: &str, text: &str, key: &str) -> String {
    let last = key.rsplit('.').next().unwrap_or(key);
    let is_it = |line: &str| {
        let line = line.trim_start_matches([' ', '\t', '[']);
        line.strip_prefix(last).is_some_and(|rest| rest.trim_start().starts_with(['=', ']', '.']))
    };
    match text.lines().position(is_it) {
        Some(line) => format!("{name}:{}", line + 1),
        None => name.to_owned(),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
