//! From a record's bytes to a row.

use contract::limits::FUTURE_SECONDS_MAX;
use contract::{Processor, RawRecord, Reject, RowBuilder, Value};

use super::article::Article;
use super::authors::Author;
use super::comments::{figure_count, is_withdrawn, page_count};
use super::links::{find_links, repositories};
use super::schema;
use super::taxonomy::{is_code, name_of};
use super::text::{clean, decode_twice, head, mend};

/// Reads records of OAI-PMH (`arXiv`, `arXivRaw`, `oai_dc`), entries of Atom, items of RSS and lines of the snapshot.
///
/// | record | outcome |
/// | --- | --- |
/// | a field is absent or blank | its column is null |
/// | an entity that no one knows, a bare ampersand, bytes that are not UTF-8 | as it stands; U+FFFD for the bytes |
/// | the header of a deleted record | a row with `deleted` |
/// | of another archive: an identifier that is not arXiv's | reject `id` |
/// | an error in place of an answer, also as an entry titled `Error` | reject `answer`, with what it says |
/// | a time in a form that no one knows, or a day in the future | reject `time` |
/// | larger or deeper than the limits, cut, not well-formed | reject `size`, `xml` or `json` |
/// | metadata of another form, or none | reject `format` |
#[derive(Clone, Copy, Debug, Default)]
pub struct ArxivProcessor;

impl Processor for ArxivProcessor {
    fn process(&self, record: &RawRecord, row: &mut RowBuilder) -> Result<(), Reject> {
        let article = Article::parse(&record.body)?;
        let time = article.event_time().unwrap_or_default().max(record.event_time);
        let ahead_seconds = time.since(record.fetched_at).as_secs();
        if ahead_seconds > FUTURE_SECONDS_MAX {
            let reason = format!("it lies {ahead_seconds} s after the fetch, {FUTURE_SECONDS_MAX} are allowed");
            return Err(Reject::new("time", reason));
        }
        write_paper(&article, row);
        write_texts(&article, row);
        write_authors(&article.authors, row);
        write_categories(&article, row);
        write_history(&article, row);
        Ok(())
    }
}

fn write_paper(article: &Article, row: &mut RowBuilder) {
    let id = &article.identifier.id;
    row.text(schema::ARXIV_ID, id);
    row.text(schema::FORMAT, article.format);
    row.text(
        schema::URL,
        &match article.identifier.version {
            Some(version) => format!("https://arxiv.org/abs/{id}v{version}"),
            None => format!("https://arxiv.org/abs/{id}"),
        },
    );
    write_mended(row, schema::DOI, article.doi.as_deref());
    write_mended(row, schema::REPORT_NO, article.report_no.as_deref());
    write_mended(row, schema::LICENSE, article.license.as_deref());
    write_mended(row, schema::PROXY, article.proxy.as_deref());
    write_mended(row, schema::ANNOUNCE_TYPE, article.announce_type.as_deref());
    write_cleaned(row, schema::SUBMITTER, article.submitter.as_deref());
    write_cleaned(row, schema::JOURNAL_REF, article.journal_ref.as_deref());
    write_list(row, schema::SETS, &article.sets);
}

fn write_texts(article: &Article, row: &mut RowBuilder) {
    let title = article.title.as_deref().unwrap_or_default();
    let abstract_text = article.abstract_text.as_deref().unwrap_or_default();
    let comments = mend(article.comments.as_deref().unwrap_or_default());
    // arXiv encodes its feeds twice now and then; what stands so in a record of OAI-PMH, its authors wrote.
    let is_feed = matches!(article.format, "atom" | "rss");
    write_with_raw(row, [schema::TITLE, schema::TITLE_RAW], title, is_feed);
    write_with_raw(row, [schema::ABSTRACT, schema::ABSTRACT_RAW], abstract_text, is_feed);
    write_cleaned(row, schema::COMMENTS, Some(&comments));
    if let Some(pages) = page_count(&comments) {
        row.integer(schema::PAGE_COUNT, pages);
    }
    if let Some(figures) = figure_count(&comments) {
        row.integer(schema::FIGURE_COUNT, figures);
    }
    row.boolean(schema::WITHDRAWN, article.has_no_files || is_withdrawn(&comments, abstract_text));
    row.boolean(schema::DELETED, article.is_deleted);
    let mut links = article.links.clone();
    for link in find_links(&comments).into_iter().chain(find_links(abstract_text)) {
        if !links.contains(&link) {
            links.push(link);
        }
    }
    write_list(row, schema::CODE_REPOSITORIES, &repositories(&links));
    write_list(row, schema::LINKS, &links);
}

fn write_authors(authors: &[Author], row: &mut RowBuilder) {
    if authors.is_empty() {
        return;
    }
    row.structs(schema::AUTHORS, authors.iter().map(parts));
    let names: Vec<String> = authors.iter().map(Author::name).collect();
    write_list(row, schema::AUTHOR_NAMES, &names);
    row.integer(schema::AUTHOR_COUNT, authors.len() as i64);
}

fn parts(author: &Author) -> [Value<'_>; 4] {
    let others = [&author.forenames, &author.suffix, &author.affiliation];
    let [forenames, suffix, affiliation] = others.map(|part| part.as_deref().into());
    [Value::Text(&author.keyname), forenames, suffix, affiliation]
}

