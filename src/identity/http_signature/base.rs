//! The signature base (RFC 9421 §2.5): the covered parts of a request, line by line, as both sides must write them.
//!
//! It is built of the request in its one normal form, so that what was verified is what is judged and forwarded. A
//! client whose target has another spelling than the normal form of RFC 9110 §4.2.3 does not verify. A part that the
//! request lacks, or that two readers could find differently, has no line and so no base.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

use super::input::{Component, Form, Part, Signature};
use crate::{
    identity::message::Message,
    wire::{
        forwarded::Scheme,
        sfv::read::{Dictionary, dictionary, item, list, written},
    },
};

/// What the URL Standard escapes in forms.
const FORM: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'*')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_');

/// Why a covered component has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseError {
    /// The request does not have it.
    Absent,
    /// A component that is not spoken here.
    Unspoken,
    /// A query parameter that stands several times.
    Repeated,
    /// A value outside of ASCII (RFC 9421 §2.1), or a parameter that is not UTF-8.
    NotAscii,
    /// A field that is not of the structure that the component says, or not known to have one.
    Structure,
}

/// Builds the base of a signature.
///
/// # Errors
/// [`BaseError`] for the first component without a value.
pub fn signature_base(message: &Message<'_>, signature: &Signature) -> Result<String, BaseError> {
    let mut lines = Lines {
        message,
        text: String::with_capacity(512),
        dictionaries: Vec::new(),
        parameters: None,
    };
    let components = signature.components.as_ref();
    for component in components.map_err(|_| BaseError::Unspoken)? {
        lines.text.push_str(&component.identifier);
        lines.text.push_str(": ");
        lines.push_value(component)?;
        lines.text.push('\n');
    }
    let mut base = lines.text;
    base.push_str("\"@signature-params\": ");
    base.push_str(&signature.parameters_text);
    Ok(base)
}

/// A base in the making. Whatever has pieces is read once, however many of them are covered.
struct Lines<'a> {
    message: &'a Message<'a>,
    text: String,
    dictionaries: Vec<(&'a HeaderName, Dictionary)>,
    /// The parameters of the query: names encoded anew, values as they came.
    parameters: Option<Vec<(String, &'a str)>>,
}

impl<'a> Lines<'a> {
    fn push_value(&mut self, component: &'a Component) -> Result<(), BaseError> {
        let message = self.message;
        let text = &mut self.text;
        match &component.part {
            Part::Method => text.push_str(message.method.as_str()),
            Part::Scheme => text.push_str(message.scheme.as_str()),
            Part::Authority => text.push_str(authority(message)),
            Part::Path => text.push_str(message.path),
            Part::Query => text.extend(["?", message.query.unwrap_or_default()]),
            Part::RequestTarget => self.push_target(),
            Part::TargetUri => {
                text.extend([message.scheme.as_str(), "://", authority(message)]);
                self.push_target();
            }
            Part::QueryParameter(name) => self.push_parameter(name)?,
            Part::Field(name, Form::Member(key)) => self.push_member(name, key)?,
            Part::Field(name, form) => push_field(text, message.headers, (name, form))?,
        }
        Ok(())
    }

    fn push_target(&mut self) {
        self.text.push_str(self.message.path);
        if let Some(query) = self.message.query {
            self.text.extend(["?", query]);
        }
    }

    /// The one value of a query parameter, decoded and encoded anew (RFC 9421 §2.2.8).
    fn push_parameter(&mut self, wanted: &str) -> Result<(), BaseError> {
        if self.parameters.is_none() {
            self.parameters = Some(parameters(self.message.query.unwrap_or_default())?);
        }
        let all = self.parameters.iter().flatten();
        let mut found = all.filter(|(name, _)| name == wanted);
        let (_, value) = found.next().ok_or(BaseError::Absent)?;
        if found.next().is_some() {
            return Err(BaseError::Repeated);
        }
        self.text.push_str(&encoded_anew(value)?);
        Ok(())
    }

    /// One member of a dictionary in its strict form (RFC 9421 §2.1.2).
    fn push_member(&mut self, name: &'a HeaderName, key: &str) -> Result<(), BaseError> {
        if !self.dictionaries.iter().any(|(known, _)| *known == name) {
            let joined = lines_of(self.message.headers, name)?.join(&b", "[..]);
            let read = dictionary(&joined).map_err(|_| BaseError::Structure)?;
            self.dictionaries.push((name, read));
        }
        let mut known = self.dictionaries.iter();
        let read = known.find(|(known, _)| *known == name);
        let member = read.and_then(|(_, dictionary)| dictionary.get(key));
        member.ok_or(BaseError::Absent)?.write(&mut self.text);
        Ok(())
    }
}

/// The default port of a scheme is left out (RFC 9421 §2.2.3).
fn authority<'a>(message: &Message<'a>) -> &'a str {
    let port = match message.scheme {
        Scheme::Https => ":443",
        Scheme::Http => ":80",
    };
    let authority = message.host;
    authority.strip_suffix(port).unwrap_or(authority)
}

