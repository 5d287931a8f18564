//! Claims of a token: strict JSON, claim paths, and the reading of single claims. For `bearer`, which judges them.
//!
//! RFC 7519 §4 leaves the choice between refusing duplicate names and taking the last; taking any of them lets two parsers
//! disagree, so duplicates are refused at every depth. Time, issuer and audience are not judged here.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use thiserror::Error;

/// A JSON object: the header or the claims of a token.
pub type Claims = Map<String, Value>;

/// Why bytes are not a usable JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JsonError {
    /// Not JSON, not an object, or nested too deep.
    #[error("not a JSON object")]
    Malformed,
    /// A name stands twice in one object.
    #[error("a name stands twice in one JSON object")]
    Duplicate,
}

/// Reads a JSON object in which no name stands twice, at any depth.
///
/// # Errors
/// Anything but exactly one object of valid UTF-8 JSON, nested up to 128 deep.
pub fn parse_object(bytes: &[u8]) -> Result<Claims, JsonError> {
    let duplicate = Cell::new(false);
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = Strict(&duplicate)
        .deserialize(&mut json)
        .and_then(|value| json.end().map(|()| value));
    match value {
        Ok(Value::Object(object)) => Ok(object),
        Err(_) if duplicate.get() => Err(JsonError::Duplicate),
        _ => Err(JsonError::Malformed),
    }
}

/// A seed that builds a `Value` and notes a repeated name in the flag it carries.
#[derive(Clone, Copy)]
struct Strict<'a>(&'a Cell<bool>);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(self)?;
            if object.insert(name, value).is_some() {
                self.0.set(true);
                return Err(A::Error::custom("a name stands twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

/// Where in the claims a list of roles stands: `groups`, `realm_access.roles`, `"https://ns/roles"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath(Box<[Box<str>]>);

/// Why a text is not a claim path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ClaimPathError {
    /// No name where one must stand: the whole text, a segment or a quoted name is empty.
    #[error("a name is empty")]
    Empty,
    /// A quotation mark is not closed.
    #[error("a quotation mark is not closed")]
    Unclosed,
    /// A quotation mark inside a bare name, or text after a closing one.
    #[error("a quoted name must stand alone between dots")]
    Stray,
}

impl ClaimPath {
    /// Reads names joined by dots; a name with dots of its own stands in quotation marks, `\"` and `\\` inside them.
    ///
    /// # Errors
    /// Empty names, unclosed or stray quotation marks.
    pub fn parse(text: &str) -> Result<Self, ClaimPathError> {
        let mut names = Vec::new();
        let mut rest = text;
        loop {
            let (name, after) = segment(rest)?;
            if name.is_empty() {
                return Err(ClaimPathError::Empty);
            }
            names.push(name.into_boxed_str());
            match after.strip_prefix('.') {
                Some(next) => rest = next,
                None if after.is_empty() => return Ok(Self(names.into())),
                None => return Err(ClaimPathError::Stray),
            }
        }
    }

    /// The name of the claim that it leads through.
    pub fn first(&self) -> &str {
        self.0.first().map_or("", AsRef::as_ref)
    }

    /// The value at this path, if each name on the way leads through an object.
    pub fn find<'a>(&self, claims: &'a Claims) -> Option<&'a Value> {
        let (first, rest) = self.0.split_first()?;
        rest.iter().try_fold(claims.get(&**first)?, |value, name| {
            value.as_object()?.get(&**name)
        })
    }
}

impl ClaimPath {
    /// The same of claims that say something of this path even where they lead nowhere: `null` for what stands on the way and
    /// is no object. `None` where a name on the way is absent.
    pub fn stated<'a>(&self, claims: &'a Claims) -> Option<&'a Value> {
        let (first, rest) = self.0.split_first()?;
        let mut value = claims.get(&**first)?;
        for name in rest {
            let Some(members) = value.as_object() else {
                return Some(&Value::Null);
            };
            value = members.get(&**name)?;
        }
        Some(value)
    }
}

/// The first name of `text` and what follows it.
fn segment(text: &str) -> Result<(String, &str), ClaimPathError> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (name, after) = text.split_at(text.find('.').unwrap_or(text.len()));
        return if name.contains('"') {
            Err(ClaimPathError::Stray)
        } else {
            Ok((name.to_owned(), after))
        };
    };
    let mut name = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((name, quoted.get(at + 1..).unwrap_or_default())),
            '\\' => name.push(letters.next().ok_or(ClaimPathError::Unclosed)?.1),
            _ => name.push(letter),
        }
    }
    Err(ClaimPathError::Unclosed)
}

