//! Two properties of any stream: cuts change nothing, and httparse finds the same boundaries.

use super::*;

/// Where heads end in what passed, as httparse and a plain reading of RFC 9112 see it; `None` if they refuse.
fn reference(bytes: &[u8]) -> Option<Vec<usize>> {
    let (mut at, mut ends) = (0, Vec::new());
    loop {
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut fields);
        let httparse::Status::Complete(taken) = request.parse(&bytes[at..]).ok()? else {
            return Some(ends);
        };
        at += taken;
        ends.push(at);
        let value = |name: &str| {
            let field = request
                .headers
                .iter()
                .find(|field| field.name.eq_ignore_ascii_case(name))?;
            Some(
                String::from_utf8_lossy(field.value)
                    .trim()
                    .to_ascii_lowercase(),
            )
        };
        if let Some(coding) = value("transfer-encoding") {
            assert_eq!(
                (coding.as_str(), value("content-length")),
                ("chunked", None)
            );
            match reference_chunks(&bytes[at..])? {
                Some(taken) => at += taken,
                None => return Some(ends),
            }
        } else if let Some(length) = value("content-length") {
            let length: usize = length.parse().ok()?;
            if bytes.len() - at < length {
                return Some(ends);
            }
            at += length;
        }
        let lists = |name: &str, word: &str| {
            let named = |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case(name);
            let value = |field: &httparse::Header<'_>| {
                String::from_utf8_lossy(field.value).to_ascii_lowercase()
            };
            let has = |field| value(field).split(',').any(|item| item.trim() == word);
            request.headers.iter().filter(named).any(has)
        };
        if lists("connection", "upgrade") && lists("upgrade", "websocket") {
            return Some(ends);
        }
    }
}

/// The length of a chunked body with its trailers; the inner `None` if it is cut short.
#[expect(clippy::option_option, reason = "refused, cut short, or whole")]
fn reference_chunks(bytes: &[u8]) -> Option<Option<usize>> {
    let mut at = 0;
    loop {
        let httparse::Status::Complete((taken, size)) =
            httparse::parse_chunk_size(&bytes[at..]).ok()?
        else {
            return Some(None);
        };
        at += taken;
        if size == 0 {
            let mut fields = [httparse::EMPTY_HEADER; 16];
            return match httparse::parse_headers(&bytes[at..], &mut fields).ok()? {
                httparse::Status::Complete((taken, _)) => Some(Some(at + taken)),
                httparse::Status::Partial => Some(None),
            };
        }
        let Some(end) = usize::try_from(size)
            .ok()
            .and_then(|size| at.checked_add(size))
        else {
            return Some(None);
        };
        match bytes.get(end..).unwrap_or_default() {
            [] | [b'\r'] => return Some(None),
            [b'\r', b'\n', ..] => at = end + 2,
            _ => return None,
        }
    }
}

/// Where heads end in the screen's eyes, found octet by octet.
fn head_ends(bytes: &[u8]) -> Vec<usize> {
    let mut screen = Screen::new(LIMITS);
    let mut ends = Vec::new();
    for (at, octet) in bytes.iter().enumerate() {
        let before = screen.heads();
        screen.feed(std::slice::from_ref(octet));
        if screen.heads() > before {
            ends.push(at + 1);
        }
    }
    ends
}

fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[A-Za-z-]{1,12}: [ -~]{0,20}",
        2 => "Content-Length: [0-9]{1,2}",
        2 => Just("Transfer-Encoding: chunked".to_owned()),
        1 => "(Content-Length|content-length):[ \t]{0,2}[0-9+, x]{0,3}[ \t]?",
        1 => "(Transfer-Encoding|transfer-encoding):[ \t]?(chunked|Chunked|gzip, chunked|identity|chunked,)",
        1 => "(Connection: (Upgrade|close|keep-alive, upgrade)|Upgrade: (websocket|foo, WebSocket|h2c))",
        1 => "(Host: b|X-A : b|[\n\r\t ]X: y|: z|X:\t[\u{1}\u{7f}\u{80}]?)",
    ]
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        8 => "(GET|POST|OPTIONS) /[a-z?%&=./]{0,12} HTTP/1\\.1",
        1 => "(GET|get|PRI|OPTIONS|)( |  )(/|\\*|http://a/b|a:1|/#)( |\t)(HTTP/1\\.[012]|HTTP/2\\.0|)",
    ];
    let body = prop_oneof![
        3 => Just(String::new()),
        2 => "[a-z]{1,12}",
        4 => "(5\r\nhello\r\n){0,2}0\r\n(T: x\r\n)?\r\n",
        2 => "([0-9a-f ]{1,2}(;[a-z=\"]{0,3})?\r?\n[a-z]{0,5}\r\n){1,2}0\r\n\r\n",
    ];
    (line, proptest::collection::vec(field(), 0..4), body).prop_map(|(line, fields, body)| {
        let fields: String = fields.into_iter().map(|field| field + "\r\n").collect();
        format!("{line}\r\nHost: a\r\n{fields}\r\n{body}").into_bytes()
    })
}

/// A few messages, sometimes with an octet put in, taken out or changed.
pub(in crate::server) fn stream() -> impl Strategy<Value = Vec<u8>> {
    let octet = prop_oneof![
        Just(b'\r'),
        Just(b'\n'),
        Just(b' '),
        Just(b'\t'),
        Just(0),
        Just(b':'),
        Just(b'0'),
        Just(0x80),
        any::<u8>(),
    ];
    let change = (any::<prop::sample::Index>(), 0..3_u8, octet);
    (
        proptest::collection::vec(message(), 1..4),
        proptest::option::of(change),
    )
        .prop_map(|(messages, change)| {
            let mut bytes = messages.concat();
            if let Some((index, way, octet)) = change {
                let at = index.index(bytes.len());
                match way {
                    0 => bytes[at] = octet,
                    1 => bytes.insert(at, octet),
                    _ => drop(bytes.remove(at)),
                }
            }
            bytes
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn cuts_change_nothing(bytes in stream(), sizes in proptest::collection::vec(1..40_usize, 1..6)) {
        prop_assert_eq!(whole(&bytes), cut(&bytes, &sizes));
        prop_assert_eq!(whole(&bytes), cut(&bytes, &[1]));
    }

    #[test]
    fn httparse_finds_the_same_boundaries(bytes in stream()) {
        let passed = &bytes[..whole(&bytes).0];
        prop_assert_eq!(reference(passed), Some(head_ends(passed)), "{}", passed.escape_ascii());
    }

    #[test]
    fn any_bytes_at_all_are_read_alike(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (pass, violation) = whole(&bytes);
        prop_assert!(pass == bytes.len() || violation.is_some());
        prop_assert_eq!(cut(&bytes, &[3, 1]), (pass, violation));
    }
}
