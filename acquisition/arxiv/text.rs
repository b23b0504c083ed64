//! White space and TeX in titles, abstracts and names.

use std::borrow::Cow;

use encoding_rs::WINDOWS_1252;
use unicode_normalization::char::compose;

/// The text with every run of white space as one space, and none at its ends.
pub(super) fn mend(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The text as it was before it was encoded in UTF-8 twice; itself if it was not: `CafÃ©` becomes `Café`.
pub(super) fn decode_twice(text: &str) -> Cow<'_, str> {
    let bytes: Option<Vec<u8>> = text.chars().map(|letter| u8::try_from(letter).ok()).collect();
    let decoded = bytes.filter(|_| !text.is_ascii()).and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.map_or(Cow::Borrowed(text), Cow::Owned)
}

/// Puts one more text at the end of those joined by `; `.
pub(super) fn append(list: &mut Option<String>, text: &str) {
    match list {
        Some(before) => before.extend(["; ", text]),
        None => *list = Some(text.to_owned()),
    }
}

/// As much of a text as has `bytes_max`, cut between two characters.
pub(super) fn head(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// Control characters that only windows-1252 gives a meaning, as that: `It\u{92}s` becomes `It’s`. Those inside what was
/// encoded in UTF-8 twice stay.
fn name_controls(text: &str) -> Cow<'_, str> {
    let is_control = |letter: char| ('\u{80}'..='\u{9f}').contains(&letter);
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut is_in_sequence = false;
    let mut name = |letter: char| {
        let byte = u8::try_from(letter).unwrap_or(0);
        if is_control(letter) && !is_in_sequence {
            return WINDOWS_1252.decode_without_bom_handling(&[byte]).0.chars().next().unwrap_or(letter);
        }
        is_in_sequence = matches!(byte, 0xc2..=0xf4) || is_in_sequence && matches!(byte, 0x80..=0xbf);
        letter
    };
    Cow::Owned(text.chars().map(&mut name).collect())
}

/// The text mended, and its TeX accents and letters as Unicode: `Erd\H{o}s` becomes `Erdős`. Formulas stay as they are,
/// and so does what has no Unicode letter of its own.
pub(super) fn clean(text: &str) -> String {
    let mended = mend(&name_controls(text));
    match to_unicode(&mended) {
        Cow::Borrowed(_) => mended,
        Cow::Owned(text) => text,
    }
}

