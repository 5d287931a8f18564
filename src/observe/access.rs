//! The access line: one JSON object for each request, written when its body ends or is dropped.
//!
//! For the pipeline, which fills an [`AccessRecord`] and hands it to its worker's [`AccessSink`]. Names are those of
//! the OpenTelemetry semantic conventions where one exists; a field that has no value is left out. Never in it: tokens,
//! cookies, passwords; the named parameters of a query are redacted here, so that no caller can forget it.
//!
//! It does not decide what happened, and does not write to files: see [`super::access_log`].

use std::cell::Cell;
use std::net::IpAddr;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{Method, Version};
use percent_encoding::percent_decode;

use super::json::{Object, digits, escape};
use crate::wire::halt::{Reason, Stage};

pub use super::access_log::{AccessLog, AccessSink, Target};

const REDACTED: &[u8] = b"[redacted]";

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// A backend answered it.
    Forwarded,
    /// A policy refused it.
    Refused,
    /// The proxy answered it itself: a preflight, a redirect, a page of its own.
    Answered,
    /// A backend or the proxy could not do what it should.
    Failed,
    /// The client went away, or the answer broke off in the middle.
    Aborted,
}

impl Decision {
    pub(super) const ALL: [Self; 5] = [
        Self::Forwarded,
        Self::Refused,
        Self::Answered,
        Self::Failed,
        Self::Aborted,
    ];

    /// The word for it in lines and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Refused => "refused",
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }
}

/// Everything one line says; the attribute a field is written as stands beside it.
#[derive(Clone, Debug)]
pub struct AccessRecord<'a> {
    /// `timestamp`: when the request arrived.
    pub timestamp: SystemTime,
    /// `http.request.method`
    pub method: &'a Method,
    /// `url.scheme`
    pub scheme: &'a str,
    /// `server.address`: the host the client asked for.
    pub server_address: Option<&'a str>,
    /// `url.path`: in normal form where it has one, else as it came.
    pub path: &'a [u8],
    /// `url.query`: as it came; it is redacted on the way out.
    pub query: Option<&'a [u8]>,
    /// Names of the query parameters whose values are secrets.
    pub redact_query: &'a [String],
    /// `http.route`
    pub route: Option<&'a str>,
    /// `http.response.status_code`: none when the client left before an answer.
    pub status: Option<u16>,
    /// `http.request.body.size`
    pub request_size: u64,
    /// `http.response.body.size`
    pub response_size: u64,
    /// `network.protocol.version`
    pub version: Version,
    /// `tls.protocol.version`, such as `1.3`.
    pub tls_version: Option<&'a str>,
    /// `client.address`: after trusted proxies.
    pub client: Option<IpAddr>,
    /// `network.peer.address`: the other end of the connection; none over a unix socket.
    pub peer: Option<IpAddr>,
    /// `user_agent.original`
    pub user_agent: Option<&'a [u8]>,
    /// `enduser.id`: the subject of the principal.
    pub enduser: Option<&'a str>,
    /// `trace_id`, 32 hexadecimal digits.
    pub trace_id: Option<&'a [u8; 32]>,
    /// `span_id`, 16 hexadecimal digits.
    pub span_id: Option<&'a [u8; 16]>,
    /// `request_id`
    pub request_id: Option<&'a str>,
    /// `duration_ms`: until the last byte of the answer.
    pub duration: Duration,
    /// What the backend had to do with it.
    pub upstream: Option<UpstreamRecord<'a>>,
    /// `blueprint`
    pub blueprint: Option<&'a str>,
    /// `decision`
    pub decision: Decision,
    /// `stage`: where the request ended, when a policy or the proxy ended it.
    pub stage: Option<Stage>,
    /// `reason`
    pub reason: Option<Reason>,
    /// `detail`: what the client is not told, such as which check of a token failed.
    pub detail: Option<&'static str>,
    /// `would_refuse`: what policies in monitor mode would have done.
    pub would_refuse: &'a [(Stage, Reason)],
}

/// The backend's part of a line.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamRecord<'a> {
    /// `upstream.address`: the endpoint that was tried last.
    pub address: &'a str,
    /// `upstream.duration_ms`: until the response head.
    pub duration: Duration,
    /// `upstream.attempts`
    pub attempts: u32,
}

