//! The grammar of a Content-Security-Policy in the file (CSP Level 3 §2.2–2.3), for [`super::security_headers`].
//!
//! Browsers skip in silence what they do not know, so a mistyped policy is an open door that looks shut: `self`
//! without quotes is a host of that name. Every word is therefore checked when the file is loaded, with a caret
//! under the word. It does not make nonces and does not rewrite pages.

use std::ops::Range;

use crate::config::{Complaint, FromValue, Value, quoted};

mod words;

use words::{DIRECTIVES, DROPPED, KEYWORDS, PREFIXES, Takes};

/// One word of a policy and where it stands in the text.
#[derive(Clone, Debug)]
struct Word<'a> {
    text: &'a str,
    range: Range<usize>,
}

/// Why a word was refused: message, hint, where.
struct Fault {
    message: String,
    hint: Option<String>,
    range: Range<usize>,
}

/// Checks one policy as the value of a key.
///
/// # Errors
/// The first word that a browser would not take as it is meant, with a place as narrow as that word.
pub fn check(value: &Value) -> Result<(), Complaint> {
    let text = String::from_value(value)?;
    examine(&text).map_err(|fault| {
        let complaint = Complaint::new(fault.message).at(value.inside(fault.range));
        match fault.hint {
            Some(hint) => complaint.hint(hint),
            None => complaint,
        }
    })
}

/// What a valid policy leaves open to injected script, each as the end of "this weakens …".
pub fn weaknesses(policy: &str) -> Vec<&'static str> {
    let directives: Vec<Vec<Word<'_>>> = directives(policy);
    let sources = |name: &str| {
        let named = |words: &&Vec<Word<'_>>| {
            words
                .first()
                .is_some_and(|word| word.text.eq_ignore_ascii_case(name))
        };
        directives
            .iter()
            .find(named)
            .map(|words| words.get(1..).unwrap_or_default())
    };
    let Some(script) = sources("script-src").or_else(|| sources("default-src")) else {
        return vec![
            "scripts of any origin may run: there is no `script-src` and no `default-src`",
        ];
    };
    let has = |wanted: &str| {
        script
            .iter()
            .any(|word| word.text.eq_ignore_ascii_case(wanted))
    };
    // A nonce or a hash switches `'unsafe-inline'` off (CSP3 §6.7.3.2).
    let pinned = script.iter().any(|word| {
        let inner = word.text.trim_start_matches('\'');
        PREFIXES
            .iter()
            .any(|prefix| starts_with_ignore_case(inner, prefix))
    });
    let mut found = Vec::new();
    if has("'unsafe-inline'") && !pinned {
        found.push("inline script may run (`'unsafe-inline'`)");
    }
    if has("'unsafe-eval'") {
        found.push("text may become script (`'unsafe-eval'`)");
    }
    if ["*", "https:", "http:", "data:"].into_iter().any(has) && !has("'strict-dynamic'") {
        found.push("scripts of any origin may run");
    }
    if script
        .iter()
        .any(|word| starts_with_ignore_case(word.text, "'nonce-"))
    {
        found.push(
            "a nonce that stands in the file is the same for every answer, so anyone can use it",
        );
    }
    found
}

fn examine(text: &str) -> Result<(), Fault> {
    if let Some((at, character)) = text
        .char_indices()
        .find(|(_, c)| !matches!(c, ' '..='~' | '\t'))
    {
        return Err(Fault {
            message: format!("a policy cannot hold {}", quoted(&character.to_string())),
            hint: Some("printable ASCII only, on one line".to_owned()),
            range: at..at + character.len_utf8(),
        });
    }
    if let Some(at) = text.find(',') {
        return Err(Fault {
            message: "`,` begins a second policy".to_owned(),
            hint: Some("directives are parted by `;`, words by spaces".to_owned()),
            range: at..at + 1,
        });
    }
    let directives = directives(text);
    if directives.is_empty() {
        return Err(Fault {
            message: "the policy is empty".to_owned(),
            hint: Some("such as `default-src 'self'`".to_owned()),
            range: 0..text.len(),
        });
    }
    let mut seen: Vec<String> = Vec::new();
    for words in &directives {
        let Some((name, values)) = words.split_first() else {
            continue;
        };
        let lower = name.text.to_ascii_lowercase();
        directive(name, &lower, values)?;
        if seen.contains(&lower) {
            let hint = Some("browsers keep the first and skip the rest: join the two".to_owned());
            return Err(fault(
                name,
                format!("{} stands twice", quoted(name.text)),
                hint,
            ));
        }
        seen.push(lower);
    }
    Ok(())
}

