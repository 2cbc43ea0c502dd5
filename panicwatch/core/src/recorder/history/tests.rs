//! Tests of rings with overwritten, torn and late records.

use std::collections::HashMap;

use super::*;

/// Rings of two CPUs with four slots each.
#[derive(Default)]
struct Fake {
    begun: [u64; 2],
    slots: HashMap<(u32, u64), Slot>,
}

const SIZE: u64 = 4;

impl Fake {
    fn write(&mut self, cpu: u32, times: &[u64]) {
        for &time_ns in times {
            let n = self.begun[cpu as usize];
            self.slots.insert((cpu, n), Slot { seq: n + 1, time_ns, ..Slot::default() });
            self.begun[cpu as usize] = n + 1;
        }
    }
}

impl Rings for Fake {
    fn cpus(&self) -> u32 {
        2
    }
    fn slots_begun(&self, cpu: u32) -> u64 {
        self.begun[cpu as usize]
    }
    fn samples_begun(&self, _: u32) -> u64 {
        0
    }
    fn slots(&self) -> u64 {
        SIZE
    }
    fn samples(&self) -> u64 {
        SIZE
    }
    fn slot(&self, cpu: u32, n: u64) -> Option<Slot> {
        let kept = n + SIZE >= self.begun[cpu as usize];
        self.slots.get(&(cpu, n)).filter(|_| kept).copied()
    }
    fn sample(&self, _: u32, _: u64) -> Option<Sample> {
        None
    }
}

fn times(history: &mut History, to_ns: u64) -> Vec<u64> {
    history.slots_until(to_ns).iter().map(|(_, slot)| slot.time_ns).collect()
}

#[test]
fn cpus_are_merged_in_order_of_time() {
    let (mut rings, mut history) = (Fake::default(), History::new());
    rings.write(0, &[10, 30, 50]);
    rings.write(1, &[20, 40]);
    history.catch_up(&rings, 0);
    assert_eq!(times(&mut history, 45), [10, 20, 30, 40]);
    // Records of CPU 1 arrive late, with times before the last record of CPU 0.
    rings.write(1, &[45, 60]);
    rings.write(0, &[55]);
    history.catch_up(&rings, 0);
    assert_eq!(times(&mut history, 100), [10, 20, 30, 40, 45, 50, 55, 60]);
    assert_eq!(history.gaps_between(0, 100), []);
}

#[test]
fn what_was_overwritten_is_counted_where_it_was() {
    let (mut rings, mut history) = (Fake::default(), History::new());
    rings.write(0, &[10]);
    history.catch_up(&rings, 0);
    rings.write(0, &[20, 30]);
    history.poll(&rings, 35);
    rings.write(0, &[40, 50, 60, 70, 80]);
    history.catch_up(&rings, 0);
    assert_eq!(times(&mut history, 100), [10, 50, 60, 70, 80]);
    let gaps = history.gaps_between(0, 100);
    let told: Vec<_> = gaps.iter().map(|gap| (gap.from_ns, gap.to_ns, gap.lost)).collect();
    assert_eq!(told, [(10, 35, 2), (35, 50, 1)]);
    assert_eq!(history.gaps_between(55, 100), [], "a window behind the gap is whole");
}

#[test]
fn a_record_that_is_being_written_is_read_the_next_time() {
    let (mut rings, mut history) = (Fake::default(), History::new());
    rings.write(0, &[10, 20]);
    let torn = rings.slots.remove(&(0, 1)).unwrap();
    history.catch_up(&rings, 0);
    assert_eq!(times(&mut history, 100), [10]);
    rings.slots.insert((0, 1), torn);
    history.catch_up(&rings, 0);
    assert_eq!(times(&mut history, 100), [10, 20]);
    assert_eq!(history.gaps_between(0, 100), []);
}

#[test]
fn old_records_are_dropped() {
    let (mut rings, mut history) = (Fake::default(), History::new());
    rings.write(0, &[10, 20, 30]);
    history.catch_up(&rings, 15);
    assert_eq!(times(&mut history, 100), [20, 30]);
}
