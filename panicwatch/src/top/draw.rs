//! Draws a snapshot on a terminal. Neither fetches the snapshot nor reads keys.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Text},
    widgets::{Block, Paragraph, Row, Table, TableState},
};

use super::{Rates, Snapshot, cells};

const KEYS: &str = " q quit   Tab next list   ↑ ↓ PgUp PgDn Home End scroll   p pause   r refresh now ";
/// Maximum number of lines with problems.
const PROBLEMS: u16 = 4;

/// The state of the screen: data and selection.
#[derive(Debug, Default)]
pub struct Screen {
    /// The latest snapshot; `None` before the first.
    pub snapshot: Option<Snapshot>,
    /// Growth rates of the groups.
    pub rates: Rates,
    /// Why the latest request failed.
    pub trouble: Option<String>,
    /// Whether the display is paused, so that newer snapshots are ignored.
    pub paused: bool,
    /// Index of the list that keys scroll: 0 to 2.
    list: usize,
    /// Selected row of each list.
    rows: [TableState; 3],
}

impl Screen {
    /// Moves the keyboard focus to the next or, with `back`, the previous list.
    pub fn next_list(&mut self, back: bool) {
        self.list = (self.list + if back { 2 } else { 1 }) % 3;
    }

    /// Moves the selection in the focused list by `by` rows.
    pub fn scroll(&mut self, by: isize) {
        let Some(snapshot) = &self.snapshot else { return };
        let length = [snapshot.groups.len(), snapshot.incidents.len(), snapshot.processes.len()][self.list];
        let state = &mut self.rows[self.list];
        let row = state.selected().map_or(0, |row| row.saturating_add_signed(by));
        state.select(length.checked_sub(1).map(|last| row.min(last)));
    }
}

/// Draws the screen.
pub fn draw(frame: &mut Frame<'_>, screen: &mut Screen) {
    let Some(snapshot) = &screen.snapshot else {
        let text = screen.trouble.as_deref().unwrap_or("waiting for the daemon …");
        frame.render_widget(Paragraph::new(text).wrap(ratatui::widgets::Wrap { trim: true }), frame.area());
        return;
    };
    let mut health = cells::health(snapshot);
    health.truncate(usize::from(PROBLEMS) + 1);
    if let Some(trouble) = &screen.trouble {
        health.push(format!("! {trouble}"));
    }
    let lists = cells::lists(snapshot, &screen.rates);
    let [top, a, b, c, keys] = frame.area().layout(&Layout::vertical([
        Constraint::Length(u16::try_from(health.len()).unwrap_or(u16::MAX)),
        Constraint::Fill(3),
        Constraint::Fill(3),
        Constraint::Fill(2),
        Constraint::Length(1),
    ]));
    let lines = health.into_iter().map(|line| {
        let bad = line.starts_with('!');
        Line::styled(line, if bad { Style::new().fg(Color::Red) } else { Style::new() })
    });
    frame.render_widget(Text::from_iter(lines), top);
    for (i, (list, area)) in lists.into_iter().zip([a, b, c]).enumerate() {
        table(frame, list, area, &mut screen.rows[i], i == screen.list);
    }
    let keys_text = if screen.paused { format!(" PAUSED {KEYS}") } else { KEYS.to_owned() };
    frame.render_widget(Line::styled(keys_text, Style::new().add_modifier(Modifier::REVERSED)), keys);
}

fn table(frame: &mut Frame<'_>, list: cells::List, area: Rect, state: &mut TableState, chosen: bool) {
    // The border takes one column on each side.
    let columns = list.columns(area.width.saturating_sub(2));
    let widths = columns.iter().map(|i| match list.heads[*i].1 {
        0 => Constraint::Fill(1),
        width => Constraint::Length(width),
    });
    let title = format!(" {} ({}) ", list.title, list.rows.len());
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let border = if chosen { Style::new().fg(Color::Cyan) } else { Style::new().fg(Color::DarkGray) };
    let rows = list.rows.into_iter().map(|cells| {
        let fatal = cells.iter().any(|cell| cell.starts_with("fatal"));
        let cells = columns.iter().map(|i| cells[*i].clone());
        Row::new(cells).style(if fatal { Style::new().fg(Color::Red) } else { Style::new() })
    });
    let table = Table::new(rows, widths)
        .header(Row::new(columns.iter().map(|i| list.heads[*i].0)).style(bold))
        .column_spacing(cells::GAP)
        .row_highlight_style(if chosen {
            Style::new().add_modifier(Modifier::REVERSED)
        } else {
            Style::new()
        })
        .block(Block::bordered().title(title).border_style(border));
    frame.render_stateful_widget(table, area, state);
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::{escape, top::tests::sample};

    fn drawn(screen: &mut Screen, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| draw(frame, screen)).expect("draws");
        terminal.backend().to_string()
    }

    #[test]
    fn shows_all_lists_and_the_keys() {
        let mut screen = Screen { snapshot: Some(sample()), ..Screen::default() };
        let picture = drawn(&mut screen, 160, 40);
        for part in [
            "1 of 2 Go processes watched",
            "! the disk is full",
            " Groups (1) ",
            "12345",
            "bad\\x1b[2J\\u{202e}news",
            " Incidents (1) ",
            " Processes (2) ",
            "no: it is not selected",
            "q quit",
        ] {
            assert!(picture.contains(part), "{part} is not in\n{picture}");
        }
        assert!(picture.lines().all(|line| !line.chars().any(escape::is_unsafe)));
    }

    #[test]
    fn any_size_does() {
        for (width, height) in [(1, 1), (3, 2), (20, 5), (80, 24), (300, 100)] {
            let mut screen = Screen { snapshot: Some(sample()), ..Screen::default() };
            screen.trouble = Some("the daemon went away".into());
            drawn(&mut screen, width, height);
            drawn(&mut Screen::default(), width, height);
        }
    }

    #[test]
    fn what_was_said_is_seen_on_a_narrow_screen() {
        let mut screen = Screen { snapshot: Some(sample()), ..Screen::default() };
        let picture = drawn(&mut screen, 80, 24);
        assert!(picture.contains("bad\\x1b[2J") && !picture.contains("LAST SEEN"), "{picture}");
    }

    #[test]
    fn scrolls_the_chosen_list_within_its_rows() {
        let mut screen = Screen { snapshot: Some(sample()), ..Screen::default() };
        let first = screen.snapshot.as_ref().expect("one").groups[0].clone();
        screen.snapshot.as_mut().expect("one").groups =
            (0..50).map(|n| crate::store::Group { title: format!("group {n}."), ..first.clone() }).collect();
        assert!(!drawn(&mut screen, 160, 30).contains("group 49."));
        screen.scroll(0);
        screen.scroll(isize::MAX);
        assert!(drawn(&mut screen, 160, 30).contains("group 49."), "the last row is in sight");
        screen.scroll(isize::MIN);
        assert!(drawn(&mut screen, 160, 30).contains("group 0."));
        screen.next_list(true);
        assert_eq!(screen.list, 2);
        screen.scroll(5);
        screen.scroll(5);
        assert_eq!(screen.rows[2].selected(), Some(1), "two processes");
    }

    #[test]
    fn trouble_is_told_beside_the_last_picture() {
        let mut screen = Screen { trouble: Some("nobody is there".into()), ..Screen::default() };
        assert!(drawn(&mut screen, 80, 5).contains("nobody is there"));
        screen.snapshot = Some(sample());
        let picture = drawn(&mut screen, 160, 40);
        assert!(picture.contains("! nobody is there") && picture.contains("Groups (1)"), "{picture}");
    }
}
