//! One-time codes by the clock (RFC 6238 over RFC 4226): HMAC-SHA-1, six digits, a new one each 30 seconds.
//!
//! What authenticator apps show; they speak no other kind. A code counts in its own step and in the one before and after,
//! since clocks differ. That a code counts once is for `account` to see. SHA-1 is what the apps know; what is asked of it
//! here, an authentication code, is not where it is broken.

use aws_lc_rs::hmac;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::crypto::{rng, secret::Secret};

/// Seconds of a step.
pub const STEP: u64 = 30;
/// Digits of a code.
pub const DIGITS: usize = 6;
/// Steps to either side whose codes count.
const AROUND: u64 = 1;
/// Bytes of a secret that is made here: as many as the hash has (RFC 4226 §4 R6).
const SECRET_BYTES: usize = 20;
/// The least that is taken (RFC 4226 §4 R6: 128 bit, and 160 is asked for).
const LEAST_BYTES: usize = 20;

/// What stands unescaped in a part of the address.
const PART: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The digits of a code as a person typed them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code([u8; DIGITS]);

impl Code {
    /// Six digits; spaces, as apps show them, count for nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let mut digits = [0; DIGITS];
        let mut places = digits.iter_mut();
        for byte in text.bytes().filter(|byte| *byte != b' ') {
            if !byte.is_ascii_digit() {
                return None;
            }
            *places.next()? = byte;
        }
        places.next().is_none().then_some(Self(digits))
    }
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Code(…)")
    }
}

/// A secret that nobody else has.
pub fn fresh_secret() -> Secret {
    let mut bytes = vec![0; SECRET_BYTES];
    rng::fill(&mut bytes);
    Secret::new(bytes)
}

/// The step whose code this is, of those that count at `now` (Unix seconds); the latest where two have the same code.
/// Every one is computed and compared in constant time.
pub fn step_of(secret: &Secret, code: Code, now: u64) -> Option<u64> {
    if secret.expose().len() < LEAST_BYTES {
        return None;
    }
    let current = now / STEP;
    let steps = current.saturating_sub(AROUND)..=current.saturating_add(AROUND);
    let mut found = None;
    for step in steps {
        if bool::from(code_of(secret, step).0.ct_eq(&code.0)) {
            found = Some(step);
        }
    }
    found
}

/// When the code of a step counts no more, in Unix seconds.
pub fn end_of(step: u64) -> u64 {
    step.saturating_add(AROUND + 1).saturating_mul(STEP)
}

/// The code of a step.
pub(super) fn code_of(secret: &Secret, step: u64) -> Code {
    let mut rest = number(secret, step);
    let mut out = [b'0'; DIGITS];
    for place in out.iter_mut().rev() {
        *place = u8::try_from(rest % 10).map_or(b'0', |digit| b'0' + digit);
        rest /= 10;
    }
    Code(out)
}

/// The dynamic truncation of RFC 4226 §5.3: 31 bits.
fn number(secret: &Secret, step: u64) -> u32 {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose());
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    let offset = usize::from(tag.last().map_or(0, |last| last & 0x0f));
    let word = tag.get(offset..).and_then(<[u8]>::first_chunk::<4>);
    u32::from_be_bytes(*word.expect("20 bytes have four behind each of the first 16")) & 0x7fff_ffff
}

/// The address that an app is told, as a picture or typed in: who asks (`service`), for whom, and the secret.
pub fn enrolment(service: &str, subject: &str, secret: &Secret) -> Zeroizing<String> {
    let part = |text| utf8_percent_encode(text, PART);
    Zeroizing::new(format!(
        "otpauth://totp/{}:{}?secret={}&issuer={}&algorithm=SHA1&digits={DIGITS}&period={STEP}",
        part(service),
        part(subject),
        *base32(secret.expose()),
        part(service),
    ))
}

/// Base32 without padding (RFC 4648 §6).
pub fn base32(bytes: &[u8]) -> Zeroizing<String> {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut out = Zeroizing::new(String::with_capacity(bytes.len().saturating_mul(8) / 5 + 1));
    let (mut held, mut bits) = (0_u32, 0_u32);
    let letter = |held: u32| {
        let place = usize::try_from(held & 31).unwrap_or(0);
        char::from(*ALPHABET.get(place).expect("five bits are less than 32"))
    };
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(letter(held >> bits));
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        out.push(letter(held << (5 - bits)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new(b"12345678901234567890".to_vec())
    }

    #[test]
    fn b33_the_codes_of_rfc_6238_appendix_b() {
        let table = include_str!("../../tests/vectors/rfc6238/sha1.txt");
        let mut rows = 0;
        for row in table.lines() {
            let (time, code) = row.split_once(' ').expect("a time and a code");
            let time: u64 = time.parse().unwrap();
            let eight: u32 = code.parse().unwrap();
            assert_eq!(number(&secret(), time / STEP) % 100_000_000, eight, "{row}");
            let six = Code::parse(&code[2..]).unwrap();
            assert_eq!(step_of(&secret(), six, time), Some(time / STEP), "{row}");
            rows += 1;
        }
        assert_eq!(rows, 6);
    }

    #[test]
    fn a_code_counts_in_its_step_and_in_those_beside_it() {
        let (now, code) = (1_111_111_109, Code::parse("081804").unwrap());
        let step = now / STEP;
        for (away, counts) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
            let then = now.checked_add_signed(away * 30).unwrap();
            let found = step_of(&secret(), code, then);
            assert_eq!(found, counts.then_some(step), "{away}");
        }
        assert_eq!(end_of(step), (step + 2) * 30);
    }

    #[test]
    fn a_code_is_six_digits() {
        for good in ["081804", "081 804", " 081804 "] {
            assert!(Code::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "08180",
            "0818040",
            "08180a",
            "+81804",
            "０８１８０４",
            "081804\n",
        ] {
            assert!(Code::parse(bad).is_none(), "{bad:?}");
        }
        let short = Secret::new(b"1234567890123456789".to_vec());
        let any = (0..1_000_000).any(|code| {
            let code = Code::parse(&format!("{code:06}")).unwrap();
            code.0[..3] == *b"000" && step_of(&short, code, 59).is_some()
        });
        assert!(!any, "a short secret opens nothing");
    }

    #[test]
    fn base32_is_that_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foo", "MZXW6"),
            ("foob", "MZXW6YQ"),
            ("fooba", "MZXW6YTB"),
            ("foobar", "MZXW6YTBOI"),
        ] {
            assert_eq!(*base32(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn the_address_says_who_and_for_whom() {
        let address = enrolment("app.example", "corp|a b&c", &secret());
        assert_eq!(
            *address,
            "otpauth://totp/app.example:corp%7Ca%20b%26c?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\
             &issuer=app.example&algorithm=SHA1&digits=6&period=30"
        );
        assert_ne!(fresh_secret(), fresh_secret());
        assert_eq!(fresh_secret().expose().len(), 20);
    }
}
