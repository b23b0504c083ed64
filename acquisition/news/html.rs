//! HTML: to clean text, and to HTML that is safe to show.

use std::collections::HashSet;
use std::sync::LazyLock;

use ammonia::{Builder, UrlRelative};
use url::Url;

use super::markup::{Token, Tokens};
use super::nesting::Nesting;
use super::references::{Entities, decode};

/// Bytes of HTML that are cleaned; of more only the text is taken. The longest articles seen have 200 kB; the cost of the
/// tree that is built grows faster than they do.
const HTML_BYTES_MAX: usize = 256 << 10;

/// Elements inside each other in HTML that is cleaned: a tree is built of it, and deep ones cost more than their length.
const HTML_DEPTH_MAX: usize = 200;

/// The text of HTML as a reader sees it: blocks and breaks on lines of their own, white space otherwise one blank,
/// scripts and styles gone, references decoded.
pub(super) fn to_text(html: &str) -> String {
    let mut text = String::with_capacity(html.len() / 2);
    let mut tokens = Tokens::new(html);
    let entities = Entities::default();
    while let Some((token, _)) = tokens.next() {
        match token {
            Token::Text(raw) => push_words(&decode(raw, &entities), &mut text),
            Token::Cdata(raw) => push_words(raw, &mut text),
            Token::Start { name, is_empty, .. } => {
                if let Some(hidden) = HIDDEN.iter().find(|hidden| hidden.eq_ignore_ascii_case(name))
                    && !is_empty
                {
                    tokens.skip_raw(hidden);
                }
                break_line(name, &mut text);
            }
            Token::End { name } => break_line(name, &mut text),
            Token::Doctype(_) | Token::Other => {}
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// One line: every run of white space is one blank.
pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Plain text with its lines, without blanks around them and without empty ones.
pub(super) fn clean_lines(text: &str) -> String {
    let lines = text.lines().map(one_line).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("\n")
}

/// HTML without scripts, styles, forms, frames, event handlers and addresses of other schemes; relative addresses made
/// absolute where there is a base. None where it is too large or too deep, or nothing is left.
pub(super) fn to_safe_html(html: &str, base: Option<&Url>) -> Option<String> {
    if html.len() > HTML_BYTES_MAX || depth(html) > HTML_DEPTH_MAX {
        return None;
    }
    static PLAIN: LazyLock<Builder<'static>> = LazyLock::new(Builder::default);
    let safe = match base {
        None => PLAIN.clean(html).to_string(),
        Some(base) => {
            let mut builder = Builder::default();
            builder.url_relative(UrlRelative::RewriteWithBase(base.clone()));
            builder.clean(html).to_string()
        }
    };
    let safe = safe.trim();
    (!safe.is_empty()).then(|| safe.to_owned())
}

/// Whether plain text is HTML after all: it has an end tag or a reference, all its tags are HTML's, and all its named
/// references are known. False positives lose text, so it errs towards plain.
pub(super) fn looks_like_html(text: &str) -> bool {
    if !text.contains("</") && !text.contains('&') {
        return false;
    }
    let mut has_end_or_reference = false;
    for (place, _) in text.match_indices('<') {
        let (is_end, rest) = match text[place + 1..].strip_prefix('/') {
            Some(rest) => (true, rest),
            None => (false, &text[place + 1..]),
        };
        let name = word(rest);
        if !name.is_empty() && !ELEMENTS.contains(name.to_ascii_lowercase().as_str()) {
            return false;
        }
        has_end_or_reference |= is_end && !name.is_empty() && rest[name.len()..].starts_with('>');
    }
    for (place, _) in text.match_indices('&') {
        let name = word(text[place + 1..].trim_start_matches('#'));
        let end = place + 1 + usize::from(text[place + 1..].starts_with('#')) + name.len();
        if name.is_empty() || !text.get(end..).is_some_and(|rest| rest.starts_with(';')) {
            continue;
        }
        let is_known =
            text[place + 1..].starts_with('#') || decode(&text[place..=end], &Entities::default()) != text[place..=end];
        if !is_known {
            return false;
        }
        has_end_or_reference = true;
    }
    has_end_or_reference
}

fn word(text: &str) -> &str {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    &text[..text.find(|letter| !is_word(letter)).unwrap_or(text.len())]
}

fn push_words(raw: &str, text: &mut String) {
    let mut words = raw.split_whitespace();
    let is_at_start = text.is_empty() || text.ends_with(['\n', ' ']);
    if raw.starts_with(char::is_whitespace) && !is_at_start {
        text.push(' ');
    }
    if let Some(first) = words.next() {
        text.push_str(first);
        words.for_each(|word| text.extend([" ", word]));
        if raw.ends_with(char::is_whitespace) {
            text.push(' ');
        }
    }
}

fn break_line(name: &str, text: &mut String) {
    if BLOCKS.iter().any(|block| block.eq_ignore_ascii_case(name)) {
        text.truncate(text.trim_end_matches(' ').len());
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
    }
}

/// How deep HTML nests at the most.
fn depth(html: &str) -> usize {
    let (mut nesting, mut deepest) = (Nesting::default(), 0);
    for (token, _) in Tokens::new(html) {
        match token {
            Token::Start { is_empty: false, name, .. } => deepest = deepest.max(nesting.start(name)),
            Token::End { name } => nesting.end(name),
            _ => {}
        }
    }
    deepest
}

/// What is not shown, and holds no markup.
const HIDDEN: &[&str] = &["script", "style", "template"];

/// Elements that stand on lines of their own.
const BLOCKS: &[&str] = &[
    "address",
    "article",
    "aside",
    "blockquote",
    "br",
    "caption",
    "center",
    "dd",
    "details",
    "div",
    "dl",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
    "li",
    "main",
    "nav",
    "ol",
    "p",
    "pre",
    "section",
    "summary",
    "table",
    "td",
    "th",
    "tr",
    "ul",
];

/// Elements of HTML, also of its past.
static ELEMENTS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    let names = "a abbr acronym address area article aside audio b bdi bdo big blockquote br button canvas caption center cite \
        code col colgroup command datagrid datalist dd del details dfn dialog dir div dl dt em event-source fieldset \
        figcaption figure font footer form h1 h2 h3 h4 h5 h6 header hr i img input ins kbd keygen label legend li m main \
        map mark menu meter multicol nav nextid nobr noscript ol optgroup option output p pre progress q rp rt ruby s samp \
        section select small sound source spacer span strike strong sub summary sup table tbody td textarea tfoot th thead \
        time tr tt u ul var video wbr";
    names.split_whitespace().collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_what_a_reader_sees() {
        let html = "<p>One &amp; <b>two</b>\n  three<script>x<y</script></p><ul><li>a<li>b</ul>c<br>d <!-- no -->e";
        assert_eq!(to_text(html), "One & two three\na\nb\nc\nd e");
        assert_eq!(to_text("a<b>b</b> <i>c</i>&nbsp;d"), "ab c d");
        assert_eq!(to_text("1 < 2 & 3"), "1 < 2 & 3");
        assert_eq!(clean_lines(" a \r\n\r\n  b\tc "), "a\nb c");
    }

    #[test]
    fn what_is_dangerous_is_gone_and_links_are_absolute() {
        let base = Url::parse("http://example.org/a/b").unwrap();
        let html =
            "<p onclick='x()'>a<script>x</script><a href='../c'>c</a><a href='javascript:x'>d</a><img src=e.png></p>";
        let safe = to_safe_html(html, Some(&base)).unwrap();
        assert!(!safe.contains("onclick") && !safe.contains("script"), "{safe}");
        assert!(
            safe.contains(r#"href="http://example.org/c""#) && safe.contains(r#"src="http://example.org/a/e.png""#)
        );
        assert_eq!(to_safe_html("<script>x</script>", None), None);
        assert_eq!(to_safe_html(&"<div>".repeat(1_000), None), None);
        assert_eq!(to_safe_html(&"<b></i>".repeat(1_000), None), None, "an end that ends nothing");
        assert!(to_safe_html(&"<p>text<br>".repeat(1_000), None).is_some());
    }

    #[test]
    fn html_in_plain_text_is_told_from_text() {
        for html in ["a <b>b</b>", "A &amp; B", "&#233;", "<p>x</p>"] {
            assert!(looks_like_html(html), "{html}");
        }
        for plain in
            ["a < b", "AT&T", "<b>", "Use </foo>", "<vector> of <b>x</b>", "a &unknown; b", "R&D; </b", "1 </ 2"]
        {
            assert!(!looks_like_html(plain), "{plain}");
        }
    }
}
