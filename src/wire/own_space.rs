//! The paths that are the gate's own: `/.portcullis` and whatever is below it. No backend ever sees them.
//!
//! For those who send browsers there, for the pages themselves, and for the check of the file.

/// The first segment.
pub const SPACE: &str = "/.portcullis";
/// The page that asks for a second factor.
pub const MFA: &str = "/.portcullis/mfa";
/// What is added to the query of that page where a code would not do.
pub const WANTS_PASSKEY: &str = "&want=passkey";
/// The value in it.
pub const PASSKEY: &str = "passkey";
/// The page on which a factor is enrolled.
pub const ENROL: &str = "/.portcullis/enrol";
/// What speaks with authenticators on these pages.
pub const SCRIPT: &str = "/.portcullis/mfa.js";
/// The looks of the pages.
pub const STYLE: &str = "/.portcullis/style.css";

/// Whether a path in its judged form is in the space, however it is written: a backend may not tell cases apart.
pub fn holds(path: &str) -> bool {
    let Some((start, rest)) = path.split_at_checked(SPACE.len()) else {
        return false;
    };
    start.eq_ignore_ascii_case(SPACE) && (rest.is_empty() || rest.starts_with('/'))
}

/// Whether a browser that is sent to this text stays on this very origin: a path that begins with one slash, in visible
/// ASCII. `//host` and `/\host` are addresses of other hosts to browsers.
pub fn stays_here(target: &str) -> bool {
    let rest = target.strip_prefix('/');
    rest.is_some_and(|rest| !rest.starts_with(['/', '\\']))
        && target.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::{holds, stays_here};

    #[test]
    fn the_space_is_the_segment_in_any_case() {
        for own in [
            "/.portcullis",
            "/.portcullis/",
            "/.portcullis/mfa/x",
            "/.PortCullis/mfa",
        ] {
            assert!(holds(own), "{own}");
        }
        for other in [
            "",
            "/",
            "/.portcullis2",
            "/portcullis/mfa",
            "/a/.portcullis",
            "/.portculli",
        ] {
            assert!(!holds(other), "{other}");
        }
    }

    #[test]
    fn b32_nobody_is_sent_to_another_host() {
        for own in ["/", "/pay?x=//y", "/a/b", "/a\\b"] {
            assert!(stays_here(own), "{own}");
        }
        for other in [
            "",
            "//evil",
            "/\\evil",
            "https://evil/",
            "evil",
            "/\t/evil",
            "/a b",
            "/a\r\nSet-Cookie: x",
            "/é",
        ] {
            assert!(!stays_here(other), "{other:?}");
        }
    }
}
