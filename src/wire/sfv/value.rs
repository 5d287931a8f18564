//! Structured fields in memory, and their one strict form (RFC 9651 §3 and §4.1).
//!
//! [`super::read`] makes them of what clients send.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};

/// A value without parameters (RFC 9651 §3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bare {
    /// Fifteen digits at most.
    Integer(i64),
    /// In thousandths.
    Decimal(i64),
    /// Printable ASCII, unescaped.
    String(Box<str>),
    /// A word without quotes.
    Token(Box<str>),
    /// A byte sequence, decoded.
    Bytes(Box<[u8]>),
    /// `?1` or `?0`.
    Boolean(bool),
    /// Seconds since 1970.
    Date(i64),
    /// Any text, decoded.
    Display(Box<str>),
}

/// Parameters in their order; each key stands once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters(pub(super) Vec<(Box<str>, Bare)>);

/// A value with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The value.
    pub bare: Bare,
    /// Its parameters.
    pub parameters: Parameters,
}

/// Items in brackets, with parameters of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InnerList {
    /// The items.
    pub items: Vec<Item>,
    /// The parameters of the list.
    pub parameters: Parameters,
}

/// A member of a list or dictionary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Member {
    /// One value.
    Item(Item),
    /// Several in brackets.
    Inner(InnerList),
}

/// The members of a dictionary in their order; each key stands once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dictionary(pub(super) Vec<(Box<str>, Member)>);

/// The strict form of a list.
pub fn written(members: &[Member]) -> String {
    let mut out = String::new();
    for member in members {
        if !out.is_empty() {
            out.push_str(", ");
        }
        member.write(&mut out);
    }
    out
}

impl Dictionary {
    /// The members with their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Member)> {
        self.0.iter().map(|(key, member)| (&**key, member))
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The member of this key.
    pub fn get(&self, key: &str) -> Option<&Member> {
        self.iter().find(|(own, _)| *own == key).map(|(_, of)| of)
    }

    /// The strict form.
    pub fn written(&self) -> String {
        let mut out = String::new();
        for (key, member) in self.iter() {
            if !out.is_empty() {
                out.push_str(", ");
            }
            out.push_str(key);
            match member {
                Member::Item(item) if item.bare == Bare::Boolean(true) => {
                    item.parameters.write(&mut out);
                }
                _ => {
                    out.push('=');
                    member.write(&mut out);
                }
            }
        }
        out
    }
}

impl Parameters {
    /// The parameters with their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Bare)> {
        self.0.iter().map(|(key, value)| (&**key, value))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of this key.
    pub fn get(&self, key: &str) -> Option<&Bare> {
        self.iter().find(|(own, _)| *own == key).map(|(_, of)| of)
    }

    fn write(&self, out: &mut String) {
        for (key, value) in self.iter() {
            out.push(';');
            out.push_str(key);
            if *value != Bare::Boolean(true) {
                out.push('=');
                value.write(out);
            }
        }
    }
}

impl Member {
    /// Appends the strict form.
    pub fn write(&self, out: &mut String) {
        match self {
            Self::Item(item) => item.write(out),
            Self::Inner(inner) => inner.write(out),
        }
    }
}

impl InnerList {
    /// Appends the strict form.
    pub fn write(&self, out: &mut String) {
        out.push('(');
        for (place, item) in self.items.iter().enumerate() {
            if place > 0 {
                out.push(' ');
            }
            item.write(out);
        }
        out.push(')');
        self.parameters.write(out);
    }
}

impl Item {
    /// Appends the strict form.
    pub fn write(&self, out: &mut String) {
        self.bare.write(out);
        self.parameters.write(out);
    }
}

impl Bare {
    /// Appends the strict form.
    pub fn write(&self, out: &mut String) {
        match self {
            Self::Integer(number) => push(out, format_args!("{number}")),
            Self::Decimal(thousandths) => write_decimal(*thousandths, out),
            Self::String(text) => {
                out.push('"');
                for sign in text.chars() {
                    if matches!(sign, '"' | '\\') {
                        out.push('\\');
                    }
                    out.push(sign);
                }
                out.push('"');
            }
            Self::Token(text) => out.push_str(text),
            Self::Bytes(bytes) => {
                out.push(':');
                STANDARD.encode_string(bytes, out);
                out.push(':');
            }
            Self::Boolean(true) => out.push_str("?1"),
            Self::Boolean(false) => out.push_str("?0"),
            Self::Date(seconds) => push(out, format_args!("@{seconds}")),
            Self::Display(text) => {
                out.push_str("%\"");
                for byte in text.bytes() {
                    match byte {
                        b'%' | b'"' | ..0x20 | 0x7f.. => push(out, format_args!("%{byte:02x}")),
                        _ => out.push(char::from(byte)),
                    }
                }
                out.push('"');
            }
        }
    }
}

fn write_decimal(thousandths: i64, out: &mut String) {
    let sign = if thousandths < 0 { "-" } else { "" };
    let size = thousandths.unsigned_abs();
    let fraction = format!("{:03}", size % 1000);
    let kept = match fraction.trim_end_matches('0') {
        "" => "0",
        digits => digits,
    };
    push(out, format_args!("{sign}{}.{kept}", size / 1000));
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a string takes any text");
}
