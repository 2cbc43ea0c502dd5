//! Checks links in Markdown files: their targets must exist, including headings.

use super::{File, Remark};

/// Checks the links of a Markdown file; `exists` reports whether a path relative to the repository's root
/// exists.
pub(super) fn check(file: &File, exists: &dyn Fn(&str) -> bool) -> Vec<Remark> {
    if !file.path.ends_with(".md") {
        return Vec::new();
    }
    let broken = targets(&file.text).into_iter().filter(|target| !resolves(file, target, exists));
    broken.map(|target| Remark::Violation(format!("the link to {target} leads nowhere"))).collect()
}

fn resolves(file: &File, target: &str, exists: &dyn Fn(&str) -> bool) -> bool {
    if target.contains("://") || target.starts_with("mailto:") {
        return true;
    }
    let (path, heading) = target.split_once('#').unwrap_or((target, ""));
    if path.is_empty() {
        return headings(&file.text).any(|it| it == heading);
    }
    normalised(&file.path, path).is_some_and(|path| exists(&path))
}

/// Returns the path to which a relative link resolves, relative to the root; `None` if it is outside the
/// repository.
fn normalised(from: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = match link.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => from.split('/').rev().skip(1).collect::<Vec<_>>().into_iter().rev().collect(),
    };
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// Returns the targets of `[text](target)` and `[name]: target`, outside code.
fn targets(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        for (nth, piece) in line.split("](").enumerate().skip(1) {
            // `[a](b)` inside a code span is an example.
            let before: String = line.split("](").take(nth).collect();
            if before.matches('`').count().is_multiple_of(2)
                && let Some(end) = piece.find([')', ' '])
            {
                found.push(piece[..end].to_owned());
            }
        }
        if line.starts_with('[')
            && let Some((_, target)) = line.split_once("]: ")
        {
            found.push(target.trim().to_owned());
        }
    }
    found
}

/// Returns the lines outside fenced code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// Returns the anchors of the headings: lower case, words joined by hyphens, without punctuation.
fn headings(text: &str) -> impl Iterator<Item = String> {
    prose(text).filter(|line| line.starts_with('#')).map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        title
            .chars()
            .filter_map(|c| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || matches!(c, '-' | '_') => Some(c),
                _ => None,
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::{File, check};

    fn broken(path: &str, text: &str) -> usize {
        let file = File { path: path.to_owned(), text: text.to_owned() };
        check(&file, &|path| ["README.md", "docs/testing.md"].contains(&path)).len()
    }

    #[test]
    fn links_that_lead_somewhere() {
        assert_eq!(
            broken(
                "docs/a.md",
                "[x](testing.md) [y](../README.md#z) [z](https://go.dev)\n# A b!\n[w](#a-b)\n"
            ),
            0
        );
        assert_eq!(broken("README.md", "`[x](nowhere)`\n```\n[x](nowhere)\n```\n"), 0);
    }

    #[test]
    fn links_that_lead_nowhere() {
        assert_eq!(broken("docs/a.md", "[x](gone.md) [y](../../out.md) [z](#none)\n[r]: gone.md\n"), 4);
    }
}