/// The parameters of a query, their names encoded anew.
fn parameters(query: &str) -> Result<Vec<(String, &str)>, BaseError> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs
        .map(|(name, value)| Ok((encoded_anew(name)?, value)))
        .collect()
}

fn encoded_anew(text: &str) -> Result<String, BaseError> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode(spaced.as_bytes());
    let decoded = decoded.decode_utf8().map_err(|_| BaseError::NotAscii)?;
    Ok(utf8_percent_encode(&decoded, FORM).to_string())
}

/// The values of a field as they came, in their order; there is one at least.
fn lines_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Vec<&'a [u8]>, BaseError> {
    let lines: Vec<&[u8]> = headers
        .get_all(name)
        .iter()
        .map(|value| value.as_bytes().trim_ascii())
        .collect();
    if lines.is_empty() {
        return Err(BaseError::Absent);
    }
    Ok(lines)
}

fn push_field(
    base: &mut String,
    headers: &HeaderMap,
    (name, form): (&HeaderName, &Form),
) -> Result<(), BaseError> {
    let lines = lines_of(headers, name)?;
    if *form == Form::Bytes {
        for (place, line) in lines.iter().enumerate() {
            base.push_str(if place == 0 { ":" } else { ", :" });
            STANDARD.encode_string(line, base);
            base.push(':');
        }
        return Ok(());
    }
    let joined = lines.join(&b", "[..]);
    if *form == Form::Strict {
        base.push_str(&strict(name, &joined)?);
    } else {
        base.push_str(plain(&joined)?);
    }
    Ok(())
}

/// A line of the base is ASCII and has no line end in it.
fn plain(value: &[u8]) -> Result<&str, BaseError> {
    let fits = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
    match std::str::from_utf8(value) {
        Ok(text) if value.iter().all(fits) => Ok(text),
        _ => Err(BaseError::NotAscii),
    }
}

