//! `Signature-Input` and `Signature` (RFC 9421 §4): which components a signature covers, and what it says of itself.
//!
//! For `http_signature`. It verifies nothing. Both fields are read strictly: a label, a component or a parameter that
//! stands twice is refused. Components of responses (`@status`), of other messages (`;req`) and of trailers (`;tr`) are
//! not spoken here.

use http::{HeaderMap, HeaderName};

use crate::wire::sfv::read::{Bare, Dictionary, Item, Member, Parameters, dictionary, item};

/// The field that says what is covered.
pub const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");
/// The field of the signatures themselves.
pub const SIGNATURE: HeaderName = HeaderName::from_static("signature");

/// The most signatures that are looked at in one request.
const MOST_SIGNATURES: usize = 8;
/// The most components that one signature may cover.
const MOST_COMPONENTS: usize = 64;
/// The most of them that are one piece of a field or of the query: each is looked for among all.
const MOST_PIECES: usize = 16;

/// Why the two fields cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputError {
    /// Not well-formed, or something stands twice.
    Malformed,
    /// More signatures or components than are looked at.
    TooMany,
    /// One field has a label that the other lacks.
    Unpaired,
    /// A component, or a form of one, that is not spoken here.
    Component,
}

/// A part of the message that a signature covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// As it stands in the signature base, quotes and parameters included.
    pub identifier: Box<str>,
    /// What it names.
    pub part: Part,
}

/// What a component names (RFC 9421 §2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// `@method`
    Method,
    /// `@target-uri`
    TargetUri,
    /// `@authority`
    Authority,
    /// `@scheme`
    Scheme,
    /// `@request-target`
    RequestTarget,
    /// `@path`
    Path,
    /// `@query`
    Query,
    /// `@query-param` of this encoded name.
    QueryParameter(Box<str>),
    /// A field in one of its forms.
    Field(HeaderName, Form),
}

/// How the value of a field is covered (RFC 9421 §2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// The values as they came, joined.
    Plain,
    /// `;sf`: as a structured field in its strict form.
    Strict,
    /// `;bs`: each value as a byte sequence.
    Bytes,
    /// `;key`: one member of a dictionary.
    Member(Box<str>),
}

/// One signature of a request, taken apart; nothing in it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Its label.
    pub label: Box<str>,
    /// What it covers, in its order; an error where some of it is not spoken here.
    pub components: Result<Vec<Component>, InputError>,
    /// The value of `@signature-params`.
    pub parameters_text: Box<str>,
    /// `created`, in seconds since 1970.
    pub created: Option<i64>,
    /// `expires`, in seconds since 1970.
    pub expires: Option<i64>,
    /// `nonce`
    pub nonce: Option<Box<str>>,
    /// `alg`
    pub algorithm: Option<Box<str>>,
    /// `keyid`
    pub key_id: Option<Box<str>>,
    /// `tag`
    pub tag: Option<Box<str>>,
    /// The signature itself.
    pub bytes: Box<[u8]>,
}

/// Whether a request brings signatures, good or bad.
pub fn is_brought(headers: &HeaderMap) -> bool {
    headers.contains_key(SIGNATURE_INPUT) || headers.contains_key(SIGNATURE)
}

/// The signatures of a request, in their order; none where it has neither field.
///
/// # Errors
/// [`InputError`]: all of them must be readable, whichever is wanted. A component that is not spoken here is an error of
/// its signature alone, which may be for somebody else.
pub fn signatures(headers: &HeaderMap) -> Result<Vec<Signature>, InputError> {
    let inputs = field(headers, &SIGNATURE_INPUT)?;
    let values = field(headers, &SIGNATURE)?;
    if inputs.len() != values.len() {
        return Err(InputError::Unpaired);
    }
    if inputs.len() > MOST_SIGNATURES {
        return Err(InputError::TooMany);
    }
    let pairs = inputs.iter().map(|(label, input)| {
        let Some(value) = values.get(label) else {
            return Err(InputError::Unpaired);
        };
        signature(label, input, value)
    });
    pairs.collect()
}

fn field(headers: &HeaderMap, name: &HeaderName) -> Result<Dictionary, InputError> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(AsRef::as_ref).collect();
    dictionary(&lines.join(&b", "[..])).map_err(|_| InputError::Malformed)
}

fn signature(label: &str, input: &Member, value: &Member) -> Result<Signature, InputError> {
    let (Member::Inner(input), Member::Item(value)) = (input, value) else {
        return Err(InputError::Malformed);
    };
    let Bare::Bytes(bytes) = &value.bare else {
        return Err(InputError::Malformed);
    };
    if input.items.len() > MOST_COMPONENTS {
        return Err(InputError::TooMany);
    }
    let components = match components(&input.items) {
        Err(InputError::Component) => Err(InputError::Component),
        read => Ok(read?),
    };
    if components.as_ref().is_ok_and(|read| !fit_one(read)) {
        return Err(InputError::TooMany);
    }
    let mut parameters_text = String::new();
    input.write(&mut parameters_text);
    let said = &input.parameters;
    Ok(Signature {
        label: label.into(),
        components,
        parameters_text: parameters_text.into(),
        created: seconds(said, "created")?,
        expires: seconds(said, "expires")?,
        nonce: text(said, "nonce")?,
        algorithm: text(said, "alg")?,
        key_id: text(said, "keyid")?,
        tag: text(said, "tag")?,
        bytes: bytes.clone(),
    })
}