fn write_categories(article: &Article, row: &mut RowBuilder) {
    let categories = &article.categories;
    let primary = article.primary_category.as_ref().or(categories.first());
    write_mended(row, schema::PRIMARY_CATEGORY, primary.map(String::as_str));
    write_list(row, schema::CATEGORIES, categories);
    let names: Vec<String> = categories.iter().map(|code| name_of(code).unwrap_or(code).to_owned()).collect();
    write_list(row, schema::CATEGORY_NAMES, &names);
    let is_cross_list = |code: &&String| Some(*code) != primary && is_code(code);
    let cross_lists: Vec<String> = categories.iter().filter(is_cross_list).cloned().collect();
    write_list(row, schema::CROSS_LISTS, &cross_lists);
    write_list(row, schema::MSC_CLASSES, &msc_classes(article.msc_class.as_deref().unwrap_or_default()));
    write_list(row, schema::ACM_CLASSES, &acm_classes(article.acm_class.as_deref().unwrap_or_default()));
}

fn write_history(article: &Article, row: &mut RowBuilder) {
    if let Some(version) = article.identifier.version {
        row.integer(schema::VERSION, i64::from(version));
    }
    let times = [
        (schema::SUBMITTED_AT, article.submitted_at),
        (schema::UPDATED_AT, article.updated_at),
        (schema::ANNOUNCED_AT, article.announced_at),
        (schema::DATESTAMP, article.datestamp),
    ];
    for (place, time) in times {
        if let Some(time) = time {
            row.timestamp(place, time);
        }
    }
    if article.versions.is_empty() {
        return;
    }
    row.integer(schema::VERSION_COUNT, article.versions.len() as i64);
    let times: Vec<Option<String>> =
        article.versions.iter().map(|version| version.submitted_at.map(|time| time.to_string())).collect();
    let members = article.versions.iter().zip(&times).map(|(version, time)| {
        let [time, size, source_type] = [time, &version.size, &version.source_type].map(|text| text.as_deref().into());
        [Value::Integer(i64::from(version.number)), time, size, source_type]
    });
    row.structs(schema::VERSIONS, members);
}

fn write_mended(row: &mut RowBuilder, place: usize, value: Option<&str>) {
    write_text(row, place, &mend(value.unwrap_or_default()));
}

fn write_cleaned(row: &mut RowBuilder, place: usize, value: Option<&str>) {
    write_text(row, place, &clean(value.unwrap_or_default()));
}

/// The text as one reads it, and beside it as it was written, where they differ in more than white space.
fn write_with_raw(row: &mut RowBuilder, [place, raw_place]: [usize; 2], value: &str, is_feed: bool) {
    let decoded = if is_feed { decode_twice(value) } else { value.into() };
    let (raw, cleaned) = (mend(value), clean(&decoded));
    write_text(row, place, &cleaned);
    if raw != cleaned {
        write_text(row, raw_place, &raw);
    }
}

fn write_text(row: &mut RowBuilder, place: usize, value: &str) {
    if !value.is_empty() {
        row.text(place, value);
    }
}

fn write_list(row: &mut RowBuilder, place: usize, values: &[String]) {
    if !values.is_empty() {
        row.texts(place, values.iter().map(String::as_str));
    }
}

/// Bytes of the classes that are looked through; papers name up to 30.
const CLASSES_BYTES_MAX: usize = 64 << 10;

/// The codes in `03E75 (Primary), 03E35 (Secondary)`. Source: <https://mathscinet.ams.org/msc>.
fn msc_classes(text: &str) -> Vec<String> {
    let is_code = |word: &&str| {
        let bytes = word.as_bytes();
        let is_area = bytes.len() >= 2 && bytes[..2].iter().all(u8::is_ascii_digit);
        is_area
            && matches!(bytes.len(), 2 | 3 | 5)
            && bytes[2..].iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    let words = head(text, CLASSES_BYTES_MAX).split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
    once_each(words.map(|word| word.trim_matches('-')).filter(is_code))
}

/// The codes in `I.2.7; H.3.m`. Source: <https://cran.r-project.org/web/classifications/ACM.html>.
fn acm_classes(text: &str) -> Vec<String> {
    let is_code = |word: &&str| {
        // A letter by itself is more likely a word.
        let mut parts = word.split('.');
        let is_area = parts.next().is_some_and(|area| matches!(area.as_bytes(), [b'A'..=b'K']));
        is_area
            && (3..=8).contains(&word.len())
            && parts.all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    };
    let words = head(text, CLASSES_BYTES_MAX).split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '.');
    once_each(words.map(|word| word.trim_matches('.')).filter(is_code))
}

fn once_each<'a>(codes: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    for code in codes {
        if !list.iter().any(|known| known == code) {
            list.push(code.to_owned());
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_found_among_words() {
        assert_eq!(msc_classes("05C85; 05C70; 68R10"), ["05C85", "05C70", "68R10"]);
        assert_eq!(
            msc_classes("03E75 (Primary), 03E35 (Secondary), 28A05, 28Axx, 00-01"),
            ["03E75", "03E35", "28A05", "28Axx", "00-01"]
        );
        assert_eq!(msc_classes("Primary: 53C44, 53C44; see 2010 MSC"), ["53C44"]);
        assert_eq!(acm_classes("G.1.6; G.2.1; G.2.2."), ["G.1.6", "G.2.1", "G.2.2"]);
        assert_eq!(acm_classes("I.2.7, H.3.m and K.m"), ["I.2.7", "H.3.m", "K.m"]);
        assert_eq!(acm_classes("none, A Class of K"), Vec::<String>::new());
        let many: String = (0..1_000_000).map(|number| format!("{number:05} ")).collect();
        assert!(msc_classes(&many).len() <= CLASSES_BYTES_MAX / 6 + 1);
    }
}
