//! Highlighting: the fragments of a text that hold what the query looked for.
//! Source: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/highlighting.html>.
//!
//! A word is marked when it is a word of the query, or fits one of its prefixes or wildcards; regular expressions
//! and fuzzy words are not marked, and the words of a phrase are marked one by one.

use std::collections::HashSet;
use std::ops::Range;

use contract::{Column, Kind, Search};
use serde_json::{Map, Value};

use super::ast::{Leaf, Node, Pattern, Target, Test};
use super::compile_leaf::words;
use super::error::{Result, illegal, parsing};
use super::json::Object;
use super::pattern::{fits, name_fits};
use super::source_filter::values_of;
use crate::fields::Fields;

/// Bytes of a text that are looked at: Elasticsearch's `index.highlight.max_analyzed_offset`.
const TEXT_BYTES_MAX: usize = 1_000_000;

/// What to highlight and how.
#[derive(Clone, Debug)]
pub(super) struct Highlight {
    /// Names or patterns, in order.
    columns: Vec<(String, Style)>,
}

#[derive(Clone, Debug)]
struct Style {
    pre: String,
    post: String,
    fragment_bytes: usize,
    /// Zero is the whole text.
    fragments: usize,
    no_match_bytes: usize,
    require_field_match: bool,
    best_first: bool,
    as_html: bool,
}

const STYLE_KEYS: &[&str] = &[
    "pre_tags",
    "post_tags",
    "fragment_size",
    "number_of_fragments",
    "no_match_size",
    "require_field_match",
    "order",
    "encoder",
    "type",
];

impl Highlight {
    /// Reads `highlight`.
    pub(super) fn parse(body: &Value) -> Result<Self> {
        let known: Vec<_> = STYLE_KEYS.iter().copied().chain(["fields"]).collect();
        let object = Object::new("highlight", body, &known)?;
        let base = Style {
            pre: "<em>".to_owned(),
            post: "</em>".to_owned(),
            fragment_bytes: 100,
            fragments: 5,
            no_match_bytes: 0,
            require_field_match: true,
            best_first: false,
            as_html: false,
        };
        let base = base.with(object)?;
        let mut columns = Vec::new();
        let mut add = |fields: &Value| -> Result<()> {
            for (name, body) in Object::open("highlight fields", fields)?.map {
                columns.push((name.clone(), base.clone().with(Object::new(name, body, STYLE_KEYS)?)?));
            }
            Ok(())
        };
        match object.need("fields")? {
            Value::Array(items) => items.iter().try_for_each(&mut add)?,
            fields => add(fields)?,
        }
        Ok(Self { columns })
    }

    /// The highlights of a row: columns with fragments only.
    pub(super) fn apply(&self, query: &Node, fields: &Fields, row: &Map<String, Value>) -> Map<String, Value> {
        let mut shown = Map::new();
        for (pattern, style) in &self.columns {
            for (column, _) in &fields.columns {
                let is_text = matches!(column.kind, Kind::Text | Kind::TextList);
                if !is_text || !name_fits(pattern, column.name) || shown.contains_key(column.name) {
                    continue;
                }
                let mut wanted = Wanted::default();
                wanted.add(query, column, style.require_field_match);
                let texts: Vec<&str> = values_of(row, column.name).into_iter().filter_map(Value::as_str).collect();
                let fragments = style.fragments_of(&texts, column, &wanted);
                if !fragments.is_empty() {
                    shown.insert(column.name.to_owned(), fragments.into());
                }
            }
        }
        shown
    }
}

/// What of a column the query looked for.
#[derive(Default)]
struct Wanted {
    terms: HashSet<String>,
    patterns: Vec<Pattern>,
}

impl Wanted {
    fn add(&mut self, node: &Node, column: &Column, only_its_own: bool) {
        match node {
            Node::Bool(node) => {
                let parts = node.must.iter().chain(&node.should).chain(&node.filter);
                parts.for_each(|part| self.add(part, column, only_its_own));
            }
            Node::DisMax { nodes, .. } => nodes.iter().for_each(|part| self.add(part, column, only_its_own)),
            Node::Constant(inner) | Node::Boost(inner, _) => self.add(inner, column, only_its_own),
            Node::Leaf(leaf) if !only_its_own || aims_at(&leaf.target, column) => self.add_leaf(leaf, column),
            Node::All | Node::None | Node::Ids(_) | Node::Leaf(_) => {}
        }
    }

    fn add_leaf(&mut self, leaf: &Leaf, column: &Column) {
        let is_words = column.search == Search::Words;
        match &leaf.test {
            Test::Term { value, .. } => {
                self.terms.insert(value.text());
            }
            Test::Terms(values) => self.terms.extend(values.iter().map(super::ast::Scalar::text)),
            Test::Match { text, .. } | Test::Phrase { text, .. } if !is_words => {
                self.terms.insert(text.text());
            }
            Test::Match { text, .. } => self.terms.extend(words(&text.text()).into_iter().map(|(_, word)| word)),
            Test::Phrase { text, prefix, .. } => {
                let mut words: Vec<_> = words(&text.text()).into_iter().map(|(_, word)| word).collect();
                if *prefix {
                    self.patterns.extend(words.pop().map(Pattern::Prefix));
                }
                self.terms.extend(words);
            }
            Test::Pattern { pattern, normalize, .. } => self.patterns.push(match pattern {
                Pattern::Prefix(text) if *normalize && is_words => Pattern::Prefix(text.to_lowercase()),
                Pattern::Wildcard(text) if *normalize && is_words => Pattern::Wildcard(text.to_lowercase()),
                other => other.clone(),
            }),
            Test::Range(_) | Test::Exists | Test::Fuzzy { .. } => {}
        }
    }

