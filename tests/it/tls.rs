//! TLS: names, versions, client certificates, resumption, and requests on the wrong connection (attack a29).

use rustls::{HandshakeKind, NamedGroup, ProtocolVersion};

use serde_json::json;

use crate::harness::gate::{PUBLIC, Running, request};
use crate::harness::python::h2;
use crate::harness::{Ca, Client, Gate, Origin, TlsOptions};

/// Certificates for `app.example`, `*.shop.example` and `own.shop.example`, in that order.
fn with_three_certificates(origin: &Origin, keys: &str) -> Gate {
    let gate = Gate::before(origin);
    let mut lines = keys.to_owned();
    for (file, name) in [
        ("app", "app.example"),
        ("wild", "*.shop.example"),
        ("own", "own.shop.example"),
    ] {
        let leaf = gate.ca().server(file, &[name]);
        lines += "\n";
        lines += &leaf.section();
    }
    gate.tls(&lines)
}

/// Everything, on any host, for everybody.
const ANY_HOST: &str = "[[blueprints]]\nname = \"any\"\nupstream = \"legacy\"\nauth = \"public\"\n";

fn shown(gate: &Running, sni: &str) -> Vec<u8> {
    gate.https_to(sni)
        .peer_certificate()
        .expect("a certificate")
}

#[test]
fn certificates_are_picked_by_name() {
    let origin = Origin::echo();
    let gate = with_three_certificates(&origin, "").with(ANY_HOST).start();
    let (app, wild, own) = (
        shown(&gate, "app.example"),
        shown(&gate, "other.shop.example"),
        shown(&gate, "own.shop.example"),
    );
    assert_ne!(app, wild);
    assert_ne!(own, wild);
    assert_eq!(shown(&gate, "third.shop.example"), wild);
    for sni in ["app.example", "other.shop.example", "own.shop.example"] {
        let bytes = format!("GET / HTTP/1.1\r\nHost: {sni}\r\n\r\n");
        gate.https_to(sni).send(bytes).response().expect(200);
    }
}

#[test]
fn a_wildcard_covers_one_label() {
    let origin = Origin::echo();
    let gate = with_three_certificates(&origin, "").with(ANY_HOST).start();
    let mut client = gate.https_to("other.shop.example");
    for (host, status) in [
        ("third.shop.example", 200),
        ("a.b.shop.example", 421),
        ("shop.example", 421),
    ] {
        let response = client
            .send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .response();
        assert_eq!(response.status, status, "{host}");
        if status != 200 {
            client = gate.https_to("other.shop.example");
        }
    }
}

#[test]
fn a29_a_request_for_a_host_that_the_certificate_does_not_cover() {
    let origin = Origin::echo();
    let gate = with_three_certificates(&origin, "").with(ANY_HOST).start();
    let response = gate
        .https_to("app.example")
        .send("GET / HTTP/1.1\r\nHost: own.shop.example\r\n\r\n")
        .response();
    assert_eq!(
        response.expect(421).problem()["type"],
        "urn:portcullis:problem:misdirected"
    );
    assert_eq!(response.headers("x-content-type-options"), ["nosniff"]);
    origin.expect_untouched();
    // Browsers share a connection between names that one certificate covers: plain equality would break them.
    gate.https_to("other.shop.example")
        .send("GET / HTTP/1.1\r\nHost: third.shop.example\r\n\r\n")
        .response()
        .expect(200);
}

#[test]
fn a29_http2_requests_for_another_host_too() {
    let origin = Origin::echo();
    let gate = with_three_certificates(&origin, "").with(ANY_HOST).start();
    let account = h2(&json!({
        "do": "fetch",
        "address": gate.proxy.https().to_string(),
        "ca": gate.directory.path().join("ca.pem"),
        "sni": "app.example",
        "host": "own.shop.example",
        "requests": [{"path": "/"}],
    }));
    assert_eq!(account["answers"][0]["status"], 421, "{account}");
    origin.expect_untouched();
}

#[test]
fn a_name_that_no_certificate_covers_gets_no_request_through() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).with(ANY_HOST).start();
    let options = TlsOptions::new(&gate.ca, "stranger.example");
    if let Ok(mut client) = Client::try_tls(gate.proxy.https(), &options) {
        client
            .send("GET / HTTP/1.1\r\nHost: stranger.example\r\n\r\n")
            .response()
            .expect(421);
    }
    origin.expect_untouched();
}

#[test]
fn both_versions_are_spoken_and_the_key_exchange_is_hybrid() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    let mut newest = gate.https();
    assert_eq!(newest.tls_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(newest.key_exchange(), Some(NamedGroup::X25519MLKEM768));
    newest.send(request("GET", "/", &[])).response().expect(200);
    let options = TlsOptions::versions(&gate.ca, "app.example", &[&rustls::version::TLS12]);
    let mut older = Client::tls(gate.proxy.https(), &options);
    assert_eq!(older.tls_version(), Some(ProtocolVersion::TLSv1_2));
    older
        .send(request("GET", "/older", &[]))
        .response()
        .expect(200);
    let line = gate.proxy.await_access_of("/older");
    assert!(
        line["tls.protocol.version"].to_string().contains("1.2"),
        "{line}"
    );
}

