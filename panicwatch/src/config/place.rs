//! Where in a file each key is: paths such as `store.path` and `hook[1].url` to lines.

use std::collections::BTreeMap;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Lines of the keys and tables of a file, and variables that override keys.
#[derive(Debug, Default)]
pub(super) struct Places {
    name: String,
    lines: BTreeMap<String, usize>,
    variables: BTreeMap<String, String>,
}

impl Places {
    /// Of the file `name`, whose text was parsed to `table`.
    pub(super) fn of(name: &str, text: &str, table: &DeTable<'_>) -> Places {
        let mut places = Places { name: name.to_owned(), ..Places::default() };
        places.table("", text, table);
        places
    }

    /// The value at `path` comes from a variable of the environment.
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

    /// The line of what is at `path`, of the nearest table around it, or the end of all: for sorting.
    pub(super) fn line(&self, path: &str) -> usize {
        let around = around(path).find_map(|path| self.lines.get(path));
        around.copied().unwrap_or(usize::MAX)
    }

    /// "panicwatch.toml:3", or the variable that set it.
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

/// The path of `key` in the table at `path`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// `path`, then the paths of the tables and lists that it is in.
fn around(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| path.rfind(['.', '[']).map(|end| &path[..end]))
}

/// Does `path` name what is at `outer`, or something in it?
pub(super) fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The line of a byte of `text`, from 1.
pub(super) fn line(text: &str, byte: usize) -> usize {
    1 + text.as_bytes()[..byte.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}
