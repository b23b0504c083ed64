//! Lines of the metadata snapshot: one JSON object a paper.
//!
//! Source: <https://www.kaggle.com/datasets/Cornell-University/arxiv>.

use contract::Reject;
use serde::Deserialize;
use serde_json::Value;

use super::article::{Article, Version, identifier_of, start_of, time_of, version_number};
use super::authors::{Author, parse_authors};
use super::text::mend;

/// The fields of a line. What is read is text or null.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Line {
    id: Option<String>,
    submitter: Option<String>,
    authors: Option<String>,
    title: Option<String>,
    comments: Option<String>,
    journal_ref: Option<String>,
    doi: Option<String>,
    report_no: Option<String>,
    categories: Option<Categories>,
    license: Option<String>,
    #[serde(rename = "abstract")]
    abstract_text: Option<String>,
    versions: Option<Vec<Listed>>,
    #[serde(rename = "update_date")]
    update_date: Option<String>,
    #[serde(rename = "authors_parsed")]
    authors_parsed: Option<Vec<Vec<String>>>,
}

/// One text, or a list of texts in early snapshots.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Categories {
    Text(String),
    List(Vec<String>),
}

/// A version with its time, or its name alone in early snapshots.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Listed {
    Dated { version: String, created: Option<String> },
    Name(String),
}

/// Reads one line.
pub(super) fn read(json: &str) -> Result<Article, Reject> {
    let line: Line = serde_json::from_str(json).map_err(|error| explain(json, &error))?;
    let mut article = Article::new("snapshot", identifier_of(line.id.as_deref(), "id")?);
    article.authors = match line.authors_parsed.iter().flatten().filter_map(|parts| parsed(parts)).collect::<Vec<_>>() {
        authors if authors.is_empty() => line.authors.as_deref().map(parse_authors).unwrap_or_default(),
        authors => authors,
    };
    let categories = match line.categories {
        Some(Categories::Text(text)) => vec![text],
        Some(Categories::List(texts)) => texts,
        None => Vec::new(),
    };
    article.categories = categories.iter().flat_map(|text| text.split_whitespace()).map(str::to_owned).collect();
    article.submitter = line.submitter;
    article.title = line.title;
    article.abstract_text = line.abstract_text;
    article.comments = line.comments;
    article.journal_ref = line.journal_ref;
    article.doi = line.doi;
    article.report_no = line.report_no;
    article.license = line.license;
    article.datestamp = time_of(line.update_date.as_deref(), "update_date")?;
    article.set_versions(line.versions.iter().flatten().map(version).collect::<Result<_, _>>()?);
    Ok(article)
}

/// `["Evans", "Neal J.", "II", "Austin"]`.
fn parsed(parts: &[String]) -> Option<Author> {
    let part = |place: usize| parts.get(place).map(|part| mend(part)).filter(|part| !part.is_empty());
    let affiliation: Vec<String> = (3..parts.len()).filter_map(part).collect();
    let affiliation = Some(affiliation.join("; ")).filter(|text| !text.is_empty());
    Some(Author { keyname: part(0)?, forenames: part(1), suffix: part(2), affiliation })
}

fn version(listed: &Listed) -> Result<Version, Reject> {
    let (name, created) = match listed {
        Listed::Dated { version, created } => (version, created.as_deref()),
        Listed::Name(name) => (name, None),
    };
    let number = version_number(name)
        .ok_or_else(|| Reject::new("id", format!("`version` is `{}`, should be as `v1`", start_of(name))))?;
    Ok(Version { number, submitted_at: time_of(created, "created")?, ..Version::default() })
}

fn explain(json: &str, error: &serde_json::Error) -> Reject {
    if error.is_eof() {
        return Reject::new("json", "the record is cut: it ends inside its JSON");
    }
    let is_json = serde_json::from_str::<Value>(json).is_ok();
    let kind = if is_json { "type" } else { "json" };
    let said = error.to_string();
    let said = said.split(" at line ").next().unwrap_or_default();
    Reject::new(kind, format!("the record is no line of a snapshot, at byte {}: {said}", error.column()))
}
