//! Renders a snapshot as plain text, for pipes and `--once`. Does not depend on a terminal.

use super::{Rates, Snapshot, cells};

/// Maximum number of rows per list; the number of further rows is printed.
const ROWS: usize = 20;

/// Renders all lists, one below the other.
pub fn text(snapshot: &Snapshot, rates: &Rates) -> String {
    let mut lines = cells::health(snapshot);
    for list in cells::lists(snapshot, rates) {
        lines.push(String::new());
        lines.push(format!("{} ({})", list.title, list.rows.len()));
        let heads: Vec<String> = list.heads.iter().map(|(head, _)| (*head).to_owned()).collect();
        let shown = std::iter::once(&heads).chain(list.rows.iter().take(ROWS));
        lines.extend(shown.map(|row| line(row, list.heads)));
        if list.rows.len() > ROWS {
            lines.push(format!("… {} more", list.rows.len() - ROWS));
        }
    }
    lines.join("\n") + "\n"
}

/// Formats a row. A cell that is wider than its column is not truncated.
fn line(cells: &[String], heads: &[(&str, u16)]) -> String {
    let padded = cells.iter().zip(heads).map(|(cell, (_, width))| {
        let wide = unicode_width::UnicodeWidthStr::width(cell.as_str());
        format!("{cell}{}", " ".repeat(usize::from(*width).saturating_sub(wide)))
    });
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{escape, top::tests::sample};

    #[test]
    fn says_all_and_nothing_unsafe() {
        let text = text(&sample(), &Rates::default());
        assert!(text.lines().all(|line| !line.chars().any(escape::is_unsafe)), "{text}");
        for part in [
            "panicwatch 0.1.0: ready; 1 of 2 Go processes watched; recording cost: watched processes 0.50 % of their CPU time, others 0.02 % of the machine; memory 64 MiB",
            "! the disk is full",
            "Groups (1)",
            "12345     -        fatal 12345             shop              2025-07-09 03:12:44  bad\\x1b[2J\\u{202e}news",
            "01JZQ4V7T3F6Y5K2M8N0P1R3S5  bad\\x1b[2J\\u{202e}news\n",
            "4711      shop                      go1.24.11     9          0.25 %     yes",
            "12        \\x1b[31mx                 -             0          -          no: it is not selected",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn a_value_without_text_is_named_by_type_and_fields() {
        let mut snapshot = sample();
        snapshot.incidents[0].message = None;
        snapshot.incidents[0].panics[0].value = crate::incident::Value {
            type_name: Some("*main.QuotaError".into()),
            detail: Some("&{Limit:5 Name:\"\x1b[31m\"}".into()),
            ..crate::incident::Value::default()
        };
        let text = text(&snapshot, &Rates::default());
        assert!(text.contains("  *main.QuotaError{Limit:5 Name:\"\\x1b[31m\"}\n"), "{text}");
    }

    #[test]
    fn long_lists_are_cut_and_say_so() {
        let mut snapshot = sample();
        snapshot.groups = vec![snapshot.groups[0].clone(); ROWS + 5];
        let text = text(&snapshot, &Rates::default());
        assert!(text.contains("Groups (25)") && text.contains("… 5 more"), "{text}");
    }
}
