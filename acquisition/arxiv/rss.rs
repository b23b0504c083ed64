//! Items of arXiv's daily listings: RSS 2.0 as it is today, and RSS 1.0 as it was until 2024.
//!
//! Source: <https://info.arxiv.org/help/rss.html>.

use contract::Reject;

use super::article::{Article, identifier_of, time_of};
use super::authors::{Author, parse_authors};
use super::identifier::Identifier;
use super::text::mend;
use super::xml::Element;

/// What the description of a listed paper starts with.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Announcement {
    pub(super) version: Option<u32>,
    pub(super) kind: Option<String>,
    pub(super) abstract_text: Option<String>,
}

/// Reads `<item>`.
pub(super) fn read(item: &Element) -> Result<Article, Reject> {
    let address =
        item.text_of("guid").filter(|guid| Identifier::parse(guid).is_some()).or_else(|| item.text_of("link"));
    let address = address.or_else(|| item.attribute("about").map(str::to_owned));
    let mut article = Article::new("rss", identifier_of(address.as_deref(), "link")?);
    let listed = item.text_of("description").map(|text| announcement(&text)).unwrap_or_default();
    let titled = item.text_of("title").map(|title| split_title(&title)).unwrap_or_default();
    article.identifier.version = article.identifier.version.or(listed.version).or(titled.version);
    article.title = titled.title;
    article.abstract_text = listed.abstract_text;
    article.announce_type =
        item.text_of("announce_type").map(|kind| mend(&kind)).or(listed.kind).or(titled.kind.map(str::to_owned));
    article.announced_at = time_of(item.text_of("pubDate").or_else(|| item.text_of("date")).as_deref(), "pubDate")?;
    article.categories = item.all("category").map(|category| mend(&category.text())).collect();
    if article.categories.is_empty() {
        article.categories.extend(titled.category);
    }
    article.license = item.text_of("rights");
    article.doi = item.text_of("DOI").or_else(|| item.text_of("doi"));
    article.journal_ref = item.text_of("journal_reference");
    article.links = item.text_of("link").map(|link| mend(&link)).into_iter().collect();
    article.authors = item.text_of("creator").map(|line| listed_authors(&line)).unwrap_or_default();
    Ok(article)
}

/// Reads `arXiv:2509.13332v1 Announce Type: new` and the abstract after it; in RSS 1.0 there is the abstract alone, as
/// HTML.
pub(super) fn announcement(description: &str) -> Announcement {
    let text = description.trim();
    let Some(rest) = text.strip_prefix("arXiv:") else {
        return Announcement { abstract_text: Some(without_tags(text)), ..Announcement::default() };
    };
    let (name, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let (kind, rest) = match rest.trim_start().strip_prefix("Announce Type:") {
        Some(rest) => {
            let (kind, rest) = rest.trim_start().split_once(char::is_whitespace).unwrap_or((rest.trim(), ""));
            (Some(kind.to_owned()), rest)
        }
        None => (None, rest),
    };
    let rest = rest.trim_start();
    Announcement {
        version: Identifier::parse(name).and_then(|identifier| identifier.version),
        kind: kind.filter(|kind| !kind.is_empty()),
        abstract_text: Some(rest.strip_prefix("Abstract:").unwrap_or(rest).to_owned()),
    }
}

/// The authors of a listing: a line of names, each of them a link in RSS 1.0.
pub(super) fn listed_authors(line: &str) -> Vec<Author> {
    parse_authors(&without_tags(line))
}

#[derive(Debug, Default)]
struct Titled {
    title: Option<String>,
    version: Option<u32>,
    category: Option<String>,
    kind: Option<&'static str>,
}

/// Splits `Title. (arXiv:1805.08875v1 [hep-ex] UPDATED)`, as titles stood in RSS 1.0.
fn split_title(title: &str) -> Titled {
    let whole = || Titled { title: Some(title.to_owned()), ..Titled::default() };
    let Some((before, rest)) = title.trim_end().strip_suffix(')').and_then(|text| text.rsplit_once(" (arXiv:")) else {
        return whole();
    };
    let mut words = rest.splitn(3, ' ');
    let Some(identifier) = words.next().and_then(Identifier::parse) else { return whole() };
    let category = words.next().and_then(|word| word.strip_prefix('[')?.strip_suffix(']')).map(str::to_owned);
    let kind = match words.next() {
        Some("UPDATED") => "replace",
        Some("CROSS LISTED") => "cross",
        Some("UPDATED, CROSS LISTED") => "replace-cross",
        _ => "new",
    };
    let title = before.strip_suffix('.').unwrap_or(before).to_owned();
    Titled { title: Some(title), version: identifier.version, category, kind: Some(kind) }
}

/// The text of a piece of HTML: tags left out, the entities inside resolved.
fn without_tags(html: &str) -> String {
    let mut text = String::with_capacity(html.len());
    let (mut rest, mut may_end) = (html, true);
    while let Some(start) = rest.find('<') {
        let is_tag = rest[start + 1..].starts_with(|next: char| next.is_ascii_alphabetic() || next == '/');
        let end = if is_tag && may_end { rest[start..].find('>') } else { None };
        // Where none ends here, none ends further on.
        may_end &= end.is_some() || !is_tag;
        match end {
            Some(length) => {
                text.push_str(&rest[..start]);
                rest = &rest[start + length + 1..];
            }
            None => {
                text.push_str(&rest[..=start]);
                rest = &rest[start + 1..];
            }
        }
    }
    text.push_str(rest);
    quick_xml::escape::unescape_with(&text, quick_xml::escape::resolve_html5_entity)
        .map(|unescaped| unescaped.into_owned())
        .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_is_taken_apart() {
        let listed = announcement("arXiv:2509.13332v2 Announce Type: replace-cross \nAbstract: As models grow");
        assert_eq!((listed.version, listed.kind.as_deref()), (Some(2), Some("replace-cross")));
        assert_eq!(listed.abstract_text.as_deref(), Some(" As models grow"));
        let plain = announcement("<p>2.6&lt;\\eta<4 and a <b>mass</b>\n</p>");
        assert_eq!(plain.abstract_text.as_deref(), Some("2.6<\\eta<4 and a mass\n"));
        assert_eq!(announcement("arXiv:").version, None);
        let endless = "<a".repeat(4 << 20);
        assert_eq!(without_tags(&endless), endless);
    }

    #[test]
    fn a_title_with_its_identifier_is_taken_apart() {
        let titled = split_title("New Perspective (on) Mesons. (arXiv:1805.06430v2 [nucl-th] UPDATED)");
        assert_eq!(titled.title.as_deref(), Some("New Perspective (on) Mesons"));
        assert_eq!(
            (titled.version, titled.kind, titled.category.as_deref()),
            (Some(2), Some("replace"), Some("nucl-th"))
        );
        assert_eq!(split_title("Plain (arXiv:x)").title.as_deref(), Some("Plain (arXiv:x)"));
    }
}
