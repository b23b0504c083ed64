//! One answer of OAI-PMH, the export API or a listing, whole.

use bytes::Bytes;
use contract::{RawRecord, Timestamp};

use super::article::Article;
use super::cut::{Kind, XmlCutter};
use super::framing::{record, value};
use super::text::mend;
use super::time::parse_time;
use super::xml::Element;

/// What an answer holds.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// The name of its first element.
    pub(super) root: Option<String>,
    /// Whether that element ends.
    pub(super) is_whole: bool,
    /// Broken ones too.
    pub(super) records: Vec<RawRecord>,
    /// Where the list goes on; none on its last page.
    pub(super) token: Option<String>,
    /// When the token expires.
    pub(super) token_expires: Option<Timestamp>,
    /// Records of the whole list, as the archive says.
    pub(super) list_size: Option<u64>,
    /// Entries of the whole answer, as the API says.
    pub(super) total: Option<u64>,
    /// When a listing was made.
    pub(super) listed_at: Option<Timestamp>,
    /// Code and text of the archive's errors.
    pub(super) errors: Vec<(String, String)>,
}

impl Page {
    /// Reads an answer that came at `now`.
    pub(super) fn read(body: Bytes, now: Timestamp) -> Self {
        let (mut cutter, mut pieces, mut page) = (XmlCutter::default(), Vec::new(), Self::default());
        cutter.buffer().extend_from_slice(&body);
        cutter.pull(true, &mut pieces);
        page.root = cutter.root().map(str::to_owned);
        page.is_whole = cutter.is_whole();
        for piece in pieces {
            let number = |body: &[u8]| value(body)?.parse().ok();
            match piece.kind {
                Kind::Record => page.records.push(record(piece.body, page.listed_at, now)),
                Kind::Error => page.push_error(&piece.body),
                Kind::ResumptionToken => page.set_token(&piece.body),
                Kind::TotalResults => page.total = number(&piece.body).or(page.total),
                Kind::Date => page.listed_at = value(&piece.body).and_then(|text| parse_time(&text)).or(page.listed_at),
            }
        }
        page
    }

    /// What the answer says in place of records, in words.
    pub(super) fn error(&self) -> Option<String> {
        if let Some((code, said)) = self.errors.first() {
            return Some(format!("`{code}` {said}").trim_end().to_owned());
        }
        let reject = Article::parse(&self.records.first()?.body).err()?;
        (reject.kind == "answer").then_some(reject.reason)
    }

    fn push_error(&mut self, body: &[u8]) {
        let Ok(error) = Element::parse(&String::from_utf8_lossy(body)) else { return };
        let code = error.attribute("code").unwrap_or_default().to_owned();
        self.errors.push((code, mend(&error.text()).chars().take(200).collect()));
    }

    fn set_token(&mut self, body: &[u8]) {
        let Ok(element) = Element::parse(&String::from_utf8_lossy(body)) else { return };
        // The protocol's name, and the one that arXiv wrote in 2025.
        let expires = element.attribute("expirationDate").or_else(|| element.attribute("expires"));
        self.token_expires = expires.and_then(parse_time);
        self.list_size = element.attribute("completeListSize").and_then(|size| size.parse().ok());
        self.token = Some(element.text().trim().to_owned()).filter(|token| !token.is_empty());
    }
}
