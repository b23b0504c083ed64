//! What authors say about a paper in words: pages, figures, that it is withdrawn.

/// Pages, as the first number before `pages` or `pp`: `37 pages, 15 figures`, `21+5 pages`.
pub(super) fn page_count(comments: &str) -> Option<i64> {
    count(comments, |word| word.starts_with("page") || matches!(word, "pp" | "pgs" | "pg" | "p"))
}

/// Figures, as the first number before `figures`: `16 EPS figures`, `one figure`, `no figures`.
pub(super) fn figure_count(comments: &str) -> Option<i64> {
    count(comments, |word| word.starts_with("figure") || matches!(word, "fig" | "figs"))
}

/// Words between a number and what it counts: `15 double column pages`.
const WORDS_BETWEEN_MAX: usize = 3;

/// The largest number that is taken for a count; a year or an article's number before `pages` is none.
const COUNT_MAX: i64 = 99_999;

fn count(comments: &str, is_counted: impl Fn(&str) -> bool) -> Option<i64> {
    let comments = comments.to_lowercase();
    let words = words(&comments);
    let mut place = 0;
    while place < words.len() {
        let Some(mut number) = number(words[place]) else {
            place += 1;
            continue;
        };
        place += 1;
        // `21+5 pages` has 26.
        while let [plus, more, ..] = words[place..]
            && let ("+", Some(more)) = (plus, self::number(more))
        {
            number += more;
            place += 2;
        }
        let ahead = words[place..].iter().take(WORDS_BETWEEN_MAX + 1);
        for word in ahead {
            if is_counted(word) && number <= COUNT_MAX {
                return Some(number);
            }
            let is_other_thing = ["page", "figure", "table", "pp"].iter().any(|thing| word.starts_with(thing));
            let is_end =
                is_other_thing || self::number(word).is_some() || word.bytes().all(|byte| b",;.:()".contains(&byte));
            if is_end {
                break;
            }
        }
    }
    None
}

/// Runs of digits, words (`A4` is one), and every other mark by itself.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches(is_gap);
    while let Some(first) = rest.chars().next() {
        let end = match first {
            first if first.is_ascii_digit() => rest.find(|letter: char| !letter.is_ascii_digit()),
            first if first.is_alphabetic() => rest.find(|letter: char| !letter.is_alphanumeric()),
            _ => Some(first.len_utf8()),
        };
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        words.push(word);
        rest = after.trim_start_matches(is_gap);
    }
    words
}

fn is_gap(letter: char) -> bool {
    letter.is_whitespace() || letter == '-'
}

