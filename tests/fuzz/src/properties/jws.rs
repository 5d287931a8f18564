//! A token has one reading: what is taken apart here is what any other reader of JSON finds, and no name stands twice.
//!
//! An input's first octet says what the rest is: the text of a token, or the JSON of header and claims, parted by the first
//! line end. The second reader keeps every member of every object, so that it sees what a map hides.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use portcullis::identity::{
    claims::{self, ClaimPath, Claims, JsonError, parse_object},
    jws::{FormError, take_apart},
};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Holds an input against the properties.
pub fn hold(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else {
        return;
    };
    if choice & 1 == 0 {
        if let Ok(token) = std::str::from_utf8(rest) {
            has_one_reading(token);
        }
        return;
    }
    let at = rest.iter().position(|&octet| octet == b'\n');
    let (header, claims) = at.map_or((rest, &b"{}"[..]), |at| (&rest[..at], &rest[at + 1..]));
    for json in [header, claims] {
        is_strict(json);
    }
    let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
    let signature = if choice & 2 == 0 { "c2k" } else { "" };
    let token = format!("{}.{}.{signature}", encode(header), encode(claims));
    let read = take_apart(&token);
    assert_eq!(read.is_ok(), has_one_reading(&token));
    if signature.is_empty() {
        assert!(read.is_err(), "a token without a signature");
    }
}

/// Whether the token is taken apart; then its parts are those that stand in it.
fn has_one_reading(token: &str) -> bool {
    let Ok(read) = take_apart(token) else {
        return false;
    };
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = parts.as_slice() else {
        panic!("{} parts", parts.len())
    };
    // One text for one content: encoding gives back the very letters.
    for part in [header, payload, signature] {
        let bytes = URL_SAFE_NO_PAD.decode(part).expect("canonical base64url");
        assert_eq!(URL_SAFE_NO_PAD.encode(bytes), **part);
    }
    let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).expect("just decoded");
    let value = |part: &str| -> Value { serde_json::from_slice(&bytes(part)).expect("JSON") };
    assert_eq!(
        read.message,
        &token.as_bytes()[..header.len() + 1 + payload.len()]
    );
    assert_eq!(read.signature, bytes(signature));
    assert!(!read.signature.is_empty());
    assert_eq!(Value::Object(read.claims.clone()), value(payload));
    let header = value(header);
    assert!(header.get("crit").is_none() && header.get("b64").is_none());
    let named = header["alg"].as_str().expect("an algorithm");
    assert!(named == read.header.algorithm.name() || named == "Ed25519");
    assert!(!named.eq_ignore_ascii_case("none"));
    assert_eq!(
        header.get("kid").map(Value::as_str),
        read.header.key_id.as_deref().map(Some)
    );
    judged_claims(&read.claims);
    true
}

/// Single claims are of their type or refused, and a path finds what stands there.
fn judged_claims(read: &Claims) {
    for name in ["iss", "sub"] {
        match claims::string(read, name) {
            Ok(text) => assert_eq!(text, read.get(name).and_then(Value::as_str)),
            Err(_) => assert!(!read[name].is_string()),
        }
    }
    for name in ["exp", "nbf", "iat"] {
        if let Ok(Some(seconds)) = claims::seconds(read, name) {
            let said = read[name].as_f64().expect("a number");
            let whole: f64 = seconds.to_string().parse().expect("a number");
            assert!(said >= 0.0 && whole <= said && said - whole < 1.0);
        }
    }
    for path in ["roles", "realm_access.roles", "\"https://ns/roles\""] {
        let path = ClaimPath::parse(path).expect("a path");
        if let Ok(words) = claims::words(path.find(read), "roles") {
            assert!(words.iter().all(|word| !word.is_empty()));
        }
    }
}

/// The strict reader takes an object if any other reader does and no name stands twice, and reads it alike.
fn is_strict(json: &[u8]) {
    let plain: Result<Value, _> = serde_json::from_slice(json);
    let whole: Option<Node> = serde_json::from_slice(json).ok();
    let repeats = whole.as_ref().is_some_and(Node::repeats);
    match parse_object(json) {
        Ok(object) => {
            assert!(!repeats, "a name that stands twice is taken");
            assert_eq!(Some(Value::Object(object)), plain.ok());
        }
        Err(JsonError::Duplicate) => {
            // It may have been found before the text turned out to be broken further on.
            assert!(
                repeats || whole.is_none(),
                "a name is taken for a repeated one"
            );
        }
        Err(JsonError::Malformed) => assert!(
            !plain.is_ok_and(|value| value.is_object()),
            "an object is refused without reason"
        ),
    }
    let token = format!("{}.e30.c2k", URL_SAFE_NO_PAD.encode(json));
    if repeats && whole.is_some_and(|node| matches!(node, Node::Object(_))) {
        assert_eq!(take_apart(&token).err(), Some(FormError::Duplicate));
    }
}

/// JSON with every member of every object.
enum Node {
    Leaf,
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    /// Whether a name stands twice in one object, at any depth.
    fn repeats(&self) -> bool {
        match self {
            Self::Leaf => false,
            Self::List(nodes) => nodes.iter().any(Self::repeats),
            Self::Object(members) => {
                let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
                names.sort_unstable();
                names.windows(2).any(|pair| pair[0] == pair[1])
                    || members.iter().any(|(_, node)| node.repeats())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Whole)
    }
}

struct Whole;

impl<'de> Visitor<'de> for Whole {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = seq.next_element()? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Node::Object(members))
    }
}