/// The words of each directive that has any.
fn directives(text: &str) -> Vec<Vec<Word<'_>>> {
    let mut found = Vec::new();
    let mut start = 0;
    for part in text.split(';') {
        let words = words(part, start);
        if !words.is_empty() {
            found.push(words);
        }
        start += part.len() + 1;
    }
    found
}

fn words(part: &str, offset: usize) -> Vec<Word<'_>> {
    let mut found = Vec::new();
    let mut at = offset;
    for text in part.split([' ', '\t']) {
        if !text.is_empty() {
            found.push(Word {
                text,
                range: at..at + text.len(),
            });
        }
        at += text.len() + 1;
    }
    found
}

fn directive(name: &Word<'_>, lower: &str, values: &[Word<'_>]) -> Result<(), Fault> {
    let Some((_, takes)) = DIRECTIVES.iter().find(|(known, _)| *known == lower) else {
        return Err(unknown_directive(name, lower));
    };
    match takes {
        Takes::Sources => sources(values, KEYWORDS),
        Takes::Ancestors => sources(values, &["none", "self"]),
        Takes::Words(known) => values.iter().try_for_each(|word| one_of(word, known)),
        Takes::Nothing => values.first().map_or(Ok(()), |word| {
            let message = format!("`{lower}` takes no words, found {}", quoted(word.text));
            Err(fault(
                word,
                message,
                Some("a directive ends with `;`".to_owned()),
            ))
        }),
        Takes::Names => Ok(()),
    }
}

fn unknown_directive(name: &Word<'_>, lower: &str) -> Fault {
    if let Some((_, instead)) = DROPPED.iter().find(|(dropped, _)| *dropped == lower) {
        let message = format!(
            "browsers no longer know the directive {}",
            quoted(name.text)
        );
        return fault(name, message, Some(format!("use {instead}")));
    }
    let hint = nearest(lower, DIRECTIVES.iter().map(|(known, _)| *known))
        .map(|meant| format!("did you mean `{meant}`?"))
        .or_else(|| {
            is_keyword(lower).then(|| "a directive ends at `;`: is there one too many?".to_owned())
        });
    fault(
        name,
        format!("unknown directive {}", quoted(name.text)),
        hint,
    )
}

