//! Maps the path of each key, such as `store.path` or `hook[1].url`, to its line in the file.

use std::collections::BTreeMap;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Lines of the keys and tables of a file, and the environment variables that override keys.
#[derive(Debug, Default)]
pub(super) struct Places {
    name: String,
    lines: BTreeMap<String, usize>,
    variables: BTreeMap<String, String>,
}

impl Places {
    /// Returns the locations of the keys in the file `name`, whose text was parsed to `table`.
    pub(super) fn of(name: &str, text: &str, table: &DeTable<'_>) -> Places {
        let mut places = Places { name: name.to_owned(), ..Places::default() };
        places.table("", text, table);
        places
    }

    /// Records that an environment variable sets the value at `path`.
    pub(super) fn overridden(&mut self, path: String, variable: String) {
        self.variables.insert(path, variable);
    }

    fn table(&mut self, path: &str, text: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let full = join(path, key.get_ref());
            self.lines.insert(full.clone(), line(text, key.span().start));
            self.value(&full, text, value);
        }
    }

    fn value(&mut self, path: &str, text: &str, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => self.table(path, text, table),
            DeValue::Array(list) => {
                for (i, element) in list.iter().enumerate() {
                    let full = format!("{path}[{i}]");
                    self.lines.insert(full.clone(), line(text, element.span().start));
                    self.value(&full, text, element);
                }
            }
            _ => {}
        }
    }

    /// Returns the line of the key at `path`, else of the nearest enclosing table, else `usize::MAX`, which
    /// sorts last.
    pub(super) fn line(&self, path: &str) -> usize {
        let around = around(path).find_map(|path| self.lines.get(path));
        around.copied().unwrap_or(usize::MAX)
    }

    /// Returns the location of `path`: "panicwatch.toml:3", or the environment variable that sets it.
    pub(super) fn at(&self, path: &str) -> String {
        if let Some(variable) = around(path).find_map(|path| self.variables.get(path)) {
            return variable.clone();
        }
        match self.line(path) {
            usize::MAX => self.name.clone(),
            line => format!("{}:{line}", self.name),
        }
    }
}

/// Returns the path of `key` in the table at `path`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Yields `path`, then the paths of the enclosing tables and lists, innermost first.
fn around(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| path.rfind(['.', '[']).map(|end| &path[..end]))
}

/// Reports whether `path` is `outer` or lies within it.
pub(super) fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Returns the line that contains a byte of `text`, counted from 1.
pub(super) fn line(text: &str, byte: usize) -> usize {
    1 + text.as_bytes()[..byte.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}
