//! A structured field is what was read of it, and a signature base says line by line what a signature covers.
//!
//! An input is that of [`super::sigv4`]: a request line without its version, then a line a field.

use http::{HeaderMap, HeaderValue};
use portcullis::{
    identity::{
        http_signature::{
            base::signature_base,
            input::{SIGNATURE, SIGNATURE_INPUT, Signature, is_brought, signatures},
        },
        message::Message,
    },
    wire::{forwarded::Scheme, sfv::read},
};

use super::sigv4;

/// Holds an input against the properties.
pub fn hold(data: &[u8]) {
    let Some((method, target, headers)) = sigv4::read(data) else {
        return;
    };
    for value in headers.values() {
        is_what_was_read(value.as_bytes());
    }
    let Ok(signatures) = signatures(&headers) else {
        assert!(is_brought(&headers), "an error of nothing");
        return;
    };
    assert!(signatures.is_empty() || is_brought(&headers));
    let message = Message {
        method: &method,
        scheme: Scheme::Https,
        host: "app.example",
        path: target.path(),
        query: target.query(),
        headers: &headers,
        upgrade: None,
        now: 0,
    };
    for signature in &signatures {
        if let Ok(base) = signature_base(&message, signature) {
            says_what_is_covered(&base, signature);
        }
        stands_for_itself(signature);
    }
}

/// The strict form of a field is read as the same field, and is its own strict form.
fn is_what_was_read(value: &[u8]) {
    if let Ok(dictionary) = read::dictionary(value) {
        let strict = dictionary.written();
        assert_eq!(read::dictionary(strict.as_bytes()), Ok(dictionary));
    }
    if let Ok(list) = read::list(value) {
        let strict = read::written(&list);
        assert!(strict.bytes().all(|octet| matches!(octet, b' '..=b'~')));
        assert_eq!(read::list(strict.as_bytes()), Ok(list));
    }
    if let Ok(item) = read::item(value) {
        let mut strict = String::new();
        item.write(&mut strict);
        assert_eq!(read::item(strict.as_bytes()), Ok(item));
    }
}

fn says_what_is_covered(base: &str, signature: &Signature) {
    let components = signature.components.as_ref().expect("it has a base");
    let lines: Vec<&str> = base.split('\n').collect();
    assert_eq!(lines.len(), components.len() + 1, "a line a component");
    let (last, lines) = lines.split_last().expect("one at least");
    for (line, component) in lines.iter().zip(components) {
        let value = line.strip_prefix(&*component.identifier);
        let value = value.and_then(|rest| rest.strip_prefix(": "));
        let value = value.expect("a line begins with its component");
        let fits = |octet| matches!(octet, b'\t' | b' '..=b'~');
        assert!(value.bytes().all(fits), "{value:?}");
    }
    let parameters = last.strip_prefix("\"@signature-params\": ");
    assert_eq!(parameters, Some(&*signature.parameters_text));
    let mut identifiers: Vec<_> = components.iter().map(|one| &one.identifier).collect();
    identifiers.sort();
    identifiers.dedup();
    assert_eq!(identifiers.len(), components.len(), "each once");
}

/// A signature that is sent with what it was read as is the same signature.
fn stands_for_itself(signature: &Signature) {
    let input = format!("{}={}", signature.label, signature.parameters_text);
    let mut headers = HeaderMap::new();
    headers.insert(
        SIGNATURE_INPUT,
        HeaderValue::from_str(&input).expect("the strict form is ASCII"),
    );
    let value = format!("{}=:AAEC:", signature.label);
    headers.insert(SIGNATURE, HeaderValue::from_str(&value).expect("ASCII"));
    let again = signatures(&headers).expect("it was read before");
    let [again] = again.as_slice() else {
        panic!("one signature")
    };
    let same = Signature {
        bytes: again.bytes.clone(),
        ..signature.clone()
    };
    assert_eq!(*again, same);
}