#[test]
fn the_modern_profile_speaks_tls_1_3_alone() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .tls_keys("profile = \"modern\"")
        .open();
    gate.get("/").expect(200);
    let options = TlsOptions::versions(&gate.ca, "app.example", &[&rustls::version::TLS12]);
    assert!(Client::try_tls(gate.proxy.https(), &options).is_err());
}

#[test]
fn sessions_are_resumed() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin).open();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let options = TlsOptions::versions(&gate.ca, "app.example", &[version]);
        let mut first = Client::tls(gate.proxy.https(), &options);
        first.send(request("GET", "/", &[])).response().expect(200);
        assert_eq!(first.handshake(), Some(HandshakeKind::Full));
        drop(first);
        let mut second = Client::tls(gate.proxy.https(), &options);
        second.send(request("GET", "/", &[])).response().expect(200);
        assert_eq!(
            second.handshake(),
            Some(HandshakeKind::Resumed),
            "{version:?}"
        );
    }
}

#[test]
fn a29_a_ticket_for_one_name_is_not_one_for_another() {
    let origin = Origin::echo();
    let gate = with_three_certificates(&origin, "").with(ANY_HOST).start();
    let options = TlsOptions::new(&gate.ca, "app.example");
    let mut first = Client::tls(gate.proxy.https(), &options);
    first
        .send("GET / HTTP/1.1\r\nHost: app.example\r\n\r\n")
        .response()
        .expect(200);
    let mut other = Client::tls(gate.proxy.https(), &options.asking_for("own.shop.example"));
    let response = other
        .send("GET / HTTP/1.1\r\nHost: app.example\r\n\r\n")
        .response();
    response.expect(421);
}

#[test]
fn client_certificates_that_are_required() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin);
    let clients = Ca::named(gate.directory(), "clients");
    let trusted = clients.client("alice", "alice.example");
    let strangers = Ca::named(gate.directory(), "strangers");
    let stranger = strangers.client("mallory", "alice.example");
    let file = gate.directory().join("clients.pem");
    let gate = gate
        .tls_keys(&format!(
            "client_ca = '{}'\nclient_auth = \"required\"",
            file.display()
        ))
        .open();

    let present = |options: &TlsOptions| {
        let mut client = Client::try_tls(gate.proxy.https(), options)?;
        // In TLS 1.3 the refusal arrives only with the first read.
        client.send(request("GET", "/", &[])).try_response()
    };
    let with_trusted = TlsOptions::presenting(&gate.ca, "app.example", &trusted);
    assert_eq!(present(&with_trusted).expect("let in").status, 200);
    assert_eq!(present(&with_trusted).expect("resumed, let in").status, 200);
    assert!(
        present(&TlsOptions::new(&gate.ca, "app.example")).is_err(),
        "none shown"
    );
    let with_stranger = TlsOptions::presenting(&gate.ca, "app.example", &stranger);
    assert!(present(&with_stranger).is_err(), "another authority's");
}

#[test]
fn client_certificates_that_are_optional() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin);
    let clients = Ca::named(gate.directory(), "clients");
    let trusted = clients.client("alice", "alice.example");
    let stranger = Ca::named(gate.directory(), "strangers").client("mallory", "alice.example");
    let file = gate.directory().join("clients.pem");
    let gate = gate
        .tls_keys(&format!(
            "client_ca = '{}'\nclient_auth = \"optional\"",
            file.display()
        ))
        .with(PUBLIC)
        .start();
    gate.get("/").expect(200);
    let with_trusted = TlsOptions::presenting(&gate.ca, "app.example", &trusted);
    Client::tls(gate.proxy.https(), &with_trusted)
        .send(request("GET", "/", &[]))
        .response()
        .expect(200);
    let with_stranger = TlsOptions::presenting(&gate.ca, "app.example", &stranger);
    let refused = Client::try_tls(gate.proxy.https(), &with_stranger)
        .and_then(|mut client| client.send(request("GET", "/", &[])).try_response());
    assert!(
        refused.is_err(),
        "a certificate that does not hold is refused"
    );
}

#[test]
fn a_handshake_that_never_ends_is_given_up() {
    let origin = Origin::echo();
    let gate = Gate::before(&origin)
        .with("[server.limits]\nheader_timeout = \"1s\"\n")
        .open();
    let mut silent = Client::plain(gate.proxy.https());
    silent.send(b"\x16\x03\x01");
    silent.until_close();
    let mut plain = Client::plain(gate.proxy.https());
    plain.send(request("GET", "/", &[]));
    let answer = plain.until_close();
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    gate.get("/").expect(200);
}
