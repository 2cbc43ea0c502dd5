//! Function names as Go prints them.
//!
//! Follows funcNamePiecesForPrint of <https://github.com/golang/go/blob/go1.24.11/src/runtime/traceback.go>;
//! since 1.27 a generic method of a generic type has two bracket groups. Up to 1.20 the linker already elides
//! type arguments.

use std::borrow::Cow;

/// Elides the type arguments of `name`: `main.f[go.shape.int].func1` → `main.f[...].func1`. `two_groups`: the
/// release supports generic methods (1.27).
pub(super) fn for_print(name: &str, two_groups: bool) -> Cow<'_, str> {
    let (Some(i), Some(j)) = (name.find('['), name.rfind(']')) else { return Cow::Borrowed(name) };
    if j <= i {
        return Cow::Borrowed(name);
    }
    let (before, inside, after) = (&name[..i], &name[i + 1..j], &name[j + 1..]);
    if inside == "..." {
        return Cow::Borrowed(name);
    }
    if !two_groups || !inside.contains('[') {
        return Cow::Owned(format!("{before}[...]{after}"));
    }
    match split_groups(inside) {
        Groups::One => Cow::Owned(format!("{before}[...]{after}")),
        Groups::Two(middle) => Cow::Owned(format!("{before}[...]{middle}[...]{after}")),
        Groups::Unbalanced => Cow::Borrowed(name),
    }
}

enum Groups<'a> {
    One,
    /// Text between the two groups.
    Two(&'a str),
    Unbalanced,
}

/// Splits `inside`, the text within the outermost brackets: it is one group, or has the form `…]between[…`.
fn split_groups(inside: &str) -> Groups<'_> {
    let mut depth = 1;
    let mut close = None;
    for (k, c) in inside.bytes().enumerate() {
        match c {
            b'[' => {
                depth += 1;
                if depth == 1 {
                    return match close {
                        Some(close) => Groups::Two(&inside[close + 1..k]),
                        None => Groups::Unbalanced,
                    };
                }
            }
            b']' => {
                depth -= 1;
                if depth < 0 {
                    return Groups::Unbalanced;
                }
                if depth == 0 {
                    close = Some(k);
                }
            }
            _ => {}
        }
    }
    if depth == 1 && close.is_none() { Groups::One } else { Groups::Unbalanced }
}

#[cfg(test)]
mod tests {
    use super::for_print;

    #[test]
    fn type_arguments_are_elided() {
        assert_eq!(for_print("main.main", true), "main.main");
        assert_eq!(for_print("main.f[go.shape.int].func1", false), "main.f[...].func1");
        assert_eq!(for_print("main.f[go.shape.[]int]", true), "main.f[...]");
        assert_eq!(for_print("main.(*T[int]).M[go.shape.string]", true), "main.(*T[...]).M[...]");
        assert_eq!(for_print("main.(*T[int]).M[go.shape.string].f", false), "main.(*T[...].f");
        assert_eq!(for_print("main.(*T[[]int]).M[[2]string].func1", true), "main.(*T[...]).M[...].func1");
    }

    #[test]
    fn unbalanced_brackets_do_no_harm() {
        for odd in ["a]b[c", "[", "]", "", "a[b]]c]", "a[[b]", "é[ü]ß[ö]"] {
            let _ = for_print(odd, true);
            let _ = for_print(odd, false);
        }
        assert_eq!(for_print("a[b]]c[d]", true), "a[b]]c[d]");
        assert_eq!(for_print("a]b[c", true), "a]b[c");
    }
}
