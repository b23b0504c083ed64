//! Records of OAI-PMH in arXiv's formats `arXiv`, `arXivRaw` and `oai_dc`.
//!
//! Sources: <https://www.openarchives.org/OAI/openarchivesprotocol.html>, <https://info.arxiv.org/help/oa/index.html>.

use contract::Reject;

use super::article::{Article, Version, identifier_of, start_of, time_of, version_number};
use super::authors::{Author, parse_authors};
use super::identifier::Identifier;
use super::taxonomy::code_of;
use super::text::mend;
use super::xml::Element;

/// Reads `<record>`: a header, and metadata unless the record is deleted.
pub(super) fn read_record(record: &Element) -> Result<Article, Reject> {
    let Some(header) = record.child("header") else {
        return Err(Reject::new("format", "the record has no `header`"));
    };
    if header.attribute("status") == Some("deleted") {
        return read_header(header);
    }
    let identifier = header.text_of("identifier");
    let Some(metadata) = record.child("metadata").and_then(|metadata| metadata.children().next()) else {
        let name = identifier.map_or_else(|| "a record".to_owned(), |name| format!("`{}`", start_of(name.trim())));
        return Err(Reject::new("format", format!("{name} has no metadata")));
    };
    let id = metadata.text_of("id").or(identifier);
    let identifier = identifier_of(id.as_deref(), "identifier")?;
    let mut article = match metadata.name.as_str() {
        "arXiv" => read_arxiv(metadata, identifier)?,
        "arXivRaw" => read_raw(metadata, identifier)?,
        "dc" => read_dublin_core(metadata, identifier)?,
        other => {
            let expected = "`arXiv`, `arXivRaw` or `oai_dc`";
            return Err(Reject::new("format", format!("the metadata is `{}`, should be {expected}", start_of(other))));
        }
    };
    set_header(&mut article, header)?;
    Ok(article)
}

/// Reads `<header>`: all that is left of a deleted record.
pub(super) fn read_header(header: &Element) -> Result<Article, Reject> {
    let identifier = identifier_of(header.text_of("identifier").as_deref(), "identifier")?;
    if header.attribute("status") != Some("deleted") {
        return Err(Reject::new("format", format!("`{}` is a header without metadata", identifier.id)));
    }
    let mut article = Article { is_deleted: true, ..Article::new("header", identifier) };
    set_header(&mut article, header)?;
    Ok(article)
}

/// What the archive answers in place of records, as a reject.
pub(super) fn explain_error(error: &Element) -> Reject {
    let (code, said) = (error.attribute("code").unwrap_or("none"), mend(&error.text()));
    let said = if said.is_empty() { said } else { format!(": {}", said.chars().take(200).collect::<String>()) };
    Reject::new("answer", format!("the archive answers the error `{}`{said}", start_of(code)))
}

fn set_header(article: &mut Article, header: &Element) -> Result<(), Reject> {
    article.datestamp = time_of(header.text_of("datestamp").as_deref(), "datestamp")?;
    article.sets = header.all("setSpec").map(|set| mend(&set.text())).filter(|set| !set.is_empty()).collect();
    Ok(())
}

/// `arXiv`: authors in parts, the day of the first and of the newest version, no version numbers.
/// Source: <http://arxiv.org/OAI/arXiv.xsd>.
fn read_arxiv(metadata: &Element, identifier: Identifier) -> Result<Article, Reject> {
    let mut article = Article::new("arXiv", identifier);
    set_common(&mut article, metadata);
    article.submitted_at = time_of(metadata.text_of("created").as_deref(), "created")?;
    article.updated_at = time_of(metadata.text_of("updated").as_deref(), "updated")?;
    let authors = metadata.child("authors").into_iter().flat_map(|authors| authors.all("author"));
    article.authors = authors.filter_map(read_author).collect();
    Ok(article)
}

/// Names stand here as arXiv itself has split them, so no letter is changed.
fn read_author(author: &Element) -> Option<Author> {
    let part = |name| author.text_of(name).map(|text| mend(&text));
    let affiliations: Vec<String> = author.all("affiliation").map(|text| mend(&text.text())).collect();
    let author = Author {
        keyname: part("keyname").unwrap_or_default(),
        forenames: part("forenames"),
        suffix: part("suffix"),
        affiliation: Some(affiliations.join("; ")).filter(|text| !text.is_empty()),
    };
    (!author.name().is_empty()).then_some(author)
}

