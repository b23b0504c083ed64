//! A view's file: a header of comments, and one or two statements.

use std::path::{Path, PathBuf};
use std::time::Duration;

use contract::{Error, Result, nearest};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use xxhash_rust::xxh3::xxh3_128;

/// Bytes of a file: far above any query that a person wrote.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What a header may say, by the word before the colon.
const WORDS: [&str; 10] = ["answers", "keys", "sum", "min", "max", "any", "distinct", "time", "past", "every"];

/// How long a result may get old where the header does not say.
const EVERY: Duration = Duration::from_secs(600);

/// Raised when the functions of a view's language answer otherwise than before: results stored until then are made anew.
const LANGUAGE_VERSION: &str = "1";

/// Marks the views that come with the program.
pub(crate) const SHIPPED: &str = "shipped";

/// A view as its file says it.
#[derive(Clone, Debug)]
pub(crate) struct ViewFile {
    /// The file's name without its ending.
    pub(crate) name: String,
    /// Where it was read.
    pub(crate) place: Place,
    /// What it is for, in a sentence.
    pub(crate) answers: String,
    /// The columns that group.
    pub(crate) keys: Vec<String>,
    /// How each other column merges.
    pub(crate) merges: Vec<(String, Merge)>,
    /// The key that is a time, if one is.
    pub(crate) time: Option<String>,
    /// How long before the time that is asked from the second statement looks.
    pub(crate) past: Duration,
    /// How old a result may get.
    pub(crate) every: Duration,
    /// What is stored, and merged.
    pub(crate) stored: Statement,
    /// What is shown of the relation `merged`.
    pub(crate) shown: Option<Statement>,
}

/// Where a view stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the program.
    Shipped,
    /// In a folder of the user's.
    File(PathBuf),
}

/// How the values of a column become one, of two results over different rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merge {
    /// Their sum; that of counts, too.
    Sum,
    /// The smaller one.
    Min,
    /// The larger one.
    Max,
    /// Either: the keys determine it.
    Any,
    /// Sketches of values, put together.
    Distinct,
}

/// One statement and where it begins in its file.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub(crate) sql: String,
    pub(crate) line: u64,
}

impl Statement {
    /// The statement on its own lines, so that errors name lines of the file.
    pub(crate) fn in_place(&self) -> String {
        let lines = usize::try_from(self.line).unwrap_or(1).saturating_sub(1);
        "\n".repeat(lines) + &self.sql
    }
}

impl Merge {
    /// Its word in the header.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Min => "min",
            Self::Max => "max",
            Self::Any => "any",
            Self::Distinct => "distinct",
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        [Self::Sum, Self::Min, Self::Max, Self::Any, Self::Distinct].into_iter().find(|merge| merge.word() == word)
    }

    /// The aggregate function that merges.
    pub(crate) fn function(self) -> &'static str {
        match self {
            Self::Any => "first_value",
            Self::Distinct => "sketch_merge",
            Self::Sum | Self::Min | Self::Max => self.word(),
        }
    }
}

impl Place {
    /// `shipped`, or the file.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Shipped => SHIPPED.to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

impl ViewFile {
    /// The text of a file of the user's.
    pub(crate) fn read(path: &Path) -> Result<String> {
        let doing = || format!("read the view `{}`", path.display());
        let length = std::fs::metadata(path).map_err(|cause| Error::change(doing()).because(cause))?.len();
        if length > FILE_BYTES_MAX {
            return Err(Error::change(format!("{}: it has {length} bytes, {FILE_BYTES_MAX} are the most", doing())));
        }
        std::fs::read_to_string(path).map_err(|cause| Error::change(doing()).because(cause))
    }

