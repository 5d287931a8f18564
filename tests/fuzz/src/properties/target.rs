//! The normal form of a target: stable, plain, and read by a backend of each profile the way it was judged.
//!
//! An input is a path and query.

use http::uri::PathAndQuery;
use percent_encoding::percent_decode;
use portcullis::wire::path::{Profile, Target};

/// Holds an input against the properties.
pub fn hold(data: &[u8]) {
    let Ok(source) = PathAndQuery::try_from(data) else {
        return;
    };
    let Ok(target) = Target::parse(&source) else {
        return;
    };
    stays(&target);
    is_plain(&target);
    is_judged_in_one_spelling(&target);
    assert_eq!(target.query(), source.query(), "the query is not touched");
    for profile in Profile::ALL {
        if profile.accepts(target.oddities()).is_ok() {
            read_as_judged(&target, profile);
        }
    }
    goes_on(&source, &target);
    folds(&source, &target);
}

/// A normal form is its own normal form.
fn stays(target: &Target) {
    let text = target.path_and_query().as_str();
    let again = text.parse::<PathAndQuery>().expect("it is a target again");
    assert_eq!(again.as_str(), text);
    let again = Target::parse(&again).expect("a normal form is accepted");
    assert_eq!(again.path_and_query().as_str(), text);
    assert_eq!(again.judged(), target.judged());
    assert_eq!(again.oddities(), target.oddities());
}

/// Nothing that climbs, cuts or hides is left, whichever separators a backend knows and however it decodes.
fn is_plain(target: &Target) {
    for path in [target.path(), target.judged()] {
        let decoded = decode(path);
        assert!(
            path.starts_with('/') && path.is_ascii() && !path.contains("//"),
            "{path}"
        );
        assert!(
            !decoded.contains(|letter: char| letter.is_ascii_control()),
            "{path}"
        );
        let segments = decoded
            .split(['/', '\\'])
            .flat_map(|segment| segment.split(';'));
        for piece in segments {
            assert!(!matches!(piece, "." | ".."), "{path}");
        }
        let twice = percent_decode(decoded.as_bytes()).collect::<Vec<u8>>();
        assert_eq!(twice, decoded.as_bytes(), "{path} can be decoded twice");
    }
    assert!(target.judged() == "/" || !target.judged().ends_with('/'));
}

fn decode(path: &str) -> String {
    let decoded = percent_decode(path.as_bytes()).decode_utf8();
    decoded.expect("a path is UTF-8").into_owned()
}

/// One path is judged in one spelling: whatever may stand raw in a path is not escaped.
fn is_judged_in_one_spelling(target: &Target) {
    for escape in target.judged().split('%').skip(1) {
        let digits = escape.get(..2).expect("an escape has two digits");
        let octet = u8::from_str_radix(digits, 16).expect("digits are hexadecimal");
        let plain = octet.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&octet);
        assert!(!plain && digits.to_ascii_uppercase() == digits, "%{digits}");
    }
}

/// What a backend reads in the bytes that are forwarded is what was judged.
fn read_as_judged(target: &Target, profile: Profile) {
    let path = target.path();
    let upper = path.to_ascii_uppercase();
    assert!(
        !["%2F", "%3B", "%00"]
            .iter()
            .any(|escape| upper.contains(escape)),
        "{path}"
    );
    assert!(profile == Profile::Servlet || !path.contains(';'), "{path}");
    assert!(
        profile == Profile::Iis || !(path.contains('\\') || upper.contains("%5C")),
        "{path}"
    );
    let judged = if profile.case_insensitive() {
        target.fold_case()
    } else {
        target.clone()
    };
    assert_eq!(
        backend(path, profile),
        segments(&decode(judged.judged())),
        "{profile} reads {path}"
    );
}

/// The segments that a backend finds.
fn backend(path: &str, profile: Profile) -> Vec<String> {
    match profile {
        Profile::Servlet => {
            let named = path
                .split('/')
                .filter_map(|segment| segment.split(';').next());
            segments(&decode(&named.collect::<Vec<_>>().join("/")))
        }
        Profile::Iis => segments(&decode(path).replace('\\', "/").to_ascii_lowercase()),
        Profile::Strict | Profile::Php | Profile::Wsgi | Profile::Node => segments(&decode(path)),
    }
}

fn segments(path: &str) -> Vec<String> {
    let named = path.split('/').filter(|segment| !segment.is_empty());
    named.map(str::to_owned).collect()
}

/// What lies below a path is judged, and forwarded, below it.
fn goes_on(source: &PathAndQuery, target: &Target) {
    let below = format!("{}/x7", source.path());
    let below = PathAndQuery::try_from(below).expect("a longer target");
    let below = Target::parse(&below).expect("what lies below a good path is a good path");
    assert_eq!(
        below.judged(),
        format!("{}/x7", target.judged().trim_end_matches('/'))
    );
    assert_eq!(
        below.path(),
        format!("{}/x7", target.path().trim_end_matches('/'))
    );
}

/// Without regard to case, all spellings are judged alike, and forwarded as they came.
fn folds(source: &PathAndQuery, target: &Target) {
    let folded = target.fold_case();
    assert_eq!(folded.path_and_query(), target.path_and_query());
    let turn = |letter: char| {
        if letter.is_ascii_lowercase() {
            letter.to_ascii_uppercase()
        } else {
            letter.to_ascii_lowercase()
        }
    };
    let turned: String = source.as_str().chars().map(turn).collect();
    let turned = PathAndQuery::try_from(turned).expect("a target in other cases");
    let turned = Target::parse(&turned).expect("case makes no target bad");
    assert_eq!(turned.fold_case().judged(), folded.judged());
}
