//! Random bytes: `fill` for secrets, `RequestIds` for names that only have to be different.
//!
//! `RequestIds` is seeded from the system but can be predicted from its output: never make a secret, a nonce or a
//! session name with it.

use std::fmt;

use aws_lc_rs::rand;

/// Fills `bytes` from the system's cryptographic generator.
pub fn fill(bytes: &mut [u8]) {
    rand::fill(bytes).expect("the system's random source answers; without it no secret can be made and going on is unsafe");
}

/// A value spread evenly over `0..bound` for jitter; 0 when `bound` is 0.
pub fn below(bound: u64) -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes).checked_rem(bound).unwrap_or(0)
}

/// A source of unique, non-secret 128-bit ids; each worker owns one, so no two workers share a cache line.
#[derive(Debug)]
pub struct RequestIds {
    high: u64,
    low: u64,
}

impl RequestIds {
    /// A source with a fresh seed from the system.
    pub fn new() -> Self {
        let mut seed = [0; 16];
        fill(&mut seed);
        let seed = u128::from_le_bytes(seed);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the two halves of the seed"
        )]
        let (high, low) = ((seed >> 64) as u64, seed as u64);
        Self { high, low }
    }

    /// The next id of 128 bits, never all zero (W3C Trace Context §3.2.2.3 forbids that for trace ids).
    pub fn next_id(&mut self) -> HexId {
        let value = (u128::from(step(&mut self.high)) << 64) | u128::from(step(&mut self.low));
        HexId::of(value.max(1))
    }

    /// The next id of 64 bits, never zero, for spans.
    pub fn next_u64(&mut self) -> u64 {
        step(&mut self.low).max(1)
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}

/// One step of splitmix64: a counter with a good mixer, so a period of 2^64 without state to spoil.
fn step(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 128 bits as 32 lower-case hexadecimal characters, without an allocation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HexId([u8; 32]);

impl HexId {
    /// The characters of `value`, most significant first.
    pub fn of(value: u128) -> Self {
        let mut out = [0; 32];
        let (pairs, _) = out.as_chunks_mut::<2>();
        for (pair, byte) in pairs.iter_mut().zip(value.to_be_bytes()) {
            *pair = HEX[usize::from(byte)];
        }
        Self(out)
    }

    /// The 32 characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }

    /// The 32 characters as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for HexId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for HexId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The two digits of each byte.
static HEX: [[u8; 2]; 256] = {
    let mut table = [[0; 2]; 256];
    let mut byte = 0_u8;
    loop {
        table[byte as usize] = [hex_digit(byte >> 4), hex_digit(byte & 0x0f)];
        if byte == u8::MAX {
            break table;
        }
        byte += 1;
    }
};

const fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 {
        b'0' + nibble
    } else {
        b'a' + nibble - 10
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{HexId, RequestIds};

    #[test]
    fn ids_are_different_and_of_fixed_form() {
        let (mut a, mut b) = (RequestIds::new(), RequestIds::new());
        let ids: HashSet<HexId> = (0..10_000)
            .flat_map(|_| [a.next_id(), b.next_id()])
            .collect();
        assert_eq!(ids.len(), 20_000);
        assert!(ids.iter().all(|id| {
            id.as_str()
                .bytes()
                .all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
        }));
    }

    #[test]
    fn hex_keeps_leading_zeros_and_order() {
        assert_eq!(
            HexId::of(0x0123_4567_89ab_cdef).as_str(),
            "00000000000000000123456789abcdef"
        );
    }

    #[test]
    fn fill_changes_the_bytes() {
        let mut bytes = [0; 32];
        super::fill(&mut bytes);
        assert_ne!(bytes, [0; 32]);
        assert_eq!(super::below(0), 0);
        assert!(super::below(7) < 7);
    }
}
