//! SHA-256, for keys of tables and fingerprints. Passwords and authentication codes are not its work.

use aws_lc_rs::digest;

/// A SHA-256 value.
pub type Sha256 = [u8; 32];

/// The SHA-256 of `bytes` (FIPS 180-4).
pub fn sha256(bytes: &[u8]) -> Sha256 {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// The SHA-256 of several pieces as if they were one.
pub fn sha256_of(pieces: &[&[u8]]) -> Sha256 {
    let mut context = digest::Context::new(&digest::SHA256);
    for piece in pieces {
        context.update(piece);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn sha256_of_abc_is_the_published_one() {
        assert_eq!(super::sha256(b"abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(super::sha256_of(&[b"a", b"", b"bc"]), super::sha256(b"abc"));
    }
}
