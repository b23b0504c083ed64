//! A paper as one record states it, whatever the format: what the readers of formats fill and the processor writes.

use contract::limits::RECORD_BYTES_MAX;
use contract::{Reject, Timestamp};
use xxhash_rust::xxh3::Xxh3;

use super::authors::Author;
use super::identifier::Identifier;
use super::text::mend;
use super::time::parse_time;
use super::xml::Element;
use super::{atom, oai, rss, snapshot};

/// One paper, or one version of it. Texts stand as the source wrote them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Article {
    /// `arXiv`, `arXivRaw`, `oai_dc`, `atom`, `rss`, `snapshot`, `header`.
    pub(super) format: &'static str,
    pub(super) identifier: Identifier,
    pub(super) title: Option<String>,
    pub(super) abstract_text: Option<String>,
    pub(super) authors: Vec<Author>,
    pub(super) submitter: Option<String>,
    /// Codes, the primary one first.
    pub(super) categories: Vec<String>,
    pub(super) primary_category: Option<String>,
    pub(super) doi: Option<String>,
    pub(super) journal_ref: Option<String>,
    pub(super) report_no: Option<String>,
    pub(super) comments: Option<String>,
    pub(super) msc_class: Option<String>,
    pub(super) acm_class: Option<String>,
    pub(super) proxy: Option<String>,
    pub(super) license: Option<String>,
    pub(super) submitted_at: Option<Timestamp>,
    pub(super) updated_at: Option<Timestamp>,
    /// When a listing announced it, and as what: `new`, `cross`, `replace`, `replace-cross`.
    pub(super) announced_at: Option<Timestamp>,
    pub(super) announce_type: Option<String>,
    /// From the first on.
    pub(super) versions: Vec<Version>,
    /// Whether the newest version has no files left.
    pub(super) has_no_files: bool,
    /// Whether the archive deleted the record.
    pub(super) is_deleted: bool,
    /// Addresses that the source itself gives.
    pub(super) links: Vec<String>,
    /// When the record changed last, in the archive's own calendar.
    pub(super) datestamp: Option<Timestamp>,
    pub(super) sets: Vec<String>,
}

/// One version, as the formats with a history list it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) number: u32,
    pub(super) submitted_at: Option<Timestamp>,
    /// As the source writes it: `69kb`.
    pub(super) size: Option<String>,
    /// Letters of what the source is: `D` with a document, `S` encrypted, `I` nothing left.
    pub(super) source_type: Option<String>,
}

impl Article {
    /// One of which only this is known.
    pub(super) fn new(format: &'static str, identifier: Identifier) -> Self {
        Self {
            format,
            identifier,
            title: None,
            abstract_text: None,
            authors: Vec::new(),
            submitter: None,
            categories: Vec::new(),
            primary_category: None,
            doi: None,
            journal_ref: None,
            report_no: None,
            comments: None,
            msc_class: None,
            acm_class: None,
            proxy: None,
            license: None,
            submitted_at: None,
            updated_at: None,
            announced_at: None,
            announce_type: None,
            versions: Vec::new(),
            has_no_files: false,
            is_deleted: false,
            links: Vec::new(),
            datestamp: None,
            sets: Vec::new(),
        }
    }