fn to_unicode(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut formulas) = (text, FORMULAS);
    while let Some(at) = rest.find(['\\', '$', '{']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match formula_length(rest, &mut formulas) {
            Some(length) => {
                out.push_str(&rest[..length]);
                length
            }
            None => push_letter(rest, &mut out),
        };
        rest = &rest[taken..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// What opens a formula, what closes it, and whether there may still be one that closes.
type Formulas = [(&'static str, &'static str, bool); 4];

const FORMULAS: Formulas = [("$$", "$$", true), ("$", "$", true), ("\\(", "\\)", true), ("\\[", "\\]", true)];

/// Bytes of the formula that `text` starts with. Where nothing closes it, nothing will close a later one.
fn formula_length(text: &str, formulas: &mut Formulas) -> Option<usize> {
    let (open, close, may_close) = formulas.iter_mut().find(|(open, _, _)| text.starts_with(*open))?;
    let mut at = open.len();
    loop {
        let found = if *may_close { text[at..].find(*close) } else { None };
        *may_close = found.is_some();
        at += found?;
        // `\$` is a dollar sign.
        let is_escaped = close.starts_with('$') && text[..at].ends_with('\\');
        at += close.len();
        if !is_escaped {
            return Some(at);
        }
    }
}

/// Appends the letter that `text` starts with, or what stands there if it is none; answers the bytes taken.
fn push_letter(text: &str, out: &mut String) -> usize {
    if let Some((letter, length)) = letter(text).or_else(|| letter_in_braces(text)) {
        out.push_str(letter.encode_utf8(&mut [0; 4]));
        return length;
    }
    // The character after a backslash belongs to it: `\\`, `\$`.
    let characters = if text.starts_with('\\') { 2 } else { 1 };
    let length = text.chars().take(characters).map(char::len_utf8).sum();
    out.push_str(&text[..length]);
    length
}

/// `{\"o}`: the braces go with the command.
fn letter_in_braces(text: &str) -> Option<(char, usize)> {
    let (letter, length) = letter(text.strip_prefix('{')?)?;
    text[1 + length..].starts_with('}').then_some((letter, length + 2))
}

/// An accented or named letter: `\"o`, `\"{o}`, `\v c`, `\ss`.
fn letter(text: &str) -> Option<(char, usize)> {
    let rest = text.strip_prefix('\\')?;
    let command = rest.chars().next()?;
    if let Some(mark) = mark(command) {
        let is_word = command.is_ascii_alphabetic();
        if let Some((base, length)) = base(&rest[1..], is_word)
            && let Some(letter) = compose(base, mark)
        {
            return Some((letter, 2 + length));
        }
    }
    let (name, end) = command_name(rest);
    named_letter(name).map(|letter| (letter, 1 + end))
}

/// The combining mark of an accent's command.
fn mark(command: char) -> Option<char> {
    Some(match command {
        '\'' => '\u{301}',
        '`' => '\u{300}',
        '^' => '\u{302}',
        '"' => '\u{308}',
        '~' => '\u{303}',
        '=' => '\u{304}',
        '.' => '\u{307}',
        'u' => '\u{306}',
        'v' => '\u{30c}',
        'H' => '\u{30b}',
        'c' => '\u{327}',
        'k' => '\u{328}',
        'r' => '\u{30a}',
        'd' => '\u{323}',
        'b' => '\u{331}',
        _ => return None,
    })
}

/// What an accent stands on: `{o}`, `{\i}`, `\i`, `o`; after a command of letters a space must come first.
fn base(text: &str, after_word: bool) -> Option<(char, usize)> {
    let trimmed = text.trim_start_matches(' ');
    let spaces = text.len() - trimmed.len();
    let plain = |text: &str| {
        if let Some(rest) = text.strip_prefix('\\') {
            let (name, end) = command_name(rest);
            let letter = match name {
                "i" => 'i',
                "j" => 'j',
                _ => return None,
            };
            return Some((letter, 1 + end));
        }
        text.chars().next().filter(|letter| letter.is_alphabetic()).map(|letter| (letter, letter.len_utf8()))
    };
    if let Some(inside) = trimmed.strip_prefix('{') {
        let (letter, length) = plain(inside)?;
        return inside[length..].starts_with('}').then_some((letter, spaces + length + 2));
    }
    if after_word && spaces == 0 && !trimmed.starts_with('\\') {
        return None;
    }
    plain(trimmed).map(|(letter, length)| (letter, spaces + length))
}

/// The letters of a command and where it ends: TeX takes the spaces after it, or an empty group.
fn command_name(text: &str) -> (&str, usize) {
    let length = text.bytes().take_while(u8::is_ascii_alphabetic).count();
    let rest = &text[length..];
    let end = if rest.starts_with("{}") { 2 } else { rest.len() - rest.trim_start_matches(' ').len() };
    (&text[..length], length + end)
}

fn named_letter(name: &str) -> Option<char> {
    Some(match name {
        "ss" => 'ß',
        "ae" => 'æ',
        "AE" => 'Æ',
        "oe" => 'œ',
        "OE" => 'Œ',
        "aa" => 'å',
        "AA" => 'Å',
        "o" => 'ø',
        "O" => 'Ø',
        "l" => 'ł',
        "L" => 'Ł',
        "i" => 'ı',
        "j" => 'ȷ',
        "dh" => 'ð',
        "DH" => 'Ð',
        "th" => 'þ',
        "TH" => 'Þ',
        "dj" => 'đ',
        "DJ" => 'Đ',
        "ng" => 'ŋ',
        "NG" => 'Ŋ',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accents_become_letters() {
        for (tex, expected) in [
            (r"Erd\H{o}s", "Erdős"),
            (r#"K\"ahler, K\"{a}hler, K{\"a}hler"#, "Kähler, Kähler, Kähler"),
            (r"C. Bal\'azs", "C. Balázs"),
            (r"Santamar\'{\i}a, Santamar\'\i a", "Santamaría, Santamaría"),
            (r"Fran\c{c}ois, Fran\c cois", "François, François"),
            (r"\v{C}ech, \v Cech", "Čech, Čech"),
            (r"Mikkel {\O}bro and \O stergaard", "Mikkel Øbro and Østergaard"),
            (r"\L{}ukasz, {\L}ukasz, \L ukasz", "Łukasz, Łukasz, Łukasz"),
            (r"Gau\ss{} and \'Etale", "Gauß and Étale"),
            (r"T\^ete-\`a-t\^ete \~n \=a \.Z \u{g} \k{a} \r{u} \d{s} \b{d}", "Tête-à-tête ñ ā Ż ğ ą ů ṣ ḏ"),
        ] {
            assert_eq!(clean(tex), expected, "{tex}");
        }
    }

    #[test]
    fn formulas_and_other_commands_stay() {
        for text in [
            r"$\'e$ and $\beta$",
            r"\[ \c c \]",
            r"\(\v c\)",
            r"$$\'e $ \'e$$",
            r"\beta \log \cal \up x \Hom",
            r"\\'e",
            r"100\% \& \_x",
            r"\",
            r"\'",
            r"\c",
            r"\c{",
            r"a {b} \{",
            r"\emph{x}",
            "日本 {\\日}",
        ] {
            assert_eq!(clean(text), text, "{text}");
        }
        assert_eq!(clean(r"costs \$5 and $5, \'e"), r"costs \$5 and $5, é", "a dollar that opens nothing");
        assert_eq!(clean(r"$a \$ \'e$ \'e"), r"$a \$ \'e$ é");
    }

    #[test]
    fn what_was_encoded_twice_is_decoded() {
        assert_eq!(decode_twice("$Ï\u{89}$Test"), "$ω$Test");
        for text in ["Café", "plain", "Ω and Ã©", ""] {
            assert_eq!(decode_twice(text), text);
        }
    }

    #[test]
    fn controls_are_what_windows_meant_by_them() {
        assert_eq!(clean("It\u{92}s \u{93}so\u{94}\u{85}"), "It’s “so”…");
        let twice = "Architectureâ\u{80}\u{94}An";
        assert_eq!(clean(twice), twice);
    }

    #[test]
    fn endless_formulas_are_read_in_bounded_time() {
        for piece in [r"\(", r"\[", r"$\$", "{", r"\'{", r"{\c "] {
            let text = piece.repeat((2 << 20) / piece.len());
            assert_eq!(clean(&text).len(), mend(&text).len(), "{piece}");
        }
    }

    #[test]
    fn white_space_is_mended() {
        assert_eq!(clean("  Long\n  title\t of\u{a0}lines \n"), "Long title of lines");
        assert_eq!(mend(""), "");
        assert_eq!(clean("0"), "0");
    }
}
