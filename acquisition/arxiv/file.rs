//! Files: pages of OAI-PMH, Atom and RSS, lines of the snapshot; see [`super::framing`].

use std::path::Path;

use contract::Result;

use super::framing::FileCutter;
use super::schema::SCHEMA;
use crate::file::{self, PlainReading, Reading};
use crate::unpack::Form;
use crate::{Context, OpenFile, Settings};

/// Opens a file for a backfill. Reads it once, for its hash.
///
/// # Errors
/// `Change` when the file cannot be read.
pub(crate) fn open_file(path: &Path, _settings: &Settings, context: &Context) -> Result<OpenFile> {
    file::open(path, context, reading())
}

/// How our files are read.
pub(super) fn reading() -> PlainReading {
    Reading { source: SCHEMA.source, form: Form::Text, cutter: |_| Box::new(FileCutter::default()) }
}
