//! Every rule with its row.

use proptest::prelude::*;

use super::*;

mod properties;

pub(in crate::server) use properties::stream;

const LIMITS: ScreenLimits = ScreenLimits {
    head_bytes: 1024,
    header_count: 8,
    uri_bytes: 200,
};

/// Feeds everything in one piece, and gives what passed, the violation, and where each head ended.
fn whole(bytes: &[u8]) -> (usize, Option<Violation>) {
    let fed = Screen::new(LIMITS).feed(bytes);
    (fed.pass, fed.violation)
}

/// Feeds in pieces of the given sizes, in turn.
fn cut(bytes: &[u8], sizes: &[usize]) -> (usize, Option<Violation>) {
    let mut screen = Screen::new(LIMITS);
    let (mut passed, mut rest) = (0, bytes);
    for size in sizes.iter().copied().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, behind) = rest.split_at(size.clamp(1, rest.len()));
        let fed = screen.feed(piece);
        passed += fed.pass;
        if let Some(violation) = fed.violation {
            assert_eq!(screen.phase(), Phase::Refused);
            assert_eq!(screen.feed(b"GET").violation, Some(violation));
            return (passed, Some(violation));
        }
        rest = behind;
    }
    (passed, None)
}

#[track_caller]
fn passes(bytes: &str) {
    let bytes = bytes.as_bytes();
    assert_eq!(
        whole(bytes),
        (bytes.len(), None),
        "{}",
        bytes.escape_ascii()
    );
    assert_eq!(
        cut(bytes, &[1]),
        (bytes.len(), None),
        "{}",
        bytes.escape_ascii()
    );
}

#[track_caller]
fn refuses(bytes: impl AsRef<[u8]>, violation: Violation) {
    let bytes = bytes.as_ref();
    let (pass, found) = whole(bytes);
    assert_eq!(found, Some(violation), "{}", bytes.escape_ascii());
    assert_eq!(cut(bytes, &[1]), (pass, found), "{}", bytes.escape_ascii());
}

/// Wants the refusal within the first head, and that the parser behind neither finishes nor refuses what passed.
#[track_caller]
fn refuses_head(bytes: impl AsRef<[u8]>, violation: Violation) {
    let bytes = bytes.as_ref();
    refuses(bytes, violation);
    let passed = &bytes[..whole(bytes).0];
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let outcome = httparse::Request::new(&mut fields).parse(passed);
    assert_eq!(
        outcome,
        Ok(httparse::Status::Partial),
        "{}",
        bytes.escape_ascii()
    );
}

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}")
}

fn get(line: &str) -> String {
    format!("{line}\r\nHost: a\r\n\r\n")
}

