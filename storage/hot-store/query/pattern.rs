//! Patterns of terms: turned into the regular expressions that tantivy walks its term dictionary with, and
//! matched against single words for highlighting.
//!
//! The automaton is built whole and in memory, so what goes in is bounded here: the letters, the wildcards,
//! and how far counted repetitions unfold. An automaton of more than 1,000 states is refused by tantivy's.

use super::ast::Pattern;
use super::error::{Result, illegal};

/// Letters of a pattern. Longer terms are looked up by a prefix of this length in practice.
const LETTERS_MAX: usize = 256;

/// Wildcards of a pattern: each may double the states.
const WILDCARDS_MAX: usize = 20;

/// Letters of a regular expression times what its counted repetitions multiply to.
const UNFOLDED_MAX: usize = 512;

/// The regular expression of a pattern, which fits whole terms.
pub(super) fn regex(pattern: &Pattern, case_insensitive: bool) -> Result<String> {
    let (Pattern::Prefix(text) | Pattern::Wildcard(text) | Pattern::Regexp(text)) = pattern;
    if text.chars().count() > LETTERS_MAX {
        return Err(illegal(format!("a pattern of more than {LETTERS_MAX} letters is not supported")));
    }
    match pattern {
        Pattern::Prefix(prefix) => {
            let mut out = String::new();
            prefix.chars().for_each(|letter| push_letter(&mut out, letter, case_insensitive));
            Ok(out + ANY)
        }
        Pattern::Wildcard(wildcard) => {
            let letters = wildcard_letters(wildcard);
            if letters.iter().filter(|letter| !matches!(letter, Letter::Plain(_))).count() > WILDCARDS_MAX {
                return Err(illegal(format!("a pattern of more than {WILDCARDS_MAX} wildcards is not supported")));
            }
            let mut out = String::new();
            for letter in letters {
                match letter {
                    Letter::Any => out.push_str(ANY),
                    Letter::One => out.push_str("(?s:.)"),
                    Letter::Plain(letter) => push_letter(&mut out, letter, case_insensitive),
                }
            }
            Ok(out)
        }
        Pattern::Regexp(_) if case_insensitive => Err(illegal("[regexp] does not support [case_insensitive]")),
        Pattern::Regexp(regexp) => guarded(regexp),
    }
}

/// Any letters, line ends too.
const ANY: &str = "(?s:.)*";

/// A letter of a wildcard pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Letter {
    /// `*`
    Any,
    /// `?`
    One,
    Plain(char),
}

fn wildcard_letters(pattern: &str) -> Vec<Letter> {
    let mut letters = Vec::new();
    let mut rest = pattern.chars();
    while let Some(letter) = rest.next() {
        let letter = match letter {
            '*' => Letter::Any,
            '?' => Letter::One,
            '\\' => Letter::Plain(rest.next().unwrap_or('\\')),
            plain => Letter::Plain(plain),
        };
        if letter != Letter::Any || letters.last() != Some(&Letter::Any) {
            letters.push(letter);
        }
    }
    letters
}

fn push_letter(out: &mut String, letter: char, case_insensitive: bool) {
    let mut forms = vec![letter];
    if case_insensitive {
        forms.extend(letter.to_lowercase().chain(letter.to_uppercase()).filter(|other| *other != letter));
        forms.dedup();
    }
    if forms.len() > 1 {
        out.push('[');
    }
    for form in &forms {
        if form.is_ascii_punctuation() {
            out.push('\\');
        }
        out.push(*form);
    }
    if forms.len() > 1 {
        out.push(']');
    }
}

