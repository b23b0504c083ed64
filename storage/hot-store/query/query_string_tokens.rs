//! The tokens of a query string.

use std::fmt;

use super::error::{Result, bad};

/// A token. Quotes, escapes and ranges are resolved here, so the parser sees no letter.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    And,
    Or,
    Not,
    Plus,
    Minus,
    Open,
    Close,
    Colon,
    /// A lone `*`.
    Star,
    Word(Word),
    Quoted(String),
    Regexp(String),
    /// `~` with what stands directly after it.
    Tilde(String),
    /// `^` with what stands directly after it.
    Caret(String),
    Range {
        lower: Option<String>,
        upper: Option<String>,
        lower_included: bool,
        upper_included: bool,
    },
    /// `>=10`
    Compare {
        operator: String,
        value: String,
    },
}

impl fmt::Display for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::And => out.write_str("[AND]"),
            Self::Or => out.write_str("[OR]"),
            Self::Not => out.write_str("[NOT]"),
            Self::Plus => out.write_str("[+]"),
            Self::Minus => out.write_str("[-]"),
            Self::Open => out.write_str("[(]"),
            Self::Close => out.write_str("[)]"),
            Self::Colon => out.write_str("[:]"),
            Self::Star => out.write_str("[*]"),
            Self::Word(word) => write!(out, "[{}]", word.raw),
            Self::Quoted(text) => write!(out, "[\"{text}\"]"),
            Self::Regexp(text) => write!(out, "[/{text}/]"),
            Self::Tilde(text) => write!(out, "[~{text}]"),
            Self::Caret(text) => write!(out, "[^{text}]"),
            Self::Range { .. } => out.write_str("a range"),
            Self::Compare { operator, value } => write!(out, "[{operator}{value}]"),
        }
    }
}

/// A word as it stands in the query, with its escapes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Word {
    pub(super) raw: String,
}

impl Word {
    /// The letters and whether each was escaped.
    fn letters(&self) -> impl Iterator<Item = (char, bool)> + '_ {
        let mut letters = self.raw.chars();
        std::iter::from_fn(move || match letters.next()? {
            '\\' => letters.next().map(|letter| (letter, true)),
            letter => Some((letter, false)),
        })
    }

    /// Without escapes.
    pub(super) fn plain(&self) -> String {
        self.letters().map(|(letter, _)| letter).collect()
    }

    pub(super) fn has_wildcard(&self) -> bool {
        self.letters().any(is_wildcard)
    }

    pub(super) fn starts_with_wildcard(&self) -> bool {
        self.letters().next().is_some_and(is_wildcard)
    }

    /// What stands before a `*` at the end, if that is the only wildcard.
    pub(super) fn prefix(&self) -> Option<String> {
        let mut letters: Vec<_> = self.letters().collect();
        let last = letters.pop()?;
        (last == ('*', false) && !letters.iter().copied().any(is_wildcard))
            .then(|| letters.into_iter().map(|(letter, _)| letter).collect())
    }
}

fn is_wildcard((letter, escaped): (char, bool)) -> bool {
    !escaped && (letter == '*' || letter == '?')
}

/// The tokens of a query, read from the front.
pub(super) struct Tokens {
    /// Last first.
    tokens: Vec<Token>,
}

impl Tokens {
    /// Reads all tokens.
    pub(super) fn read(text: &str) -> Result<Self> {
        let mut reader = Reader { text, place: 0 };
        let mut tokens = Vec::new();
        while let Some(token) = reader.token()? {
            tokens.push(token);
        }
        tokens.reverse();
        Ok(Self { tokens })
    }

    pub(super) fn peek(&self) -> Option<&Token> {
        self.tokens.last()
    }

    pub(super) fn next(&mut self) -> Option<Token> {
        self.tokens.pop()
    }

    /// Takes what stands after `~`, if that is next.
    pub(super) fn tilde(&mut self) -> Option<String> {
        match self.tokens.pop()? {
            Token::Tilde(text) => Some(text),
            other => {
                self.tokens.push(other);
                None
            }
        }
    }

    /// Takes what stands after `^`, if that is next.
    pub(super) fn caret(&mut self) -> Option<String> {
        match self.tokens.pop()? {
            Token::Caret(text) => Some(text),
            other => {
                self.tokens.push(other);
                None
            }
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    place: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.place..]
    }

