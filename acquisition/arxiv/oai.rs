//! Records of OAI-PMH in arXiv's formats `arXiv`, `arXivRaw` and `oai_dc`.
//!
//! Sources: <https://www.openarchives.org/OAI/openarchivesprotocol.html>, <https://info.arxiv.org/help/oa/index.html>.

use contract::Reject;

use super::article::{Article, Version, identifier_of, start_of, time_of, version_number};
use super::authors::{Author, parse_authors};
use super::identifier::{Identifier, strip_prefix};
use super::taxonomy::categories_of;
use super::text::{append, mend};
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
        "dc" => read_dublin_core(metadata, identifier, &sets_of(header))?,
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
    article.sets = sets_of(header);
    Ok(())
}

fn sets_of(header: &Element) -> Vec<String> {
    header.all("setSpec").map(|set| mend(&set.text())).filter(|set| !set.is_empty()).collect()
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

/// Names stand here as arXiv itself has split them.
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

/// `oai_dc`, as arXiv fills it: categories by their names among the subjects, the comments in the second description
/// (until 2025 after `Comment: `), page, journal and DOI among the identifiers, a date for the first and for the newest
/// version. Sources: <http://www.openarchives.org/OAI/2.0/oai_dc.xsd>,
/// <https://github.com/arXiv/oaipmh/blob/develop/oaipmh/templates/record_formats.xml>.
fn read_dublin_core(metadata: &Element, identifier: Identifier, sets: &[String]) -> Result<Article, Reject> {
    let mut article = Article::new("oai_dc", identifier);
    article.title = metadata.text_of("title");
    article.authors = metadata.all("creator").filter_map(|name| Author::from_inverted(&name.text())).collect();
    let subjects = metadata.all("subject").map(|subject| mend(&subject.text())).collect();
    let (categories, others) = categories_of(sets, subjects);
    article.categories = categories;
    for subject in others {
        // Classes of mathematics start with two digits, those of computing with a letter and a point.
        let is_acm = subject.as_bytes().get(1) == Some(&b'.');
        append(if is_acm { &mut article.acm_class } else { &mut article.msc_class }, &subject);
    }
    for text in metadata.all("description").map(Element::text).filter(|text| !text.trim().is_empty()) {
        match text.trim_start().strip_prefix("Comment:") {
            Some(comments) => append(&mut article.comments, comments),
            None if article.abstract_text.is_none() => article.abstract_text = Some(text),
            None => append(&mut article.comments, &text),
        }
    }
    for text in metadata.all("identifier").map(|text| mend(&text.text())).filter(|text| !text.is_empty()) {
        if let Some(doi) = strip_prefix(&text, "doi:") {
            // As where authors give several in one field.
            let known = article.doi.get_or_insert_default();
            known.extend([if known.is_empty() { "" } else { " " }, doi.trim()]);
        } else if text.contains("://") {
            article.links.push(text);
        } else {
            append(&mut article.journal_ref, &text);
        }
    }
    let dates = metadata.all("date").map(|date| time_of(Some(&date.text()), "date"));
    let dates: Vec<_> = dates.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    article.submitted_at = dates.iter().min().copied();
    article.updated_at = dates.iter().max().copied().filter(|_| dates.len() > 1);
    article.license = metadata.text_of("rights");
    Ok(article)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dublin_core(header: &str, dc: &str) -> Article {
        let record = format!(
            "<record><header><identifier>oai:arXiv.org:2601.00001</identifier>{header}</header>\
             <metadata><oai_dc:dc>{dc}</oai_dc:dc></metadata></record>"
        );
        read_record(&Element::parse(&record).unwrap()).unwrap()
    }

    #[test]
    fn dublin_core_as_it_is_written_since_2025_is_understood() {
        let sets = "<setSpec>cs:cs:CL</setSpec><setSpec>eess:eess:SY</setSpec><setSpec>cs:cs:SY</setSpec>\
                    <setSpec>physics:hep-th</setSpec><setSpec>physics:cond-mat:supr-con</setSpec>";
        let article = dublin_core(
            sets,
            "<dc:creator>Rodrigues Jr, Waldyr A.</dc:creator><dc:subject>Computation and Language</dc:subject>\
             <dc:subject>Systems and Control</dc:subject><dc:subject>High Energy Physics - Theory</dc:subject>\
             <dc:subject>Superconductivity</dc:subject><dc:subject>68T50 (Primary)</dc:subject>\
             <dc:subject>I.2.7</dc:subject><dc:description>About. </dc:description>\
             <dc:description>12 pages</dc:description><dc:identifier>http://arxiv.org/abs/2601.00001</dc:identifier>\
             <dc:identifier>J. Made 1</dc:identifier><dc:identifier>doi:10.1/a</dc:identifier>\
             <dc:identifier>doi:10.1/b</dc:identifier>",
        );
        assert_eq!(article.categories, ["cs.CL", "eess.SY", "cs.SY", "hep-th", "cond-mat.supr-con"]);
        assert_eq!(
            (article.authors[0].keyname.as_str(), article.authors[0].suffix.as_deref()),
            ("Rodrigues", Some("Jr"))
        );
        assert_eq!(
            (article.msc_class.as_deref(), article.acm_class.as_deref()),
            (Some("68T50 (Primary)"), Some("I.2.7"))
        );
        assert_eq!(
            (article.abstract_text.as_deref(), article.comments.as_deref()),
            (Some("About. "), Some("12 pages"))
        );
        assert_eq!(
            (article.doi.as_deref(), article.journal_ref.as_deref()),
            (Some("10.1/a 10.1/b"), Some("J. Made 1"))
        );
    }

    #[test]
    fn names_tell_the_categories_where_the_sets_are_wider() {
        let sets = "<setSpec>physics:cond-mat</setSpec><setSpec>math</setSpec>";
        let named = dublin_core(
            sets,
            "<dc:subject>Condensed Matter - Superconductivity</dc:subject>\
             <dc:subject>Mathematics - Functional Analysis</dc:subject><dc:description>Comment: 3 pages</dc:description>",
        );
        assert_eq!(named.categories, ["cond-mat.supr-con", "math.FA"]);
        assert_eq!((named.abstract_text, named.comments.as_deref()), (None, Some(" 3 pages")));
        let bare =
            dublin_core("", "<dc:subject>Functional Analysis</dc:subject><dc:subject>Superconductivity</dc:subject>");
        assert_eq!(bare.categories, ["math.FA", "cond-mat.supr-con"]);
    }
}
