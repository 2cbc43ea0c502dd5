//! Go's `print` of basic values, as implemented in each release. Pure text.
//!
//! <https://github.com/golang/go/blob/go1.25.5/src/runtime/print.go>; floating point changed in
//! <https://github.com/golang/go/blob/go1.26.6/src/runtime/print.go>.

use crate::go::release::Release;

/// Indents a value's text as the panic printer does.
pub(super) fn indented(release: Release, text: &[u8]) -> Vec<u8> {
    if !release.indents_messages() {
        return text.to_vec();
    }
    let mut out = Vec::with_capacity(text.len() + 8);
    for &byte in text {
        out.push(byte);
        if byte == b'\n' {
            out.push(b'\t');
        }
    }
    out
}

/// `print(float64)`.
pub(super) fn float64(release: Release, v: f64) -> String {
    if release.prints_shortest_floats() { shortest(v, &format!("{:e}", v.abs())) } else { seven_digits(v) }
}

/// `print(float32)`: before 1.26 it is printed as a float64.
pub(super) fn float32(release: Release, v: f32) -> String {
    if release.prints_shortest_floats() {
        shortest(f64::from(v), &format!("{:e}", v.abs()))
    } else {
        seven_digits(f64::from(v))
    }
}

/// `print(complex128)`.
pub(super) fn complex128(release: Release, re: f64, im: f64) -> String {
    complex(release, &float64(release, re), &float64(release, im))
}

/// `print(complex64)`.
pub(super) fn complex64(release: Release, re: f32, im: f32) -> String {
    complex(release, &float32(release, re), &float32(release, im))
}

/// Formats a complex number. The old printer writes one part after the other; the new one ensures that there
/// is a sign between them.
fn complex(release: Release, re: &str, im: &str) -> String {
    let sign = if release.prints_shortest_floats() && !im.starts_with(['+', '-']) { "+" } else { "" };
    format!("({re}{sign}{im}i)")
}

/// Formats like strconv's format 'g' with the shortest precision. `scientific` is Rust's shortest form of the
/// absolute value at the width of the type (`1.25e2`), which has the same digits.
fn shortest(v: f64, scientific: &str) -> String {
    if let Some(text) = not_a_number(v) {
        return text.to_owned();
    }
    let sign = if v.is_sign_negative() { "-" } else { "" };
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..6).contains(&exponent) {
        return format!("{sign}{mantissa}e{}{:02}", sign_of(exponent), exponent.unsigned_abs());
    }
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    if exponent < 0 {
        return format!("{sign}0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1));
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        format!("{sign}{digits}{}", "0".repeat(whole - digits.len()))
    } else {
        format!("{sign}{}.{}", &digits[..whole], &digits[whole..])
    }
}

/// Formats like the old printer: seven digits, found by repeated division, so its rounding errors are part of
/// the output.
fn seven_digits(value: f64) -> String {
    const DIGITS: usize = 7;
    if let Some(text) = not_a_number(value) {
        return text.to_owned();
    }
    let mut v = value.abs();
    let mut exponent = 0_i32;
    if v != 0.0 {
        while v >= 10.0 {
            exponent += 1;
            v /= 10.0;
        }
        while v < 1.0 {
            exponent -= 1;
            v *= 10.0;
        }
        let mut half = 5.0;
        for _ in 0..DIGITS {
            half /= 10.0;
        }
        v += half;
        if v >= 10.0 {
            exponent += 1;
            v /= 10.0;
        }
    }
    let mut out = String::from(if value.is_sign_negative() { "-" } else { "+" });
    for i in 0..DIGITS {
        let digit = v as u8;
        out.push(char::from(b'0' + digit));
        if i == 0 {
            out.push('.');
        }
        v = (v - f64::from(digit)) * 10.0;
    }
    out.push_str(&format!("e{}{:03}", sign_of(exponent), exponent.unsigned_abs()));
    out
}

fn not_a_number(v: f64) -> Option<&'static str> {
    if v.is_nan() {
        Some("NaN")
    } else if v.is_infinite() {
        Some(if v > 0.0 { "+Inf" } else { "-Inf" })
    } else {
        None
    }
}

fn sign_of(exponent: i32) -> char {
    if exponent < 0 { '-' } else { '+' }
}