fn components(items: &[Item]) -> Result<Vec<Component>, InputError> {
    let mut components: Vec<Component> = Vec::with_capacity(items.len());
    for item in items {
        let component = component(item)?;
        if components.iter().any(|known| known.part == component.part) {
            return Err(InputError::Malformed);
        }
        components.push(component);
    }
    Ok(components)
}

/// Whether one signature may cover all of these.
pub fn fit_one(components: &[Component]) -> bool {
    let pieces = components.iter().filter(|component| {
        let part = &component.part;
        matches!(
            part,
            Part::QueryParameter(_) | Part::Field(_, Form::Member(_))
        )
    });
    components.len() <= MOST_COMPONENTS && pieces.count() <= MOST_PIECES
}

fn seconds(parameters: &Parameters, key: &str) -> Result<Option<i64>, InputError> {
    match parameters.get(key) {
        None => Ok(None),
        Some(Bare::Integer(seconds)) => Ok(Some(*seconds)),
        Some(_) => Err(InputError::Malformed),
    }
}

fn text(parameters: &Parameters, key: &str) -> Result<Option<Box<str>>, InputError> {
    match parameters.get(key) {
        None => Ok(None),
        Some(Bare::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(InputError::Malformed),
    }
}

/// Reads a component as an operator writes it: its name, maybe with parameters behind, quotes left out.
///
/// # Errors
/// [`InputError`]
pub fn written_component(text: &str) -> Result<Component, InputError> {
    let (name, parameters) = text.split_at(text.find(';').unwrap_or(text.len()));
    let quoted = ["\"", name, "\"", parameters].concat();
    let item = item(quoted.as_bytes()).map_err(|_| InputError::Malformed)?;
    component(&item)
}

fn component(item: &Item) -> Result<Component, InputError> {
    let Bare::String(name) = &item.bare else {
        return Err(InputError::Malformed);
    };
    let mut parameters = item.parameters.iter();
    let parameter = parameters.next();
    if parameters.next().is_some() {
        return Err(InputError::Component);
    }
    let part = if name.starts_with('@') {
        derived(name, parameter)?
    } else {
        let field =
            HeaderName::from_lowercase(name.as_bytes()).map_err(|_| InputError::Malformed)?;
        Part::Field(field, form(parameter)?)
    };
    let mut identifier = String::new();
    item.write(&mut identifier);
    Ok(Component {
        identifier: identifier.into(),
        part,
    })
}

fn derived(name: &str, parameter: Option<(&str, &Bare)>) -> Result<Part, InputError> {
    let part = match name {
        "@query-param" => {
            let Some(("name", Bare::String(name))) = parameter else {
                return Err(InputError::Component);
            };
            return Ok(Part::QueryParameter(name.clone()));
        }
        "@method" => Part::Method,
        "@target-uri" => Part::TargetUri,
        "@authority" => Part::Authority,
        "@scheme" => Part::Scheme,
        "@request-target" => Part::RequestTarget,
        "@path" => Part::Path,
        "@query" => Part::Query,
        _ => return Err(InputError::Component),
    };
    if parameter.is_some() {
        return Err(InputError::Component);
    }
    Ok(part)
}

fn form(parameter: Option<(&str, &Bare)>) -> Result<Form, InputError> {
    match parameter {
        None => Ok(Form::Plain),
        Some(("sf", Bare::Boolean(true))) => Ok(Form::Strict),
        Some(("bs", Bare::Boolean(true))) => Ok(Form::Bytes),
        Some(("key", Bare::String(key))) => Ok(Form::Member(key.clone())),
        Some(_) => Err(InputError::Component),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::{InputError, SIGNATURE, SIGNATURE_INPUT, signatures, written_component};

    fn read(input: &str, signature: &str) -> Result<Vec<super::Signature>, InputError> {
        let mut headers = HeaderMap::new();
        headers.append(SIGNATURE_INPUT, HeaderValue::from_str(input).unwrap());
        headers.append(SIGNATURE, HeaderValue::from_str(signature).unwrap());
        let read = signatures(&headers)?;
        for signature in &read {
            signature.components.clone()?;
        }
        Ok(read)
    }

    #[test]
    fn a_signature_is_taken_apart() {
        let read = read(
            r#"a=("@method"  "content-digest";key="sha-256");created=5;  keyid="k";nonce="n";x"#,
            "a=:AAEC:",
        );
        let read = read.unwrap();
        let [signature] = read.as_slice() else {
            panic!("one signature")
        };
        assert_eq!(signature.created, Some(5));
        assert_eq!(signature.key_id.as_deref(), Some("k"));
        assert_eq!(signature.nonce.as_deref(), Some("n"));
        assert_eq!(*signature.bytes, [0, 1, 2]);
        assert_eq!(
            &*signature.parameters_text,
            r#"("@method" "content-digest";key="sha-256");created=5;keyid="k";nonce="n";x"#
        );
        let components = signature.components.as_ref().unwrap();
        let identifiers: Vec<&str> = components.iter().map(|c| &*c.identifier).collect();
        assert_eq!(
            identifiers,
            ["\"@method\"", "\"content-digest\";key=\"sha-256\""]
        );
    }

    #[test]
    fn what_is_ambiguous_or_not_spoken_is_refused() {
        let good = "a=:AAEC:";
        for (input, signature, error) in [
            (r#"a=("@method" "@method")"#, good, InputError::Malformed),
            (r#"a=("@method"), a=()"#, good, InputError::Malformed),
            (r#"a=("Date")"#, good, InputError::Malformed),
            ("a=(date)", good, InputError::Malformed),
            (r#"a="date""#, good, InputError::Malformed),
            (r#"a=("date");created="5""#, good, InputError::Malformed),
            (r#"a=("date");created=5.0"#, good, InputError::Malformed),
            (r#"a=("date");keyid=k"#, good, InputError::Malformed),
            (
                r#"a=("date");created=1;created=2"#,
                good,
                InputError::Malformed,
            ),
            (r#"a=("date")"#, "a=abc", InputError::Malformed),
            (r#"a=("date")"#, "a=(:AAEC:)", InputError::Malformed),
            (r#"a=("date")"#, "b=:AAEC:", InputError::Unpaired),
            (r#"a=("date")"#, "a=:AAEC:, b=:AAEC:", InputError::Unpaired),
            (r#"a=("date"), b=("date")"#, good, InputError::Unpaired),
            (r#"a=("@status")"#, good, InputError::Component),
            (r#"a=("@signature-params")"#, good, InputError::Component),
            (r#"a=("@method";req)"#, good, InputError::Component),
            (r#"a=("date";tr)"#, good, InputError::Component),
            (r#"a=("date";req)"#, good, InputError::Component),
            (r#"a=("date";sf;bs)"#, good, InputError::Component),
            (r#"a=("date";sf=?0)"#, good, InputError::Component),
            (r#"a=("date";key=x)"#, good, InputError::Component),
            (r#"a=("@path";name="x")"#, good, InputError::Component),
            (r#"a=("@query-param")"#, good, InputError::Component),
            (
                r#"a=("@query-param";name="a" "@query-param";name="a")"#,
                good,
                InputError::Malformed,
            ),
        ] {
            assert_eq!(
                read(input, signature).err(),
                Some(error),
                "{input} {signature}"
            );
        }
    }

    #[test]
    fn what_is_looked_at_is_bounded() {
        let labels = |count: usize, of: &str| {
            let members: Vec<String> = (0..count).map(|n| format!("s{n}={of}")).collect();
            members.join(", ")
        };
        assert!(read(&labels(8, "()"), &labels(8, ":AA==:")).is_ok());
        assert_eq!(
            read(&labels(9, "()"), &labels(9, ":AA==:")).err(),
            Some(InputError::TooMany)
        );
        let fields = |count: usize| {
            let items: Vec<String> = (0..count).map(|n| format!("\"x{n}\"")).collect();
            format!("a=({})", items.join(" "))
        };
        assert!(read(&fields(64), "a=:AA==:").is_ok());
        assert_eq!(
            read(&fields(65), "a=:AA==:").err(),
            Some(InputError::TooMany)
        );
    }

    #[test]
    fn pieces_of_fields_and_of_the_query_are_few() {
        let pieces = |count: usize, of: &str| {
            let items: Vec<String> = (0..count)
                .map(|n| of.replace('#', &n.to_string()))
                .collect();
            read(&format!("a=({} \"@method\")", items.join(" ")), "a=:AA==:")
        };
        for of in [
            "\"x\";key=\"k#\"",
            "\"x#\";key=\"k\"",
            "\"@query-param\";name=\"k#\"",
        ] {
            assert!(pieces(16, of).is_ok(), "{of}");
            assert_eq!(pieces(17, of).err(), Some(InputError::TooMany), "{of}");
        }
        assert!(pieces(63, "\"x#\"").is_ok());
    }

    #[test]
    fn operators_write_components_without_quotes() {
        let written = |text| written_component(text).map(|component| component.identifier);
        assert_eq!(written("@method").as_deref(), Ok("\"@method\""));
        assert_eq!(
            written("@query-param;name=\"a\"").as_deref(),
            Ok("\"@query-param\";name=\"a\"")
        );
        for bad in ["", "Date", "@status", "x y", "date;tr", "\"date\""] {
            assert!(written_component(bad).is_err(), "{bad}");
        }
    }
}