fn number(word: &str) -> Option<i64> {
    const WORDS: &[&str] =
        &["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
    let spelt = || WORDS.iter().position(|known| word.eq_ignore_ascii_case(known)).map(|place| place as i64);
    // More digits than a count has would not fit.
    if word.len() <= 9 { word.parse().ok().or_else(spelt) } else { None }
}

/// Whether comments or abstract say that this paper is withdrawn, as authors and arXiv's administrators say it.
/// An abstract may speak of other things that are withdrawn; it says so of itself in its first sentence.
pub(super) fn is_withdrawn(comments: &str, abstract_text: &str) -> bool {
    let first_sentence = abstract_text.split(". ").next().unwrap_or_default();
    let first_words: String = first_sentence.chars().take(ABSTRACT_START_CHARS).collect();
    says_withdrawn(comments) || says_withdrawn(&first_words)
}

/// What an abstract that only says why there is none needs to come to the point.
const ABSTRACT_START_CHARS: usize = 200;

fn says_withdrawn(text: &str) -> bool {
    let text = text.to_lowercase();
    text.split(['.', ',', ';', ':', '(', ')']).any(|clause| {
        let words: Vec<&str> = clause.split(|letter: char| !letter.is_alphanumeric()).collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let place = words.iter().position(|word| matches!(*word, "withdrawn" | "withdrew"));
        place.is_some_and(|place| is_of_this_paper(&words[..place])) || asks_to_withdraw(&words)
    })
}

/// `We would like to withdraw this paper`, `I am withdrawing the submission`.
fn asks_to_withdraw(words: &[&str]) -> bool {
    let place = words.iter().position(|word| matches!(*word, "withdraw" | "withdrawing"));
    let object = place.map_or(&[][..], |place| &words[place + 1..words.len().min(place + 4)]);
    object.iter().any(|word| ["paper", "article", "submission", "manuscript", "version", "preprint"].contains(word))
}

/// Whether the words before `withdrawn` speak of this paper: `this paper has been`, `the current version is`, none.
fn is_of_this_paper(words: &[&str]) -> bool {
    const THINGS: &[&str] = &[
        "paper",
        "article",
        "submission",
        "manuscript",
        "report",
        "document",
        "work",
        "preprint",
        "note",
        "draft",
        "version",
        "thesis",
        "this",
        "it",
        "i",
        "we",
        "authors",
        "author",
    ];
    const LINKS: &[&str] = &[
        "is",
        "was",
        "be",
        "been",
        "being",
        "has",
        "have",
        "had",
        "temporarily",
        "now",
        "hereby",
        "officially",
        "administratively",
    ];
    const OTHERWISE: &[&str] = &[
        "previous",
        "earlier",
        "older",
        "old",
        "first",
        "referenced",
        "can",
        "cannot",
        "could",
        "may",
        "must",
        "not",
        "would",
        "if",
        "when",
    ];
    if words.iter().any(|word| OTHERWISE.contains(word)) {
        return false;
    }
    let Some(subject) = words.iter().rposition(|word| !LINKS.contains(word)) else { return true };
    let is_linked = subject + 1 < words.len();
    THINGS.contains(&words[subject]) || is_linked && words.iter().any(|word| THINGS.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_figures_are_counted() {
        for (comments, pages, figures) in [
            ("37 pages, 15 figures; published version", Some(37), Some(15)),
            ("LATEX file, 11 pages", Some(11), None),
            ("62 pages including 16 figures and 9 tables", Some(62), Some(16)),
            ("206 Pages, 73 Figures, PhD", Some(206), Some(73)),
            ("12pp, 3 EPS figs.", Some(12), Some(3)),
            ("21+5 pages, 4 color postscript figures", Some(26), Some(4)),
            ("6 pages 3 figures", Some(6), Some(3)),
            ("18 pages and figures", Some(18), None),
            ("78 pages, many figures, graphs and references", Some(78), None),
            ("one figure, ten A4 pages", Some(10), Some(1)),
            ("8 pages (no figures)", Some(8), Some(0)),
            ("2-column, 5 pages, figure 3 corrected", Some(5), None),
            ("Pages 12 to 15 of Proc. 7", None, None),
            ("In Proceedings 2010, arXiv:1006.1234, 99999999999999999999 pages", None, None),
            ("", None, None),
            ("５ pages, ten ñ pages é", Some(10), None),
        ] {
            assert_eq!((page_count(comments), figure_count(comments)), (pages, figures), "{comments}");
        }
    }

    #[test]
    fn what_is_said_to_be_withdrawn_is_withdrawn() {
        for comments in [
            "This paper has been withdrawn by the author due to a crucial sign error",
            "9 pages The paper has been withdrawn by the authors due to a flaw",
            "Paper withdrawn",
            "Withdrawn by the author",
            "Got accepted in NLDB-2013, Withdrawn",
            "I have withdrawn for some changes",
            "This article is withdrawn",
            "This paper had been withdrawn due to",
            "This Paper has been temporarily withdrawn by the author(s)",
            "3 pages. This submission has been withdrawn",
            "This report is officially withdrawn",
            "The authors would like to withdraw the paper",
            "We are withdrawing this version",
            "The authors withdrew this paper",
            "The current version is withdrawn due to a error",
        ] {
            assert!(is_withdrawn(comments, ""), "{comments}");
        }
        for comments in [
            "",
            "12 pages",
            "a note revised from a withdrawn one",
            "withdrawal times of 3 s",
            "how banks withdraw money",
            "The previous version was withdrawn",
        ] {
            assert!(!is_withdrawn(comments, ""), "{comments}");
        }
    }

    #[test]
    fn an_abstract_says_it_in_its_first_words() {
        for text in ["  This paper has been withdrawn by the author.\n", "withdrawn by author", "Withdrawn."] {
            assert!(is_withdrawn("", text), "{text}");
        }
        for text in [
            "The secret can be easily inserted but cannot be withdrawn without opening the box.",
            "We study drugs. They were withdrawn by the maker.",
            "The input that elicited that state is withdrawn.",
        ] {
            assert!(!is_withdrawn("", text), "{text}");
        }
    }
}