    fn has(&self, word: &str) -> bool {
        self.terms.contains(word) || self.patterns.iter().any(|pattern| fits(pattern, word))
    }
}

fn aims_at(target: &Target, column: &Column) -> bool {
    match target {
        Target::One(name) => name == column.name,
        Target::Many { fields, .. } => fields.iter().any(|(name, _)| name_fits(name, column.name)),
        Target::Default => true,
    }
}

impl Style {
    fn with(mut self, object: Object<'_>) -> Result<Self> {
        let first = |key: &str| Ok(object.texts(key)?.into_iter().next());
        self.pre = first("pre_tags")?.unwrap_or(self.pre);
        self.post = first("post_tags")?.unwrap_or(self.post);
        let count =
            |key: &str, now: usize| Ok(object.count(key, TEXT_BYTES_MAX as u64)?.map_or(now, |count| count as usize));
        self.fragment_bytes = count("fragment_size", self.fragment_bytes)?.max(1);
        self.fragments = count("number_of_fragments", self.fragments)?;
        self.no_match_bytes = count("no_match_size", self.no_match_bytes)?;
        self.require_field_match = object.boolean("require_field_match")?.unwrap_or(self.require_field_match);
        match object.text("type")? {
            None | Some("unified" | "plain") => {}
            Some(other) => {
                return Err(illegal(format!("unknown highlighter type [{other}]; supported are [unified, plain]")));
            }
        }
        self.best_first = match object.text("order")? {
            None => self.best_first,
            Some("score") => true,
            Some("none") => false,
            Some(other) => return Err(parsing(format!("[highlight] [order] takes [score] or [none], not [{other}]"))),
        };
        self.as_html = match object.text("encoder")? {
            None => self.as_html,
            Some("html") => true,
            Some("default") => false,
            Some(other) => {
                return Err(parsing(format!("[highlight] [encoder] takes [default] or [html], not [{other}]")));
            }
        };
        Ok(self)
    }

    fn fragments_of(&self, texts: &[&str], column: &Column, wanted: &Wanted) -> Vec<String> {
        let mut found: Vec<(usize, String)> = Vec::new();
        for text in texts {
            let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
            let marks = marks(text, column, wanted);
            if self.fragments == 0 || column.search == Search::Exact {
                if !marks.is_empty() {
                    found.push((marks.len(), self.marked(text, 0..text.len(), &marks)));
                }
                continue;
            }
            for window in self.windows(text) {
                let inside: Vec<_> = marks.iter().filter(|mark| window.contains(&mark.start)).cloned().collect();
                if !inside.is_empty() {
                    found.push((inside.len(), self.marked(text, window, &inside)));
                }
            }
        }
        if found.is_empty()
            && self.no_match_bytes > 0
            && let Some(text) = texts.first()
        {
            let end = text.floor_char_boundary(self.no_match_bytes.min(text.len()));
            return vec![self.marked(text, 0..end, &[])];
        }
        if self.fragments > 0 && found.len() > self.fragments {
            // The best, and of equally good ones the first, in the order of the text.
            let mut order: Vec<usize> = (0..found.len()).collect();
            order.sort_by_key(|place| std::cmp::Reverse(found[*place].0));
            let kept: HashSet<usize> = order.into_iter().take(self.fragments).collect();
            let mut place = 0..;
            found.retain(|_| place.next().is_some_and(|place| kept.contains(&place)));
        }
        if self.best_first {
            found.sort_by_key(|(marks, _)| std::cmp::Reverse(*marks));
        }
        found.into_iter().map(|(_, fragment)| fragment).collect()
    }

    /// The text cut into pieces of about the wanted size, at spaces.
    fn windows(&self, text: &str) -> Vec<Range<usize>> {
        let mut windows = Vec::new();
        let mut start = 0;
        while start < text.len() {
            let wanted = text.ceil_char_boundary((start + self.fragment_bytes).min(text.len()));
            let end = text[wanted..].find(char::is_whitespace).map_or(text.len(), |space| wanted + space);
            windows.push(start..start + text[start..end].trim_end().len());
            start = end + text[end..].len() - text[end..].trim_start().len();
        }
        windows
    }

    fn marked(&self, text: &str, window: Range<usize>, marks: &[Range<usize>]) -> String {
        let mut out = String::new();
        let mut place = window.start;
        for mark in marks {
            self.push(&mut out, &text[place..mark.start]);
            out.push_str(&self.pre);
            self.push(&mut out, &text[mark.clone()]);
            out.push_str(&self.post);
            place = mark.end;
        }
        self.push(&mut out, &text[place..window.end.max(place)]);
        out
    }

    fn push(&self, out: &mut String, text: &str) {
        if !self.as_html {
            return out.push_str(text);
        }
        for letter in text.chars() {
            match letter {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '"' => out.push_str("&quot;"),
                '\'' => out.push_str("&#x27;"),
                '/' => out.push_str("&#x2F;"),
                other => out.push(other),
            }
        }
    }
}

/// The places of the wanted words.
fn marks(text: &str, column: &Column, wanted: &Wanted) -> Vec<Range<usize>> {
    if column.search == Search::Exact {
        return std::iter::once(0..text.len()).filter(|_| wanted.has(text)).collect();
    }
    let mut analyser = crate::fields::standard();
    let mut stream = analyser.token_stream(text);
    let mut marks = Vec::new();
    stream.process(&mut |token| {
        if wanted.has(&token.text) {
            marks.push(token.offset_from..token.offset_to);
        }
    });
    marks
}
