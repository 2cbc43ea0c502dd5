//! Computes depths from import edges: the minimum number of imports from package main.
//!
//! Knows names and edges only. Must not know their source.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Import graph, from importer to imported packages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imports {
    edges: BTreeMap<String, BTreeSet<String>>,
}

impl Imports {
    pub(super) fn add(&mut self, importer: &str, imported: &str) {
        self.edges.entry(importer.to_owned()).or_default().insert(imported.to_owned());
    }

    pub(super) fn of(&self, importer: &str) -> impl Iterator<Item = &str> {
        self.edges.get(importer).into_iter().flatten().map(String::as_str)
    }

    /// Iterates over all edges as (importer, imported).
    pub fn edges(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.edges.iter();
        all.flat_map(|(importer, all)| all.iter().map(|imported| (importer.as_str(), imported.as_str())))
    }

    /// Removes the edges for which `keep` returns false.
    pub(super) fn retain(&mut self, keep: impl Fn(&str, &str) -> bool) {
        for (importer, all) in &mut self.edges {
            all.retain(|imported| keep(importer, imported));
        }
    }

    /// Returns the depth of every package that can be reached from main.
    pub(super) fn depths(&self) -> BTreeMap<&str, u32> {
        let mut depths = BTreeMap::from([("main", 0)]);
        let mut waiting = VecDeque::from([("main", 0)]);
        while let Some((package, depth)) = waiting.pop_front() {
            for imported in self.of(package) {
                if !depths.contains_key(imported) {
                    depths.insert(imported, depth + 1);
                    waiting.push_back((imported, depth + 1));
                }
            }
        }
        depths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_way_counts_and_circles_end() {
        let mut imports = Imports::default();
        for (a, b) in [("main", "a"), ("a", "b"), ("b", "c"), ("main", "c"), ("c", "a"), ("x", "y")] {
            imports.add(a, b);
        }
        let depths = imports.depths();
        let of = |package| depths.get(package).copied();
        assert_eq!((of("main"), of("a"), of("b"), of("c")), (Some(0), Some(1), Some(2), Some(1)));
        assert_eq!(of("y"), None, "nothing known leads there");
        imports.retain(|importer, imported| (importer, imported) != ("main", "c"));
        assert_eq!(imports.depths().get("c"), Some(&3));
    }
}
