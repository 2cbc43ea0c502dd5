//! Merges the records of all CPUs' rings by time. Does no I/O.
//!
//! A goroutine migrates between CPUs, and its record on one CPU is written before anything it does on the
//! next. So once every ring has been read after a time T, all records of every goroutine up to T are
//! available and can be processed.

use panicwatch_common::trace::Hit;

/// Records that are not ready to be processed.
#[derive(Debug, Default)]
pub struct Merge {
    waiting: Vec<Hit>,
}

impl Merge {
    /// Adds a record; the records of one CPU must be added in order.
    pub fn push(&mut self, hit: Hit) {
        self.waiting.push(hit);
    }

    /// Passes the records up to `until_ns` to `each` in order. All rings must have been read after that time.
    pub fn drain(&mut self, until_ns: u64, mut each: impl FnMut(&Hit)) {
        // The input is a few sorted runs, one per CPU, which this sort merges efficiently.
        self.waiting.sort_by_key(|hit| hit.time_ns);
        let ready = self.waiting.partition_point(|hit| hit.time_ns <= until_ns);
        self.waiting[..ready].iter().for_each(&mut each);
        self.waiting.drain(..ready);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Simulated CPUs whose rings are read one after the other while goroutines run.
    struct World {
        rings: Vec<Vec<Hit>>,
        now: u64,
    }

    impl World {
        fn hit(&mut self, goid: u64, cpu: usize, depth: u32) {
            self.now += 1;
            self.rings[cpu].push(Hit { time_ns: self.now, goid, depth, ..Hit::default() });
        }
    }

    proptest! {
        #[test]
        fn every_goroutine_s_records_come_in_its_order(
            steps in proptest::collection::vec((0u64..4, 0usize..3, any::<bool>()), 0..300),
        ) {
            let mut world = World { rings: vec![Vec::new(); 3], now: 0 };
            let (mut merge, mut told, mut made) = (Merge::default(), Vec::new(), [0u32; 4]);
            let mut reading = 0;
            let mut since = 0;
            for (goid, cpu, read) in steps {
                made[goid as usize] += 1;
                world.hit(goid, cpu, made[goid as usize]);
                if !read {
                    continue;
                }
                // One ring is read between two steps of the program; a round over all of them completes the
                // records from before the round.
                if reading == 0 {
                    since = world.now;
                }
                world.rings[reading].drain(..).for_each(|hit| merge.push(hit));
                reading = (reading + 1) % 3;
                if reading == 0 {
                    merge.drain(since, |hit| told.push(*hit));
                }
            }
            for ring in &mut world.rings {
                ring.drain(..).for_each(|hit| merge.push(hit));
            }
            merge.drain(u64::MAX, |hit| told.push(*hit));
            prop_assert_eq!(told.len() as u64, world.now);
            for goid in 0..4u64 {
                let order: Vec<u32> = told.iter().filter(|hit| hit.goid == goid).map(|hit| hit.depth).collect();
                let all: Vec<u32> = (1..=made[goid as usize]).collect();
                prop_assert_eq!(order, all);
            }
        }
    }
}
