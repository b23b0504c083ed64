//! White space and TeX in titles, abstracts and names.

use std::borrow::Cow;

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

/// The text mended, and its TeX accents and letters as Unicode: `Erd\H{o}s` becomes `Erdős`. Formulas stay as they are,
/// and so does what has no Unicode letter of its own.
pub(super) fn clean(text: &str) -> String {
    let mended = mend(text);
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
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '$', '{']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match formula_length(rest) {
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

/// Bytes of the formula that `text` starts with.
fn formula_length(text: &str) -> Option<usize> {
    let (open, close) = [("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")]
        .into_iter()
        .find(|(open, _)| text.starts_with(open))?;
    let mut at = open.len();
    loop {
        at += text[at..].find(close)?;
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
    fn white_space_is_mended() {
        assert_eq!(clean("  Long\n  title\t of\u{a0}lines \n"), "Long title of lines");
        assert_eq!(mend(""), "");
        assert_eq!(clean("0"), "0");
    }
}
