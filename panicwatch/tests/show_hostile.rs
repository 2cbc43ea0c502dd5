//! Stored documents changed in thousands of ways: each is rejected or rendered in every format, without a
//! panic, within bounds, and without a byte that controls a terminal.

use panicwatch::{
    escape,
    render::{self as forms, report, text::Style},
    stored::{Pick, Stored},
};
use serde_json::Value;

const SAMPLE: &str = include_str!("incidents/slow_read.json");

/// Numbers that are likely to overflow arithmetic.
const NUMBERS: [u64; 9] = [
    0,
    1,
    u32::MAX as u64,
    u32::MAX as u64 + 1,
    i64::MAX as u64,
    i64::MAX as u64 + 1,
    u64::MAX - 1,
    u64::MAX,
    5_218_443_019_278,
];

/// Pseudo-random numbers that are the same for the same seed on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

/// Renders the document in every way; reports whether it could be read.
fn render(bytes: &[u8]) -> bool {
    let Ok((incident, _)) = Stored::find(bytes).and_then(|stored| stored.read(&Pick::Last)) else {
        return false;
    };
    for width in [40, 100] {
        let style = Style::new(false, width);
        for text in [report::full(&incident, &style), report::compact(&incident, &style)] {
            assert!(!text.contains(|c| c != '\n' && escape::is_unsafe(c)), "{text}");
            assert!(text.len() < 200_000);
        }
    }
    if let Some(timeline) = &incident.timeline {
        assert!(!forms::perfetto(&incident, timeline).is_empty());
        for text in [forms::folded(&incident, timeline), forms::perf_script(&incident, timeline)] {
            assert!(!text.contains(|c| !matches!(c, '\n' | '\t') && escape::is_unsafe(c)), "{text}");
        }
    }
    true
}

#[test]
fn values_exchanged() {
    let whole: Value = serde_json::from_str(SAMPLE).expect("JSON");
    let (mut dice, mut read, mut refused) = (Dice(1), 0, 0);
    for _ in 0..1_500 {
        let mut document = whole.clone();
        for _ in 0..=dice.below(6) {
            change(&mut document, &mut dice);
        }
        match render(document.to_string().as_bytes()) {
            true => read += 1,
            false => refused += 1,
        }
    }
    println!("{read} read, {refused} refused");
    assert!(read > 300 && refused > 100, "the changes reach the renderings, and not only them");
}

fn change(document: &mut Value, dice: &mut Dice) {
    let count = count(document);
    let wanted = dice.below(count);
    let number = NUMBERS[dice.below(NUMBERS.len())];
    let kind = dice.below(6);
    let mut at = 0;
    visit(document, &mut |value| {
        if at == wanted {
            *value = match (&*value, kind) {
                (Value::Number(_), _) => number.into(),
                (Value::String(text), 0..4) if !text.starts_with("0x") => {
                    "\u{1b}[2J\n▶ forged; \u{202e}".repeat(40).into()
                }
                (Value::Array(list), 0..3) => {
                    list.iter().chain(list).chain(list.first()).cloned().collect::<Vec<_>>().into()
                }
                (Value::Array(list), 3) => list.iter().rev().cloned().collect::<Vec<_>>().into(),
                (_, 4) => Value::Null,
                (other, _) => other.clone(),
            };
        }
        at += 1;
    });
}

fn count(value: &mut Value) -> usize {
    let mut count = 0;
    visit(value, &mut |_| count += 1);
    count
}

fn visit(value: &mut Value, f: &mut dyn FnMut(&mut Value)) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(|v| visit(v, f)),
        Value::Object(map) => map.values_mut().for_each(|v| visit(v, f)),
        _ => {}
    }
    f(value);
}

/// Replaces every third number of the timeline, one at a time, with the numbers that are likely to overflow
/// arithmetic.
#[test]
fn every_number_at_its_worst() {
    let whole: Value = serde_json::from_str(SAMPLE).expect("JSON");
    let mut numbers = 0;
    visit(&mut whole["timeline"].clone(), &mut |value| numbers += usize::from(value.is_number()));
    assert!(numbers > 300, "{numbers}");
    let mut read = 0;
    for i in (0..numbers).step_by(3) {
        let mut document = whole.clone();
        let mut at = 0;
        visit(&mut document["timeline"], &mut |value| {
            if value.is_number() {
                if at == i {
                    *value = NUMBERS[i / 3 % NUMBERS.len()].into();
                }
                at += 1;
            }
        });
        read += usize::from(render(document.to_string().as_bytes()));
    }
    assert!(read > numbers / 9, "{read}");
}

#[test]
fn bytes_flipped_and_cut() {
    let (mut dice, mut read) = (Dice(7), 0);
    for i in 0..1_500 {
        let mut bytes = SAMPLE.as_bytes().to_vec();
        for _ in 0..=dice.below(3) {
            let at = dice.below(bytes.len());
            bytes[at] ^= 1 << dice.below(8);
        }
        if i % 5 == 0 {
            bytes.truncate(dice.below(bytes.len()));
        }
        read += u32::from(render(&bytes));
    }
    println!("{read} of 1500 read");
    assert!(read > 50 && read < 1_500);
}
