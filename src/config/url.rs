//! The address of a resource that the proxy fetches itself: key sets, discovery documents (RFC 3986, RFC 9110 §4.2).

use std::fmt;

use super::address::{Host, Scheme, host_and_port, refuse_userinfo};
use super::value::{Complaint, FromValue, Value, quoted, text_of};

/// An absolute `https://` or `http://` URL with its path, without user name or fragment.
///
/// Clear `http` is read too; whoever uses it decides by [`HttpsUrl::is_protected`] whether that is acceptable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpsUrl {
    scheme: Scheme,
    host: Host,
    port: u16,
    target: String,
    text: String,
}

impl HttpsUrl {
    /// `Http` or `Https`.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Name or address.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, the default one filled in.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query as they go on the request line; at least `/`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a connection to it stays on this machine.
    pub fn is_loopback(&self) -> bool {
        self.host.is_loopback()
    }

    /// Whether nobody on the way can change the answer: https, or a loopback address.
    pub fn is_protected(&self) -> bool {
        self.scheme == Scheme::Https || self.is_loopback()
    }

    /// Reads a URL that did not come from the file, such as one from a discovery document.
    ///
    /// # Errors
    /// The complaint says what is accepted.
    pub fn parse(text: &str) -> Result<Self, Complaint> {
        let complaint = |why: &str| Complaint::new(format!("{} {why}", quoted(text)));
        let (scheme, rest) = match text.split_once("://") {
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(("http", rest)) => (Scheme::Http, rest),
            _ => {
                return Err(complaint("is not an http or https address")
                    .hint("such as `https://idp.example/keys`"));
            }
        };
        refuse_userinfo(rest)?;
        if rest.contains('#') {
            return Err(complaint("has a fragment, which is never sent"));
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let (host, port) =
            host_and_port(authority).ok_or_else(|| complaint("has no valid host and port"))?;
        if !target
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !br#""<>\^`{|}"#.contains(&byte))
        {
            return Err(
                complaint("holds characters that a URL cannot hold").hint("percent-encode them")
            );
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        let port = port.unwrap_or(scheme.default_port());
        Ok(Self {
            scheme,
            host,
            port,
            target: format!("{slash}{target}"),
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromValue for HttpsUrl {
    fn from_value(value: &Value) -> Result<Self, Complaint> {
        Self::parse(text_of(value, "an https address")?)
    }
}

#[cfg(test)]
mod tests {
    use super::HttpsUrl;

    #[test]
    fn parts() {
        let url = HttpsUrl::parse("https://idp.example/realms/main?x=%20").expect("valid");
        assert_eq!(
            (url.host().to_string().as_str(), url.port()),
            ("idp.example", 443)
        );
        assert_eq!(url.target(), "/realms/main?x=%20");
        assert!(url.is_protected() && !url.is_loopback());
        let bare = HttpsUrl::parse("http://127.0.0.1:9000?q").expect("valid");
        assert_eq!((bare.target(), bare.is_protected()), ("/?q", true));
        assert!(
            !HttpsUrl::parse("http://idp.example/")
                .expect("valid")
                .is_protected()
        );
    }

    #[test]
    fn hostile() {
        for bad in [
            "",
            "idp.example",
            "ftp://a",
            "https://",
            "https:///x",
            "https://a/#f",
            "https://a/ b",
            "https://a/\r\nx: y",
            "https://a\\b/",
            "https://a/\\b",
            "https://a/ü",
            "https://a/\"",
            "https://me:hunter2@a/",
            "https://a@b",
            "javascript://a",
            "https://a:99999/",
        ] {
            let complaint = HttpsUrl::parse(bad).expect_err(bad);
            assert!(!complaint.message.contains("hunter2"));
        }
    }
}
