//! Selects functions: by a glob on the whole name, or by a regular expression between slashes.
//!
//! Matches text only. A name is Go's own (`main.(*T).M`, `net/http.(*conn).serve`); for a generic function,
//! both the name in the tables (`main.f[go.shape.int]`) and the printed one (`main.f[...]`) can be used.

use regex::Regex;
use thiserror::Error;

/// Why a pattern is invalid.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PatternError {
    /// The regular expression is invalid.
    #[error("{0:?} is not a regular expression: {1}")]
    Regex(String, String),
    /// The pattern is empty.
    #[error(
        "an empty pattern matches no function; give a name such as main.handle, or a glob such as main.*"
    )]
    Empty,
    /// A regular expression has no closing slash.
    #[error(
        "{0:?} has no closing slash; a regular expression is /…/, and no function's name begins with a slash"
    )]
    Unclosed(String),
}

/// A parsed pattern.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    /// Parses a pattern. `/…/` is a regular expression that may match anywhere in the name; everything else
    /// is a glob for the whole name, in which `*` matches any text, including dots and slashes, and `?`
    /// matches one character.
    ///
    /// # Errors
    /// When the pattern is empty or invalid.
    pub fn parse(text: &str) -> Result<Pattern, PatternError> {
        if matches!(text, "" | "//") {
            return Err(PatternError::Empty);
        }
        if text == "/" || text.starts_with('/') && !text.ends_with('/') {
            return Err(PatternError::Unclosed(text.to_owned()));
        }
        let inner = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
        let source = match inner {
            Some(source) => source.to_owned(),
            None => glob(text),
        };
        match Regex::new(&source) {
            Ok(regex) => Ok(Pattern { text: text.to_owned(), regex }),
            Err(error) => {
                // The first line of the error repeats the expression, the last one has the reason.
                let error = error.to_string();
                let last = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
                Err(PatternError::Regex(source, last.to_owned()))
            }
        }
    }

    /// Returns the pattern as it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Reports whether the pattern matches a function's name.
    pub fn matches(&self, name: &str) -> bool {
        self.regex.is_match(name)
    }
}

/// Converts a glob to a regular expression.
fn glob(text: &str) -> String {
    let mut out = String::from("(?s)^");
    for c in text.chars() {
        match c {
            '*' => out.push_str(".*"),
            '?' => out.push('.'),
            c => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    out.push('$');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::parse(pattern).expect("a pattern").matches(name)
    }

    #[test]
    fn globs_are_of_the_whole_name_and_cross_everything() {
        assert!(matches("main.*", "main.(*T).M"));
        assert!(matches("net/http.*", "net/http.(*conn).serve.func1"));
        assert!(matches("*serve*", "net/http.(*conn).serve"));
        assert!(!matches("main.f", "main.fx"));
        assert!(!matches("main.f", "xmain.f"));
        assert!(matches("main.?", "main.é"));
        assert!(
            matches("main.(*T).M", "main.(*T).M"),
            "parentheses and stars of a method are text or match it"
        );
        assert!(matches("main.f[...]", "main.f[...]"), "brackets are text");
        assert!(!matches("main.f", "mainxf"), "a dot is a dot");
    }

    #[test]
    fn slashes_make_a_regular_expression() {
        assert!(matches("/^main\\.(a|b)$/", "main.a"));
        assert!(matches("/serve/", "net/http.(*conn).serve"));
        assert!(!matches("/^serve/", "net/http.(*conn).serve"));
        let error = Pattern::parse("/(/").expect_err("no expression").to_string();
        assert!(error.contains("unclosed group"), "{error}");
        for none in ["", "//", "/", "/serve", "/^net/http\\."] {
            assert!(Pattern::parse(none).is_err(), "{none:?}");
        }
    }
}
