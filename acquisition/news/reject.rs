//! What a document is that is no feed.

use super::json_feed;
use super::markup::{Token, Tokens};

/// Says what a text is, and what would have been right.
pub(super) fn what_it_is(text: &str) -> String {
    let text = text.trim_start();
    let found = if text.is_empty() {
        "empty".to_owned()
    } else if text.starts_with(['{', '[']) {
        match json_feed::document(text) {
            Ok(_) => "a JSON Feed without an item that is an object".to_owned(),
            Err(reason) => format!("JSON, but no JSON Feed: {reason}"),
        }
    } else {
        by_root(text)
    };
    format!("the document is {found}; it should be RSS, Atom, RDF, CDF or JSON Feed")
}

fn by_root(text: &str) -> String {
    let root = Tokens::new(text).find_map(|(token, _)| match token {
        Token::Start { name, .. } => Some(name),
        _ => None,
    });
    match root.map(str::to_ascii_lowercase).as_deref() {
        None => "no markup at all".to_owned(),
        Some("html" | "head" | "body") => "an HTML page".to_owned(),
        Some("opml") => "a list of feeds (OPML), which `news.opml` takes".to_owned(),
        Some("rss" | "feed" | "channel") => "a feed without an entry".to_owned(),
        Some(root) => format!("markup that begins with `<{root:.40}>`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_is_no_feed_is_called_what_it_is() {
        for (text, expected) in [
            ("", "empty"),
            ("<!DOCTYPE html><HTML>", "an HTML page"),
            ("<?xml version='1.0'?><opml version='1.0'>", "a list of feeds (OPML)"),
            ("hello", "no markup at all"),
            ("<foo/>", "markup that begins with `<foo>`"),
            ("{\"a\":1}", "JSON, but no JSON Feed: its `version` is ``"),
        ] {
            assert!(what_it_is(text).starts_with(&format!("the document is {expected}")), "{}", what_it_is(text));
        }
    }
}