    fn token(&mut self) -> Result<Option<Token>> {
        self.skip_spaces();
        let mut letters = self.rest().chars();
        let Some(first) = letters.next() else {
            return Ok(None);
        };
        let second = letters.next();
        let (token, bytes) = match (first, second) {
            ('&', Some('&')) => (Token::And, 2),
            ('|', Some('|')) => (Token::Or, 2),
            ('+', _) => (Token::Plus, 1),
            ('-', _) => (Token::Minus, 1),
            ('!', _) => (Token::Not, 1),
            ('(', _) => (Token::Open, 1),
            (')', _) => (Token::Close, 1),
            (':', _) => (Token::Colon, 1),
            ('"', _) => return self.delimited('"').map(|text| Some(Token::Quoted(text))),
            ('/', _) => return self.delimited('/').map(|text| Some(Token::Regexp(text))),
            ('[' | '{', _) => return self.range().map(Some),
            ('>' | '<', _) => return self.compare().map(Some),
            ('~' | '^', _) => {
                self.place += 1;
                let text = self.take(|letter| letter.is_ascii_alphanumeric() || letter == '.');
                return Ok(Some(if first == '~' { Token::Tilde(text) } else { Token::Caret(text) }));
            }
            (']' | '}', _) => return Err(self.wrong(&format!("unexpected [{first}]"))),
            _ => return self.word().map(Some),
        };
        self.place += bytes;
        Ok(Some(token))
    }

    /// A word ends at a space or a sign; a sign can be escaped, and `+ - ! /` inside a word are letters.
    fn word(&mut self) -> Result<Token> {
        let mut raw = String::new();
        let mut letters = self.rest().chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\\' => match letters.next() {
                    Some(escaped) => raw.extend(['\\', escaped]),
                    None => return Err(self.wrong("a backslash at the end")),
                },
                '(' | ')' | ':' | '"' | '[' | ']' | '{' | '}' | '~' | '^' => break,
                letter if letter.is_whitespace() => break,
                letter => raw.push(letter),
            }
        }
        self.place += raw.len();
        Ok(match raw.as_str() {
            "AND" => Token::And,
            "OR" => Token::Or,
            "NOT" => Token::Not,
            "*" => Token::Star,
            _ => Token::Word(Word { raw }),
        })
    }

    /// Text between two equal signs; a backslash keeps the sign, and in quotes the next letter as it is.
    fn delimited(&mut self, sign: char) -> Result<String> {
        let mut text = String::new();
        let mut letters = self.rest().char_indices().skip(1);
        while let Some((place, letter)) = letters.next() {
            if letter == sign {
                self.place += place + 1;
                return Ok(text);
            }
            match (letter, sign) {
                ('\\', '"') => text.extend(letters.next().map(|(_, escaped)| escaped)),
                ('\\', _) => {
                    let escaped = letters.next().map(|(_, escaped)| escaped);
                    text.extend(escaped.filter(|escaped| *escaped != sign).map(|_| '\\'));
                    text.extend(escaped);
                }
                _ => text.push(letter),
            }
        }
        Err(self.wrong(&format!("[{sign}] is not closed")))
    }

    /// `[a TO b}`; `*` is an open end.
    fn range(&mut self) -> Result<Token> {
        let lower_included = self.rest().starts_with('[');
        self.place += 1;
        let lower = self.range_end()?;
        self.skip_spaces();
        let Some(rest) = self.rest().strip_prefix("TO").filter(|rest| rest.starts_with(char::is_whitespace)) else {
            return Err(self.wrong("a range without [ TO ]"));
        };
        self.place = self.text.len() - rest.len();
        let upper = self.range_end()?;
        self.skip_spaces();
        let upper_included = match self.rest().chars().next() {
            Some(']') => true,
            Some('}') => false,
            _ => return Err(self.wrong("a range that is not closed")),
        };
        self.place += 1;
        Ok(Token::Range { lower, upper, lower_included, upper_included })
    }

    fn range_end(&mut self) -> Result<Option<String>> {
        self.skip_spaces();
        if self.rest().starts_with('"') {
            return self.delimited('"').map(Some);
        }
        let raw = self.take(|letter| !letter.is_whitespace() && letter != ']' && letter != '}');
        match raw.as_str() {
            "" => Err(self.wrong("a range without an end")),
            "*" => Ok(None),
            _ => Ok(Some(Word { raw }.plain())),
        }
    }

    /// `>=10`
    fn compare(&mut self) -> Result<Token> {
        let length = if self.rest()[1..].starts_with('=') { 2 } else { 1 };
        let operator = self.rest()[..length].to_owned();
        self.place += length;
        let value = if self.rest().starts_with('"') {
            self.delimited('"')?
        } else {
            Word { raw: self.take(|letter| !letter.is_whitespace() && letter != ')') }.plain()
        };
        if value.is_empty() {
            return Err(self.wrong(&format!("[{operator}] without a value")));
        }
        Ok(Token::Compare { operator, value })
    }

    fn take(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let rest = self.rest();
        let text = rest[..rest.find(|letter| !wanted(letter)).unwrap_or(rest.len())].to_owned();
        self.place += text.len();
        text
    }

    fn skip_spaces(&mut self) {
        let rest = self.rest();
        self.place += rest.len() - rest.trim_start().len();
    }

    fn wrong(&self, reason: &str) -> contract::SearchError {
        bad("query_shard_exception", format!("Failed to parse query [{}]: {reason}", self.text))
    }
}
