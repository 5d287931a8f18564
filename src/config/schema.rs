//! The declaration as JSON Schema (draft 2020-12), for completion and checks in editors.

use serde_json::{Map, Value as Json, json};

use super::section::{Key, Kind, Section};

/// The schema of a whole file; each section stands once, under `$defs`.
pub fn json_schema(spec: &'static Section) -> Json {
    let mut definitions = Definitions::default();
    let name = definitions.define(spec);
    let mut schema = Map::new();
    schema.insert(
        "$schema".into(),
        json!("https://json-schema.org/draft/2020-12/schema"),
    );
    schema.insert("title".into(), json!("Portcullis"));
    schema.insert("$ref".into(), json!(format!("#/$defs/{name}")));
    let sections = definitions
        .known
        .into_iter()
        .map(|definition| (definition.name, definition.schema));
    schema.insert("$defs".into(), Json::Object(sections.collect()));
    Json::Object(schema)
}

struct Definition {
    section: &'static Section,
    name: String,
    schema: Json,
}

#[derive(Default)]
struct Definitions {
    known: Vec<Definition>,
}

impl Definitions {
    fn reference(&mut self, section: &'static Section) -> Json {
        json!({ "$ref": format!("#/$defs/{}", self.define(section)) })
    }

    /// The name of the section's definition. Named before it is walked, so that a section may contain itself.
    fn define(&mut self, section: &'static Section) -> String {
        let mut known = self.known.iter();
        if let Some(known) = known.find(|known| same(known.section, section)) {
            return known.name.clone();
        }
        let base = if section.name.is_empty() {
            "file"
        } else {
            section.name
        };
        let twins = self
            .known
            .iter()
            .filter(|known| known.section.name == section.name)
            .count();
        let name = if twins == 0 {
            base.to_owned()
        } else {
            format!("{base}-{}", twins + 1)
        };
        let index = self.known.len();
        self.known.push(Definition {
            section,
            name: name.clone(),
            schema: Json::Null,
        });
        let schema = self.section(section);
        if let Some(definition) = self.known.get_mut(index) {
            definition.schema = schema;
        }
        name
    }

    fn section(&mut self, section: &'static Section) -> Json {
        let properties: Map<String, Json> = section
            .keys
            .iter()
            .map(|key| (key.name.to_owned(), self.key(key)))
            .collect();
        json!({
            "type": "object",
            "description": section.doc,
            "properties": properties,
            "additionalProperties": false,
        })
    }

    fn key(&mut self, key: &'static Key) -> Json {
        let mut schema = self.kind(&key.kind);
        if let Json::Object(map) = &mut schema {
            map.insert("description".into(), json!(key.doc));
            if let Some(default) = default_of(key) {
                map.insert("default".into(), default);
            }
        }
        schema
    }

    fn kind(&mut self, kind: &'static Kind) -> Json {
        match kind {
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::Integer { min, max } => integer(*min, *max),
            Kind::Number => json!({ "type": "number" }),
            Kind::Duration => pattern("^([0-9]+(ms|s|m|h|d))+$", "30s"),
            Kind::Size => pattern("^[0-9]+(B|KB|MB|GB|KiB|MiB|GiB)$", "64KiB"),
            Kind::Network => json!({ "type": "string", "examples": ["10.0.0.0/8"] }),
            Kind::Listen => json!({ "type": "string", "examples": ["[::]:8443"] }),
            Kind::Server => pattern("^(http|https|h2c)://|^unix:/", "http://127.0.0.1:8000"),
            Kind::Url => pattern("^https?://", "https://idp.example/keys"),
            Kind::Origin => json!({ "type": "string", "examples": ["https://app.example"] }),
            Kind::HeaderName => {
                json!({ "type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$" })
            }
            Kind::Method => pattern("^[A-Z][A-Z_-]*$", "GET"),
            Kind::String | Kind::Hash | Kind::HeaderValue | Kind::Path => {
                json!({ "type": "string" })
            }
            // The grammar is code; any type is left to it.
            Kind::Checked(_) => json!({}),
            Kind::Secret => secret(),
            Kind::Choice(words) => json!({ "enum": words }),
            Kind::List(kind) => json!({ "type": "array", "items": self.kind(kind) }),
            Kind::OneOrMany(kind) => {
                let one = self.kind(kind);
                json!({ "anyOf": [one, { "type": "array", "items": one }] })
            }
            Kind::Table(section) => self.reference(section),
            Kind::Map(kind) => json!({ "type": "object", "additionalProperties": self.kind(kind) }),
            Kind::Tables(section) => json!({ "type": "array", "items": self.reference(section) }),
            Kind::NamedTables(section) => {
                json!({ "type": "object", "additionalProperties": self.reference(section) })
            }
            Kind::Either(kinds) => {
                let all: Vec<Json> = kinds.iter().map(|kind| self.kind(kind)).collect();
                json!({ "anyOf": all })
            }
        }
    }
}

/// A declaration that is a `const` may have several addresses, so what it declares counts as well.
fn same(one: &'static Section, other: &'static Section) -> bool {
    let names = |section: &'static Section| {
        section
            .keys
            .iter()
            .map(|key| (key.name, key.doc, key.default))
    };
    std::ptr::eq(one, other)
        || (one.name == other.name && one.doc == other.doc && names(one).eq(names(other)))
}

fn integer(min: i64, max: i64) -> Json {
    let mut schema = json!({ "type": "integer", "minimum": min });
    if let (Json::Object(map), true) = (&mut schema, max != i64::MAX) {
        map.insert("maximum".into(), json!(max));
    }
    schema
}

fn pattern(pattern: &str, example: &str) -> Json {
    json!({ "type": "string", "pattern": pattern, "examples": [example] })
}

fn secret() -> Json {
    let one = |name: &str| {
        json!({
            "type": "object",
            "properties": { name: { "type": "string" } },
            "required": [name],
            "additionalProperties": false,
        })
    };
    json!({ "oneOf": [one("env"), one("file")] })
}

fn default_of(key: &Key) -> Option<Json> {
    let document: toml::Table = toml::from_str(&format!("default = {}", key.default)).ok()?;
    serde_json::to_value(document.get("default")?).ok()
}
