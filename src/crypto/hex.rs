//! Lower-case hexadecimal, for digests and authentication codes.

/// The digits of `bytes`, most significant first.
pub fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for nibble in [byte >> 4, byte & 0x0f] {
            let digit = if nibble < 10 {
                b'0' + nibble
            } else {
                b'a' + nibble - 10
            };
            out.push(char::from(digit));
        }
    }
    out
}

/// The `N` bytes that exactly these digits stand for; capital letters are not taken.
pub fn decode<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut out = [0; N];
    for (byte, [high, low]) in out.iter_mut().zip(pairs) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(out)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(encode(&[0, 0x9a, 0xff]), "009aff");
        assert_eq!(decode(b"009aff"), Some([0, 0x9a, 0xff]));
    }

    #[test]
    fn nothing_else_is_read() {
        for bad in ["", "00", "0000000", "009aFF", "009ag0", "+09aff"] {
            assert_eq!(decode::<3>(bad.as_bytes()), None, "{bad}");
        }
    }
}
