//! Every input that was worth keeping from fuzzing, run through the properties of its parser.
//!
//! The properties are those of the fuzz targets, which make up new inputs: see `tests/fuzz/run`.

use std::{fs, panic, path::Path};

use crate::properties;

/// Runs the kept inputs of a target; all that break its property are named.
fn replay(target: &str, hold: impl Fn(&[u8]) + panic::RefUnwindSafe) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(target);
    let mut broken = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("a folder of inputs") {
        let path = entry.expect("an entry").path();
        let input = fs::read(&path).expect("an input");
        count += 1;
        if panic::catch_unwind(|| hold(&input)).is_err() {
            broken.push(path);
        }
    }
    assert!(count > 10, "{count} inputs in {}", folder.display());
    assert!(
        broken.is_empty(),
        "see above, and tests/fuzz/run {target} --input FILE: {broken:?}"
    );
}

#[test]
fn the_parser_reads_what_the_screen_lets_through_with_the_same_boundaries() {
    replay("head", properties::head::hold);
}

#[test]
fn chunks_and_trailers_are_read_alike() {
    replay("chunked", properties::chunked::hold);
}

#[test]
fn what_was_judged_is_what_a_backend_reads() {
    replay("target", properties::target::hold);
}

#[test]
fn no_ambiguous_forwarding_field_is_believed() {
    replay("forwarded", properties::forwarded::hold);
}

#[test]
fn hardened_cookies_stay_what_they_were() {
    replay("cookie", properties::cookie::hold);
}

#[test]
fn a_form_has_one_reading() {
    replay("form", properties::form::hold);
}

#[test]
fn a_canonical_request_of_aws_is_its_own_form() {
    replay("sigv4", properties::sigv4::hold);
}

#[test]
fn a_signature_base_says_what_a_signature_covers() {
    replay("http_signature", properties::http_signature::hold);
}

#[test]
fn a_token_has_one_reading() {
    replay("jws", properties::jws::hold);
}

#[test]
fn a_proof_of_possession_says_what_it_is_about() {
    replay("dpop", properties::dpop::hold);
}

#[test]
fn an_answer_of_an_authenticator_has_one_reading() {
    replay("webauthn", properties::webauthn::hold);
}

/// The targets compare with the parsers that the program has, so both lock files must name the same ones.
#[test]
fn the_fuzz_targets_have_the_parsers_of_the_program() {
    let locked = |file: &str| -> Vec<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let lock: toml::Table = fs::read_to_string(path)
            .expect("a lock file")
            .parse()
            .expect("TOML");
        let packages = lock["package"].as_array().expect("packages");
        let text =
            |package: &toml::Value, key: &str| package[key].as_str().expect("a text").to_owned();
        let pinned = [
            "bytes",
            "http",
            "http-body",
            "httparse",
            "hyper",
            "ipnet",
            "minicbor",
            "percent-encoding",
            "serde_json",
        ];
        let is_pinned = |package: &&toml::Value| pinned.contains(&&text(package, "name")[..]);
        let named = packages.iter().filter(is_pinned);
        named
            .map(|package| text(package, "name") + " " + &text(package, "version"))
            .collect()
    };
    let program = locked("Cargo.lock");
    assert_eq!(program.len(), 9, "{program:?}");
    assert_eq!(
        locked("tests/fuzz/Cargo.lock"),
        program,
        "`cargo update --precise` in tests/fuzz"
    );
}
