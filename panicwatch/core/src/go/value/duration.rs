//! The text of a `time.Duration`.
//!
//! <https://github.com/golang/go/blob/go1.24.11/src/time/time.go> (Duration.String)

/// Formats a duration as Go does: `1h15m30.918s`, `1.5ms`, `0s`.
pub(super) fn text(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let n = nanoseconds.unsigned_abs();
    let (seconds, rest) = (n / 1_000_000_000, n % 1_000_000_000);
    let text = match n {
        0 => "0s".to_owned(),
        1..1_000 => format!("{n}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(n / 1_000, n % 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(n / 1_000_000, n % 1_000_000, 6)),
        _ => {
            let last = fraction(seconds % 60, rest, 9);
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => format!("{last}s"),
                (0, minutes) => format!("{minutes}m{last}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{last}s"),
            }
        }
    };
    format!("{sign}{text}")
}

/// Formats `whole.part`, where `part` has `digits` digits, without trailing zeros.
fn fraction(whole: u64, part: u64, digits: usize) -> String {
    let part = format!("{part:0digits$}");
    match part.trim_end_matches('0') {
        "" => whole.to_string(),
        part => format!("{whole}.{part}"),
    }
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn as_go_prints_them() {
        for (nanoseconds, want) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (1_000_000_000, "1s"),
            (3_300_000_000, "3.3s"),
            (245_000_000_000, "4m5s"),
            (245_001_000_000, "4m5.001s"),
            (18_367_001_000_000, "5h6m7.001s"),
            (480_000_000_001, "8m0.000000001s"),
            (-1_500_000, "-1.5ms"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(text(nanoseconds), want);
        }
    }
}
