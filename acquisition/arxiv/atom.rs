//! Entries of Atom: answers of the export API and arXiv's daily listings.
//!
//! Sources: <https://info.arxiv.org/help/api/user-manual.html>, <https://info.arxiv.org/help/rss.html>.

use contract::Reject;

use super::article::{Article, identifier_of, time_of};
use super::authors::Author;
use super::rss::{announcement, listed_authors};
use super::taxonomy::is_code;
use super::text::{append, mend};
use super::xml::Element;

/// Reads `<entry>`.
pub(super) fn read(entry: &Element) -> Result<Article, Reject> {
    let id = entry.text_of("id");
    if let Some(reject) = explain_error(id.as_deref(), entry) {
        return Err(reject);
    }
    let mut article = Article::new("atom", identifier_of(id.as_deref(), "id")?);
    article.title = entry.text_of("title");
    article.categories = entry.all("category").filter_map(|category| category.attribute("term")).map(mend).collect();
    for class in article.categories.iter().filter(|term| !is_code(term)) {
        let is_acm = class.starts_with(|first: char| first.is_ascii_uppercase());
        append(if is_acm { &mut article.acm_class } else { &mut article.msc_class }, class);
    }
    article.primary_category =
        entry.child("primary_category").and_then(|category| category.attribute("term")).map(mend);
    article.comments = entry.text_of("comment");
    article.license = entry.text_of("rights").or_else(|| entry.text_of("license"));
    article.journal_ref = entry.text_of("journal_ref").or_else(|| entry.text_of("journal_reference"));
    article.doi = entry.text_of("doi").or_else(|| entry.text_of("DOI"));
    article.links = entry.all("link").filter_map(|link| link.attribute("href")).map(mend).collect();
    let published = time_of(entry.text_of("published").as_deref(), "published")?;
    let updated = time_of(entry.text_of("updated").as_deref(), "updated")?;
    let summary = entry.text_of("summary");
    if let Some(kind) = entry.text_of("announce_type") {
        // A listing: its dates are those of the announcement and of the listing.
        let listed = summary.map(|summary| announcement(&summary)).unwrap_or_default();
        article.identifier.version = article.identifier.version.or(listed.version);
        article.announce_type = Some(mend(&kind));
        article.announced_at = published.or(updated);
        article.abstract_text = listed.abstract_text;
        article.authors = entry.text_of("creator").map(|line| listed_authors(&line)).unwrap_or_default();
    } else {
        article.submitted_at = published;
        article.updated_at = updated;
        article.abstract_text = summary;
        article.authors = entry.all("author").filter_map(read_author).collect();
    }
    Ok(article)
}

/// The API answers a wrong question with an entry titled `Error`.
fn explain_error(id: Option<&str>, entry: &Element) -> Option<Reject> {
    if !id?.contains("/api/errors") {
        return None;
    }
    let said = entry.text_of("summary").map(|text| mend(&text)).unwrap_or_default();
    Some(Reject::new("answer", format!("arXiv answers an error: {}", said.chars().take(200).collect::<String>())))
}

fn read_author(author: &Element) -> Option<Author> {
    let affiliations: Vec<String> = author.all("affiliation").map(|text| mend(&text.text())).collect();
    let affiliation = Some(affiliations.join("; ")).filter(|text| !text.is_empty());
    Some(Author { affiliation, ..Author::from_name(&author.text_of("name")?)? })
}
