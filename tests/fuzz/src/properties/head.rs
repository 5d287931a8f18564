//! Whatever the screen lets through, the parser behind reads with the same boundaries, and cuts change nothing.
//!
//! An input is a client's stream; its last octet says how many octets before it (at most seven) are no part of the
//! stream but the sizes of the pieces in which it comes, in turn.

use portcullis::server::screen::{Phase, Screen, Violation};

use super::{
    messages::{LIMITS, Message, messages},
    parser::{Reading, Seen, read},
};

/// Holds an input against the properties.
pub fn hold(data: &[u8]) {
    let (stream, sizes) = sizes_behind(data);
    hold_stream(stream, sizes);
}

/// The stream of an input and the sizes of its pieces.
pub(super) fn sizes_behind(data: &[u8]) -> (&[u8], &[u8]) {
    let Some((&last, rest)) = data.split_last() else {
        return (&[], &[]);
    };
    rest.split_at(rest.len().saturating_sub(usize::from(last & 7)))
}

/// The same for a stream that is taken apart already.
pub(super) fn hold_stream(stream: &[u8], sizes: &[u8]) {
    let whole = verdict(stream, &[]);
    let sizes: Vec<usize> = sizes.iter().map(|&size| usize::from(size).max(1)).collect();
    same_verdict(&whole, &verdict(stream, &[1]));
    if !sizes.is_empty() {
        same_verdict(&whole, &verdict(stream, &sizes));
    }
    agree(&read(pieces(stream, &[])));
    if !sizes.is_empty() {
        agree(&read(pieces(stream, &sizes)));
    }
}

/// A stream in pieces of these sizes, in turn; in one piece if there are none.
fn pieces<'a>(stream: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = stream;
    let mut sizes = sizes.iter().copied().cycle();
    std::iter::from_fn(move || {
        let size = sizes.next().unwrap_or(rest.len()).min(rest.len());
        let (piece, behind) = rest.split_at(size);
        rest = behind;
        (!piece.is_empty()).then_some(piece)
    })
}

fn same_verdict((whole, line): &(Verdict, Line), (cut, part): &(Verdict, Line)) {
    assert_eq!(whole, cut, "cuts change the verdict");
    assert!(
        line.0.starts_with(&part.0) && line.1.starts_with(&part.1),
        "{line:?} {part:?}"
    );
}

/// Method and target of a refusal. They end where the piece ends in which it fell, so cuts may shorten them.
type Line = (Vec<u8>, Vec<u8>);

/// All that a screen says of a stream.
#[derive(Debug, PartialEq)]
struct Verdict {
    pass: usize,
    violation: Option<Violation>,
    rule: Option<(&'static str, Phase)>,
    heads: u64,
    phase: Phase,
    between: bool,
}

fn verdict(stream: &[u8], sizes: &[usize]) -> (Verdict, Line) {
    let mut screen = Screen::new(LIMITS);
    let (mut pass, mut violation) = (0, None);
    for piece in pieces(stream, sizes) {
        let fed = screen.feed(piece);
        pass += fed.pass;
        assert_eq!(
            fed.pass < piece.len(),
            fed.violation.is_some(),
            "what is kept back"
        );
        if fed.violation.is_some() {
            violation = fed.violation;
            let after = screen.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(
                (after.pass, after.violation),
                (0, violation),
                "after a violation"
            );
            break;
        }
    }
    let refusal = screen.refusal();
    let verdict = Verdict {
        pass,
        violation,
        rule: refusal
            .as_ref()
            .map(|refusal| (refusal.detail, refusal.during)),
        heads: screen.heads(),
        phase: screen.phase(),
        between: screen.is_between(),
    };
    let line = refusal.map(|refusal| (refusal.method, refusal.target));
    (verdict, line.unwrap_or_default())
}

/// Compares what the parser made of the bytes that passed with a plain reading of them.
fn agree(reading: &Reading) {
    let expected = messages(&reading.passed);
    assert!(
        reading.seen.len() <= expected.len(),
        "a request that the screen knows nothing of"
    );
    for (seen, message) in reading.seen.iter().zip(&expected) {
        same_head(seen, message);
        same_body(seen, message);
    }
    let last = expected.get(reading.seen.len().wrapping_sub(1));
    let closes = last.is_some_and(Message::may_close);
    assert!(
        closes || reading.seen.len() == expected.len(),
        "the parser saw {} requests of {}",
        reading.seen.len(),
        expected.len()
    );
    if let Some(error) = &reading.error {
        assert!(
            !error.is_parse(),
            "the parser refused in its own words: {error:?}"
        );
        assert!(
            reading.cut_short(),
            "the parser failed on whole messages: {error:?}"
        );
    }
}

fn same_head(seen: &Seen, message: &Message) {
    assert_eq!(seen.head.method.as_str().as_bytes(), message.method);
    assert_eq!(seen.head.version == http::Version::HTTP_10, message.old);
    let uri = &seen.head.uri;
    if uri.authority().is_some() {
        assert_eq!(
            http::Uri::try_from(&message.target[..]).ok().as_ref(),
            Some(uri)
        );
        assert!(!message.target.starts_with(b"/"));
    } else {
        let target = uri
            .path_and_query()
            .map(|target| target.as_str().as_bytes());
        assert_eq!(target, Some(&message.target[..]));
    }
    same_fields(&seen.head.headers, &message.fields);
}

fn same_fields(found: &http::HeaderMap, expected: &[(String, Vec<u8>)]) {
    assert_eq!(found.len(), expected.len(), "the number of fields");
    for name in found.keys() {
        let values: Vec<_> = found
            .get_all(name)
            .iter()
            .map(http::HeaderValue::as_bytes)
            .collect();
        let wanted = expected.iter().filter(|(known, _)| known == name.as_str());
        let wanted: Vec<_> = wanted.map(|(_, value)| &value[..]).collect();
        assert_eq!(values, wanted, "{name}");
    }
}

fn same_body(seen: &Seen, message: &Message) {
    assert!(
        message.body.starts_with(&seen.data),
        "the parser made up a body"
    );
    assert_eq!(
        seen.ended, message.whole,
        "a body is whole for one and cut short for the other"
    );
    if message.whole {
        assert_eq!(seen.data, message.body);
        match &seen.trailers {
            Some(trailers) => same_fields(trailers, &message.trailers),
            None => assert!(message.trailers.is_empty(), "trailers are lost"),
        }
    }
}