/// Those of the claims that are kept; `None` when nobody reads any.
pub fn kept(claims: &Claims, names: &[Box<str>]) -> Option<Box<Claims>> {
    if names.is_empty() {
        return None;
    }
    let found = names
        .iter()
        .filter_map(|name| claims.get_key_value(&**name));
    let found = found.map(|(name, value)| (name.clone(), value.clone()));
    Some(Box::new(found.collect()))
}

/// Lays one set of claims over another: what the upper says of a name counts, of objects name by name; what it says nothing
/// of stays.
pub fn overlay(under: &mut Claims, over: &Claims) {
    for (name, value) in over {
        match (under.get_mut(name), value) {
            (Some(Value::Object(under)), Value::Object(over)) => overlay(under, over),
            _ => {
                under.insert(name.clone(), value.clone());
            }
        }
    }
}

/// A claim of the wrong type; the word is its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadClaim(pub &'static str);

/// A claim that is a string, or absent.
///
/// # Errors
/// Present with another type, `null` included.
pub fn string<'a>(claims: &'a Claims, name: &'static str) -> Result<Option<&'a str>, BadClaim> {
    claims
        .get(name)
        .map(|value| value.as_str().ok_or(BadClaim(name)))
        .transpose()
}

/// A claim that is a point in time (`NumericDate`, RFC 7519 §2), in Unix seconds rounded down; or absent.
///
/// # Errors
/// Present and not a JSON number, negative, or beyond the year 10000 by far.
pub fn seconds(claims: &Claims, name: &'static str) -> Result<Option<u64>, BadClaim> {
    claims
        .get(name)
        .map(|value| number(value).ok_or(BadClaim(name)))
        .transpose()
}

fn number(value: &Value) -> Option<u64> {
    /// 2^53: every whole number up to here is exact in a double, so rounding cannot move an expiry.
    const LIMIT: u64 = 1 << 53;
    if let Some(whole) = value.as_u64() {
        return (whole <= LIMIT).then_some(whole);
    }
    let real = value.as_f64()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "in range"
    )]
    (0.0..=LIMIT as f64).contains(&real).then_some(real as u64)
}

