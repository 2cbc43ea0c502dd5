//! Loads the configuration from TOML, then applies overrides from the environment. All problems are reported
//! at once, each with its line.

use std::fmt;

use serde::Deserialize as _;
use toml::{Table, Value, de::DeTable};

use super::{
    Config, check,
    place::{self, Places},
};

/// A problem in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Location: "panicwatch.toml:3", or the name of the environment variable.
    pub at: String,
    /// The problem as a sentence.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at.as_str() {
            "" => f.write_str(&self.what),
            at => write!(f, "{at}: {}", self.what),
        }
    }
}

/// Prefix of the environment variables that override keys.
const PREFIX: &str = "PANICWATCH_";

/// The readable part of a configuration, and the problems found in the rest.
#[derive(Debug)]
pub struct Checked {
    /// The configuration; a key with a problem has its default value.
    pub config: Config,
    /// Path of each problem's key, such as `hook[1].url`, and the problem.
    found: Vec<(String, Problem)>,
    places: Places,
}

impl Checked {
    /// Adds a problem of the key or table at `path`, unless a problem inside it is already known: that one
    /// may be the cause.
    pub fn add(&mut self, path: &str, what: String) {
        self.add_unless(self.found.len(), path, what);
    }

    /// Like [`Checked::add`], but looks for an earlier problem among the first `known` only.
    fn add_unless(&mut self, known: usize, path: &str, what: String) {
        if !self.found[..known].iter().any(|(wrong, _)| place::is_within(wrong, path)) {
            let at = self.places.at(path);
            self.found.push((path.to_owned(), Problem { at, what }));
        }
    }

    /// Returns all problems, sorted by line.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found: Vec<&(String, Problem)> = self.found.iter().collect();
        found.sort_by_key(|(path, _)| self.places.line(path));
        found.into_iter().map(|(_, problem)| problem.clone()).collect()
    }
}

impl Config {
    /// Loads the configuration from `text`, the contents of the file `name` (both empty: no file, all
    /// defaults apply), and from the variables in `env` that override keys (`PANICWATCH_TABLE_KEY`). A list
    /// is written as in the file, or separated by commas.
    ///
    /// # Errors
    /// Returns every problem found.
    pub fn load(
        text: &str,
        name: &str,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Config, Vec<Problem>> {
        let checked = Config::check(text, name, env);
        let problems = checked.problems();
        if problems.is_empty() { Ok(checked.config) } else { Err(problems) }
    }

    /// Like [`Config::load`], but returns the readable part of a file that has problems.
    pub fn check(text: &str, name: &str, env: impl IntoIterator<Item = (String, String)>) -> Checked {
        let (parsed, errors) = DeTable::parse_recoverable(text);
        let places = Places::of(name, text, parsed.get_ref());
        let mut checked = Checked { config: Config::default(), found: Vec::new(), places };
        if !errors.is_empty() {
            let start = |error: &toml::de::Error| error.span().map(|span| span.start);
            let mut errors = errors;
            errors.sort_by_key(start);
            let problem = |error: &toml::de::Error| {
                let at = start(error).map(|byte| format!("{name}:{}", place::line(text, byte)));
                let at = at.unwrap_or_else(|| name.to_owned());
                (String::new(), Problem { at, what: one_line(error.message()) })
            };
            checked.found.extend(errors.iter().map(problem));
            return checked;
        }
        let mut table: Table = toml::from_str(text).unwrap_or_default();
        let schema = schema();
        checked.set_all(&mut table, &schema, env);
        let table = checked.readable("", table, &schema, &|table| table);
        match Config::deserialize(table) {
            Ok(config) => checked.config = config,
            Err(error) => checked.add("", one_line(error.message())),
        }
        // A key that cannot be read has its default, which may contradict the other keys: report no problem
        // that follows from it.
        let read = checked.found.len();
        for (path, what) in check::problems(&checked.config) {
            checked.add_unless(read, &path, what);
        }
        checked
    }
}

fn one_line(message: &str) -> String {
    message.lines().collect::<Vec<_>>().join(" ")
}

impl Checked {
    fn set_all(
        &mut self,
        table: &mut Table,
        schema: &Table,
        env: impl IntoIterator<Item = (String, String)>,
    ) {
        let mut env: Vec<_> = env.into_iter().filter(|(variable, _)| variable.starts_with(PREFIX)).collect();
        env.sort();
        for (variable, value) in env {
            match set(table, schema, "", &variable[PREFIX.len()..], &value) {
                Ok(Some(path)) => self.places.overridden(path, variable),
                Ok(None) => {}
                Err(what) => self.found.push((variable.clone(), Problem { at: variable, what })),
            }
        }
    }

