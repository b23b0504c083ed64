//! The text of an element that may hold markup: plain, escaped HTML, inline HTML or base64, whatever its type says and
//! whatever it really is.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::feed::Text;
use super::html::looks_like_html;
use super::references::windows_1252;
use super::tree::{Element, Node};

/// What an element's text is if it does not say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Default {
    Plain,
    Html,
}

/// The text of an element. In RSS, plain text that looks like HTML is taken for it (`guess`); Atom says what it means.
pub(super) fn read(element: &Element, default: Default, guess: bool) -> Text {
    let kind = match (element.attribute("type"), default) {
        (Some(kind), _) => kind,
        (None, Default::Plain) => "text/plain",
        (None, Default::Html) => "text/html",
    };
    let kind = match kind.split(';').next().unwrap_or(kind).trim() {
        "text" | "plain" => "text/plain",
        "html" => "text/html",
        "xhtml" => "application/xhtml+xml",
        kind => kind,
    };
    let is_html = matches!(kind, "text/html" | "application/xhtml+xml");
    let is_inline = element.elements().next().is_some() && (is_html || !kind.ends_with("xml"));
    if is_inline {
        return Text { value: mended(&inner_html(element)), is_html: true };
    }
    let text = element.text();
    let is_encoded = !kind.starts_with("text/") && !kind.ends_with("+xml") && !kind.ends_with("/xml");
    let decoded = (is_encoded || element.attribute("mode") == Some("base64")).then(|| base64(&text)).flatten();
    let value = mended(&decoded.unwrap_or(text));
    // Text within XHTML that has no element is text.
    let is_html = kind == "text/html" || (guess && kind == "text/plain" && looks_like_html(&value));
    Text { value, is_html }
}

/// The text of an element that holds no markup: a link, an id, a date, a name.
/// What it holds by mistake (`<pubDate><time>…`) counts where nothing else stands in it.
pub(super) fn plain(element: &Element) -> String {
    let text = element.text();
    if !text.is_empty() {
        return mended(&text);
    }
    element.elements().map(plain).find(|text| !text.is_empty()).unwrap_or_default()
}

/// Mends what was encoded wrongly before it was written: UTF-8 taken for ISO 8859-1 or windows-1252, and windows-1252
/// taken for ISO 8859-1.
pub(super) fn mended(text: &str) -> String {
    let text = text.trim();
    if text.is_ascii() {
        return text.to_owned();
    }
    let bytes: Option<Vec<u8>> = text.chars().map(windows_1252_byte).collect();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_else(|| text.to_owned());
    text.chars().map(windows_1252).collect()
}

/// The byte that a letter is in windows-1252 or ISO 8859-1.
fn windows_1252_byte(letter: char) -> Option<u8> {
    u8::try_from(u32::from(letter)).ok().or_else(|| {
        let mut buffer = [0; 4];
        let (bytes, _, has_errors) = encoding_rs::WINDOWS_1252.encode(letter.encode_utf8(&mut buffer));
        if has_errors { None } else { bytes.first().copied() }
    })
}

/// What an element holds, as HTML: names without prefixes, text and values escaped.
fn inner_html(element: &Element) -> String {
    let mut html = String::new();
    element.children.iter().for_each(|node| write_node(node, &mut html));
    html
}

/// Recurses as deep as the tree is, which is bounded.
fn write_node(node: &Node, html: &mut String) {
    let element = match node {
        Node::Text(text) => return escape(text, html),
        Node::Element(element) => element,
    };
    let name = element.name.rsplit(':').next().unwrap_or(&element.name);
    html.push('<');
    html.push_str(name);
    for (name, value) in &element.attributes {
        html.push(' ');
        html.push_str(name);
        html.push_str("=\"");
        escape(value, html);
        html.push('"');
    }
    html.push('>');
    element.children.iter().for_each(|node| write_node(node, html));
    if !VOID.contains(&name) {
        html.push_str("</");
        html.push_str(name);
        html.push('>');
    }
}

fn escape(text: &str, html: &mut String) {
    for letter in text.chars() {
        match letter {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            letter => html.push(letter),
        }
    }
}

/// Elements of HTML that have no end tag.
const VOID: &[&str] =
    &["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"];

fn base64(text: &str) -> Option<String> {
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let letters: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
    let bytes = GeneralPurpose::new(&STANDARD, config).decode(letters).ok()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;

    fn title(document: &str) -> (String, bool) {
        let root = tree::read(document);
        let text = read(root.elements().next().unwrap(), Default::Plain, true);
        (text.value, text.is_html)
    }

    #[test]
    fn every_way_to_write_html_is_read() {
        for document in [
            "<title>Example &lt;b>Atom&lt;/b></title>",
            "<title><![CDATA[Example <b>Atom</b>]]></title>",
            "<title type='html'>Example &lt;b>Atom&lt;/b></title>",
            "<title type='application/octet-stream' mode='base64'>RXhhbXBsZSA8Yj5BdG9tPC9iPg==</title>",
            "<title>Example <b>Atom</b></title>",
            "<title type='xhtml' xmlns:h='http://www.w3.org/1999/xhtml'>Example <h:b>Atom</h:b></title>",
        ] {
            let (value, is_html) = title(document);
            assert_eq!(value, "Example <b>Atom</b>", "{document}");
            assert!(is_html || document.contains("octet"), "{document}");
        }
    }

    #[test]
    fn what_is_plain_stays_plain() {
        assert_eq!(title("<title>AT&T &lt; 3</title>"), ("AT&T < 3".to_owned(), false));
        assert_eq!(title("<title type='text'>Unix &amp; i &lt;3</title>"), ("Unix & i <3".to_owned(), false));
    }

    #[test]
    fn wrong_encodings_of_before_are_mended() {
        assert_eq!(mended("cafÃ©"), "café");
        assert_eq!(mended("Itâ€™s â€œxâ€\u{9d}"), "It’s “x”");
        assert_eq!(mended("2€ – “x”"), "2€ – “x”");
        assert_eq!(mended("\u{93}x\u{94}"), "\u{201c}x\u{201d}");
        assert_eq!(mended(" \u{151}naïve "), "\u{151}naïve");
    }
}