#[test]
fn sound_requests_pass() {
    passes("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    passes("\r\nGET / HTTP/1.1\r\nhost:a\r\nX:\r\nY: \t\r\n\r\n");
    passes("GET / HTTP/1.0\r\n\r\n");
    passes("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    passes("M-SEARCH /a?b=\\|`{} HTTP/1.1\r\nHost: a\r\n\r\n");
    passes("GET http://a/b?c HTTP/1.1\r\nHost: a\r\nX: caf\u{e9}\tb\r\n\r\n");
    passes(&post(
        "Content-Length: 5",
        "hello\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ));
    passes(&post(
        "Content-Length:\t 0 ",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ));
    passes(&post(
        "Transfer-Encoding: Chunked ",
        "a;b=c\r\n0123456789\r\n000\r\nT: x\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ));
    passes(&post(
        "Connection: Upgrade\r\nUpgrade: foo",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ));
}

#[test]
fn a1_a2_a3_transfer_encoding_stands_alone() {
    let violation = Violation::FramingConflict;
    for fields in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 6",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding:",
    ] {
        refuses_head(post(fields, "0\r\n\r\nG"), violation);
    }
    refuses_head(
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        violation,
    );
    refuses_head(
        post("Transfer-Encoding : chunked", ""),
        Violation::MalformedHead,
    );
    refuses_head(
        post("Transfer-Encoding:\x0bchunked", ""),
        Violation::MalformedHead,
    );
}

#[test]
fn a4_content_length_is_one_number() {
    for value in [
        "",
        "+5",
        "-5",
        "5,5",
        "5, 5",
        "5 5",
        "0x5",
        "5.0",
        "5;",
        "12345678901234567890",
    ] {
        refuses_head(
            post(&format!("Content-Length: {value}"), "hello"),
            Violation::FramingConflict,
        );
    }
    for other in ["5", "6"] {
        let fields = format!("Content-Length: 5\r\ncontent-length: {other}");
        refuses_head(post(&fields, "hello"), Violation::FramingConflict);
    }
    passes(&post("Content-Length: 9999999999999999999", "and so on"));
}

#[test]
fn a5_chunks_are_framed_exactly() {
    for body in [
        "5;a=\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n",
        "+5\r\nhello\r\n",
        "0x5\r\nhello\r\n",
        "\r\n",
        ";a\r\n",
        "00000000000000005\r\nhello\r\n",
        "5\r\nhelloworld\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5;a b\r\nhello\r\n0\r\n\r\n",
        "5;\x00\r\nhello\r\n0\r\n\r\n",
    ] {
        refuses(
            post("Transfer-Encoding: chunked", body),
            Violation::BadChunk,
        );
    }
    let long = |bytes| format!("5;{}\r\nhello\r\n0\r\n\r\n", "e".repeat(bytes));
    passes(&post("Transfer-Encoding: chunked", &long(63)));
    refuses(
        post("Transfer-Encoding: chunked", &long(64)),
        Violation::BadChunk,
    );
    let many = format!("1;{}\r\nx\r\n", "e".repeat(63)).repeat(65);
    refuses(
        post("Transfer-Encoding: chunked", &many),
        Violation::BadChunk,
    );
    passes(&post(
        "Transfer-Encoding: chunked",
        "FFFFFFFFFFFFFFFF\r\nmuch",
    ));
}

#[test]
fn trailers_are_lines_like_any_other() {
    let trailers = |lines: &str| post("Transfer-Encoding: chunked", &format!("0\r\n{lines}"));
    for lines in [
        "T: x\n\r\n",
        "T : x\r\n\r\n",
        " T: x\r\n\r\n",
        "T\r\n\r\n",
        "\n",
        "T: \x00\r\n\r\n",
    ] {
        refuses(trailers(lines), Violation::MalformedHead);
    }
    refuses(trailers(&"T: x\r\n".repeat(9)), Violation::HeadTooLarge);
    refuses(
        trailers(&format!("T: {}\r\n\r\n", "x".repeat(2000))),
        Violation::HeadTooLarge,
    );
}

#[test]
fn a6_nothing_comes_before_the_tunnel_is_open() {
    let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n";
    refuses(format!("{head}x"), Violation::EarlyTunnelBytes);
    assert_eq!(whole(format!("{head}x").as_bytes()).0, head.len());

    let mut screen = Screen::new(LIMITS);
    screen.feed(head.as_bytes());
    assert!(screen.awaits_tunnel());
    screen.open_tunnel();
    assert_eq!(screen.feed(b"\x00\n\r").violation, None);
    assert_eq!(screen.phase(), Phase::Tunnel);

    let mut screen = Screen::new(LIMITS);
    screen.feed(head.as_bytes());
    screen.resume();
    assert_eq!(
        screen.feed(get("GET / HTTP/1.1").as_bytes()).violation,
        None
    );
    screen.open_tunnel();
    assert_eq!(screen.phase(), Phase::Idle, "no tunnel was asked for");
    assert_eq!(
        screen.feed(b"\x00").violation,
        Some(Violation::MalformedHead)
    );

    let fields = "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1";
    refuses_head(post(fields, "x"), Violation::FramingConflict);
}

#[test]
fn a12_a13_targets_and_hosts() {
    for target in [
        "/a#b", "/\u{80}", "/a\tb", "/a\x7f", "a", "", "*", "//a b", "http://[", "/<", "#",
    ] {
        refuses_head(
            get(&format!("GET {target} HTTP/1.1")),
            Violation::MalformedHead,
        );
    }
    refuses_head("GET / HTTP/1.1\r\n\r\n", Violation::MalformedHead);
    refuses_head(
        "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
        Violation::MalformedHead,
    );
    refuses_head(
        get(&format!("GET /{} HTTP/1.1", "a".repeat(200))),
        Violation::UriTooLong,
    );
    passes(&get(&format!("GET /{} HTTP/1.1", "a".repeat(199))));
}

#[test]
fn a35_methods_and_versions() {
    for line in [
        "get / HTTP/1.1",
        "GEt / HTTP/1.1",
        "G!T / HTTP/1.1",
        "CONNECT x:443 HTTP/1.1",
    ] {
        refuses_head(get(line), Violation::UnsupportedMethod);
    }
    refuses_head(
        get(&format!("{} / HTTP/1.1", "A".repeat(33))),
        Violation::UnsupportedMethod,
    );
    for line in [
        "GET / HTTP/2.0",
        "GET / HTTP/0.9",
        "GET / HTTP/1.2",
        "GET / HTTP/3",
    ] {
        refuses_head(get(line), Violation::UnsupportedVersion);
    }
    for line in [
        "PRI * HTTP/2.0",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / http/1.1",
        "GET / HTTP/1.1x",
        "GET /",
        "GET / ",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "G\x00T / HTTP/1.1",
        "\r\n\r\nGET / HTTP/1.1",
    ] {
        refuses_head(get(line), Violation::MalformedHead);
    }
}

#[test]
fn lines_end_in_cr_lf_and_hold_no_control_octets() {
    for field in [
        "X: a\nY: b",
        "X: a\rY: b",
        "X: a\r\r",
        "X\n",
        "X\r\nY: b",
        "X",
        ": a",
        "X a: b",
        "X\u{e9}: b",
    ] {
        refuses_head(post(field, ""), Violation::MalformedHead);
    }
    refuses_head("\nGET / HTTP/1.1\r\n", Violation::MalformedHead);
    refuses_head("GET / HTTP/1.1\nHost: a\n\n", Violation::MalformedHead);
    refuses_head("GET / HTTP/1.1\r\nHost: a\r\n\n", Violation::MalformedHead);
    refuses_head(
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        Violation::MalformedHead,
    );
    refuses_head(post("X: a\r\n folded", ""), Violation::MalformedHead);
    for control in (0..0x20).chain([0x7f]).filter(|octet| *octet != b'\t') {
        let mut bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX: long enough ".to_vec();
        bytes.extend([control, b'b', b'\r', b'\n', b'\r', b'\n']);
        refuses_head(bytes, Violation::MalformedHead);
    }
}

#[test]
fn heads_are_bounded() {
    refuses_head(post(&"X: y\r\n".repeat(8), ""), Violation::HeadTooLarge);
    refuses_head(
        post(&format!("X: {}", "y".repeat(1024)), ""),
        Violation::HeadTooLarge,
    );
    refuses_head(
        post(&format!("{}: y", "x".repeat(257)), ""),
        Violation::HeadTooLarge,
    );
    refuses_head(
        post(&format!("Connection: {}", "y".repeat(257)), ""),
        Violation::HeadTooLarge,
    );
    let room = 1024 - post("X: ", "").len();
    passes(&post(&format!("X: {}", "y".repeat(room)), ""));
    refuses_head(
        post(&format!("X: {}", "y".repeat(room + 1)), ""),
        Violation::HeadTooLarge,
    );
}

#[test]
fn a_refusal_tells_what_was_asked_for() {
    for size in [1, 7, 1000] {
        let mut screen = Screen::new(LIMITS);
        let bytes = get("GET / HTTP/1.1") + "DELETE /a?b HTTP/1.1\r\nHost : a\r\n\r\n";
        for piece in bytes.as_bytes().chunks(size) {
            screen.feed(piece);
        }
        let refusal = screen.refusal().unwrap();
        assert_eq!(refusal.violation.code(), "malformed-head");
        assert_eq!(refusal.during, Phase::Head);
        assert_eq!(
            (refusal.method.as_slice(), refusal.target.as_slice()),
            (&b"DELETE"[..], &b"/a?b"[..])
        );
    }
    let mut screen = Screen::new(LIMITS);
    screen.feed(b"get /x#y HTTP/1.1\r\n");
    let refusal = screen.refusal().unwrap();
    assert_eq!(
        (refusal.method.as_slice(), refusal.target.as_slice()),
        (&b"get"[..], &b"/x#y"[..])
    );
}

#[test]
fn phases_follow_the_bytes() {
    let mut screen = Screen::new(LIMITS);
    let mut phase = |piece: &str| {
        screen.feed(piece.as_bytes());
        screen.phase()
    };
    assert_eq!(phase(""), Phase::Idle);
    assert_eq!(phase("\r\n"), Phase::Head);
    assert_eq!(
        phase("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"),
        Phase::Head
    );
    assert_eq!(phase("\r\n"), Phase::Body);
    assert_eq!(phase("h"), Phase::Body);
    assert_eq!(phase("i"), Phase::Idle);
    assert_eq!(phase("G"), Phase::Head);
    assert_eq!(phase("\n"), Phase::Refused);
}
