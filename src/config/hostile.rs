//! Whatever stands in a file, reading it ends in values or in problems that can be shown, never in a panic.

use proptest::prelude::*;

use super::section::{Key, Kind, Section};
use super::{Color, load_str, render, validate};

const fn key(name: &'static str, kind: Kind) -> Key {
    Key {
        name,
        kind,
        doc: "",
        default: "",
    }
}

static ROOT: Section = Section {
    name: "",
    doc: "",
    keys: &[
        key(
            "a",
            Kind::Either(&[Kind::Duration, Kind::List(&Kind::Size)]),
        ),
        key("b", Kind::OneOrMany(&Kind::Origin)),
        key("c", Kind::OneOrMany(&Kind::Network)),
        key("d", Kind::Either(&[Kind::Listen, Kind::Secret])),
        key("e", Kind::OneOrMany(&Kind::Server)),
        key("f", Kind::Map(&Kind::HeaderValue)),
        key("g", Kind::Url),
        key("h", Kind::NamedTables(&ROOT)),
        key("i", Kind::Tables(&ROOT)),
    ],
};

fn read_and_show(text: &str, overrides: &[String]) {
    let loaded = load_str("t.toml", text, overrides);
    validate(&loaded.root, &ROOT, &loaded.problems);
    render(
        &loaded.problems.into_sorted(),
        &loaded.sources,
        Color::Always,
    );
}

fn scalar() -> impl Strategy<Value = String> {
    let address = "(https?|unix|h2c|x):?(//)?[*\\[\\]:@./a-z0-9#?-]{0,12}";
    let number = "[0-9+:./-]{0,12}(ms|s|d|KiB|B|)";
    prop_oneof![address, number, "\\PC{0,12}", any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_text(text in any::<String>(), set in any::<String>()) {
        read_and_show(&text, &[set]);
    }

    #[test]
    fn toml_like_text(text in "([a-i]|\\[\\[?[a-i]|\\]\\]?|[ =.,{}\n\"'#]|\r\n|1|ß){0,60}", set in "[a-i0.]{0,5}=[\\PC]{0,9}") {
        read_and_show(&text, &[set]);
    }

    #[test]
    fn any_value_for_each_grammar(value in scalar(), key in "[a-i]") {
        read_and_show(&format!("{key} = {}\n", serde_json::Value::String(value)), &[]);
    }
}