/// `arXivRaw`: a line of authors, and the history of versions. Source: <http://arxiv.org/OAI/arXivRaw.xsd>.
fn read_raw(metadata: &Element, identifier: Identifier) -> Result<Article, Reject> {
    let mut article = Article::new("arXivRaw", identifier);
    set_common(&mut article, metadata);
    article.submitter = metadata.text_of("submitter");
    article.authors = metadata.text_of("authors").map(|line| parse_authors(&line)).unwrap_or_default();
    article.set_versions(metadata.all("version").map(read_version).collect::<Result<_, _>>()?);
    Ok(article)
}

fn read_version(version: &Element) -> Result<Version, Reject> {
    let name = version.attribute("version").unwrap_or_default();
    let number = version_number(name)
        .ok_or_else(|| Reject::new("id", format!("`version` is `{}`, should be as `v1`", start_of(name))))?;
    Ok(Version {
        number,
        submitted_at: time_of(version.text_of("date").as_deref(), "date")?,
        size: version.text_of("size").map(|text| mend(&text)),
        source_type: version.text_of("source_type").map(|text| mend(&text)),
    })
}

fn set_common(article: &mut Article, metadata: &Element) {
    article.title = metadata.text_of("title");
    article.abstract_text = metadata.text_of("abstract");
    let categories = metadata.text_of("categories").unwrap_or_default();
    article.categories = categories.split_whitespace().map(str::to_owned).collect();
    article.comments = metadata.text_of("comments");
    article.journal_ref = metadata.text_of("journal-ref");
    article.doi = metadata.text_of("doi");
    article.report_no = metadata.text_of("report-no");
    article.msc_class = metadata.text_of("msc-class");
    article.acm_class = metadata.text_of("acm-class");
    article.proxy = metadata.text_of("proxy");
    article.license = metadata.text_of("license");
}

/// `oai_dc`, as arXiv fills it: categories by their names among the subjects, the comments after `Comment: ` in the
/// second description, page, journal and DOI among the identifiers, a date for each version.
/// Source: <http://www.openarchives.org/OAI/2.0/oai_dc.xsd>.
fn read_dublin_core(metadata: &Element, identifier: Identifier) -> Result<Article, Reject> {
    let mut article = Article::new("oai_dc", identifier);
    article.title = metadata.text_of("title");
    article.authors = metadata.all("creator").filter_map(|name| Author::from_inverted(&name.text())).collect();
    for subject in metadata.all("subject").map(|subject| mend(&subject.text())) {
        match code_of(&subject) {
            Some(code) => article.categories.push(code.to_owned()),
            // Classes of mathematics start with two digits, those of computing with a letter and a point.
            None if subject.bytes().next().is_some_and(|first| first.is_ascii_digit()) => {
                append(&mut article.msc_class, subject)
            }
            None if subject.as_bytes().get(1) == Some(&b'.') => append(&mut article.acm_class, subject),
            None => append(&mut article.msc_class, subject),
        }
    }
    for text in metadata.all("description").map(Element::text) {
        match text.trim_start().strip_prefix("Comment:") {
            Some(comments) => article.comments = Some(comments.to_owned()),
            None => article.abstract_text = article.abstract_text.or(Some(text)),
        }
    }
    for text in metadata.all("identifier").map(|text| mend(&text.text())) {
        if let Some(doi) = text.strip_prefix("doi:") {
            article.doi = Some(doi.to_owned());
        } else if text.contains("://") {
            article.links.push(text);
        } else {
            article.journal_ref = Some(text);
        }
    }
    let dates = metadata.all("date").map(|date| time_of(Some(&date.text()), "date"));
    let dates: Vec<_> = dates.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    article.submitted_at = dates.iter().min().copied();
    article.updated_at = dates.iter().max().copied().filter(|_| dates.len() > 1);
    article.license = metadata.text_of("rights");
    Ok(article)
}

fn append(list: &mut Option<String>, text: String) {
    *list = Some(match list.take() {
        Some(before) => format!("{before}; {text}"),
        None => text,
    });
}
