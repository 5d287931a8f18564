//! CBOR as authenticators write it (RFC 8949; the canonical form of CTAP 2.1 §8), read with `minicbor`.
//!
//! Lengths stand before what they measure, there are neither tags nor floating-point numbers, and nesting is shallow:
//! everything else is refused. The order of names and the shortest form of numbers are not insisted on.

use minicbor::{data::Type, decode::Decoder};

/// How deep arrays and maps may stand in one another; CTAP allows four.
const MAX_DEPTH: usize = 8;

/// Bytes that are not the value which must stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotThat;

impl From<minicbor::decode::Error> for NotThat {
    fn from(_: minicbor::decode::Error) -> Self {
        Self
    }
}

/// A reader that walks over bytes, one value after the other.
#[derive(Debug)]
pub(super) struct Reader<'a>(Decoder<'a>);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(Decoder::new(bytes))
    }

    /// How many pairs the map has that begins here.
    pub(super) fn map(&mut self) -> Result<u64, NotThat> {
        self.0.map()?.ok_or(NotThat)
    }

    pub(super) fn integer(&mut self) -> Result<i64, NotThat> {
        Ok(self.0.i64()?)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], NotThat> {
        Ok(self.0.bytes()?)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, NotThat> {
        Ok(self.0.str()?)
    }

    /// Whether a byte string begins here.
    pub(super) fn is_at_bytes(&self) -> bool {
        matches!(self.0.datatype(), Ok(Type::Bytes))
    }

    /// Steps over a map and all that is in it; gives its bytes.
    pub(super) fn skip_map(&mut self) -> Result<&'a [u8], NotThat> {
        let start = self.0.position();
        if !matches!(self.0.datatype()?, Type::Map) {
            return Err(NotThat);
        }
        self.skip(MAX_DEPTH)?;
        self.0.input().get(start..self.0.position()).ok_or(NotThat)
    }

    /// What has not been read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.0.input().get(self.0.position()..).unwrap_or_default()
    }

    /// Steps over one value. A value takes a byte at least, so a count that lies ends with the input.
    fn skip(&mut self, depth: usize) -> Result<(), NotThat> {
        let deeper = depth.checked_sub(1).ok_or(NotThat)?;
        let inside = match self.0.datatype()? {
            Type::Map => self.map()?.checked_mul(2).ok_or(NotThat)?,
            Type::Array => self.0.array()?.ok_or(NotThat)?,
            _ => return self.skip_plain(),
        };
        for _ in 0..inside {
            self.skip(deeper)?;
        }
        Ok(())
    }

    fn skip_plain(&mut self) -> Result<(), NotThat> {
        match self.0.datatype()? {
            Type::Bytes => drop(self.0.bytes()?),
            Type::String => drop(self.0.str()?),
            Type::Bool => drop(self.0.bool()?),
            Type::Null => self.0.null()?,
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => drop(self.0.u64()?),
            Type::I8 | Type::I16 | Type::I32 | Type::I64 => drop(self.0.i64()?),
            _ => return Err(NotThat),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(bytes: &[u8]) -> Result<usize, NotThat> {
        Reader::new(bytes).skip_map().map(<[u8]>::len)
    }

    #[test]
    fn a_map_ends_where_it_says() {
        assert_eq!(skipped(b"\xa0"), Ok(1));
        assert_eq!(skipped(b"\xa0\xff"), Ok(1));
        let all = b"\xa7\x01\x20\x02\x41\x00\x03\x61a\x04\xf5\x05\xf6\x06\x82\x00\x1b\xff\xff\xff\xff\xff\xff\xff\xff\x61b\xa1\x00\x80";
        assert_eq!(skipped(all), Ok(all.len()));
    }

    #[test]
    fn what_authenticators_do_not_write_is_refused() {
        for (what, bytes) in [
            ("nothing", &b""[..]),
            ("an array", b"\x80"),
            ("a pair too few", b"\xa1\x01"),
            ("a text cut short", b"\xa1\x01\x62a"),
            ("no UTF-8", b"\xa1\x01\x61\xff"),
            ("a map without a length", b"\xbf\xff"),
            ("an array without a length", b"\xa1\x01\x9f\xff"),
            ("bytes without a length", b"\xa1\x01\x5f\x41\x00\xff"),
            ("a tag", b"\xa1\x01\xc0\x00"),
            ("half a float", b"\xa1\x01\xf9\x00\x00"),
            ("a float", b"\xa1\x01\xfb\x00\x00\x00\x00\x00\x00\x00\x00"),
            ("undefined", b"\xa1\x01\xf7"),
            ("a reserved head", b"\xa1\x01\x1c"),
            ("a break", b"\xa1\x01\xff"),
            (
                "more pairs than bytes",
                b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
            ),
            ("half as many", b"\xbb\x7f\xff\xff\xff\xff\xff\xff\xff\x00"),
            (
                "a long text",
                b"\xa1\x01\x7b\xff\xff\xff\xff\xff\xff\xff\xff",
            ),
        ] {
            assert_eq!(skipped(bytes), Err(NotThat), "{what}");
        }
    }

    #[test]
    fn nesting_has_an_end() {
        let nested = |depth: usize| [&b"\xa1\x01".repeat(depth - 1)[..], b"\xa0"].concat();
        assert!(skipped(&nested(MAX_DEPTH)).is_ok());
        assert!(skipped(&nested(MAX_DEPTH + 1)).is_err());
        assert!(skipped(&nested(100_000)).is_err());
    }
}
