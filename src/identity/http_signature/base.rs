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
    let mut base = String::with_capacity(512);
    let components = signature.components.as_ref();
    for component in components.map_err(|_| BaseError::Unspoken)? {
        base.push_str(&component.identifier);
        base.push_str(": ");
        push_value(&mut base, message, component)?;
        base.push('\n');
    }
    base.push_str("\"@signature-params\": ");
    base.push_str(&signature.parameters_text);
    Ok(base)
}

fn push_value(
    base: &mut String,
    message: &Message<'_>,
    component: &Component,
) -> Result<(), BaseError> {
    let query = message.query;
    match &component.part {
        Part::Method => base.push_str(message.method.as_str()),
        Part::Scheme => base.push_str(message.scheme.as_str()),
        Part::Authority => base.push_str(authority(message)),
        Part::Path => base.push_str(message.path),
        Part::Query => base.extend(["?", query.unwrap_or_default()]),
        Part::RequestTarget => push_target(base, message),
        Part::TargetUri => {
            base.extend([message.scheme.as_str(), "://", authority(message)]);
            push_target(base, message);
        }
        Part::QueryParameter(name) => {
            base.push_str(&query_parameter(query.unwrap_or_default(), name)?);
        }
        Part::Field(name, form) => push_field(base, message.headers, (name, form))?,
    }
    Ok(())
}

fn push_target(base: &mut String, message: &Message<'_>) {
    base.push_str(message.path);
    if let Some(query) = message.query {
        base.extend(["?", query]);
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

/// The one value of a query parameter, decoded and encoded anew (RFC 9421 §2.2.8).
fn query_parameter(query: &str, wanted: &str) -> Result<String, BaseError> {
    let mut found = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if encoded_anew(name)? != wanted {
            continue;
        }
        if found.replace(value).is_some() {
            return Err(BaseError::Repeated);
        }
    }
    encoded_anew(found.ok_or(BaseError::Absent)?)
}

fn encoded_anew(text: &str) -> Result<String, BaseError> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode(spaced.as_bytes());
    let decoded = decoded.decode_utf8().map_err(|_| BaseError::NotAscii)?;
    Ok(utf8_percent_encode(&decoded, FORM).to_string())
}

fn push_field(
    base: &mut String,
    headers: &HeaderMap,
    (name, form): (&HeaderName, &Form),
) -> Result<(), BaseError> {
    let lines: Vec<&[u8]> = headers
        .get_all(name)
        .iter()
        .map(|value| value.as_bytes().trim_ascii())
        .collect();
    if lines.is_empty() {
        return Err(BaseError::Absent);
    }
    if *form == Form::Bytes {
        for (place, line) in lines.iter().enumerate() {
            base.push_str(if place == 0 { ":" } else { ", :" });
            STANDARD.encode_string(line, base);
            base.push(':');
        }
        return Ok(());
    }
    let joined = lines.join(&b", "[..]);
    match form {
        Form::Plain | Form::Bytes => base.push_str(plain(&joined)?),
        Form::Strict => base.push_str(&strict(name, &joined)?),
        Form::Member(key) => {
            let dictionary = dictionary(&joined).map_err(|_| BaseError::Structure)?;
            dictionary.get(key).ok_or(BaseError::Absent)?.write(base);
        }
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
    use crate::identity::http_signature::input::{SIGNATURE, SIGNATURE_INPUT, signatures};

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