/// The regular expression in the syntax of tantivy's, if it is harmless.
fn guarded(regexp: &str) -> Result<String> {
    let refuse = |what: &str| Err(illegal(format!("[regexp] does not support {what} in [{regexp}]")));
    let mut out = String::from("(?s:");
    let mut unfolded = regexp.chars().count().max(1);
    let mut in_class = false;
    let mut depth = 0_usize;
    let mut letters = regexp.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                // ASCII, as in Lucene; Unicode's classes would unfold to thousands of states.
                Some('d') => out.push_str(if in_class { "0-9" } else { "[0-9]" }),
                Some('w') => out.push_str(if in_class { "0-9A-Za-z_" } else { "[0-9A-Za-z_]" }),
                Some('s') => out.push_str(if in_class { " \\t\\r\\n" } else { "[ \\t\\r\\n]" }),
                Some('D') if !in_class => out.push_str("[^0-9]"),
                Some('W') if !in_class => out.push_str("[^0-9A-Za-z_]"),
                Some('S') if !in_class => out.push_str("[^ \\t\\r\\n]"),
                Some(escaped) if escaped.is_ascii_punctuation() => out.extend(['\\', escaped]),
                Some(escaped) if !escaped.is_ascii() => out.push(escaped),
                Some(escaped) => return refuse(&format!("[\\{escaped}]")),
                None => return refuse("a backslash at the end"),
            },
            // A class inside a class and its operators are extensions that Lucene has not.
            '[' | '&' | '~' if in_class => out.extend(['\\', letter]),
            '[' => {
                in_class = true;
                out.push('[');
                if letters.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '{' if !in_class => {
                let counts: String = std::iter::from_fn(|| letters.next_if(|letter| *letter != '}')).collect();
                let largest = counts
                    .split(',')
                    .filter(|count| !count.is_empty())
                    .map(str::parse::<usize>)
                    .max_by_key(|count| count.as_ref().map_or(usize::MAX, |count| *count));
                let (Some(Ok(largest)), Some('}')) = (largest, letters.next()) else {
                    return refuse("a malformed repetition");
                };
                unfolded = unfolded.saturating_mul(largest.max(1));
                out.push_str(&format!("{{{counts}}}"));
            }
            '(' if !in_class => {
                depth += 1;
                if letters.peek() == Some(&'?') {
                    return refuse("[(?]");
                }
                out.push('(');
            }
            // One too many would end the group that this expression stands in.
            ')' if !in_class && depth == 0 => return refuse("an unopened [)]"),
            ')' if !in_class => {
                depth -= 1;
                out.push(')');
            }
            '^' | '$' | '#' | '@' | '&' | '~' | '<' | '>' | '"' => out.extend(['\\', letter]),
            other => out.push(other),
        }
        if unfolded > UNFOLDED_MAX {
            return refuse("repetitions that unfold so far");
        }
    }
    Ok(out + ")")
}

/// Whether a word fits a prefix or wildcard pattern; regular expressions are not tried.
pub(super) fn fits(pattern: &Pattern, word: &str) -> bool {
    match pattern {
        Pattern::Prefix(prefix) => word.starts_with(prefix.as_str()),
        Pattern::Wildcard(wildcard) => glob(&wildcard_letters(wildcard), word),
        Pattern::Regexp(_) => false,
    }
}

/// Whether a name fits a pattern with `*`: column names.
pub(super) fn name_fits(pattern: &str, name: &str) -> bool {
    glob(&wildcard_letters(pattern), name)
}

/// Matches from left to right, going back only to the last `*`.
fn glob(pattern: &[Letter], word: &str) -> bool {
    let word: Vec<char> = word.chars().collect();
    let (mut place, mut at) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while at < word.len() {
        match pattern.get(place) {
            Some(Letter::Any) => {
                retry = Some((place + 1, at));
                place += 1;
            }
            Some(Letter::One) => (place, at) = (place + 1, at + 1),
            Some(Letter::Plain(letter)) if *letter == word[at] => (place, at) = (place + 1, at + 1),
            _ => match &mut retry {
                Some((after, from)) => {
                    *from += 1;
                    (place, at) = (*after, *from);
                }
                None => return false,
            },
        }
    }
    pattern[place..].iter().all(|letter| *letter == Letter::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_fits_whole_words() {
        let cases = [
            ("*", "", true),
            ("a*", "abc", true),
            ("a*c", "abcc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*b*d*", "abcde", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("", "", true),
            ("", "a", false),
        ];
        for (pattern, word, expected) in cases {
            assert_eq!(fits(&Pattern::Wildcard(pattern.to_owned()), word), expected, "{pattern} {word}");
        }
    }

    #[test]
    fn a_pattern_that_would_explode_is_refused() {
        let patterns = ["a{4000000000}", "(a{30}){30}", "(?i)a", "\\p{L}", "\\bx", "a{,}", "()){3}", "a{2", "\\"];
        for regexp in patterns {
            let error = regex(&Pattern::Regexp(regexp.to_owned()), false).expect_err(regexp);
            assert_eq!(error.kind, "illegal_argument_exception", "{regexp}");
        }
        assert!(regex(&Pattern::Wildcard("a*".repeat(100)), false).is_err());
        assert!(regex(&Pattern::Prefix("a".repeat(300)), false).is_err());
    }

    #[test]
    fn letters_of_the_pattern_are_taken_as_they_are() {
        assert_eq!(regex(&Pattern::Prefix("a.b".to_owned()), false).expect("valid"), "a\\.b(?s:.)*");
        assert_eq!(regex(&Pattern::Wildcard("A?".to_owned()), true).expect("valid"), "[Aa](?s:.)");
        assert_eq!(regex(&Pattern::Regexp("a\\d+#".to_owned()), false).expect("valid"), "(?s:a[0-9]+\\#)");
    }
}
