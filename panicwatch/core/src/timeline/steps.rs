//! A value that changes over time: which value is valid in which interval. Generic over the value.

/// Values, each valid from its time until that of the next.
#[derive(Debug, Clone)]
pub(super) struct Steps<T> {
    steps: Vec<(u64, T)>,
}

impl<T: Clone + PartialEq> Steps<T> {
    /// Returns `value`, valid from `from` on.
    pub(super) fn new(from: u64, value: T) -> Self {
        Self { steps: vec![(from, value)] }
    }

    /// Returns the last value.
    pub(super) fn last(&self) -> &T {
        &self.steps[self.steps.len() - 1].1
    }

    /// Returns the time from which the last value is valid.
    pub(super) fn since(&self) -> u64 {
        self.steps[self.steps.len() - 1].0
    }

    /// Sets the value from `at` on, which must not be before [`Steps::since`]. A value that was valid for no
    /// time is dropped.
    pub(super) fn set(&mut self, at: u64, value: T) {
        let at = at.max(self.since());
        if *self.last() == value {
            return;
        }
        if self.since() == at && self.steps.len() > 1 {
            self.steps.pop();
            if *self.last() == value {
                return;
            }
        } else if self.since() == at {
            self.steps[0].1 = value;
            return;
        }
        self.steps.push((at, value));
    }

    /// Replaces the value since `from` (or since the last change, if that was later).
    pub(super) fn rewrite(&mut self, from: u64, value: T) {
        self.set(from, value);
    }

    /// Returns the value at `at`.
    pub(super) fn at(&self, at: u64) -> &T {
        let i = self.steps.partition_point(|(from, _)| *from <= at);
        &self.steps[i.saturating_sub(1)].1
    }

    /// Iterates over the parts of `[from, to)`: beginning, end, value. Together they cover all of it.
    pub(super) fn parts(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64, &T)> {
        let first = self.steps.partition_point(|(at, _)| *at <= from).saturating_sub(1);
        self.steps[first..].iter().enumerate().filter_map(move |(i, (at, value))| {
            let end = self.steps.get(first + i + 1).map_or(to, |(next, _)| *next).min(to);
            let begin = if i == 0 { from } else { (*at).max(from) };
            (begin < end).then_some((begin, end, value))
        })
    }

    /// Iterates over the times of changes inside `(from, to)`.
    pub(super) fn changes(&self, from: u64, to: u64) -> impl Iterator<Item = u64> {
        self.steps.iter().map(|(at, _)| *at).filter(move |at| from < *at && *at < to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_what_was_asked_for() {
        let mut steps = Steps::new(10, 'a');
        steps.set(20, 'b');
        steps.set(20, 'c');
        steps.set(25, 'c');
        steps.set(30, 'd');
        let parts = |from, to| steps.parts(from, to).map(|(a, b, v)| (a, b, *v)).collect::<Vec<_>>();
        assert_eq!(parts(10, 40), [(10, 20, 'a'), (20, 30, 'c'), (30, 40, 'd')]);
        assert_eq!(parts(0, 15), [(0, 15, 'a')]);
        assert_eq!(parts(22, 28), [(22, 28, 'c')]);
        assert_eq!(parts(50, 60), [(50, 60, 'd')]);
        assert_eq!(parts(5, 5), []);
        assert_eq!((*steps.at(19), *steps.at(20), *steps.at(0)), ('a', 'c', 'a'));
    }

    #[test]
    fn what_held_for_no_time_is_forgotten() {
        let mut steps = Steps::new(0, 'a');
        steps.set(5, 'b');
        steps.set(5, 'a');
        assert_eq!(steps.parts(0, 9).count(), 1);
        steps.set(0, 'z');
        assert_eq!(steps.parts(0, 9).map(|(.., v)| *v).collect::<Vec<_>>(), ['z']);
    }
}
