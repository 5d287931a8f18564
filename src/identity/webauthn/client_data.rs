//! What the browser says of a ceremony: `clientDataJSON` (Web Authentication Level 3 §5.8.1).
//!
//! A name that stands twice is refused, since two readers could take it for two things. Names that are not known are
//! passed over, as the standard bids. Whether what is said is what was asked is the relying party's question.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use super::WebauthnError;
use crate::identity::claims::{self, parse_object};

/// The client data, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientData {
    /// `type`.
    pub kind: Box<str>,
    /// `challenge`, as it is written.
    challenge: Box<str>,
    /// `origin`, as it is written.
    pub origin: Box<str>,
    /// Whether the page stood inside one of another origin: `crossOrigin` is true, or there is a `topOrigin`.
    pub is_framed: bool,
}

impl ClientData {
    /// Reads the JSON.
    ///
    /// # Errors
    /// [`WebauthnError::ClientData`].
    pub fn read(json: &[u8]) -> Result<Self, WebauthnError> {
        let bad = WebauthnError::ClientData;
        let members = parse_object(json).map_err(|_| bad)?;
        let text = |name| {
            let text = claims::string(&members, name).map_err(|_| bad)?;
            text.map(Box::from).ok_or(bad)
        };
        let crossed = match members.get("crossOrigin") {
            None => false,
            Some(Value::Bool(crossed)) => *crossed,
            Some(_) => return Err(bad),
        };
        Ok(Self {
            kind: text("type")?,
            challenge: text("challenge")?,
            origin: text("origin")?,
            is_framed: crossed || members.contains_key("topOrigin"),
        })
    }

    /// Whether it is about this challenge.
    pub fn is_about(&self, challenge: &[u8]) -> bool {
        *self.challenge == *URL_SAFE_NO_PAD.encode(challenge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        r#"{"type":"webauthn.get","challenge":"AAEC","origin":"https://app.example"}"#;

    #[test]
    fn what_the_browser_says_is_read() {
        let said = ClientData::read(GOOD.as_bytes()).unwrap();
        assert_eq!(
            (&*said.kind, &*said.origin),
            ("webauthn.get", "https://app.example")
        );
        assert!(said.is_about(&[0, 1, 2]));
        assert!(!said.is_about(&[0, 1, 3]));
        assert!(!said.is_about(&[0, 1]));
        assert!(!said.is_about(&[]));
        assert!(!said.is_framed);
    }

    #[test]
    fn a_frame_is_told_by_either_sign() {
        let framed = |more: &str| {
            let json = GOOD.replace('}', &format!(",{more}}}"));
            ClientData::read(json.as_bytes()).map(|said| said.is_framed)
        };
        assert_eq!(framed(r#""crossOrigin":false"#), Ok(false));
        assert_eq!(framed(r#""crossOrigin":true"#), Ok(true));
        assert_eq!(framed(r#""topOrigin":"https://app.example""#), Ok(true));
        assert_eq!(framed(r#""topOrigin":null"#), Ok(true));
        assert_eq!(framed(r#""later":{"a":[1]}"#), Ok(false));
        for bad in ["\"false\"", "0", "null"] {
            let bad = format!("\"crossOrigin\":{bad}");
            assert_eq!(framed(&bad), Err(WebauthnError::ClientData));
        }
    }

    #[test]
    fn what_is_not_plain_is_refused() {
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"type":"webauthn.get","challenge":"AAEC"}"#,
            r#"{"type":"webauthn.get","challenge":7,"origin":"https://app.example"}"#,
            r#"{"type":"webauthn.get","challenge":"AAEC","origin":["https://app.example"]}"#,
            r#"{"type":"x","type":"webauthn.get","challenge":"AAEC","origin":"https://app.example"}"#,
            r#"{"type":"webauthn.get","challenge":"AAEC","origin":"https://app.example","origin":"https://app.example"}"#,
        ] {
            assert_eq!(
                ClientData::read(bad.as_bytes()),
                Err(WebauthnError::ClientData),
                "{bad}"
            );
        }
        let more = format!("{GOOD}{{}}");
        assert!(ClientData::read(more.as_bytes()).is_err());
        let marked = format!("\u{feff}{GOOD}");
        assert!(ClientData::read(marked.as_bytes()).is_err());
    }
}
