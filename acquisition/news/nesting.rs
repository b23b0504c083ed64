//! How deep HTML nests, for those who build a tree of it: their work grows with depth and length together.

use std::collections::HashMap;

/// Elements that have no end tag, or whose end tag may be left out.
const UNCLOSED: &[&str] = &[
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr", "p", "li",
    "dt", "dd", "tr", "td", "th", "thead", "tbody", "tfoot", "option", "optgroup", "colgroup", "html", "head", "body",
];

/// Counts the elements that are open. An end tag whose element is not open ends nothing, as in a browser.
#[derive(Debug, Default)]
pub(super) struct Nesting {
    open: HashMap<String, usize>,
    depth: usize,
}

impl Nesting {
    /// A start tag; answers how deep it stands.
    pub(super) fn start(&mut self, name: &str) -> usize {
        if !is_unclosed(name) {
            *self.open.entry(name.to_ascii_lowercase()).or_default() += 1;
            self.depth += 1;
        }
        self.depth
    }

    /// An end tag.
    pub(super) fn end(&mut self, name: &str) {
        if let Some(open) = self.open.get_mut(&name.to_ascii_lowercase()).filter(|open| **open > 0) {
            *open -= 1;
            self.depth -= 1;
        }
    }
}

fn is_unclosed(name: &str) -> bool {
    UNCLOSED.iter().any(|known| name.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_an_open_element_makes_it_less_deep() {
        let mut nesting = Nesting::default();
        assert_eq!([nesting.start("b"), nesting.start("P"), nesting.start("DIV")], [1, 1, 2]);
        nesting.end("i");
        nesting.end("p");
        assert_eq!(nesting.start("i"), 3);
        nesting.end("I");
        nesting.end("i");
        assert_eq!(nesting.start("i"), 3);
    }
}