    /// Reads a view's text.
    ///
    /// # Errors
    /// `Change`, with the line and what would be right.
    pub(crate) fn parse(name: &str, place: Place, text: &str) -> Result<Self> {
        let is_name = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
        let wrong_at = |line: u64, reason: &str| wrong(name, &place, line, reason);
        let wrong = |line: u64, reason: &str| Err(wrong_at(line, reason));
        if !name.chars().all(is_name) || !name.starts_with(|first: char| first.is_ascii_lowercase()) || name.len() > 64
        {
            return wrong(1, "a view's name is up to 64 of a-z, 0-9 and _, and begins with a letter: rename the file");
        }
        let mut header = Header::default();
        for (number, line) in (1..).zip(text.lines()) {
            match line.strip_prefix("--") {
                Some(comment) => header.take(comment).map_err(|reason| wrong_at(number, &reason))?,
                None if line.trim().is_empty() => {}
                None => break,
            }
        }
        let statements = match statements(text) {
            Ok(statements) => statements,
            Err((line, reason)) => return wrong(line, &reason),
        };
        let mut statements = statements.into_iter();
        let Some(stored) = statements.next() else {
            return wrong(1, "it has no statement: a SELECT … GROUP BY over `silver` is what a view stores");
        };
        let shown = statements.next();
        if let Some(third) = statements.next() {
            return wrong(third.line, "a third statement: the first is stored, the second shown, and that is all");
        }
        if header.answers.is_empty() {
            return wrong(1, "the header lacks `-- answers: …`, a sentence on what the view is for");
        }
        if header.keys.is_empty() {
            return wrong(1, "the header lacks `-- keys: …`, the columns by which the first statement groups");
        }
        let columns: Vec<&String> = header.keys.iter().chain(header.merges.iter().map(|(column, _)| column)).collect();
        if let Some(twice) = columns.iter().enumerate().find(|(at, column)| columns[..*at].contains(column)) {
            return wrong(1, &format!("column `{}` stands in the header twice", twice.1));
        }
        if let Some(time) = header.time.as_ref().filter(|time| !header.keys.contains(time)) {
            return wrong(1, &format!("`time: {time}` is none of the keys ({})", header.keys.join(", ")));
        }
        if header.past.is_some() && header.time.is_none() {
            return wrong(1, "`past:` is before a time that is asked from: add `-- time: …`, the key that is a time");
        }
        let Header { answers, keys, merges, time, past, every } = header;
        let past = past.unwrap_or(Duration::ZERO);
        let every = every.unwrap_or(EVERY);
        Ok(Self { name: name.to_owned(), place, answers, keys, merges, time, past, every, stored, shown })
    }

    /// An error that names a line of this view.
    pub(crate) fn wrong(&self, line: u64, reason: &str) -> Error {
        wrong(&self.name, &self.place, line, reason)
    }