fn sources(values: &[Word<'_>], keywords: &'static [&'static str]) -> Result<(), Fault> {
    for word in values {
        source(word, keywords)?;
        if values.len() > 1 && word.text.eq_ignore_ascii_case("'none'") {
            let hint = Some("`'none'` counts only when it stands alone".to_owned());
            return Err(fault(
                word,
                "`'none'` stands beside other sources".to_owned(),
                hint,
            ));
        }
    }
    Ok(())
}

fn source(word: &Word<'_>, keywords: &'static [&'static str]) -> Result<(), Fault> {
    if word.text.contains('\'') {
        return quoted_word(word, keywords);
    }
    if is_keyword(word.text)
        || PREFIXES
            .iter()
            .any(|prefix| starts_with_ignore_case(word.text, prefix))
    {
        let message = format!("{} without quotes is the name of a host", quoted(word.text));
        return Err(fault(word, message, Some(format!("`'{}'`", word.text))));
    }
    if word.text.contains('"') {
        let bare = word.text.trim_matches('"');
        let hint = is_keyword(bare).then(|| format!("`'{bare}'`"));
        return Err(fault(
            word,
            format!("{} is not a source", quoted(word.text)),
            hint,
        ));
    }
    if is_scheme(word.text) || is_host(word.text) {
        return Ok(());
    }
    let hint =
        Some("such as `'self'`, `https:`, `https://cdn.example` or `*.cdn.example`".to_owned());
    Err(fault(
        word,
        format!("{} is not a source", quoted(word.text)),
        hint,
    ))
}

fn quoted_word(word: &Word<'_>, keywords: &'static [&'static str]) -> Result<(), Fault> {
    let inner = word.text.trim_matches('\'');
    let closed = word.text.len() == inner.len() + 2
        && word.text.starts_with('\'')
        && word.text.ends_with('\'');
    let lower = inner.to_ascii_lowercase();
    let keyword = keywords.contains(&lower.as_str());
    let full = keywords.len() == KEYWORDS.len();
    let hash = full && PREFIXES.iter().any(|prefix| lower.starts_with(prefix));
    if !closed {
        let hint = (keyword || hash).then(|| format!("`'{inner}'`"));
        return Err(fault(
            word,
            format!("{} is not closed by quotes", quoted(word.text)),
            hint,
        ));
    }
    if keyword {
        return Ok(());
    }
    if hash {
        // The digest is case-sensitive: cut it from the text, not from its lower-case copy.
        let digest = inner.split_once('-').map_or("", |(_, rest)| rest);
        if is_base64(digest) {
            return Ok(());
        }
        return Err(fault(
            word,
            format!("{} is not base64 after the dash", quoted(word.text)),
            None,
        ));
    }
    let hint = nearest(&lower, keywords.iter().copied())
        .map(|meant| format!("did you mean `'{meant}'`?"))
        .or_else(|| {
            (is_scheme(inner) || is_host(inner))
                .then(|| format!("hosts and schemes have no quotes: `{inner}`"))
        });
    let message = if is_keyword(&lower) {
        format!("{} has no meaning in this directive", quoted(word.text))
    } else {
        format!("{} is not a keyword", quoted(word.text))
    };
    Err(fault(word, message, hint))
}

fn one_of(word: &Word<'_>, known: &'static [&'static str]) -> Result<(), Fault> {
    if known
        .iter()
        .any(|name| name.eq_ignore_ascii_case(word.text))
    {
        return Ok(());
    }
    let hint = nearest(word.text, known.iter().copied()).map_or_else(
        || format!("known here: {}", known.join(", ")),
        |meant| format!("did you mean `{meant}`?"),
    );
    Err(fault(
        word,
        format!("{} has no meaning in this directive", quoted(word.text)),
        Some(hint),
    ))
}

fn fault(word: &Word<'_>, message: String, hint: Option<String>) -> Fault {
    Fault {
        message,
        hint,
        range: word.range.clone(),
    }
}

fn is_keyword(word: &str) -> bool {
    KEYWORDS
        .iter()
        .any(|keyword| keyword.eq_ignore_ascii_case(word))
}

fn starts_with_ignore_case(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn is_base64(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    !digits.is_empty()
        && text.len() - digits.len() <= 2
        && digits
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_'))
}

/// `https:`
fn is_scheme(word: &str) -> bool {
    word.strip_suffix(':').is_some_and(is_scheme_name)
}

fn is_scheme_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// `[scheme://] host [:port] [/path]`, the host being `*`, `*.name` or `name`.
fn is_host(word: &str) -> bool {
    let rest = match word.split_once("://") {
        Some((scheme, rest)) if is_scheme_name(scheme) => rest,
        Some(_) => return false,
        None => word,
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if path.contains(['?', '#']) {
        return false;
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let port_fits = port.is_none_or(|port| port == "*" || port.parse::<u16>().is_ok());
    let labels = host.strip_prefix("*.").unwrap_or(host);
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    port_fits && (host == "*" || labels.split('.').all(label))
}

/// The known word that was probably meant.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // The distance is quadratic in the length, and nobody means a short word by a very long one.
    if word.len() > 64 {
        return None;
    }
    known
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1) && *distance < name.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::{examine, weaknesses};
    use crate::policy::security_headers::{API_CSP, COMPATIBLE_CSP, STRICT_CSP};

    /// Message, hint and the text under the caret.
    fn fault(policy: &str) -> (String, String, String) {
        let fault = examine(policy).expect_err(policy);
        let under = policy.get(fault.range).unwrap_or_default().to_owned();
        (fault.message, fault.hint.unwrap_or_default(), under)
    }

    #[test]
    fn good_policies_pass() {
        for policy in [
            STRICT_CSP,
            API_CSP,
            COMPATIBLE_CSP,
            "script-src 'nonce-r4nd0m' 'strict-dynamic' https: 'unsafe-inline'; sandbox allow-forms",
            "Default-Src 'SELF' https://cdn.example:8443/a/ *.cdn.example:* wss://live.example ;; ",
            "script-src 'sha256-4RS22DYeB7U14dra4KcQYxmwt5HkOInieXK1NUMBmQI='; report-to main",
            "require-trusted-types-for 'script'; trusted-types default 'allow-duplicates'",
            "img-src * data: blob:; connect-src localhost:3000",
        ] {
            assert!(examine(policy).is_ok(), "{policy}");
        }
    }

    #[test]
    fn b7_an_unquoted_keyword_is_named_with_its_quotes() {
        let (message, hint, under) = fault("default-src 'self'; script-src self");
        assert_eq!(message, "`self` without quotes is the name of a host");
        assert_eq!((hint.as_str(), under.as_str()), ("`'self'`", "self"));
        for word in [
            "none",
            "unsafe-inline",
            "nonce-abc",
            "sha256-abc=",
            "Strict-Dynamic",
        ] {
            let (_, hint, under) = fault(&format!("script-src {word}"));
            assert_eq!((hint, under), (format!("`'{word}'`"), word.to_owned()));
        }
    }

    #[test]
    fn unknown_words_have_a_nearest_one() {
        assert_eq!(fault("default-scr 'self'").1, "did you mean `default-src`?");
        assert_eq!(
            fault("script-src 'unsafe-inlin'").1,
            "did you mean `'unsafe-inline'`?"
        );
        assert_eq!(fault("sandbox allow-form").1, "did you mean `allow-forms`?");
        assert_eq!(
            fault("script-src 'https://cdn.example'").1,
            "hosts and schemes have no quotes: `https://cdn.example`"
        );
        assert_eq!(fault("plugin-types a/b").2, "plugin-types");
    }

    #[test]
    fn what_browsers_skip_in_silence_is_refused() {
        for (policy, under) in [
            ("default-src 'self', img-src *", ","),
            ("default-src 'self'; default-src 'none'", "default-src"),
            ("object-src 'none' https:", "'none'"),
            ("frame-ancestors 'unsafe-inline'", "'unsafe-inline'"),
            ("upgrade-insecure-requests 1", "1"),
            ("script-src 'self", "'self"),
            ("script-src \"self\"", "\"self\""),
            ("img-src https://a b/c?d", "b/c?d"),
            ("img-src https://ex*mple", "https://ex*mple"),
            ("img-src bücher.example", "ü"),
        ] {
            assert_eq!(fault(policy).2, under, "{policy}");
        }
        assert!(examine(" ; ").is_err());
    }

    #[test]
    fn weak_policies_are_told() {
        assert!(weaknesses(STRICT_CSP).is_empty() && weaknesses(API_CSP).is_empty());
        assert_eq!(weaknesses("img-src 'self'").len(), 1);
        assert_eq!(
            weaknesses("default-src * 'unsafe-inline' 'unsafe-eval'").len(),
            3
        );
        assert!(weaknesses("script-src 'sha256-abc=' 'unsafe-inline'").is_empty());
        assert_eq!(
            weaknesses("script-src 'nonce-abc' 'unsafe-inline'").len(),
            1
        );
    }
}
