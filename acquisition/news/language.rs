//! The language of an article: as the feed states it, else by what its text looks like.

use whatlang::Lang;

/// Characters below which a text is too short to be told.
const CHARACTERS_MIN: usize = 60;

/// Characters that are looked at; more do not make it surer.
const CHARACTERS_MAX: usize = 2_000;

/// A language tag as RFC 5646 writes it: `en-us` is `en-US`, `zh_hans_cn` is `zh-Hans-CN`. None for what is no tag.
pub(super) fn tag(stated: &str) -> Option<String> {
    let mut parts = stated.trim().split(['-', '_']);
    let primary = parts.next().filter(|part| matches!(part.len(), 2 | 3) && is_letters(part))?;
    let mut tag = primary.to_ascii_lowercase();
    for part in parts.take_while(|part| matches!(part.len(), 1..=8)) {
        tag.push('-');
        match part.len() {
            2 if is_letters(part) => tag.push_str(&part.to_ascii_uppercase()),
            4 if is_letters(part) => {
                tag.push_str(&part[..1].to_ascii_uppercase());
                tag.push_str(&part[1..].to_ascii_lowercase());
            }
            _ => tag.push_str(&part.to_ascii_lowercase()),
        }
    }
    tag.is_ascii().then_some(tag)
}

/// The language that a text is in, as ISO 639-1 has it, else ISO 639-3; none if that is not sure.
pub(super) fn detect(text: &str) -> Option<&'static str> {
    let head = text.char_indices().nth(CHARACTERS_MAX).map_or(text, |(end, _)| &text[..end]);
    head.chars().nth(CHARACTERS_MIN)?;
    whatlang::detect(head).filter(whatlang::Info::is_reliable).map(|info| short(info.lang()))
}

fn is_letters(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphabetic())
}

/// The two letters of ISO 639-1: the first two of the three, or those listed.
fn short(language: Lang) -> &'static str {
    let code = language.code();
    SHORT.iter().find(|(long, _)| *long == code).map_or(code, |(_, short)| short)
}

const SHORT: &[(&str, &str)] = &[
    ("afr", "af"),
    ("aka", "ak"),
    ("amh", "am"),
    ("ara", "ar"),
    ("aze", "az"),
    ("bel", "be"),
    ("ben", "bn"),
    ("bul", "bg"),
    ("cat", "ca"),
    ("ces", "cs"),
    ("cmn", "zh"),
    ("cym", "cy"),
    ("dan", "da"),
    ("deu", "de"),
    ("ell", "el"),
    ("eng", "en"),
    ("epo", "eo"),
    ("est", "et"),
    ("fin", "fi"),
    ("fra", "fr"),
    ("guj", "gu"),
    ("heb", "he"),
    ("hin", "hi"),
    ("hrv", "hr"),
    ("hun", "hu"),
    ("hye", "hy"),
    ("ind", "id"),
    ("ita", "it"),
    ("jav", "jv"),
    ("jpn", "ja"),
    ("kan", "kn"),
    ("kat", "ka"),
    ("khm", "km"),
    ("kor", "ko"),
    ("lat", "la"),
    ("lav", "lv"),
    ("lit", "lt"),
    ("mal", "ml"),
    ("mar", "mr"),
    ("mkd", "mk"),
    ("mya", "my"),
    ("nep", "ne"),
    ("nld", "nl"),
    ("nob", "nb"),
    ("ori", "or"),
    ("pan", "pa"),
    ("pes", "fa"),
    ("pol", "pl"),
    ("por", "pt"),
    ("ron", "ro"),
    ("rus", "ru"),
    ("sin", "si"),
    ("slk", "sk"),
    ("slv", "sl"),
    ("sna", "sn"),
    ("spa", "es"),
    ("srp", "sr"),
    ("swe", "sv"),
    ("tam", "ta"),
    ("tel", "te"),
    ("tgl", "tl"),
    ("tha", "th"),
    ("tuk", "tk"),
    ("tur", "tr"),
    ("ukr", "uk"),
    ("urd", "ur"),
    ("uzb", "uz"),
    ("vie", "vi"),
    ("yid", "yi"),
    ("zul", "zu"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_written_as_the_rfc_writes_them() {
        for (stated, expected) in [
            ("en-us", "en-US"),
            ("EN", "en"),
            ("zh_hans_cn", "zh-Hans-CN"),
            ("de-DE-1996", "de-DE-1996"),
            (" pt-br ", "pt-BR"),
        ] {
            assert_eq!(tag(stated).as_deref(), Some(expected));
        }
        for stated in ["", "x-klingon", "English", "é"] {
            assert_eq!(tag(stated), None, "{stated}");
        }
    }

    #[test]
    fn long_text_is_told_and_short_text_is_not() {
        let german = "Der Gletscher hat im vergangenen Jahr mehr Eis verloren als in jedem anderen Jahr seit Beginn der Messungen.";
        assert_eq!(detect(german), Some("de"));
        assert_eq!(detect("Das Eis"), None);
    }
}
