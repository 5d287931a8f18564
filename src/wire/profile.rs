//! How backends read paths: what is unusual in a target, and which backend takes it.
//!
//! For the file (`profile` of an upstream) and for whoever forwards. A backend that reads a target in another way than
//! it was judged must not see it: path parameters, escaped slashes and the habits of Windows are refused unless the
//! profile says that the backend reads them as we do. It parses no path; that is [`super::path`].

use std::fmt;
use std::str::FromStr;

use super::path::TargetError;

/// What is unusual in a target, for the profile of its backend to judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Oddities(u8);

impl Oddities {
    /// Nothing unusual.
    pub const NONE: Self = Self(0);
    /// Path parameters: a `;`.
    pub const PARAMETERS: Self = Self(1);
    /// An escaped `;`: a parameter for one backend, part of the name for another.
    pub const ENCODED_SEMICOLON: Self = Self(1 << 1);
    /// `%2F`.
    pub const ENCODED_SLASH: Self = Self(1 << 2);
    /// `\` or `%5C`.
    pub const BACKSLASH: Self = Self(1 << 3);
    /// A letter in upper case outside of escapes.
    pub const UPPER_CASE: Self = Self(1 << 4);
    /// A segment that ends in a dot or a space, which Windows drops from file names.
    pub const DOTTED: Self = Self(1 << 5);
    /// A `:`, which Windows reads as the start of a stream name.
    pub const COLON: Self = Self(1 << 6);

    /// Whether any of `other` is in the set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// The set as bits, for the table that scans paths; the highest bit is never used.
    pub(super) const fn bits(self) -> u8 {
        self.0
    }

    pub(super) const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
}

/// How a backend reads paths and names; stated per upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// Takes nothing unusual.
    #[default]
    Strict,
    /// PHP behind any web server.
    Php,
    /// Python WSGI and ASGI servers, which decode the path before the app sees it.
    Wsgi,
    /// Java servlet containers: path parameters after `;`.
    Servlet,
    /// IIS and ASP.NET: case-insensitive, `\` is `/`, trailing dots vanish.
    Iis,
    /// Node.js frameworks.
    Node,
}

impl Profile {
    /// Every profile, for messages that list what is accepted.
    pub const ALL: [Self; 6] = [
        Self::Strict,
        Self::Php,
        Self::Wsgi,
        Self::Servlet,
        Self::Iis,
        Self::Node,
    ];

    /// The name as it stands in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Php => "php",
            Self::Wsgi => "wsgi",
            Self::Servlet => "servlet",
            Self::Iis => "iis",
            Self::Node => "node",
        }
    }

    /// Whether routes for this backend compare without regard to case.
    pub const fn case_insensitive(self) -> bool {
        matches!(self, Self::Iis)
    }

    /// Whether a backend of this profile reads such a target the way it was judged.
    ///
    /// # Errors
    /// [`TargetError::Refused`] with the name of the first oddity that it does not.
    pub fn accepts(self, oddities: Oddities) -> Result<(), TargetError> {
        let takes = match self {
            Self::Servlet => Oddities::PARAMETERS,
            Self::Iis => Oddities::BACKSLASH,
            Self::Strict | Self::Php | Self::Wsgi | Self::Node => Oddities::NONE,
        };
        let windows = self.case_insensitive();
        for (oddity, always, name) in REFUSABLE {
            if oddities.has(oddity) && (always || windows) && !takes.has(oddity) {
                return Err(TargetError::Refused(name));
            }
        }
        Ok(())
    }
}

/// Oddity, whether every profile refuses it (else only those of Windows do), its name.
const REFUSABLE: [(Oddities, bool, &str); 6] = [
    (Oddities::PARAMETERS, true, "path parameters"),
    (Oddities::ENCODED_SEMICOLON, true, "an escaped semicolon"),
    (Oddities::ENCODED_SLASH, true, "an escaped slash"),
    (Oddities::BACKSLASH, true, "a backslash"),
    (
        Oddities::DOTTED,
        false,
        "a segment that ends in a dot or space",
    ),
    (Oddities::COLON, false, "a colon"),
];

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected one of strict, php, wsgi, servlet, iis, node")]
pub struct UnknownProfile;

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(text: &str) -> Result<Self, UnknownProfile> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.as_str() == text)
            .ok_or(UnknownProfile)
    }
}

#[cfg(test)]
mod tests {
    use super::{Oddities, Profile};

    #[test]
    fn profiles_have_names() {
        for profile in Profile::ALL {
            assert_eq!(profile.as_str().parse(), Ok(profile));
        }
        assert!("apache".parse::<Profile>().is_err());
    }

    #[test]
    fn only_a_named_profile_takes_an_oddity() {
        for profile in Profile::ALL {
            let takes = |oddity| profile.accepts(oddity).is_ok();
            assert_eq!(takes(Oddities::PARAMETERS), profile == Profile::Servlet);
            assert_eq!(takes(Oddities::BACKSLASH), profile == Profile::Iis);
            assert_eq!(takes(Oddities::DOTTED), profile != Profile::Iis);
            assert!(!takes(Oddities::ENCODED_SLASH));
            assert!(!takes(
                Oddities::PARAMETERS.with(Oddities::ENCODED_SEMICOLON)
            ));
            assert!(takes(Oddities::NONE) && takes(Oddities::UPPER_CASE));
        }
    }
}
