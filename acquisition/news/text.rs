//! What is counted from an article's text: words, reading time, keywords, a signature of near-duplicates.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64;

use super::stopwords::is_stopword;

/// Words that an adult reads silently in a minute (Brysbaert 2019, <https://doi.org/10.1016/j.jml.2019.104047>).
const WORDS_PER_MINUTE: usize = 238;

/// Characters a minute where words are written without spaces between them, from the same study.
const CHARACTERS_PER_MINUTE: usize = 260;

/// Keywords of one article at the most.
const KEYWORDS_MAX: usize = 10;

/// Words that are looked at; what an article is about shows in its first pages.
const WORDS_MAX: usize = 20_000;

/// Words of a text, lower-case: runs of letters and digits, with `'`, `’` and `-` inside; of Chinese, Japanese and Thai,
/// which put no spaces between words, every character is one.
pub(super) fn words(text: &str) -> impl Iterator<Item = String> {
    let is_part = |letter: char| letter.is_alphanumeric() || matches!(letter, '\'' | '’' | '-');
    let runs = text.split(move |letter| !is_part(letter)).take(WORDS_MAX * 2);
    runs.flat_map(split_unspaced).filter(|word| word.contains(char::is_alphanumeric)).take(WORDS_MAX)
}

fn split_unspaced(run: &str) -> Vec<String> {
    let run = run.trim_matches(|letter: char| !letter.is_alphanumeric());
    if !run.contains(is_unspaced) {
        return if run.is_empty() { Vec::new() } else { vec![run.to_lowercase()] };
    }
    run.chars().filter(|letter| letter.is_alphanumeric()).take(WORDS_MAX).map(String::from).collect()
}

fn is_unspaced(letter: char) -> bool {
    matches!(letter, '\u{0e00}'..='\u{0e7f}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}')
}

/// How many words a text has, [`words`] counted, and how many seconds it takes to read it.
pub(super) fn length(text: &str) -> (usize, usize) {
    let (mut spaced, mut unspaced) = (0, 0);
    for word in words(text) {
        match word.starts_with(is_unspaced) {
            true => unspaced += 1,
            false => spaced += 1,
        }
    }
    let seconds =
        spaced as f64 * 60.0 / WORDS_PER_MINUTE as f64 + unspaced as f64 * 60.0 / CHARACTERS_PER_MINUTE as f64;
    (spaced + unspaced, seconds.ceil() as usize)
}

/// A 64-bit simhash (Charikar 2002; Manku, Jain and Das Sarma 2007, <https://doi.org/10.1145/1242572.1242592>) as 16
/// hexadecimal digits. Features are all runs of three [`words`] (of fewer where there are no three), each counted as
/// often as it stands, hashed with XXH3. Near-duplicates differ in three bits or so. None for a text without words.
pub(super) fn simhash(text: &str) -> Option<String> {
    let words: Vec<String> = words(text).collect();
    let mut sums = [0_i32; 64];
    for feature in words.windows(words.len().clamp(1, 3)) {
        let hash = xxh3_64(feature.join(" ").as_bytes());
        for (bit, sum) in sums.iter_mut().enumerate() {
            *sum += if hash >> bit & 1 == 1 { 1 } else { -1 };
        }
    }
    let bits = sums.iter().enumerate().fold(0_u64, |bits, (bit, sum)| bits | u64::from(*sum > 0) << bit);
    (!words.is_empty()).then(|| format!("{bits:016x}"))
}

/// The words an article is about, most telling first. A word counts as often as it stands, in the title four times
/// over, and by how early it first stands; it is left out if it is short, a number, one of the language's small words,
/// or stands only once and not in the title. Languages without spaces have none.
pub(super) fn keywords(title: &str, text: &str, language: Option<&str>) -> Vec<String> {
    let mut found: HashMap<String, (usize, usize)> = HashMap::new();
    let weighted = words(title).map(|word| (word, 4)).chain(words(text).map(|word| (word, 1)));
    let mut total = 0;
    for (place, (word, weight)) in weighted.enumerate() {
        total = place + 1;
        let (count, _) = found.entry(word).or_insert((0, place));
        *count += weight;
    }
    let is_telling = |word: &str, count: usize| {
        let is_long = word.chars().filter(|letter| letter.is_alphabetic()).count() >= 3;
        count >= 2 && is_long && !word.contains(is_unspaced) && !is_stopword(word, language)
    };
    let scored = found.into_iter().filter(|(word, (count, _))| is_telling(word, *count));
    let mut scored: Vec<(f64, usize, String)> = scored
        .map(|(word, (count, first))| (count as f64 * (2.0 - first as f64 / total as f64), first, word))
        .collect();
    scored.sort_by(|left, right| right.0.total_cmp(&left.0).then(left.1.cmp(&right.1)));
    scored.into_iter().take(KEYWORDS_MAX).map(|(_, _, word)| word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORY: &str = "The glacier lost more ice last year than in any year since records began. Scientists who measure \
        the glacier say that warm rain, not sun, melted most of the ice. Rain on ice is new to the valley.";

    #[test]
    fn words_are_counted_and_timed() {
        assert_eq!(words("It’s state-of-the-art, 2 go!").collect::<Vec<_>>(), ["it’s", "state-of-the-art", "2", "go"]);
        assert_eq!(length(STORY), (38, 10));
        assert_eq!(length("東京は晴れ。"), (5, 2));
        assert_eq!(length(""), (0, 0));
    }

    #[test]
    fn near_duplicates_are_near() {
        let bits = |text: &str| u64::from_str_radix(&simhash(text).unwrap(), 16).unwrap();
        let distance = |left: &str, right: &str| (bits(left) ^ bits(right)).count_ones();
        assert_eq!(distance(STORY, &STORY.to_uppercase()), 0);
        assert!(distance(STORY, &STORY.replace("last year", "this year")) <= 16);
        assert!(
            distance(STORY, "A parliament of owls met in the old barn to talk about mice and the price of hay.") > 16
        );
        assert_eq!(simhash(" ."), None);
    }

    #[test]
    fn keywords_are_what_it_is_about() {
        assert_eq!(keywords("Glacier melts in the rain", STORY, Some("en"))[..3], ["glacier", "rain", "melts"]);
        assert!(keywords("", "", None).is_empty());
    }
}