/// The strict form of the fields whose type is known here.
fn strict(name: &HeaderName, value: &[u8]) -> Result<String, BaseError> {
    let text = match name.as_str() {
        "content-digest"
        | "repr-digest"
        | "want-content-digest"
        | "want-repr-digest"
        | "signature"
        | "signature-input"
        | "accept-signature"
        | "priority" => dictionary(value).map(|members| Dictionary::written(&members)),
        "accept" | "accept-encoding" | "accept-language" | "cache-status" | "client-cert-chain"
        | "proxy-status" => list(value).map(|members| written(&members)),
        "client-cert" | "content-type" | "idempotency-key" => item(value).map(|item| {
            let mut out = String::new();
            item.write(&mut out);
            out
        }),
        _ => return Err(BaseError::Structure),
    };
    text.map_err(|_| BaseError::Structure)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, Method};

    use super::{BaseError, Message, Scheme, signature_base};
    use crate::{
        identity::http_signature::input::{SIGNATURE, SIGNATURE_INPUT, signatures},
        wire::sfv::read::counted::steps_of,
    };

    /// The line of one component in a request of RFC 9421 §2.
    fn line(
        component: &str,
        query: Option<&str>,
        fields: &[(&'static str, &[u8])],
    ) -> Result<String, BaseError> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let value = HeaderValue::from_bytes(value).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        let input = format!("a=({component})");
        headers.append(SIGNATURE_INPUT, HeaderValue::from_str(&input).unwrap());
        headers.append(SIGNATURE, HeaderValue::from_static("a=:AA==:"));
        let signature = &signatures(&headers).unwrap()[0];
        let message = Message {
            method: &Method::POST,
            scheme: Scheme::Https,
            host: "www.example.com:443",
            path: "/path",
            query,
            headers: &headers,
            upgrade: None,
            now: 0,
        };
        let base = signature_base(&message, signature)?;
        let (line, parameters) = base.split_once('\n').unwrap();
        assert_eq!(parameters, format!("\"@signature-params\": ({component})"));
        let value = line.strip_prefix(&format!("{component}: ")).unwrap();
        Ok(value.to_owned())
    }

    #[test]
    fn rfc_9421_2_2_derived_components() {
        let query = Some("param=value&foo=bar&baz=batman&qux=");
        for (component, value) in [
            ("\"@method\"", "POST"),
            (
                "\"@target-uri\"",
                "https://www.example.com/path?param=value&foo=bar&baz=batman&qux=",
            ),
            ("\"@authority\"", "www.example.com"),
            ("\"@scheme\"", "https"),
            (
                "\"@request-target\"",
                "/path?param=value&foo=bar&baz=batman&qux=",
            ),
            ("\"@path\"", "/path"),
            ("\"@query\"", "?param=value&foo=bar&baz=batman&qux="),
            ("\"@query-param\";name=\"baz\"", "batman"),
            ("\"@query-param\";name=\"qux\"", ""),
            ("\"@query-param\";name=\"param\"", "value"),
        ] {
            assert_eq!(
                line(component, query, &[]).as_deref(),
                Ok(value),
                "{component}"
            );
        }
        assert_eq!(line("\"@query\"", None, &[]).as_deref(), Ok("?"));
        assert_eq!(
            line("\"@target-uri\"", Some(""), &[]).as_deref(),
            Ok("https://www.example.com/path?")
        );
    }

    #[test]
    fn rfc_9421_2_2_8_query_parameters_are_encoded_anew() {
        let query = Some(
            "var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something",
        );
        for (name, value) in [
            ("var", "this%20is%20a%20big%0Amultiline%20value"),
            ("bar", "with%20plus%20whitespace"),
            ("fa%C3%A7ade%22%3A%20", "something"),
        ] {
            let component = format!("\"@query-param\";name=\"{name}\"");
            assert_eq!(line(&component, query, &[]).as_deref(), Ok(value));
        }
        let a = "\"@query-param\";name=\"a\"";
        assert_eq!(line(a, Some("a=1&a=1"), &[]), Err(BaseError::Repeated));
        assert_eq!(line(a, Some("a=1&%61=2"), &[]), Err(BaseError::Repeated));
        assert_eq!(line(a, Some("b=1"), &[]), Err(BaseError::Absent));
        assert_eq!(line(a, None, &[]), Err(BaseError::Absent));
        assert_eq!(line(a, Some("a=%ff"), &[]), Err(BaseError::NotAscii));
    }

    #[test]
    fn rfc_9421_2_1_fields() {
        let fields: &[(&'static str, &[u8])] = &[
            ("x-ows-header", b"Leading and trailing whitespace."),
            ("cache-control", b"max-age=60"),
            ("cache-control", b"must-revalidate"),
            ("x-empty-header", b""),
            ("example-dict", b" a=1,    b=2;x=1;y=2,   c=(a   b   c), d"),
            ("priority", b"u=1,   i"),
            ("example-header", b"value, with, lots"),
            ("example-header", b"of, commas"),
        ];
        for (component, value) in [
            ("\"x-ows-header\"", "Leading and trailing whitespace."),
            ("\"cache-control\"", "max-age=60, must-revalidate"),
            ("\"x-empty-header\"", ""),
            (
                "\"example-dict\"",
                "a=1,    b=2;x=1;y=2,   c=(a   b   c), d",
            ),
            ("\"example-dict\";key=\"a\"", "1"),
            ("\"example-dict\";key=\"d\"", "?1"),
            ("\"example-dict\";key=\"b\"", "2;x=1;y=2"),
            ("\"example-dict\";key=\"c\"", "(a b c)"),
            ("\"priority\";sf", "u=1, i"),
            (
                "\"example-header\";bs",
                ":dmFsdWUsIHdpdGgsIGxvdHM=:, :b2YsIGNvbW1hcw==:",
            ),
        ] {
            assert_eq!(
                line(component, None, fields).as_deref(),
                Ok(value),
                "{component}"
            );
        }
    }

    #[test]
    fn a_field_is_read_once_however_many_of_its_members_are_covered() {
        let value = |n: usize| format!("k{n}=\"{}\"", "x".repeat(100));
        let members: Vec<String> = (0..100).map(value).collect();
        let covered = |count: usize| {
            let items: Vec<String> = (0..count)
                .map(|n| format!("\"x-d\";key=\"k{n}\""))
                .collect();
            let mut headers = HeaderMap::new();
            let mut insert = |name: &'static str, value: &str| {
                headers.insert(name, HeaderValue::from_str(value).unwrap());
            };
            insert("x-d", &members.join(","));
            insert("signature-input", &format!("a=({})", items.join(" ")));
            insert("signature", "a=:AA==:");
            let made = || {
                let signature = &signatures(&headers).unwrap()[0];
                let message = Message {
                    method: &Method::POST,
                    scheme: Scheme::Https,
                    host: "www.example.com",
                    path: "/path",
                    query: None,
                    headers: &headers,
                    upgrade: None,
                    now: 0,
                };
                let base = signature_base(&message, signature).unwrap();
                assert_eq!(base.lines().count(), count + 1);
            };
            steps_of(made).1
        };
        let (one, many) = (covered(1), covered(16));
        // The names of the members are longer in sum, and nothing else.
        assert!(many < one + 1_000, "{one} and {many} steps");
    }

    #[test]
    fn b41_a_covered_field_that_is_absent_or_unclear_has_no_base() {
        for (component, fields, error) in [
            ("\"content-digest\"", &[][..], BaseError::Absent),
            ("\"x-a\"", &[("x-a", &b"\xe9"[..])][..], BaseError::NotAscii),
            (
                "\"x-a\";sf",
                &[("x-a", &b"a=1"[..])][..],
                BaseError::Structure,
            ),
            (
                "\"priority\";sf",
                &[("priority", &b"u=1,"[..])][..],
                BaseError::Structure,
            ),
            (
                "\"x-a\";key=\"a\"",
                &[("x-a", &b"a=1, a=2"[..])][..],
                BaseError::Structure,
            ),
            (
                "\"x-a\";key=\"b\"",
                &[("x-a", &b"a=1"[..])][..],
                BaseError::Absent,
            ),
        ] {
            assert_eq!(line(component, None, fields), Err(error), "{component}");
        }
    }
}