    /// Reads a record in any of the formats.
    ///
    /// # Errors
    /// A reject that says why it is none: `size`, `xml`, `json`, `id`, `time`, `answer`, `format`.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Reject> {
        if body.len() > RECORD_BYTES_MAX {
            let reason = format!("the record is {} bytes long, {RECORD_BYTES_MAX} are allowed", body.len());
            return Err(Reject::new("size", reason));
        }
        let text = String::from_utf8_lossy(body);
        let text = text.trim_start_matches('\u{feff}').trim();
        match text.bytes().next() {
            Some(b'{') => snapshot::read(text),
            Some(b'<') => Self::from_xml(&Element::parse(text)?),
            _ => Err(Reject::new("format", format!("neither XML nor JSON: it starts with `{}`", start_of(text)))),
        }
    }

    fn from_xml(root: &Element) -> Result<Self, Reject> {
        match root.name.as_str() {
            "record" => oai::read_record(root),
            "header" => oai::read_header(root),
            "error" => Err(oai::explain_error(root)),
            "entry" => atom::read(root),
            "item" => rss::read(root),
            other => {
                let expected = "`record`, `header`, `entry` or `item`";
                Err(Reject::new("format", format!("`{}` is no record, should be {expected}", start_of(other))))
            }
        }
    }

    /// When the version that this record describes came to be; of a deleted record, when it was deleted.
    pub(super) fn event_time(&self) -> Option<Timestamp> {
        let newest = self.versions.last().and_then(|version| version.submitted_at);
        if self.is_deleted {
            return self.datestamp;
        }
        newest.or(self.updated_at).or(self.submitted_at).or(self.announced_at).or(self.datestamp)
    }

    /// A hash of what the record says of the paper, whatever its markup and white space are. What follows from the rest
    /// (`sets`, `links`, whether files are left) is not part of it, and of the announcement only its day: some listings
    /// give the time at which they were made.
    pub(super) fn fingerprint(&self) -> u64 {
        let Self { format, identifier, title, abstract_text, authors, submitter, categories, primary_category, .. } =
            self;
        let Self { doi, journal_ref, report_no, comments, msc_class, acm_class, proxy, license, .. } = self;
        let Self { submitted_at, updated_at, announced_at, announce_type, versions, datestamp, .. } = self;
        let mut fields = Fields::default();
        fields.text(Some(format));
        fields.text(Some(&identifier.id));
        fields.number(identifier.version.map(i64::from));
        for text in [title, abstract_text, submitter, primary_category, doi, journal_ref, report_no, comments] {
            fields.text(text.as_deref());
        }
        for text in [msc_class, acm_class, proxy, license, announce_type] {
            fields.text(text.as_deref());
        }
        for time in [submitted_at, updated_at, datestamp] {
            fields.number(time.map(|time| time.0));
        }
        fields.number(announced_at.map(|time| i64::from(time.day().0)));
        fields.number(i64::try_from(authors.len()).ok());
        for Author { keyname, forenames, suffix, affiliation } in authors {
            fields.text(Some(keyname));
            for part in [forenames, suffix, affiliation] {
                fields.text(part.as_deref());
            }
        }
        fields.number(i64::try_from(categories.len()).ok());
        categories.iter().for_each(|category| fields.text(Some(category)));
        for Version { number, submitted_at, size, source_type } in versions {
            fields.number(Some(i64::from(*number)));
            fields.number(submitted_at.map(|time| time.0));
            fields.text(size.as_deref());
            fields.text(source_type.as_deref());
        }
        fields.0.digest()
    }

    /// Takes a history, whatever its order, and with it the paper's version and dates.
    pub(super) fn set_versions(&mut self, mut versions: Vec<Version>) {
        versions.sort_by_key(|version| version.number);
        let Some(newest) = versions.last() else { return };
        self.identifier.version = Some(newest.number);
        // A version without files: <https://info.arxiv.org/help/withdraw.html>.
        self.has_no_files = newest.source_type.as_deref().is_some_and(|letters| letters.contains('I'));
        self.submitted_at = versions.first().filter(|first| first.number == 1).and_then(|first| first.submitted_at);
        self.updated_at = newest.submitted_at;
        self.versions = versions;
    }
}

/// A hash of fields that cannot run into each other.
#[derive(Default)]
struct Fields(Xxh3);

impl Fields {
    /// White space does not count, and no text is the same as an empty one.
    fn text(&mut self, text: Option<&str>) {
        let text = mend(text.unwrap_or_default());
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    fn number(&mut self, number: Option<i64>) {
        self.0.update(&[u8::from(number.is_some())]);
        self.0.update(&number.unwrap_or_default().to_le_bytes());
    }
}

/// The identifier in a text of the source.
pub(super) fn identifier_of(text: Option<&str>, field: &str) -> Result<Identifier, Reject> {
    let Some(text) = text else {
        return Err(Reject::new("id", format!("`{field}` is missing, should be an identifier such as `2104.12255`")));
    };
    Identifier::parse(text).ok_or_else(|| {
        let given = start_of(text.trim());
        Reject::new("id", format!("`{field}` is `{given}`, should be an arXiv identifier such as `2104.12255`"))
    })
}

/// A time that the source may leave out, but not write in a form that no one knows.
pub(super) fn time_of(text: Option<&str>, field: &str) -> Result<Option<Timestamp>, Reject> {
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(None) };
    parse_time(text).map(Some).ok_or_else(|| {
        let given = start_of(text.trim());
        Reject::new("time", format!("`{field}` is `{given}`, should be a time such as `2015-01-01T15:00:00Z`"))
    })
}

/// `v3` as 3.
pub(super) fn version_number(text: &str) -> Option<u32> {
    text.trim().strip_prefix('v')?.parse().ok().filter(|&number| number > 0)
}

/// As much of a text as a message bears.
pub(super) fn start_of(text: &str) -> String {
    text.chars().take(60).collect()
}
