//! The demo's policy: what a user would write in a file, with the demo's addresses filled in.

use super::{
    Places,
    issuer::{AUDIENCE, NAME},
};

/// Everything but addresses.
const TEMPLATE: &str = include_str!("policy.toml");

/// The whole file. With `log` the access line goes to standard error, else nowhere.
pub(super) fn text(places: &Places, log: bool) -> String {
    let access = if log { "file:/dev/stderr" } else { "off" };
    let name = places.https.host();
    let name = name.trim_matches(['[', ']']);
    let names = match name {
        "localhost" => r#"["localhost", "127.0.0.1", "::1"]"#.to_owned(),
        other => format!(r#"["localhost", "127.0.0.1", "::1", "{other}"]"#),
    };
    [
        ("@HTTPS@", places.https.address.to_string()),
        ("@HTTP@", places.http.address.to_string()),
        ("@PORT@", places.https.port().to_string()),
        ("@ADMIN@", places.admin.address.to_string()),
        ("@ACCESS@", access.to_owned()),
        ("@NAMES@", names),
        ("@LEGACY@", places.legacy.to_string()),
        ("@GONE@", places.gone.address.to_string()),
        ("@ISSUER@", places.issuer.to_string()),
        ("@NAME@", NAME.to_owned()),
        ("@AUDIENCE@", AUDIENCE.to_owned()),
    ]
    .iter()
    .fold(TEMPLATE.to_owned(), |text, (mark, value)| {
        text.replace(mark, value)
    })
}
