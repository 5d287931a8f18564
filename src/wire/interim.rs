//! Interim answers: the head of a 103 as it goes on to a client (RFC 8297).
//!
//! A hint stands before every decision on the answer itself, so it carries what it is for and nothing else: `Link`
//! fields, bounded. Of other interim answers none is passed on (RFC 9110 §15.2 lets a proxy keep those that it asked
//! for; it asks for none).

use bytes::Bytes;
use http::{
    HeaderMap,
    header::{CONNECTION, HeaderValue, LINK},
};

/// The largest head of a hint in bytes; a larger one is dropped whole.
const MOST_BYTES: usize = 8 * 1024;

const LINE: &[u8] = b"HTTP/1.1 103 Early Hints\r\n";

/// The bytes of HTTP/1.1 that pass on the fields of a 103; nothing where they hold no link that may go on.
pub fn early_hints(headers: &HeaderMap) -> Option<Bytes> {
    if is_of_one_hop(headers) {
        return None;
    }
    let mut head = LINE.to_vec();
    for link in headers.get_all(LINK) {
        if !is_plain(link) {
            continue;
        }
        for part in [b"link: ".as_slice(), link.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    if head.len() == LINE.len() {
        return None;
    }
    head.extend_from_slice(b"\r\n");
    (head.len() <= MOST_BYTES).then(|| head.into())
}

/// `Connection: link` makes the links a matter between the backend and the gate (RFC 9110 §7.6.1).
fn is_of_one_hop(headers: &HeaderMap) -> bool {
    let options = headers.get_all(CONNECTION).iter();
    options
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|option| {
            option
                .trim_ascii()
                .eq_ignore_ascii_case(LINK.as_str().as_bytes())
        })
}

/// Visible ASCII with blanks: a value that every parser ends in the same place.
fn is_plain(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    !bytes.trim_ascii().is_empty() && bytes.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: &str = "</style.css>; rel=preload; as=style";

    fn passed(fields: &[(&'static str, &[u8])]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value).expect("a value"));
        }
        early_hints(&headers).map(|head| String::from_utf8(head.to_vec()).expect("ASCII"))
    }

    #[test]
    fn links_alone_go_on() {
        let head = passed(&[
            ("set-cookie", b"a=b"),
            ("link", STYLE.as_bytes()),
            ("content-length", b"5"),
            ("transfer-encoding", b"chunked"),
            ("content-security-policy", b"default-src *"),
            ("link", b"</a.js>; rel=preload"),
        ]);
        let expected = format!(
            "HTTP/1.1 103 Early Hints\r\nlink: {STYLE}\r\nlink: </a.js>; rel=preload\r\n\r\n"
        );
        assert_eq!(head, Some(expected));
    }

    #[test]
    fn a_hint_without_a_link_that_may_go_on_is_none() {
        assert_eq!(passed(&[]), None);
        assert_eq!(passed(&[("set-cookie", b"a=b")]), None);
        for value in [b"".as_slice(), b"  ", b"<\xe4>", b"<a>\t; rel=x"] {
            assert_eq!(passed(&[("link", value)]), None, "{value:?}");
        }
        for options in [b"link".as_slice(), b"close, Link ", b"x,LINK"] {
            let fields = [("connection", options), ("link", STYLE.as_bytes())];
            assert_eq!(passed(&fields), None, "{options:?}");
        }
        let apart: [(_, &[u8]); 2] = [("connection", b"linked"), ("link", STYLE.as_bytes())];
        assert!(passed(&apart).is_some());
    }

    #[test]
    fn the_size_is_bounded() {
        let frame = LINE.len() + "link: \r\n\r\n".len();
        let most = vec![b'x'; MOST_BYTES - frame];
        let head = passed(&[("link", &most)]).expect("the largest");
        assert_eq!(head.len(), MOST_BYTES);
        assert_eq!(passed(&[("link", &[most.as_slice(), b"x"].concat())]), None);
    }
}
