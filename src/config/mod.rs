//! The configuration toolkit: values with places, problems, loading, the declaration of sections. It knows no policy.
//!
//! The way of a file: [`load()`] reads and merges it into a [`Table`] whose every key and value keeps its place;
//! [`validate()`] holds that tree against the declared [`Section`]s and collects all problems at once; a [`Reader`]
//! hands typed values to whoever compiles them, nearest layer first; [`render()`] shows what is wrong and where.

mod address;
mod document;
mod include;
mod load;
mod moment;
mod network;
mod overrides;
mod place;
mod problem;
mod reader;
mod render;
mod schema;
mod secret;
mod scalars;
mod section;
mod units;
mod url;
mod validate;
mod value;

pub use address::{Host, ListenAddr, Scheme, ServerUrl};
pub use document::{parse, parse_value};
pub use load::{Loaded, load, load_str};
pub use moment::Moment;
pub use network::{Cidr, Origin, OriginPattern};
pub use place::{At, FileId, Place, Sources};
pub use problem::{Problem, Problems, Severity, Show};
pub use reader::{Layer, Reader};
pub use render::{Color, render};
pub use scalars::OneOrMany;
pub use schema::json_schema;
pub use secret::{FilePath, SecretRef, readable_by_others};
pub use section::{Key, Kind, Section, walk_keys};
pub use units::Bytes;
pub use url::HttpsUrl;
pub use validate::{nearest, validate, validate_defaults};
pub use value::{Complaint, Entry, FromValue, Node, Table, Value, quoted};

pub use crate::crypto::secret::Secret;

#[cfg(test)]
mod hostile;