/// A claim that is a list of words: an array of strings, or one string of words with spaces between; or absent.
///
/// # Errors
/// Present with another type. A list that cannot be read is refused, not taken as empty: a rule such as
/// "none of these roles" would pass otherwise.
pub fn words(value: Option<&Value>, name: &'static str) -> Result<Vec<Box<str>>, BadClaim> {
    let mut words = Vec::new();
    match value {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => words.extend(
            text.split(' ')
                .filter(|word| !word.is_empty())
                .map(Box::from),
        ),
        Some(Value::Array(members)) => {
            for member in members {
                let word = member.as_str().ok_or(BadClaim(name))?;
                if !word.is_empty() {
                    words.push(Box::from(word));
                }
            }
        }
        Some(_) => return Err(BadClaim(name)),
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        BadClaim, ClaimPath, ClaimPathError, Claims, JsonError, overlay, parse_object, seconds,
        string, words,
    };

    fn claims(value: &serde_json::Value) -> Claims {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a23_duplicate_names_are_refused_at_every_depth() {
        assert_eq!(
            parse_object(br#"{"role":"user","role":"admin"}"#),
            Err(JsonError::Duplicate)
        );
        assert_eq!(
            parse_object(br#"{"a":{"b":[{"c":1,"c":1}]}}"#),
            Err(JsonError::Duplicate)
        );
        assert_eq!(
            parse_object(br#"{"role":1,"\u0072ole":2}"#),
            Err(JsonError::Duplicate)
        );
        assert!(parse_object(br#"{"a":{"b":1},"b":{"b":1}}"#).is_ok());
    }

    #[test]
    fn only_one_whole_object_is_read() {
        let deep = format!("{}{}", "{\"a\":".repeat(200), "1");
        for bad in [
            "",
            "[]",
            "1",
            "{} {}",
            "{\"a\":1,}",
            "{\"a\":01}",
            "\u{feff}{}",
            "{\"a\":NaN}",
            deep.as_str(),
        ] {
            assert_eq!(
                parse_object(bad.as_bytes()),
                Err(JsonError::Malformed),
                "{bad}"
            );
        }
        assert_eq!(parse_object(b"{\"a\":\"\xff\"}"), Err(JsonError::Malformed));
        let object = parse_object(br#" {"a":[1,-2,1.5,"x",null,true]} "#).unwrap();
        assert_eq!(
            serde_json::Value::Object(object),
            json!({"a": [1, -2, 1.5, "x", null, true]})
        );
    }

    #[test]
    fn claim_paths_walk_objects_and_quoted_names_keep_their_dots() {
        let claims = claims(
            &json!({"realm_access": {"roles": [1]}, "https://ns/roles": [2], "groups": [3], "a\"b": 4}),
        );
        let find = |path: &str| ClaimPath::parse(path).unwrap().find(&claims).cloned();
        assert_eq!(find("realm_access.roles"), Some(json!([1])));
        assert_eq!(find("\"https://ns/roles\""), Some(json!([2])));
        assert_eq!(find("\"realm_access\".roles"), Some(json!([1])));
        assert_eq!(find("groups"), Some(json!([3])));
        assert_eq!(find(r#""a\"b""#), Some(json!(4)));
        assert_eq!(find("groups.roles"), None);
        assert_eq!(find("realm_access.none"), None);
    }

    #[test]
    fn malformed_claim_paths_are_refused() {
        for (text, error) in [
            ("", ClaimPathError::Empty),
            ("a.", ClaimPathError::Empty),
            (".a", ClaimPathError::Empty),
            ("a..b", ClaimPathError::Empty),
            ("\"\"", ClaimPathError::Empty),
            ("\"a", ClaimPathError::Unclosed),
            ("\"a\\", ClaimPathError::Unclosed),
            ("\"a\"b", ClaimPathError::Stray),
            ("a\"b\"", ClaimPathError::Stray),
        ] {
            assert_eq!(ClaimPath::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn b19_times_are_numbers() {
        let claims =
            claims(&json!({"a": 5, "b": "5", "c": 5.9, "d": -1, "e": 1e300, "f": null, "g": [5]}));
        assert_eq!(seconds(&claims, "a"), Ok(Some(5)));
        assert_eq!(seconds(&claims, "c"), Ok(Some(5)));
        assert_eq!(seconds(&claims, "absent"), Ok(None));
        for bad in ["b", "d", "e", "f", "g"] {
            assert_eq!(seconds(&claims, bad), Err(BadClaim(bad)));
        }
    }

    #[test]
    fn strings_and_words_have_their_type() {
        let claims = claims(
            &json!({"sub": ["a"], "s": "a  b ", "l": ["a b", "", "c"], "n": 5, "m": ["a", 1]}),
        );
        assert_eq!(string(&claims, "sub"), Err(BadClaim("sub")));
        assert_eq!(string(&claims, "none"), Ok(None));
        assert_eq!(
            words(claims.get("s"), "s").unwrap(),
            ["a".into(), "b".into()]
        );
        assert_eq!(
            words(claims.get("l"), "l").unwrap(),
            ["a b".into(), "c".into()]
        );
        assert_eq!(words(claims.get("n"), "n"), Err(BadClaim("n")));
        assert_eq!(words(claims.get("m"), "m"), Err(BadClaim("m")));
        assert!(words(None, "x").unwrap().is_empty());
    }

    #[test]
    fn what_stands_on_the_way_and_leads_nowhere_is_stated_as_null() {
        let path = ClaimPath::parse("a.b.c").unwrap();
        let null = serde_json::Value::Null;
        for (claims, found, stated) in [
            (json!({}), None, None),
            (json!({"a": {}}), None, None),
            (json!({"a": {"b": {"d": 1}}}), None, None),
            (json!({"a": null}), None, Some(&null)),
            (json!({"a": {"b": "x"}}), None, Some(&null)),
            (json!({"a": {"b": {"c": null}}}), Some(&null), Some(&null)),
        ] {
            let claims = self::claims(&claims);
            assert_eq!(path.find(&claims), found, "{claims:?}");
            assert_eq!(path.stated(&claims), stated, "{claims:?}");
        }
    }

    #[test]
    fn what_is_laid_over_claims_counts_name_by_name() {
        let mut under = claims(&json!({"a": {"b": 1, "c": [1]}, "d": 1, "e": {"f": 1}}));
        let over = json!({"a": {"c": [2], "g": 2}, "d": {"h": 2}, "e": null});
        overlay(&mut under, &claims(&over));
        let both = json!({"a": {"b": 1, "c": [2], "g": 2}, "d": {"h": 2}, "e": null});
        assert_eq!(under, claims(&both));
    }
}
