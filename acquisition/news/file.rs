//! Feed documents as files, for a backfill.

use std::path::Path;

use bytes::BytesMut;
use contract::{RawRecord, Result, Timestamp};

use super::SCHEMA;
use super::feed::Format;
use super::split::{Fetched, Split, split};
use crate::file::{Cutter, FileInfo, Reading, open};
use crate::unpack::Form;
use crate::{Context, OpenFile, Settings};

/// Bytes of one document; what follows is left out and said so. The largest feeds seen have 9 MB.
const DOCUMENT_BYTES_MAX: usize = 64 << 20;

/// Opens a feed document: RSS, Atom, RDF, CDF or JSON Feed, plain or packed.
///
/// # Errors
/// `Change` when the file cannot be read.
pub(super) fn open_file(path: &Path, _settings: &Settings, context: &Context) -> Result<OpenFile> {
    open(path, context, reading())
}

/// How documents are read, in files and in the sample.
pub(super) fn reading() -> Reading<impl Fn(&FileInfo) -> Box<dyn Cutter> + Send + Sync + 'static> {
    let cutter = |info: &FileInfo| -> Box<dyn Cutter> {
        Box::new(DocumentCutter { name: info.name.clone(), buffer: BytesMut::new(), notes: Vec::new(), is_cut: false })
    };
    Reading { source: SCHEMA.source, form: Form::Bytes, cutter }
}

/// Takes a whole document, since what a feed says of itself may stand at its end.
struct DocumentCutter {
    name: String,
    buffer: BytesMut,
    notes: Vec<String>,
    is_cut: bool,
}

impl Cutter for DocumentCutter {
    fn buffer(&mut self) -> &mut BytesMut {
        if self.buffer.len() > DOCUMENT_BYTES_MAX {
            self.buffer.truncate(DOCUMENT_BYTES_MAX);
            self.is_cut = true;
        }
        &mut self.buffer
    }

    fn cut(&mut self, is_end: bool, now: Timestamp, records: &mut Vec<RawRecord>) {
        if !is_end {
            return;
        }
        let bytes = std::mem::take(&mut self.buffer);
        let from = Some(self.name.as_str());
        let Split { feed, records: cut, notes, .. } =
            split(Fetched { bytes: &bytes, fetched_from: from, bytes_max: DOCUMENT_BYTES_MAX, ..Fetched::at(now) });
        self.notes = notes;
        if self.is_cut {
            self.notes.push(format!("it is longer than {DOCUMENT_BYTES_MAX} bytes; the rest was left out"));
        }
        match feed.format {
            Some(Format::Rss | Format::Rdf | Format::Atom | Format::Cdf | Format::Json) if cut.is_empty() => {
                self.notes.push("the feed has no entries".to_owned());
            }
            // A list is no feed that went wrong: there is nothing to keep of it.
            None if is_opml(&bytes) => {
                let how = "`databroker feeds import` takes it, and `news.opml` polls its feeds";
                self.notes.push(format!("`{}` is a list of feeds (OPML) and holds no articles: {how}", self.name));
                return;
            }
            _ => {}
        }
        records.extend(cut);
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}

fn is_opml(bytes: &[u8]) -> bool {
    memchr::memmem::find(&bytes[..bytes.len().min(1024)], b"<opml").is_some()
}
