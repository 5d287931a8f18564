//! A plain reading of what passed the screen (RFC 9112), the boundaries taken from the screen, all rules told anew.

use portcullis::server::screen::{Fed, Screen, ScreenLimits};

/// Small, so that short inputs reach them.
pub(super) const LIMITS: ScreenLimits = ScreenLimits {
    head_bytes: 1024,
    header_count: 8,
    uri_bytes: 200,
};

/// One request.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) method: Vec<u8>,
    pub(super) target: Vec<u8>,
    /// It speaks HTTP/1.0.
    pub(super) old: bool,
    /// Names in lower case, values without the blanks around them.
    pub(super) fields: Vec<(String, Vec<u8>)>,
    /// As far as it came.
    pub(super) body: Vec<u8>,
    pub(super) trailers: Vec<(String, Vec<u8>)>,
    /// Nothing of it is missing.
    pub(super) whole: bool,
}

impl Message {
    /// Whether the connection may end behind it.
    pub(super) fn may_close(&self) -> bool {
        self.old
            || self.values("connection").any(|value| {
                value
                    .to_ascii_lowercase()
                    .windows(5)
                    .any(|word| word == b"close")
            })
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let named = move |field: &&(String, Vec<u8>)| field.0 == name;
        self.fields
            .iter()
            .filter(named)
            .map(|(_, value)| &value[..])
    }
}

/// The requests whose heads passed, the last one perhaps cut short in its body.
pub(super) fn messages(passed: &[u8]) -> Vec<Message> {
    let mut screen = Screen::new(LIMITS);
    let mut found = Vec::new();
    let (mut from, mut body_from) = (0, None);
    for (at, octet) in passed.iter().enumerate() {
        let heads = screen.heads();
        let fed = screen.feed(std::slice::from_ref(octet));
        assert_eq!(
            fed,
            Fed {
                pass: 1,
                violation: None
            },
            "what passed once passes again"
        );
        // A tunnel is denied, as it is when the stream is read for the first time.
        screen.resume();
        if screen.heads() > heads {
            body_from = Some(at + 1);
        }
        if let Some(body) = body_from.filter(|_| screen.is_between()) {
            found.push(message(&passed[from..body], &passed[body..=at], true));
            (from, body_from) = (at + 1, None);
        }
    }
    if let Some(body) = body_from {
        found.push(message(&passed[from..body], &passed[body..], false));
    }
    found
}

fn message(head: &[u8], body: &[u8], whole: bool) -> Message {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    let lines = lines(head);
    let words: Vec<&[u8]> = lines[0].split(|&octet| octet == b' ').collect();
    let &[method, target, version] = &words[..] else {
        panic!("a request line of {} words", words.len());
    };
    assert!(matches!(version, b"HTTP/1.0" | b"HTTP/1.1"), "a version");
    assert!(
        target
            .iter()
            .all(|octet| octet.is_ascii_graphic() && *octet != b'#'),
        "a target"
    );
    let mut message = Message {
        method: method.to_vec(),
        target: target.to_vec(),
        old: version == b"HTTP/1.0",
        fields: lines[1..].iter().map(|line| field(line)).collect(),
        body: Vec::new(),
        trailers: Vec::new(),
        whole,
    };
    let hosts = message.values("host").count();
    assert!(hosts == 1 || (message.old && hosts == 0), "{hosts} hosts");
    read_body(&mut message, body);
    message
}

/// The lines of a block that ends with an empty one.
fn lines(block: &[u8]) -> Vec<&[u8]> {
    let (mut found, mut rest) = (Vec::new(), block);
    loop {
        let end = rest
            .windows(2)
            .position(|pair| pair == b"\r\n")
            .expect("lines end in CR LF");
        let line = &rest[..end];
        rest = &rest[end + 2..];
        assert!(
            !line.contains(&b'\n') && !line.contains(&b'\r'),
            "a bare CR or LF"
        );
        if line.is_empty() {
            assert!(rest.is_empty(), "an empty line within a head");
            return found;
        }
        found.push(line);
    }
}

fn field(line: &[u8]) -> (String, Vec<u8>) {
    let colon = line
        .iter()
        .position(|&octet| octet == b':')
        .expect("a field has a colon");
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_mark = |octet| b"!#$%&'*+-.^_`|~".contains(octet);
    assert!(
        !name.is_empty()
            && name
                .iter()
                .all(|octet| octet.is_ascii_alphanumeric() || is_mark(octet)),
        "a name"
    );
    assert!(
        value
            .iter()
            .all(|&octet| octet == b'\t' || !octet.is_ascii_control()),
        "a value"
    );
    let name = String::from_utf8(name.to_ascii_lowercase()).expect("a name is ASCII");
    (name, trimmed(value).to_vec())
}

fn trimmed(value: &[u8]) -> &[u8] {
    let is_text = |octet: &u8| !matches!(octet, b' ' | b'\t');
    let Some(from) = value.iter().position(is_text) else {
        return &[];
    };
    let to = value.iter().rposition(is_text).expect("there is text");
    &value[from..=to]
}

fn read_body(message: &mut Message, bytes: &[u8]) {
    let lengths: Vec<Vec<u8>> = message
        .values("content-length")
        .map(<[u8]>::to_vec)
        .collect();
    let codings: Vec<Vec<u8>> = message
        .values("transfer-encoding")
        .map(<[u8]>::to_vec)
        .collect();
    match (&lengths[..], &codings[..]) {
        ([], []) => assert!(bytes.is_empty() && message.whole),
        ([length], []) => {
            assert!(length.iter().all(u8::is_ascii_digit), "a length");
            let length: u64 = String::from_utf8_lossy(length)
                .parse()
                .expect("a length that fits");
            assert_eq!(bytes.len() as u64 == length, message.whole);
            assert!(bytes.len() as u64 <= length);
            message.body = bytes.to_vec();
        }
        ([], [coding]) => {
            assert!(
                coding.eq_ignore_ascii_case(b"chunked") && !message.old,
                "a coding"
            );
            read_chunks(message, bytes);
        }
        _ => panic!("a length stated twice"),
    }
}

fn read_chunks(message: &mut Message, bytes: &[u8]) {
    let mut rest = bytes;
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let line = &rest[..end];
        rest = &rest[end + 2..];
        let digits = line
            .split(|&octet| octet == b';')
            .next()
            .expect("a first part");
        assert!(
            (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit),
            "a chunk size"
        );
        assert!(line.iter().all(u8::is_ascii_graphic), "a chunk extension");
        let digits = std::str::from_utf8(digits).expect("digits are ASCII");
        let size = u64::from_str_radix(digits, 16).expect("sixteen digits fit");
        if size == 0 {
            if message.whole {
                message.trailers = lines(rest).into_iter().map(field).collect();
            }
            return;
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(rest.len());
        message.body.extend_from_slice(&rest[..size]);
        rest = &rest[size..];
        match rest {
            [] | [b'\r'] => break,
            [b'\r', b'\n', ..] => rest = &rest[2..],
            _ => panic!("no line end behind a chunk"),
        }
    }
    assert!(
        !message.whole,
        "a body that the screen took for whole is not"
    );
}
