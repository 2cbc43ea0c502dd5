//! Matches processes against selectors. Does no I/O.
//!
//! In globs `*` matches any characters including slashes, `?` matches one character, `[ab]` and `{a,b}` match
//! alternatives. An unknown fact (of a process that has ended, or one outside a container) matches no
//! pattern.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use regex::RegexSet;

use super::Selector;

/// Known facts about a process.
#[derive(Debug, Clone, Default)]
pub struct Facts<'a> {
    /// Path of the executable.
    pub exe: Option<&'a str>,
    /// Arguments, joined by spaces.
    pub command: Option<&'a str>,
    /// Path of the main module.
    pub module: Option<&'a str>,
    /// Path of the cgroup.
    pub cgroup: Option<&'a str>,
    /// ID of the container, if the process is in one.
    pub container: Option<&'a str>,
    /// Namespace of the pod.
    pub namespace: Option<&'a str>,
    /// Name of the pod.
    pub pod: Option<&'a str>,
    /// Labels of container and pod, as "key=value".
    pub labels: &'a [String],
    /// Name of the user.
    pub user: Option<&'a str>,
    /// UID of the user.
    pub uid: Option<u32>,
}

/// Selectors with compiled patterns.
#[derive(Debug, Default)]
pub struct Selectors(Vec<Compiled>);

#[derive(Debug)]
struct Compiled {
    exe: Option<GlobSet>,
    command: Option<RegexSet>,
    module: Option<GlobSet>,
    cgroup: Option<GlobSet>,
    container: Option<GlobSet>,
    namespace: Option<GlobSet>,
    pod: Option<GlobSet>,
    label: Option<GlobSet>,
    user: Vec<String>,
}

impl Selectors {
    /// Compiles the patterns of `selectors`.
    ///
    /// # Errors
    /// Returns a sentence about each invalid pattern and each empty selector.
    pub fn compile(selectors: &[Selector]) -> Result<Selectors, Vec<String>> {
        let mut problems = Vec::new();
        let compiled = selectors.iter().map(|selector| {
            let Selector { exe, command, module, cgroup, container, namespace, pod, label, user } = selector;
            if *selector == Selector::default() {
                problems
                    .push("a selector without keys matches everything; give it at least one key".to_owned());
            }
            let mut globs = |name: &str, patterns: &[String]| globs(name, patterns, &mut problems);
            let (exe, module, cgroup) = (globs("exe", exe), globs("module", module), globs("cgroup", cgroup));
            let (container, namespace) = (globs("container", container), globs("namespace", namespace));
            let (pod, label) = (globs("pod", pod), globs("label", label));
            let command = match command.as_slice() {
                [] => None,
                patterns => {
                    RegexSet::new(patterns).map_err(|error| problems.push(format!("command: {error}"))).ok()
                }
            };
            Compiled { exe, command, module, cgroup, container, namespace, pod, label, user: user.clone() }
        });
        let compiled = compiled.collect();
        if problems.is_empty() { Ok(Selectors(compiled)) } else { Err(problems) }
    }

    /// Reports whether there are no selectors.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reports whether one of the selectors matches.
    pub fn matches(&self, facts: &Facts<'_>) -> bool {
        self.0.iter().any(|selector| selector.matches(facts))
    }
}

impl Compiled {
    fn matches(&self, facts: &Facts<'_>) -> bool {
        let glob = |globs: &Option<GlobSet>, fact: Option<&str>| match globs {
            Some(globs) => fact.is_some_and(|fact| globs.is_match(fact)),
            None => true,
        };
        let is_user =
            |user: &String| facts.user == Some(user) || facts.uid.is_some_and(|uid| user.parse() == Ok(uid));
        glob(&self.exe, facts.exe)
            && glob(&self.module, facts.module)
            && glob(&self.cgroup, facts.cgroup)
            && glob(&self.container, facts.container)
            && glob(&self.namespace, facts.namespace)
            && glob(&self.pod, facts.pod)
            && self.label.as_ref().is_none_or(|globs| facts.labels.iter().any(|label| globs.is_match(label)))
            && self
                .command
                .as_ref()
                .is_none_or(|set| facts.command.is_some_and(|command| set.is_match(command)))
            && (self.user.is_empty() || self.user.iter().any(is_user))
    }
}

fn globs(name: &str, patterns: &[String], problems: &mut Vec<String>) -> Option<GlobSet> {
    if patterns.is_empty() {
        return None;
    }
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        match GlobBuilder::new(pattern).literal_separator(false).build() {
            Ok(glob) => {
                set.add(glob);
            }
            Err(error) => problems.push(format!("{name}: {error}")),
        }
    }
    set.build().map_err(|error| problems.push(format!("{name}: {error}"))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(selector: Selector, facts: &Facts<'_>) -> bool {
        Selectors::compile(&[selector]).expect("patterns").matches(facts)
    }

    #[test]
    fn every_key_must_fit_and_one_pattern_of_it() {
        let facts = Facts {
            exe: Some("/srv/shop/server"),
            command: Some("/srv/shop/server --port 80"),
            user: Some("shop"),
            uid: Some(1000),
            ..Facts::default()
        };
        let list = |patterns: &[&str]| patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
        let exe = |patterns: &[&str]| Selector { exe: list(patterns), ..Selector::default() };
        assert!(fits(exe(&["/opt/*", "/srv/*"]), &facts));
        assert!(!fits(exe(&["/opt/*", "server"]), &facts), "the whole path");
        let both = Selector { command: list(&["--port 8.$"]), ..exe(&["*/server"]) };
        assert!(fits(both.clone(), &facts));
        assert!(!fits(both, &Facts { command: Some("x"), ..facts.clone() }));
        for user in ["shop", "1000"] {
            assert!(fits(Selector { user: list(&[user]), ..Selector::default() }, &facts));
        }
        assert!(!fits(Selector { user: list(&["root", "0"]), ..Selector::default() }, &facts));
    }

    #[test]
    fn the_unknown_fits_nothing() {
        let pod = Selector { pod: vec!["*".to_owned()], ..Selector::default() };
        assert!(!fits(pod.clone(), &Facts::default()));
        assert!(fits(pod, &Facts { pod: Some("web-1"), ..Facts::default() }));
    }

    #[test]
    fn one_label_must_fit() {
        let labels = ["app=shop".to_owned(), "tier=web".to_owned()];
        let facts = Facts { labels: &labels, ..Facts::default() };
        let label = |pattern: &str| Selector { label: vec![pattern.to_owned()], ..Selector::default() };
        assert!(fits(label("tier=w*"), &facts));
        assert!(!fits(label("web"), &facts) && !fits(label("app=web"), &facts));
        assert!(!fits(label("*"), &Facts::default()));
    }

    #[test]
    fn bad_patterns_are_all_told() {
        let bad =
            Selector { exe: vec!["[".into(), "{a".into()], command: vec!["(".into()], ..Selector::default() };
        assert_eq!(Selectors::compile(&[bad, Selector::default()]).expect_err("refused").len(), 4);
    }
}