    /// Changes whenever what is stored does.
    pub(crate) fn fingerprint(&self) -> String {
        let columns: Vec<_> = self.merges.iter().map(|(column, merge)| format!("{} {column}", merge.word())).collect();
        let (keys, time) = (self.keys.join(","), self.time.as_deref().unwrap_or_default());
        let all = [LANGUAGE_VERSION, &keys, &columns.join(","), time, &self.stored.sql].join("\n");
        format!("{:032x}", xxh3_128(all.as_bytes()))
    }
}

fn wrong(name: &str, place: &Place, line: u64, reason: &str) -> Error {
    Error::change(format!("read the view `{name}` ({}, line {line}): {reason}", place.text()))
}

#[derive(Default)]
struct Header {
    answers: String,
    keys: Vec<String>,
    merges: Vec<(String, Merge)>,
    time: Option<String>,
    past: Option<Duration>,
    every: Option<Duration>,
}

impl Header {
    /// Takes a line without its dashes; one that says nothing of ours is a comment.
    fn take(&mut self, line: &str) -> std::result::Result<(), String> {
        let Some((word, value)) = line.split_once(':') else { return Ok(()) };
        let (word, value) = (word.trim(), value.trim());
        if word.is_empty() || !word.chars().all(|letter| letter.is_ascii_lowercase()) {
            return Ok(());
        }
        let columns = || value.split(',').map(str::trim).filter(|column| !column.is_empty()).map(str::to_owned);
        match word {
            "answers" => value.clone_into(&mut self.answers),
            "keys" => self.keys.extend(columns()),
            "time" => self.time = Some(value.to_owned()),
            "past" => self.past = Some(duration(word, value)?),
            "every" => self.every = Some(duration(word, value)?),
            other => match Merge::of_word(other) {
                Some(merge) => self.merges.extend(columns().map(|column| (column, merge))),
                None => {
                    let (near, known) = (nearest(other, WORDS.into_iter()), WORDS.join(", "));
                    return Err(format!("`{other}` is no word of a header{near} (known: {known})"));
                }
            },
        }
        Ok(())
    }
}

/// `10 minutes`.
fn duration(word: &str, text: &str) -> std::result::Result<Duration, String> {
    let read = || {
        let (count, unit) = text.split_once(' ')?;
        let seconds = match unit.trim().trim_end_matches('s') {
            "second" => 1,
            "minute" => 60,
            "hour" => 3_600,
            "day" => 86_400,
            _ => return None,
        };
        count
            .parse::<u32>()
            .ok()
            .filter(|&count| count > 0)
            .map(|count| Duration::from_secs(u64::from(count) * seconds))
    };
    read()
        .ok_or_else(|| format!("`{word}: {text}` is no time: say `{word}: 10 minutes` (seconds, minutes, hours, days)"))
}

/// The statements between semicolons, without those of comments alone.
fn statements(text: &str) -> std::result::Result<Vec<Statement>, (u64, String)> {
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location();
    let tokens = tokens.map_err(|error| (error.location.line, format!("it is no SQL: {}", error.message)))?;
    let starts: Vec<usize> = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    // Columns count characters.
    let place = |line: u64, column: u64| {
        let start = starts[usize::try_from(line).unwrap_or(1).saturating_sub(1).min(starts.len() - 1)];
        let column = usize::try_from(column).unwrap_or(1).saturating_sub(1);
        start + text[start..].chars().take(column).map(char::len_utf8).sum::<usize>()
    };
    let mut found = Vec::new();
    let mut begin: Option<(usize, u64)> = None;
    for token in &tokens {
        let at = place(token.span.start.line, token.span.start.column);
        match (&token.token, begin) {
            (Token::Whitespace(_) | Token::EOF, _) | (Token::SemiColon, None) => {}
            (Token::SemiColon, Some((start, line))) => {
                found.push(Statement { sql: text[start..at].trim_end().to_owned(), line });
                begin = None;
            }
            (_, None) => begin = Some((at, token.span.start.line)),
            (_, Some(_)) => {}
        }
    }
    if let Some((start, line)) = begin {
        found.push(Statement { sql: text[start..].trim_end().to_owned(), line });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "-- A comment.\n-- answers: how many\n-- keys: day, type\n-- sum: events\n-- distinct: actors\n\
        -- time: day\n-- every: 2 hours\n\nSELECT 'a;b' AS type -- ; no end\nFROM t;\n-- shown\nSELECT *\nFROM merged;\n";

    fn parse(text: &str) -> Result<ViewFile> {
        ViewFile::parse("made", Place::Shipped, text)
    }

    #[test]
    fn a_file_is_a_header_and_two_statements_with_their_lines() {
        let view = parse(GOOD).unwrap();
        assert_eq!((view.answers.as_str(), view.every), ("how many", Duration::from_secs(7_200)));
        assert_eq!(view.keys, ["day", "type"]);
        assert_eq!(view.merges, [("events".to_owned(), Merge::Sum), ("actors".to_owned(), Merge::Distinct)]);
        assert_eq!((view.stored.sql.as_str(), view.stored.line), ("SELECT 'a;b' AS type -- ; no end\nFROM t", 9));
        let shown = view.shown.unwrap();
        assert_eq!((shown.sql.as_str(), shown.line), ("SELECT *\nFROM merged", 12));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_what_would_be_right() {
        let cases = [
            (
                GOOD.replace("sum:", "summ:"),
                "line 4): `summ` is no word of a header; did you mean `sum`? (known: answers, ",
            ),
            (GOOD.replace("2 hours", "often"), "line 7): `every: often` is no time: say `every: 10 minutes`"),
            (GOOD.replace("keys: day, type", "keys:"), "line 1): the header lacks `-- keys: …`"),
            (GOOD.replace("time: day", "time: hour"), "`time: hour` is none of the keys (day, type)"),
            (GOOD.replace("distinct: actors", "max: events"), "column `events` stands in the header twice"),
            (format!("{GOOD}SELECT 3"), "line 14): a third statement"),
            ("-- answers: x\n-- keys: y\n".to_owned(), "it has no statement"),
            (GOOD.replace("'a;b'", "'a;b"), "it is no SQL"),
        ];
        for (text, expected) in cases {
            let error = parse(&text).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error} lacks {expected}");
        }
        let error = ViewFile::parse("Bad Name", Place::Shipped, GOOD).expect_err("the name").to_string();
        assert!(error.contains("rename the file"), "{error}");
    }

    #[test]
    fn what_is_shown_may_change_without_another_fingerprint_and_what_is_stored_may_not() {
        let before = parse(GOOD).unwrap().fingerprint();
        assert_eq!(parse(&GOOD.replace("SELECT *", "SELECT day")).unwrap().fingerprint(), before);
        assert_ne!(parse(&GOOD.replace("sum:", "max:")).unwrap().fingerprint(), before);
        assert_ne!(parse(&GOOD.replace("FROM t", "FROM s")).unwrap().fingerprint(), before);
    }
}
