//! Words of a text: those of Elasticsearch's `standard` tokenizer, Unicode's word boundaries.
//! Source: <https://unicode.org/reports/tr29/#Word_Boundaries>,
//! <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/analysis-standard-tokenizer.html>.

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};
use unicode_segmentation::{UnicodeSegmentation, UnicodeWordIndices};

/// Letters of a word; a longer one is several. Elasticsearch's `max_token_length`.
const LETTERS_MAX: usize = 255;

/// Cuts at the word boundaries of Unicode; what has neither letter nor digit is no word.
#[derive(Clone, Default)]
pub(crate) struct Words {
    token: Token,
}

/// The words of one text.
pub(crate) struct WordStream<'a> {
    words: UnicodeWordIndices<'a>,
    /// What is left of a word that is too long, and where it begins.
    rest: (usize, &'a str),
    token: &'a mut Token,
}

impl Tokenizer for Words {
    type TokenStream<'a> = WordStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream<'a> {
        self.token.reset();
        WordStream { words: text.unicode_word_indices(), rest: (0, ""), token: &mut self.token }
    }
}

impl TokenStream for WordStream<'_> {
    fn advance(&mut self) -> bool {
        if self.rest.1.is_empty() {
            let Some(word) = self.words.next() else { return false };
            self.rest = word;
        }
        let (from, word) = self.rest;
        // A word of so few bytes cannot have more letters.
        let end = if word.len() <= LETTERS_MAX { None } else { word.char_indices().nth(LETTERS_MAX) };
        let (word, rest) = word.split_at(end.map_or(word.len(), |(end, _)| end));
        self.rest = (from + word.len(), rest);
        self.token.text.clear();
        self.token.text.push_str(word);
        self.token.position = self.token.position.wrapping_add(1);
        (self.token.offset_from, self.token.offset_to) = (from, from + word.len());
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut words = Words::default();
        let mut stream = words.token_stream(text);
        let mut found = Vec::new();
        stream.process(&mut |token| {
            assert_eq!(&text[token.offset_from..token.offset_to], token.text);
            assert_eq!(token.position, found.len());
            found.push(token.text.clone());
        });
        found
    }

    #[test]
    fn words_are_cut_as_elasticsearchs_standard_tokenizer_does() {
        // The first is the example of Elasticsearch's page; the others were answered by `_analyze` of 8.19.
        let dog = "The 2 QUICK Brown-Foxes jumped over the lazy dog's bone.";
        let expected = ["The", "2", "QUICK", "Brown", "Foxes", "jumped", "over", "the", "lazy", "dog's", "bone"];
        assert_eq!(words(dog), expected);
        assert_eq!(
            words("README.md x86_64 a.b.c v1.2.3, 3,141.59"),
            ["README.md", "x86_64", "a.b.c", "v1.2.3", "3,141.59"]
        );
        assert_eq!(words("__init__ _ don’t user@host.com"), ["__init__", "don’t", "user", "host.com"]);
        assert_eq!(words("例え naïve größe"), ["例", "え", "naïve", "größe"]);
        assert!(words(" – … ").is_empty());
    }

    #[test]
    fn a_long_word_is_several() {
        let lengths = |text: &str| words(text).iter().map(|word| word.chars().count()).collect::<Vec<_>>();
        assert_eq!(lengths(&"a".repeat(600)), [255, 255, 90]);
        assert_eq!(lengths(&format!("{} b", "é".repeat(255))), [255, 1]);
    }
}
