//! How evenly the letters of a name are spread.

/// Shannon entropy of the bytes that a name stands for, letters in lower case and without the dots between labels, in
/// bits a byte: 0 for one letter again and again, 3.32 for ten that differ. Rounded to four decimals, so that every
/// machine gives the same.
pub(super) fn entropy(name: &str) -> f64 {
    let mut counts = [0_u16; 256];
    let mut total = 0_u16;
    for byte in name_bytes(name) {
        counts[usize::from(byte.to_ascii_lowercase())] += 1;
        total += 1;
    }
    if total == 0 {
        return 0.0;
    }
    // The sum over letters of n·log2(n), each letter at its first byte.
    let mut sum = 0.0;
    for byte in name_bytes(name) {
        let count = std::mem::take(&mut counts[usize::from(byte.to_ascii_lowercase())]);
        if count > 1 {
            sum += f64::from(count) * f64::from(count).log2();
        }
    }
    let total = f64::from(total);
    ((total.log2() - sum / total) * 10_000.0).round() / 10_000.0
}

/// The bytes of an exact name, its escapes taken back.
fn name_bytes(name: &str) -> impl Iterator<Item = u8> {
    let mut rest = name.as_bytes();
    std::iter::from_fn(move || {
        loop {
            let (byte, length) = match rest {
                [] => return None,
                [b'\\', a @ b'0'..=b'2', b @ b'0'..=b'9', c @ b'0'..=b'9', ..] => {
                    let digits = [a, b, c].map(|digit| u16::from(digit - b'0'));
                    ((digits[0] * 100 + digits[1] * 10 + digits[2]) as u8, 4)
                }
                [b'\\', escaped, ..] => (*escaped, 2),
                [b'.', after @ ..] => {
                    rest = after;
                    continue;
                }
                [byte, ..] => (*byte, 1),
            };
            rest = rest.get(length..).unwrap_or_default();
            return Some(byte);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_is_that_of_the_bytes() {
        assert_eq!(entropy("."), 0.0);
        assert_eq!(entropy("aAa.aaa"), 0.0);
        assert_eq!(entropy("ab.ab"), 1.0);
        assert_eq!(entropy(r"\255\254.\.\\"), 2.0);
        assert!((entropy("0123456789") - std::f64::consts::LOG2_10).abs() < 1e-4);
    }
}
