//! The header `Link`: <https://www.rfc-editor.org/rfc/rfc8288#section-3>. WebSub (section 4 of its specification) has a
//! feed name its hub and itself there, before what its document says.

use reqwest::Url;
use reqwest::header::{HeaderMap, LINK};

use super::feed::Feed;

/// Links of one answer that are looked at.
const LINKS_MAX: usize = 100;

/// Puts the hub and the address that the headers name before those of the document.
pub(super) fn add_links(headers: &HeaderMap, answered_by: &Url, feed: &mut Feed) {
    let values = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    let links: Vec<(&str, String)> = values.flat_map(links).take(LINKS_MAX).collect();
    let named = |relation: &str| {
        let is_named =
            |(_, relations): &&(&str, String)| relations.split_ascii_whitespace().any(|name| name == relation);
        links.iter().filter(is_named).filter_map(|(target, _)| answered_by.join(target).ok()).map(String::from).next()
    };
    feed.hubs.splice(..0, named("hub"));
    feed.self_link = named("self").or(feed.self_link.take());
}

/// The targets of a header's value, each with its relations in lower case.
fn links(value: &str) -> impl Iterator<Item = (&str, String)> {
    let mut rest = value;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once('<')?;
        let (target, after) = after.split_once('>')?;
        let end = end_of_link(after);
        rest = &after[end..];
        let mut parameters = after[..end].split(';').filter_map(|part| part.split_once('='));
        let relation = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("rel"));
        let relation = relation.map(|(_, value)| value.trim().trim_matches('"').to_ascii_lowercase());
        Some((target.trim(), relation.unwrap_or_default()))
    })
}

/// Where the comma stands that ends a link: not one within quotes.
fn end_of_link(text: &str) -> usize {
    let mut is_quoted = false;
    let is_end = |(_, byte): &(usize, u8)| {
        is_quoted ^= *byte == b'"';
        *byte == b',' && !is_quoted
    };
    text.bytes().enumerate().find(is_end).map_or(text.len(), |(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(value: &str) -> (Vec<String>, Option<String>) {
        let headers = [(LINK, value.parse().unwrap())].into_iter().collect();
        let mut feed = Feed { hubs: vec!["https://old.example/".to_owned()], ..Feed::default() };
        add_links(&headers, &Url::parse("https://a.example/blog/feed").unwrap(), &mut feed);
        (feed.hubs, feed.self_link)
    }

    #[test]
    fn the_hub_and_the_topic_of_the_header_come_first() {
        let (hubs, topic) = found("<https://hub.example/>; rel=\"hub\", <feed?a=1,2>; title=\"a, b\"; REL=self");
        assert_eq!(hubs, ["https://hub.example/", "https://old.example/"]);
        assert_eq!(topic.as_deref(), Some("https://a.example/blog/feed?a=1,2"));
        let (hubs, topic) = found("</x>; rel=\"next prev\", <nothing, <>, rel=hub");
        assert_eq!((hubs.len(), topic), (1, None));
    }
}