/// Appends the line for `record`, newline included.
pub fn write_line(record: &AccessRecord<'_>, out: &mut Vec<u8>) {
    let mut line = Object::open(out);
    line.quoted(br#"{"timestamp":""#, |out| {
        write_timestamp(record.timestamp, out);
    });
    write_request(record, &mut line);
    write_connection(record, &mut line);
    write_identity(record, &mut line);
    line.millis(br#","duration_ms":"#, record.duration);
    if let Some(upstream) = &record.upstream {
        line.text(br#","upstream.address":""#, upstream.address.as_bytes());
        line.millis(br#","upstream.duration_ms":"#, upstream.duration);
        line.number(br#","upstream.attempts":"#, u64::from(upstream.attempts));
    }
    write_decision(record, &mut line);
    line.close();
}

fn write_request(record: &AccessRecord<'_>, line: &mut Object<'_>) {
    // A method is a token, which has neither quotes nor backslashes (RFC 9110 §5.6.2).
    line.word(br#","http.request.method":""#, record.method.as_str());
    line.text(br#","url.scheme":""#, record.scheme.as_bytes());
    line.text_if(br#","server.address":""#, record.server_address);
    line.text(br#","url.path":""#, record.path);
    if let Some(query) = record.query {
        line.quoted(br#","url.query":""#, |out| {
            write_query(query, record.redact_query, out);
        });
    }
    line.text_if(br#","http.route":""#, record.route);
    if let Some(status) = record.status {
        line.number(br#","http.response.status_code":"#, u64::from(status));
    }
    line.number(br#","http.request.body.size":"#, record.request_size);
    line.number(br#","http.response.body.size":"#, record.response_size);
}

fn write_connection(record: &AccessRecord<'_>, line: &mut Object<'_>) {
    line.word(
        br#","network.protocol.version":""#,
        version_text(record.version),
    );
    line.text_if(br#","tls.protocol.version":""#, record.tls_version);
    let written = record
        .client
        .map(|client| line.address(br#","client.address":""#, client));
    match (record.peer, written) {
        // Nearly always the same, unless a trusted proxy stands before the gate.
        (peer, Some(text)) if peer == record.client => {
            line.again(br#","network.peer.address":""#, text);
        }
        (Some(peer), _) => {
            line.address(br#","network.peer.address":""#, peer);
        }
        (None, _) => {}
    }
}

fn write_identity(record: &AccessRecord<'_>, line: &mut Object<'_>) {
    if let Some(user_agent) = record.user_agent {
        line.text(br#","user_agent.original":""#, user_agent);
    }
    line.text_if(br#","enduser.id":""#, record.enduser);
    if let Some(trace_id) = record.trace_id {
        line.text(br#","trace_id":""#, trace_id);
    }
    if let Some(span_id) = record.span_id {
        line.text(br#","span_id":""#, span_id);
    }
    line.text_if(br#","request_id":""#, record.request_id);
}

fn write_decision(record: &AccessRecord<'_>, line: &mut Object<'_>) {
    line.text_if(br#","blueprint":""#, record.blueprint);
    line.word(br#","decision":""#, record.decision.as_str());
    if let Some(stage) = record.stage {
        line.word(br#","stage":""#, stage.as_str());
    }
    if let Some(reason) = record.reason {
        line.word(br#","reason":""#, reason.code());
    }
    line.text_if(br#","detail":""#, record.detail);
    line.words(
        br#","would_refuse":"#,
        record.would_refuse.iter().map(|(_, reason)| reason.code()),
    );
}

const fn version_text(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

/// Appends `query` with the values of the parameters in `names` replaced by `[redacted]`, otherwise as it is.
///
/// Names are compared without case and after percent-decoding; `name[…]` counts as `name`, since that is how several
/// frameworks write lists. Both `&` and `;` separate.
pub fn redact(query: &[u8], names: &[String], out: &mut Vec<u8>) {
    each_part(query, names, |part, _| out.extend_from_slice(part));
}

fn write_query(query: &[u8], names: &[String], out: &mut Vec<u8>) {
    each_part(query, names, |part, kind| match kind {
        Part::Original => escape(part, out),
        Part::Redacted => out.extend_from_slice(part),
    });
}

#[derive(Clone, Copy)]
enum Part {
    Original,
    Redacted,
}

/// Hands over the query in as few parts as its secrets allow: nearly always in one.
fn each_part(query: &[u8], names: &[String], mut emit: impl FnMut(&[u8], Part)) {
    // Behind `kept` nothing was handed over yet; `start` is where the pair begins.
    let (mut kept, mut start) = (0, 0);
    for pair in query.split_inclusive(|byte| matches!(byte, b'&' | b';')) {
        if let Some(value) = secret_value(pair, names) {
            emit(
                query.get(kept..start + value.start).unwrap_or_default(),
                Part::Original,
            );
            emit(REDACTED, Part::Redacted);
            kept = start + value.end;
        }
        start += pair.len();
    }
    emit(query.get(kept..).unwrap_or_default(), Part::Original);
}

/// Where the value stands in a pair, separator included, if its name is that of a secret.
fn secret_value(pair: &[u8], names: &[String]) -> Option<Range<usize>> {
    let at = memchr::memchr(b'=', pair)?;
    if !is_secret(pair.get(..at)?, names) {
        return None;
    }
    let separator = usize::from(matches!(pair.get(at + 1..)?.last(), Some(b'&' | b';')));
    Some(at + 1..pair.len() - separator)
}

fn is_secret(name: &[u8], names: &[String]) -> bool {
    let first = name.first().copied();
    let is_same = |secret: &String| {
        let mut decoded = percent_decode(name).map(|byte| if byte == b'+' { b' ' } else { byte });
        let mut expected = secret.bytes();
        loop {
            match (decoded.next(), expected.next()) {
                (None | Some(b'['), None) => return true,
                (Some(byte), Some(wanted)) if byte.eq_ignore_ascii_case(&wanted) => {}
                _ => return false,
            }
        }
    };
    // Most names differ in their first letter, and that of few is escaped.
    let may_be = |secret: &String| match (first, secret.bytes().next()) {
        (Some(b'%' | b'+'), _) | (_, None) => true,
        (Some(first), Some(wanted)) => first.eq_ignore_ascii_case(&wanted),
        (None, Some(_)) => false,
    };
    names.iter().any(|secret| may_be(secret) && is_same(secret))
}

/// The text of one second, as far as the seconds.
type Second = (u64, [u8; 20]);

/// Appends RFC 3339 in UTC with milliseconds; the part down to the second is kept from line to line.
fn write_timestamp(time: SystemTime, out: &mut Vec<u8>) {
    thread_local! {
        static LAST: Cell<Second> = const { Cell::new((u64::MAX, [b'0'; 20])) };
    }
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (mut second, mut text) = LAST.get();
    if second != since.as_secs() {
        second = since.as_secs();
        text = second_text(second);
        LAST.set((second, text));
    }
    let [hundreds, tens, ones] = digits(u64::from(since.subsec_millis()));
    out.extend_from_slice(&text);
    out.extend_from_slice(&[hundreds, tens, ones, b'Z']);
}

/// `2026-11-24T08:30:00.` for a unix time; years past 9999 are written as 9999.
fn second_text(second: u64) -> [u8; 20] {
    const LAST_SECOND: i64 = 253_402_300_799;
    let second = i64::try_from(second)
        .unwrap_or(LAST_SECOND)
        .min(LAST_SECOND);
    let at = time::OffsetDateTime::from_unix_timestamp(second)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let year = at.year().unsigned_abs();
    let parts = [
        (year / 100, b'\0'),
        (year % 100, b'-'),
        (u32::from(u8::from(at.month())), b'-'),
        (u32::from(at.day()), b'T'),
        (u32::from(at.hour()), b':'),
        (u32::from(at.minute()), b':'),
        (u32::from(at.second()), b'.'),
    ];
    let ten = |value: u32| u8::try_from(value % 10).unwrap_or(0) + b'0';
    let bytes = parts
        .into_iter()
        .flat_map(|(value, after)| [ten(value / 10), ten(value), after]);
    let mut text = [b'0'; 20];
    for (place, byte) in text.iter_mut().zip(bytes.filter(|byte| *byte != b'\0')) {
        *place = byte;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["token", "code", "password"].map(str::to_owned).to_vec()
    }

    fn bare(method: &Method) -> AccessRecord<'_> {
        AccessRecord {
            timestamp: UNIX_EPOCH + Duration::from_millis(1_795_509_000_007),
            method,
            scheme: "https",
            server_address: None,
            path: b"/",
            query: None,
            redact_query: &[],
            route: None,
            status: None,
            request_size: 0,
            response_size: 0,
            version: Version::HTTP_11,
            tls_version: None,
            client: None,
            peer: None,
            user_agent: None,
            enduser: None,
            trace_id: None,
            span_id: None,
            request_id: None,
            duration: Duration::from_micros(1_042),
            upstream: None,
            blueprint: None,
            decision: Decision::Aborted,
            stage: None,
            reason: None,
            detail: None,
            would_refuse: &[],
        }
    }

    fn line(record: &AccessRecord<'_>) -> String {
        let mut out = Vec::new();
        write_line(record, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn absent_fields_are_left_out() {
        assert_eq!(
            line(&bare(&Method::GET)),
            "{\"timestamp\":\"2026-11-24T08:30:00.007Z\",\"http.request.method\":\"GET\",\
             \"url.scheme\":\"https\",\"url.path\":\"/\",\"http.request.body.size\":0,\
             \"http.response.body.size\":0,\"network.protocol.version\":\"1.1\",\
             \"duration_ms\":1.042,\"decision\":\"aborted\"}\n"
        );
    }

    /// A record with a value for every name.
    fn full(names: &[String]) -> AccessRecord<'_> {
        AccessRecord {
            server_address: Some("app.example"),
            query: Some(b"a=1&token=secret"),
            redact_query: names,
            route: Some("/users/{id}"),
            status: Some(403),
            version: Version::HTTP_2,
            tls_version: Some("1.3"),
            client: Some([192, 0, 2, 7].into()),
            peer: Some("2001:db8::1".parse().unwrap()),
            user_agent: Some(b"curl/8"),
            enduser: Some("alice"),
            trace_id: Some(b"0af7651916cd43dd8448eb211c80319c"),
            span_id: Some(b"b7ad6b7169203331"),
            request_id: Some("r-1"),
            upstream: Some(UpstreamRecord {
                address: "127.0.0.1:8000",
                duration: Duration::from_millis(3),
                attempts: 1,
            }),
            blueprint: Some("api"),
            decision: Decision::Refused,
            stage: Some(Stage::Rbac),
            reason: Some(Reason::RoleMissing),
            detail: Some("none of the roles"),
            would_refuse: &[
                (Stage::Network, Reason::NetworkDenied),
                (Stage::RateLimit, Reason::RateLimited),
            ],
            ..bare(&Method::DELETE)
        }
    }

    #[test]
    fn a_full_line_has_every_name_of_the_contract() {
        let names = names();
        let full = full(&names);
        let read: serde_json::Value = serde_json::from_str(&line(&full)).unwrap();
        assert_eq!(read["url.query"], "a=1&token=[redacted]");
        assert_eq!(read["client.address"], "192.0.2.7");
        assert_eq!(read["network.peer.address"], "2001:db8::1");
        assert_eq!(read["network.protocol.version"], "2");
        assert_eq!(read["upstream.duration_ms"], 3.0);
        assert_eq!(read["reason"], "role-missing");
        assert_eq!(
            read["would_refuse"],
            serde_json::json!(["network-denied", "rate-limited"])
        );
        let names: Vec<_> = read
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let promised = "timestamp http.request.method url.scheme server.address url.path \
            url.query http.route http.response.status_code http.request.body.size \
            http.response.body.size network.protocol.version tls.protocol.version \
            client.address network.peer.address user_agent.original enduser.id trace_id \
            span_id request_id duration_ms upstream.address upstream.duration_ms \
            upstream.attempts blueprint decision stage reason detail would_refuse";
        assert_eq!(names, promised.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn the_same_address_is_written_in_both_places() {
        let address = Some("2001:db8::7".parse().unwrap());
        let record = AccessRecord {
            client: address,
            peer: address,
            ..bare(&Method::GET)
        };
        let read: serde_json::Value = serde_json::from_str(&line(&record)).unwrap();
        assert_eq!(read["client.address"], "2001:db8::7");
        assert_eq!(read["network.peer.address"], "2001:db8::7");
    }

    #[test]
    fn a_full_line_byte_for_byte() {
        let names = names();
        assert_eq!(
            line(&full(&names)),
            "{\"timestamp\":\"2026-11-24T08:30:00.007Z\",\"http.request.method\":\"DELETE\",\
             \"url.scheme\":\"https\",\"server.address\":\"app.example\",\"url.path\":\"/\",\
             \"url.query\":\"a=1&token=[redacted]\",\"http.route\":\"/users/{id}\",\
             \"http.response.status_code\":403,\"http.request.body.size\":0,\
             \"http.response.body.size\":0,\"network.protocol.version\":\"2\",\
             \"tls.protocol.version\":\"1.3\",\"client.address\":\"192.0.2.7\",\
             \"network.peer.address\":\"2001:db8::1\",\"user_agent.original\":\"curl/8\",\
             \"enduser.id\":\"alice\",\"trace_id\":\"0af7651916cd43dd8448eb211c80319c\",\
             \"span_id\":\"b7ad6b7169203331\",\"request_id\":\"r-1\",\"duration_ms\":1.042,\
             \"upstream.address\":\"127.0.0.1:8000\",\"upstream.duration_ms\":3.000,\
             \"upstream.attempts\":1,\"blueprint\":\"api\",\"decision\":\"refused\",\
             \"stage\":\"rbac\",\"reason\":\"role-missing\",\"detail\":\"none of the roles\",\
             \"would_refuse\":[\"network-denied\",\"rate-limited\"]}\n"
        );
    }

    #[test]
    fn a32_a_hostile_request_stays_one_printable_line() {
        let record = AccessRecord {
            path: b"/%0a\n{\"level\":\"info\"} ",
            query: Some(b"x=\x1b]0;owned\x07&y=\xff"),
            user_agent: Some(b"\x1b[2J\"}\xc2\x9b"),
            ..bare(&Method::GET)
        };
        let line = line(&record);
        let (line, rest) = line.split_once('\n').unwrap();
        assert_eq!(rest, "");
        assert!(line.bytes().all(|byte| matches!(byte, 0x20..=0x7e)));
        let read: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(read["user_agent.original"], "\u{1b}[2J\"}\u{9b}");
        assert!(read.get("level").is_none());
    }

    #[test]
    fn secrets_in_a_query_are_redacted_however_their_name_is_spelt() {
        let redacted = |query: &str| {
            let mut out = Vec::new();
            redact(query.as_bytes(), &names(), &mut out);
            String::from_utf8(out).unwrap()
        };
        for (query, expected) in [
            ("", ""),
            ("a=1", "a=1"),
            ("a=1&code=x=y&b", "a=1&code=[redacted]&b"),
            ("TOKEN=x;a=2", "TOKEN=[redacted];a=2"),
            ("t%6Fken=x", "t%6Fken=[redacted]"),
            (
                "token[]=x&token%5B0%5D=y",
                "token[]=[redacted]&token%5B0%5D=[redacted]",
            ),
            ("token", "token"),
            ("token=", "token=[redacted]"),
            ("tokens=x&oken=y", "tokens=x&oken=y"),
            ("&&password=a&", "&&password=[redacted]&"),
        ] {
            assert_eq!(redacted(query), expected);
        }
    }

    #[test]
    fn timestamps_are_right_at_the_edges() {
        let text = |seconds| String::from_utf8(second_text(seconds).to_vec()).unwrap();
        assert_eq!(text(0), "1970-01-01T00:00:00.");
        assert_eq!(text(951_827_696), "2000-02-29T12:34:56.");
        assert_eq!(text(u64::MAX), "9999-12-31T23:59:59.");
    }
}
