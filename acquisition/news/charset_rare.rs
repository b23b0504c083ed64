//! Character sets that browsers no longer read but feedparser does.

/// The second half of IBM's code page 437: <https://www.unicode.org/Public/MAPPINGS/VENDORS/MICSFT/PC/CP437.TXT>.
const CP437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// Text and name of the encoding, if the label names one of these.
pub(super) fn decode(bytes: &[u8], label: &str) -> Option<(String, &'static str)> {
    match label.trim().to_ascii_lowercase().as_str() {
        "cp437" | "ibm437" | "437" | "cspc8codepage437" => Some((cp437(bytes), "IBM437")),
        "iso-2022-kr" | "iso2022kr" | "iso2022_kr" | "csiso2022kr" => Some((iso_2022_kr(bytes)?, "ISO-2022-KR")),
        _ => None,
    }
}

fn cp437(bytes: &[u8]) -> String {
    let upper: Vec<char> = CP437.chars().collect();
    let letter = |byte: &u8| match byte.checked_sub(0x80) {
        Some(place) => upper.get(usize::from(place)).copied().unwrap_or(char::REPLACEMENT_CHARACTER),
        None => char::from(*byte),
    };
    bytes.iter().map(letter).collect()
}

/// Shift out and shift in (14, 15) switch between ASCII and KS X 1001, whose bytes are EUC-KR's without the high bit:
/// <https://www.rfc-editor.org/rfc/rfc1557>. None if it is none.
fn iso_2022_kr(bytes: &[u8]) -> Option<String> {
    const HEADER: &[u8] = b"\x1b$)C";
    let mut is_korean = false;
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(HEADER) {
            rest = after;
            continue;
        }
        match byte {
            0x0e => is_korean = true,
            0x0f => is_korean = false,
            0x21..=0x7e if is_korean => plain.push(byte | 0x80),
            _ if byte.is_ascii() => plain.push(byte),
            _ => return None,
        }
        rest = after;
    }
    encoding_rs::EUC_KR.decode_without_bom_handling_and_without_replacement(&plain).map(|text| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_page_437_has_a_letter_for_each_byte() {
        assert_eq!(CP437.chars().count(), 128);
        let text = |bytes: &[u8]| decode(bytes, "CP437").map(|(text, _)| text);
        assert_eq!(text(b"caf\x82 \x80\x9b\xe1\xff").as_deref(), Some("café Ç¢ß\u{a0}"));
        assert_eq!(decode(b"a", "utf-8"), None);
    }

    #[test]
    fn korean_of_seven_bits_is_read() {
        let text = |bytes: &[u8]| decode(bytes, "iso-2022-kr").map(|(text, _)| text);
        assert_eq!(text(b"\x1b$)C<a>\x0e0!\x0f</a>").as_deref(), Some("<a>가</a>"));
        assert_eq!(text(b"\x1b$)C\xff"), None);
    }
}
