//! Selects calls by the value of an argument. Does no I/O.
//!
//! A condition compares with the printed value: numbers by value, text without its quotes.

use thiserror::Error;

use super::line::Argument;

/// The error for a text that is not a condition.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is not a condition; write NAME==VALUE, with one of == != < <= > >= contains")]
pub struct FilterError(String);

/// Maximum number of parameters named in an error.
const MAX_NAMED: usize = 20;

/// A condition on a parameter that no traced function has.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnknownParameter {
    /// The traced functions have other parameters.
    #[error("--where {name}: no traced function has a parameter of this name; the parameters are {known}")]
    Other {
        /// The name in the condition.
        name: String,
        /// The names of the parameters.
        known: String,
    },
    /// The traced functions have no parameters.
    #[error("--where {name}: the traced functions have no parameters that the debug information names")]
    None {
        /// The name in the condition.
        name: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
    Contains,
}

/// A condition on an argument: `NAME OPERATOR VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Name of the argument.
    name: String,
    operator: Operator,
    value: String,
}

impl Condition {
    /// Parses a condition.
    ///
    /// # Errors
    /// When the text is not a condition.
    pub fn parse(text: &str) -> Result<Condition, FilterError> {
        let operators = [
            ("==", Operator::Equal),
            ("!=", Operator::Unequal),
            (" contains ", Operator::Contains),
            ("<=", Operator::AtMost),
            (">=", Operator::AtLeast),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        // Finds the first operator in the text: the value may contain others. Of two at the same position,
        // the longer one precedes in the list and wins.
        let first = operators
            .iter()
            .filter_map(|(sign, operator)| Some((text.find(sign)?, sign.len(), *operator)))
            .min_by_key(|(at, ..)| *at);
        let (at, len, operator) = first.ok_or_else(|| FilterError(text.to_owned()))?;
        let (name, value) = (text[..at].trim(), text[at + len..].trim());
        if name.is_empty() {
            return Err(FilterError(text.to_owned()));
        }
        Ok(Condition { name: name.to_owned(), operator, value: unquoted(value) })
    }

    /// Checks that one of the traced functions has a parameter with this name: otherwise no call could meet
    /// the condition.
    ///
    /// # Errors
    /// When none has; names the parameters that exist.
    pub fn check(&self, parameters: &[&str]) -> Result<(), UnknownParameter> {
        if parameters.contains(&self.name.as_str()) {
            return Ok(());
        }
        let name = self.name.clone();
        if parameters.is_empty() {
            return Err(UnknownParameter::None { name });
        }
        let mut known = parameters.iter().take(MAX_NAMED).copied().collect::<Vec<_>>().join(", ");
        if let Some(more) = parameters.len().checked_sub(MAX_NAMED).filter(|more| *more > 0) {
            known += &format!(" and {more} more");
        }
        Err(UnknownParameter::Other { name, known })
    }

    /// Reports whether the call with these arguments meets the condition. A call without such an argument, or
    /// with an unknown value, does not.
    pub fn holds(&self, args: &[Argument]) -> bool {
        let argument = args.iter().find(|argument| argument.name == self.name);
        let Some(shown) = argument.and_then(|argument| argument.value.as_deref()) else { return false };
        let text = unquoted(shown);
        match self.operator {
            Operator::Equal => {
                text == self.value || number(&text).is_some_and(|n| Some(n) == number(&self.value))
            }
            Operator::Unequal => {
                text != self.value && number(&text).is_none_or(|n| Some(n) != number(&self.value))
            }
            Operator::Contains => text.contains(&self.value),
            Operator::Less => compares(&text, &self.value, |a, b| a < b),
            Operator::AtMost => compares(&text, &self.value, |a, b| a <= b),
            Operator::Greater => compares(&text, &self.value, |a, b| a > b),
            Operator::AtLeast => compares(&text, &self.value, |a, b| a >= b),
        }
    }
}

/// A number. Go's integers and hexadecimal numbers are exact.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
enum Number {
    Whole(i128),
    Real(f64),
}

impl Number {
    fn real(self) -> f64 {
        match self {
            Number::Whole(n) => n as f64,
            Number::Real(n) => n,
        }
    }
}

fn compares(a: &str, b: &str, how: fn(Comparable, Comparable) -> bool) -> bool {
    number(a).zip(number(b)).is_some_and(|(a, b)| how(a, b))
}

fn number(text: &str) -> Option<Comparable> {
    let whole = match text.strip_prefix("0x") {
        Some(digits) => i128::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    whole.map(Number::Whole).or_else(|| text.parse().ok().map(Number::Real)).map(Comparable)
}

/// A number with an order that compares two integers exactly.
#[derive(Debug, Clone, Copy)]
struct Comparable(Number);

impl PartialEq for Comparable {
    fn eq(&self, other: &Self) -> bool {
        self.partial_cmp(other) == Some(std::cmp::Ordering::Equal)
    }
}

impl PartialOrd for Comparable {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        match (self.0, other.0) {
            (Number::Whole(a), Number::Whole(b)) => a.partial_cmp(&b),
            (a, b) => a.real().partial_cmp(&b.real()),
        }
    }
}

/// Removes the quotes and the escapes that Rust's `{:?}` and Go's `%q` have in common.
fn unquoted(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return text.to_owned();
    };
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next() } else { None };
        out.push(match escaped {
            Some('n') => '\n',
            Some('t') => '\t',
            Some('r') => '\r',
            Some(other) => other,
            None => c,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(condition: &str, value: &str) -> bool {
        let argument = Argument {
            name: "a".to_owned(),
            type_name: String::new(),
            value: Some(value.to_owned()),
            reason: None,
        };
        Condition::parse(condition).expect("a condition").holds(&[argument])
    }

    #[test]
    fn numbers_compare_by_value() {
        assert!(holds("a==3", "3") && holds("a == 0x10", "16") && !holds("a==3", "33"));
        assert!(holds("a<10", "9") && !holds("a<10", "10") && holds("a>-2", "-1"));
        assert!(holds("a>18446744073709551614", "18446744073709551615"), "not by way of floating point");
        assert!(holds("a!=3", "4") && !holds("a!=3", "3"));
        assert!(holds("a<=3", "3") && holds("a>=3", "3") && !holds("a>=3", "2"));
        assert!(holds("a<0.5", "0.25"));
        assert!(!holds("a<x", "3"), "no number");
    }

    #[test]
    fn text_compares_by_its_characters() {
        assert!(holds("a==hello", "\"hello\"") && holds("a==\"hello\"", "\"hello\""));
        assert!(holds("a contains ell", "\"hello\"") && !holds("a contains xyz", "\"hello\""));
        assert!(holds("a==x==y", "\"x==y\""), "the first operator counts");
        assert!(holds("a contains \"q\"", "\"say \\\"q\\\"\""));
    }

    #[test]
    fn a_parameter_must_exist() {
        let check = |text: &str, known: &[&str]| {
            let condition = Condition::parse(text).expect("a condition");
            condition.check(known).map_err(|error| error.to_string())
        };
        assert_eq!(check("n==3", &["b", "n"]), Ok(()));
        let error = check("m==3", &["b", "n"]).expect_err("no such parameter");
        assert_eq!(
            error,
            "--where m: no traced function has a parameter of this name; the parameters are b, n"
        );
        // Fields are not compared: a name with a dot names no parameter.
        assert!(check("b.Name==x", &["b"]).is_err());
        assert!(check("N==3", &["n"]).is_err(), "Go's names have case");
        let error = check("n==3", &[]).expect_err("no parameters");
        assert!(error.contains("have no parameters"), "{error}");
        let names: Vec<String> = (0..25).map(|n| format!("p{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let error = check("x==1", &names).expect_err("no such parameter");
        assert!(error.ends_with("p18, p19 and 5 more"), "{error}");
    }

    #[test]
    fn what_is_not_known_does_not_hold() {
        assert!(!Condition::parse("b==3").expect("a condition").holds(&[]));
        for none in ["a", "==3", ""] {
            assert!(Condition::parse(none).is_err(), "{none}");
        }
    }
}
