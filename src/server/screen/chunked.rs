//! The chunked framing of a body up to its last chunk (RFC 9112 §7.1); the trailer lines behind are the head's business.
//!
//! Stricter than the grammar where parsers are known to differ: no blanks around a size, at most sixteen digits, short
//! extensions of visible characters only, CR LF at every line end.

use super::octets::VISIBLE;
use super::{Fault, Step, Violation, take};

const EXTENSION_BYTES: u16 = 64;
/// For all chunks of a body together; well below what the parser behind takes.
const EXTENSION_BYTES_OF_A_BODY: u16 = 4096;
const SIZE_DIGITS: u8 = 16;

/// Where in the framing the next byte stands.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    part: Part,
    digits: u8,
    size: u64,
    extension: u16,
    extensions: u16,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Part {
    #[default]
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
}

impl Chunked {
    /// Takes bytes up to the end of the last chunk's line.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Step {
        let mut rest = bytes;
        while let Some((&octet, behind)) = rest.split_first() {
            if self.part == Part::Data {
                match take(&mut self.size, rest) {
                    Step::Done(taken) => rest = rest.get(taken..).unwrap_or_default(),
                    other => return other,
                }
                self.part = Part::DataCr;
                continue;
            }
            let at = bytes.len() - rest.len();
            match self.octet(octet) {
                Ok(false) => rest = behind,
                Ok(true) => return Step::Done(at + 1),
                Err(detail) => return Step::Broken(at, Fault::new(Violation::BadChunk, detail)),
            }
        }
        Step::More
    }

    /// Takes one byte of framing; `true` behind the last chunk.
    fn octet(&mut self, octet: u8) -> Result<bool, &'static str> {
        match self.part {
            Part::Size => self.size_octet(octet)?,
            Part::Extension => self.extension_octet(octet)?,
            Part::SizeLf if octet != b'\n' => return Err("bare CR behind a chunk size"),
            Part::SizeLf if self.size == 0 => return Ok(true),
            Part::SizeLf => self.part = Part::Data,
            Part::Data | Part::DataCr if octet != b'\r' => {
                return Err("no CR LF behind the data of a chunk");
            }
            Part::Data | Part::DataCr => self.part = Part::DataLf,
            Part::DataLf if octet != b'\n' => return Err("bare CR behind the data of a chunk"),
            Part::DataLf => self.begin(),
        }
        Ok(false)
    }

    fn begin(&mut self) {
        self.part = Part::Size;
        self.digits = 0;
        self.size = 0;
        self.extension = 0;
    }

    fn size_octet(&mut self, octet: u8) -> Result<(), &'static str> {
        if let Some(digit) = char::from(octet).to_digit(16) {
            if self.digits == SIZE_DIGITS {
                return Err("chunk size of more than sixteen digits");
            }
            self.digits += 1;
            self.size = (self.size << 4) | u64::from(digit);
            return Ok(());
        }
        match octet {
            _ if self.digits == 0 => Err("no chunk size"),
            b'\r' => {
                self.part = Part::SizeLf;
                Ok(())
            }
            b';' => {
                self.part = Part::Extension;
                self.count_extension()
            }
            b'\n' => Err("bare LF behind a chunk size"),
            _ => Err("chunk size is not plain hex digits"),
        }
    }

    fn extension_octet(&mut self, octet: u8) -> Result<(), &'static str> {
        match octet {
            b'\r' => {
                self.part = Part::SizeLf;
                Ok(())
            }
            b'\n' => Err("bare LF in a chunk extension"),
            _ if !VISIBLE.has(octet) => Err("octet not allowed in a chunk extension"),
            _ => self.count_extension(),
        }
    }

    fn count_extension(&mut self) -> Result<(), &'static str> {
        self.extension += 1;
        self.extensions += 1;
        if self.extension > EXTENSION_BYTES || self.extensions > EXTENSION_BYTES_OF_A_BODY {
            return Err("chunk extensions too long");
        }
        Ok(())
    }
}
