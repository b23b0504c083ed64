//! Bytes as hexadecimal digits, and back.

/// Two lower-case digits a byte.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of an even number of digits, of either case; none for any other text.
pub(crate) fn bytes_of_hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    rest.is_empty().then_some(())?;
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_back_and_nothing_else_is() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(bytes_of_hexadecimal(&hexadecimal(&all)), Some(all));
        assert_eq!(hexadecimal(&[0, 10, 255]), "000aff");
        assert_eq!(bytes_of_hexadecimal("0AfF"), Some(vec![10, 255]));
        assert_eq!(bytes_of_hexadecimal(""), Some(Vec::new()));
        for wrong in ["0", "0g", "+1", "é", "0x00"] {
            assert_eq!(bytes_of_hexadecimal(wrong), None, "{wrong}");
        }
    }
}