    /// Returns the entries of `table`, which is at `path`, that are known and have the right type; each other
    /// entry is reported as a problem. `whole` wraps a part of that table into a complete configuration
    /// table.
    fn readable(
        &mut self,
        path: &str,
        table: Table,
        schema: &Table,
        whole: &dyn Fn(Table) -> Table,
    ) -> Table {
        let mut readable = Table::new();
        for (key, value) in table {
            let full = place::join(path, &key);
            let Some(known) = schema.get(&key) else {
                self.add(&full, format!("there is no key {}{}", plain(&full), nearest(&key, schema)));
                continue;
            };
            let of_value = |value: Value| whole(Table::from_iter([(key.clone(), value)]));
            let value = match (value, known) {
                (Value::Table(inner), Value::Table(schema)) if !FREE.contains(&plain(&full).as_str()) => {
                    let whole = |inner: Table| of_value(Value::Table(inner));
                    Value::Table(self.readable(&full, inner, schema, &whole))
                }
                (Value::Array(list), Value::Array(schemas)) if is_of_tables(&list, schemas) => {
                    let whole = |inner: Table| of_value(Value::Array(vec![Value::Table(inner)]));
                    let mut elements = Vec::new();
                    for (i, element) in list.into_iter().enumerate() {
                        let (Value::Table(inner), Some(Value::Table(schema))) = (element, schemas.first())
                        else {
                            continue;
                        };
                        let element = self.readable(&format!("{full}[{i}]"), inner, schema, &whole);
                        elements.push(Value::Table(element));
                    }
                    Value::Array(elements)
                }
                (value, _) => {
                    if let Err(error) = Config::deserialize(of_value(value.clone())) {
                        self.add(&full, format!("{}: {}", plain(&full), one_line(error.message())));
                        continue;
                    }
                    value
                }
            };
            readable.insert(key, value);
        }
        readable
    }
}

fn is_of_tables(list: &[Value], schemas: &[Value]) -> bool {
    schemas.first().is_some_and(Value::is_table) && list.iter().all(Value::is_table)
}

/// Returns `path` without the indices of list elements.
fn plain(path: &str) -> String {
    let mut plain = String::new();
    let mut is_number = false;
    for c in path.chars() {
        is_number = c == '[' || is_number;
        if !is_number {
            plain.push(c);
        }
        is_number = is_number && c != ']';
    }
    plain
}

/// Returns the tables in which a change takes effect only after a restart of the daemon.
pub fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (as_table(old), as_table(new));
    let fixed = ["recorder", "store", "http", "metrics", "otlp", "jsonl", "hook", "limits"];
    let changed = fixed.into_iter().filter(|name| old.get(*name) != new.get(*name));
    changed.map(|name| format!("[{name}]")).collect()
}

fn as_table(config: &Config) -> Table {
    // Never fails: a test checks that every value can be serialized as TOML.
    Table::try_from(config).unwrap_or_default()
}

/// Returns all known keys: those of the defaults, with one element in each list of tables.
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

/// Tables that accept any key.
const FREE: [&str; 2] = ["otlp.headers", "hook.headers"];

fn nearest(key: &str, schema: &Table) -> String {
    let near = schema.keys().map(|known| (strsim::jaro_winkler(key, known), known));
    let best = near.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(likeness, _)| *likeness > 0.7);
    best.map_or_else(
        || format!("; the keys are {}", schema.keys().cloned().collect::<Vec<_>>().join(", ")),
        |(_, known)| format!("; did you mean {known}?"),
    )
}

/// Overrides a key of the table at `path` and returns the key's path. `name` is the rest of the variable's
/// name, such as "STORE_MAX_BYTES" or "HTTP_TLS_CERT". Returns `None` for a name that starts with no table:
/// the variable belongs to another program.
fn set(
    table: &mut Table,
    schema: &Table,
    path: &str,
    name: &str,
    text: &str,
) -> Result<Option<String>, String> {
    let name = name.to_ascii_lowercase();
    let of_table =
        |known: &&String| name.strip_prefix(known.as_str()).is_some_and(|rest| rest.starts_with('_'));
    let Some(first) = schema.keys().find(of_table) else { return Ok(None) };
    let Some(Value::Table(keys)) = schema.get(first) else {
        return Err(format!("[[{first}]] cannot be set by an environment variable; set it in the file"));
    };
    let rest = &name[first.len() + 1..];
    // `PANICWATCH_RECORDER_SLOTS` and the like configure the recorder itself.
    if first == "recorder" && rest == "slots" {
        return Ok(None);
    }
    let path = place::join(path, first);
    let inner = table.entry(first.clone()).or_insert_with(|| Value::Table(Table::new()));
    let Some(inner) = inner.as_table_mut() else { return Err(format!("{first} is not a table")) };
    if let Some(known) = keys.get(rest).filter(|known| !known.is_table()) {
        inner.insert(rest.to_owned(), value(text, known)?);
        return Ok(Some(place::join(&path, rest)));
    }
    match keys.iter().find(|(key, known)| known.is_table() && rest.starts_with(&format!("{key}_"))) {
        Some((key, known)) => {
            let nested = Table::from_iter([(key.clone(), known.clone())]);
            let free = FREE.contains(&format!("{first}.{key}").as_str());
            if free {
                return Err(format!(
                    "{first}.{key} cannot be set by an environment variable; set it in the file"
                ));
            }
            set(inner, &nested, &path, rest, text)
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
        Value::Float(_) => text.parse().map(Value::Float).map_err(|_| format!("{text:?} is not a number")),
        known => parsed()
            .filter(|value| value.same_type(known))
            .ok_or_else(|| format!("{text:?} is not a valid {}", known.type_str())),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
