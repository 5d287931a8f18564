//! Client certificates: as identity, revoked, ended, bound to tokens (RFC 8705), told to backends (RFC 9440); made by
//! OpenSSL.

use std::path::Path;

use base64::Engine;
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use serde_json::json;

use crate::harness::ca::Leaf;
use crate::harness::curl::curl;
use crate::harness::eventually;
use crate::harness::gate::{Running, request};
use crate::harness::openssl::{Authority, NextUpdate, fingerprint, thumbprint};
use crate::harness::proxy::{portcullis, write_policy};
use crate::harness::{Client, Gate, Issuer, Mint, Origin, Response, TlsOptions};

/// `/` for holders of a certificate that `any` takes, `/open` for everybody.
const BY_CERTIFICATE: &str = r#"
[[blueprints]]
name = "app"
hosts = ["app.example"]
upstream = "legacy"
[blueprints.auth]
require = ["mtls"]
certificates = ["any"]

[[blueprints.routes]]
path = "/open"
auth = "public"
"#;

/// Takes whatever the authority `clients` signed.
const ANY: &str = r#"
[client_certificates.any]
issuer = "CN=clients,O=Example"
subject_from = "cn"
roles = ["reader"]
scopes = ["api.read"]
"#;

struct Scene {
    origin: Origin,
    gate: Gate,
    clients: Authority,
}

impl Scene {
    /// A gate that asks for certificates of `clients` and lets others come without.
    fn optional() -> Self {
        Self::asking("client_auth = \"optional\"")
    }

    fn asking(lines: &str) -> Self {
        let origin = Origin::echo();
        let gate = Gate::before(&origin);
        let clients = Authority::new(gate.directory(), "clients");
        let gate = gate.tls_keys(&format!("client_ca = \"clients.pem\"\n{lines}"));
        Self {
            origin,
            gate,
            clients,
        }
    }

    /// The same with an empty list of revocations.
    fn with_list() -> Self {
        let scene = Self::asking("client_auth = \"optional\"\nclient_crl = \"clients.crl\"");
        scene.clients.list(NextUpdate::Tomorrow);
        scene
    }
}

fn presenting(gate: &Running, leaf: &Leaf) -> TlsOptions {
    TlsOptions::presenting(&gate.ca, "app.example", leaf)
}

fn connect(gate: &Running, leaf: &Leaf) -> Client {
    Client::tls(gate.proxy.https(), &presenting(gate, leaf))
}

/// One request on a connection of its own.
#[track_caller]
fn get(gate: &Running, leaf: &Leaf, path: &str) -> Response {
    get_with(gate, leaf, path, &[])
}

#[track_caller]
fn get_with(gate: &Running, leaf: &Leaf, path: &str, fields: &[(&str, &str)]) -> Response {
    connect(gate, leaf)
        .send(request("GET", path, fields))
        .response()
}

/// Whether the gate refuses the handshake, which TLS 1.3 tells with the first read only.
fn refuses(gate: &Running, options: &TlsOptions) -> bool {
    Client::try_tls(gate.proxy.https(), options)
        .and_then(|mut client| client.send(request("GET", "/open", &[])).try_response())
        .is_err()
}

#[track_caller]
fn expect_reason(response: &Response, status: u16, reason: &str) {
    response.expect(status);
    let problem = response.problem();
    assert_eq!(problem["type"], format!("urn:portcullis:problem:{reason}"));
}

/// Rules by name, each with what it calls the certificate of the test below; nothing where it does not take it.
const RULES: [(&str, &str, &str); 8] = [
    ("dns", "san_dns = \"*.svc.example\"", "web.svc.example"),
    (
        "uri",
        "san_uri = \"spiffe://example.org/ns/*\"",
        "spiffe://example.org/ns/web",
    ),
    ("email", "san_email = \"*@example.org\"", "ops@Example.org"),
    ("cn", "cn = [\"other\", \"web\"]", "web"),
    (
        "subject",
        "subject = \"cn=web, o=Example\"",
        "CN=web,O=Example",
    ),
    (
        "issuer",
        "issuer = \"CN=clients,O=Example\"",
        "CN=web,O=Example",
    ),
    (
        "finger",
        "fingerprint = \"DIGITS\"\nsubject_from = \"cn\"",
        "web",
    ),
    ("none", "cn = \"web\"\nsan_dns = \"db.svc.example\"", ""),
];

#[test]
fn a_certificate_names_the_caller_by_what_its_rule_states() {
    let scene = Scene::optional();
    let names = "DNS:web.svc.example,URI:spiffe://example.org/ns/web,email:ops@Example.org";
    let leaf = scene.clients.client("web", "/O=Example/CN=web", names);
    let section = |(name, lines, _): &(&str, &str, &str)| {
        format!(
            "[client_certificates.{name}]\n{lines}\nroles = [\"role-{name}\"]\nscopes = [\"s\"]\n\
             [[blueprints]]\nname = \"{name}\"\nprefix = \"/{name}\"\nupstream = \"legacy\"\n\
             auth = {{ require = [\"mtls\"], certificates = [\"{name}\"] }}\n"
        )
    };
    let sections: String = RULES.iter().map(section).collect();
    let sections = sections.replace("DIGITS", &fingerprint(&leaf));
    let gate = scene.gate.with(&sections).start();
    for (name, _, subject) in RULES {
        let path = format!("/{name}");
        let response = get(&gate, &leaf, &path);
        let line = gate.proxy.await_access_of(&path);
        if subject.is_empty() {
            expect_reason(&response, 403, "certificate-unknown");
            assert_eq!(line["detail"], "no-rule");
            continue;
        }
        response.expect(200);
        assert_eq!(line["enduser.id"], subject);
        let head = scene.origin.last_request().head;
        assert_eq!(head.all("x-auth-subject"), [subject]);
        assert_eq!(head.all("x-auth-roles"), [format!("role-{name}")]);
        assert_eq!(head.all("x-auth-scopes"), ["s"]);
    }
    assert_eq!(scene.origin.requests().len(), RULES.len() - 1);
}

#[test]
fn the_first_rule_of_the_route_has_the_word() {
    let scene = Scene::optional();
    let leaf = scene.clients.client(
        "web",
        "/O=Example/CN=web",
        "DNS:web.example,DNS:www.example",
    );
    let gate = scene
        .gate
        .with(
            "[client_certificates.unclear]\nsan_dns = \"*.example\"\n\
             [client_certificates.second]\ncn = \"web\"\nroles = [\"second\"]\n\
             [client_certificates.third]\ncn = \"web\"\nroles = [\"third\"]\n\
             [[blueprints]]\nname = \"a\"\nprefix = \"/a\"\nupstream = \"legacy\"\n\
             auth = { require = [\"mtls\"], certificates = [\"third\", \"second\"] }\n\
             [[blueprints]]\nname = \"b\"\nprefix = \"/b\"\nupstream = \"legacy\"\n\
             auth = { require = [\"mtls\"], certificates = [\"unclear\", \"second\"] }\n",
        )
        .start();
    let mut client = connect(&gate, &leaf);
    for _ in 0..2 {
        client
            .send(request("GET", "/a", &[]))
            .response()
            .expect(200);
    }
    let head = scene.origin.last_request().head;
    assert_eq!(head.all("x-auth-roles"), ["third"]);
    // Two names could be meant, so nobody is.
    let response = client.send(request("GET", "/b", &[])).response();
    expect_reason(&response, 403, "certificate-unknown");
    assert_eq!(
        gate.proxy.await_access_of("/b")["detail"],
        "subject-unclear"
    );
}

#[test]
fn no_certificate_is_told_apart_from_an_unknown_one() {
    let scene = Scene::optional();
    let gate = scene.gate.with(ANY).with(BY_CERTIFICATE).start();
    let response = gate.get("/");
    expect_reason(&response, 403, "certificate-missing");
    assert!(response.headers("www-authenticate").is_empty());
    scene.origin.expect_untouched();
    gate.get("/open").expect(200);
    let head = scene.origin.only_request().head;
    assert!(head.all("x-auth-subject").is_empty());
}

#[test]
fn roles_of_a_certificate_are_asked_for_like_any() {
    let scene = Scene::optional();
    let leaf = scene.clients.client("web", "/CN=web", "");
    let gate = scene
        .gate
        .with(ANY)
        .with(&BY_CERTIFICATE.replace(
            "certificates = [\"any\"]",
            "certificates = [\"any\"]\nroles = { any = [\"admin\"] }",
        ))
        .start();
    expect_reason(&get(&gate, &leaf, "/"), 403, "role-missing");
    scene.origin.expect_untouched();
}

#[test]
fn beside_tokens_a_certificate_is_no_second_credential() {
    let scene = Scene::optional();
    let leaf = scene.clients.client("web", "/CN=web", "");
    let unknown = scene.clients.client("other", "/CN=other", "");
    let issuer = Issuer::http();
    let gate = scene
        .gate
        .with(&issuer.section())
        .with("[client_certificates.web]\ncn = \"web\"\n")
        .with(
            "[[blueprints]]\nname = \"app\"\nupstream = \"legacy\"\n\
             auth = { require = [\"bearer\", \"mtls\"], issuers = [\"corp\"], certificates = [\"web\"] }\n",
        )
        .start();
    let token = issuer.bearer(&["reader"]);
    let subject = || {
        scene
            .origin
            .last_request()
            .head
            .all("x-auth-subject")
            .join(" ")
    };
    get(&gate, &leaf, "/").expect(200);
    assert_eq!(subject(), "web");
    get_with(&gate, &leaf, "/", &[("Authorization", &token)]).expect(200);
    assert_eq!(subject(), "alice", "what the request brings comes first");
    // A bad token is not excused by a good certificate.
    let bad = [("Authorization", "Bearer a.b.c")];
    expect_reason(&get_with(&gate, &leaf, "/", &bad), 401, "token-invalid");
    for response in [gate.get("/"), get(&gate, &unknown, "/")] {
        expect_reason(&response, 401, "credentials-missing");
        assert_eq!(
            response.headers("www-authenticate"),
            ["Bearer realm=\"app.example\""]
        );
    }
}

#[test]
fn a_resumed_session_has_the_certificate_of_the_first() {
    let scene = Scene::optional();
    let leaf = scene.clients.client("web", "/CN=web", "");
    let gate = scene.gate.with(ANY).with(BY_CERTIFICATE).start();
    for version in [&TLS13, &TLS12] {
        let options = TlsOptions::presenting_over(&gate.ca, &leaf, version);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut client = Client::tls(gate.proxy.https(), &options);
            client.send(request("GET", "/", &[])).response().expect(200);
            assert_eq!(client.handshake(), Some(expected), "{version:?}");
            let head = scene.origin.last_request().head;
            assert_eq!(head.all("x-auth-subject"), ["web"]);
        }
        // Nor does one without a certificate come by one.
        let options = TlsOptions::versions(&gate.ca, "app.example", &[version]);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut client = Client::tls(gate.proxy.https(), &options);
            let response = client.send(request("GET", "/", &[])).response();
            assert_eq!(client.handshake(), Some(expected), "{version:?}");
            expect_reason(&response, 403, "certificate-missing");
        }
    }
}

#[test]
fn a29_a_ticket_of_one_authority_opens_no_door_under_another() {
    let scene = Scene::optional();
    let leaf = scene.clients.client("web", "/CN=web", "");
    let others = Authority::new(scene.gate.directory(), "others");
    let gate = scene.gate.with(ANY).with(BY_CERTIFICATE).start();
    for version in [&TLS13, &TLS12] {
        let options = TlsOptions::presenting_over(&gate.ca, &leaf, version);
        let mut open = Client::tls(gate.proxy.https(), &options);
        open.send(request("GET", "/", &[])).response().expect(200);
        let clients = gate.directory.path().join("clients.pem");
        let before = std::fs::read(&clients).expect("the authority");
        std::fs::copy(others.pem(), &clients).expect("our directory");
        gate.reload();
        assert!(refuses(&gate, &options), "{version:?}");
        // Nor does the connection that was open go on.
        let response = open.send(request("GET", "/open", &[])).response();
        expect_reason(&response, 403, "certificate-unknown");
        open.expect_close();
        std::fs::write(&clients, before).expect("our directory");
        gate.reload();
        get(&gate, &leaf, "/").expect(200);
    }
}

#[test]
fn a_reload_for_the_sake_of_something_else_changes_nothing() {
    let scene = Scene::with_list();
    let leaf = scene.clients.client("web", "/CN=web", "");
    let gate = scene.gate.with(ANY).with(BY_CERTIFICATE).start();
    let mut open = connect(&gate, &leaf);
    open.send(request("GET", "/", &[])).response().expect(200);
    gate.reload();
    open.send(request("GET", "/", &[])).response().expect(200);
}

#[test]
fn what_clients_say_of_certificates_is_not_believed() {
    let scene = Scene::optional();
    let gate = scene.gate.with(ANY).with(BY_CERTIFICATE).start();
    let fields = [
        ("Client-Cert", ":AAAA:"),
        ("Client-Cert-Chain", ":AAAA:"),
        ("client_cert", ":AAAA:"),
        ("X-Client-Cert", "a"),
        ("X-SSL-Client-Cert", "a"),
        ("X-SSL-Client-S-DN", "CN=web"),
        ("X-SSL-Client-Verify", "SUCCESS"),
        ("SSL_CLIENT_VERIFY", "SUCCESS"),
        ("X-Forwarded-Client-Cert", "By=x;Hash=y"),
        ("X-Forwarded-Tls-Client-Cert", "a"),
        ("X-ARR-ClientCert", "a"),
        ("X-Amzn-Mtls-Clientcert-Subject", "CN=web"),
    ];
    expect_reason(&gate.get_with("/", &fields), 403, "certificate-missing");
    gate.get_with("/open", &fields).expect(200);
    let head = scene.origin.only_request().head;
    for (name, _) in fields {
        assert!(head.all(name).is_empty(), "{name}: {head:#?}");
    }
}

#[test]
fn the_backend_is_told_the_certificate_where_the_file_says_so() {
    let scene = Scene::optional();
    let leaf = scene.clients.client("web", "/CN=web", "");
    let told = BY_CERTIFICATE.replace(
        "certificates = [\"any\"]",
        "certificates = [\"any\"]\nforward_certificate = true",
    );
    let gate = scene.gate.with(ANY).with(&told).start();
    get_with(&gate, &leaf, "/", &[("Client-Cert", ":AAAA:")]).expect(200);
    let head = scene.origin.last_request().head;
    let der = base64::engine::general_purpose::STANDARD.encode(&leaf.cert_der);
    assert_eq!(head.all("client-cert"), [format!(":{der}:")]);
    get_with(&gate, &leaf, "/open", &[("Client-Cert", ":AAAA:")]).expect(200);
    let head = scene.origin.last_request().head;
    assert!(head.all("client-cert").is_empty());
}

#[test]
fn curl_shows_a_certificate_over_http2() {
    let scene = Scene::with_list();
    let leaf = scene.clients.client("web", "/CN=web", "");
    let gate = scene.gate.with(ANY).with(BY_CERTIFICATE).start();
    let (cert, key) = (
        leaf.cert.display().to_string(),
        leaf.key.display().to_string(),
    );
    let answer = curl(
        gate.proxy.https(),
        &gate.directory.path().join("ca.pem"),
        "/",
        &["--http2", "--cert", &cert, "--key", &key],
    );
    assert_eq!(answer.status, 200);
    let head = scene.origin.only_request().head;
    assert_eq!(head.all("x-auth-subject"), ["web"]);
}

#[test]
fn a_revoked_certificate_is_refused_in_the_handshake() {
    let scene = Scene::with_list();
    let (good, bad) = (
        scene.clients.client("good", "/CN=good", ""),
        scene.clients.client("bad", "/CN=bad", ""),
    );
    scene.clients.revoke(&bad);
    scene.clients.list(NextUpdate::Tomorrow);
    let gate = scene.gate.with(ANY).with(BY_CERTIFICATE).start();
    get(&gate, &good, "/").expect(200);
    for version in [&TLS13, &TLS12] {
        let options = TlsOptions::presenting_over(&gate.ca, &bad, version);
        assert!(refuses(&gate, &options), "{version:?}");
    }
    assert_eq!(scene.origin.requests().len(), 1);
    let left = gate.proxy.metric(
        "portcullis_certificate_expiry_seconds",
        &["name=\"revocations of CN=clients,O=Example\""],
    );
    assert!((1.0..=86_400.0).contains(&left), "{left}");
}

#[test]
fn a_list_that_changes_ends_connections_that_are_open() {
    let scene = Scene::with_list();
    let (good, bad) = (
        scene.clients.client("good", "/CN=good", ""),
        scene.clients.client("bad", "/CN=bad", ""),
    );
    let gate = scene.gate.with(ANY).with(BY_CERTIFICATE).start();
    let (mut of_good, mut of_bad) = (connect(&gate, &good), connect(&gate, &bad));
    let mut other_of_bad = connect(&gate, &bad);
    for client in [&mut of_good, &mut of_bad, &mut other_of_bad] {
        client.send(request("GET", "/", &[])).response().expect(200);
    }
    scene.clients.revoke(&bad);
    scene.clients.list(NextUpdate::Tomorrow);
    // The file is watched: nobody sends a signal.
    gate.proxy
        .await_metric("portcullis_reloads_total", &["outcome=\"applied\""], 1.0);
    eventually("the handshake is refused", || {
        refuses(&gate, &presenting(&gate, &bad)).then_some(())
    });
    let reached = scene.origin.requests().len();
    // Whatever the route, as the handshake would.
    for (client, path) in [(&mut of_bad, "/"), (&mut other_of_bad, "/open")] {
        let response = client.send(request("GET", path, &[])).response();
        expect_reason(&response, 403, "certificate-revoked");
        assert_eq!(response.headers("connection"), ["close"]);
        client.expect_close();
    }
    assert_eq!(scene.origin.requests().len(), reached);
    of_good
        .send(request("GET", "/", &[]))
        .response()
        .expect(200);
}

#[test]
fn a_bad_list_changes_nothing() {
    let scene = Scene::with_list();
    let (good, bad) = (
        scene.clients.client("good", "/CN=good", ""),
        scene.clients.client("bad", "/CN=bad", ""),
    );
    scene.clients.revoke(&bad);
    let list = scene.clients.list(NextUpdate::Tomorrow);
    let gate = scene.gate.with(ANY).with(BY_CERTIFICATE).start();
    for text in [
        "",
        "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
    ] {
        std::fs::write(&list, text).expect("our directory");
        gate.reload();
        gate.proxy.await_talk("cannot read revocations");
        get(&gate, &good, "/").expect(200);
        assert!(refuses(&gate, &presenting(&gate, &bad)));
    }
}

#[test]
fn a_list_that_is_out_of_date_refuses_unless_the_file_accepts_it() {
    let lines = "client_auth = \"optional\"\nclient_crl = \"clients.crl\"";
    let scene = Scene::asking(lines);
    scene.clients.list(NextUpdate::LongAgo);
    let leaf = scene.clients.client("web", "/CN=web", "");
    let gate = scene.gate.with(ANY).with(BY_CERTIFICATE).start();
    assert!(refuses(&gate, &presenting(&gate, &leaf)));
    gate.get("/open").expect(200);

    let scene = Scene::asking(&format!("{lines}\nclient_crl_expired = \"accept\""));
    let leaf = scene.clients.client("web", "/CN=web", "");
    let bad = scene.clients.client("bad", "/CN=bad", "");
    scene.clients.revoke(&bad);
    scene.clients.list(NextUpdate::LongAgo);
    let gate = scene.gate.with(ANY).with(BY_CERTIFICATE).start();
    get(&gate, &leaf, "/").expect(200);
    assert!(refuses(&gate, &presenting(&gate, &bad)));
}

#[test]
fn an_authority_without_a_list_is_one_of_which_nothing_is_known() {
    let scene = Scene::with_list();
    let others = Authority::new(scene.gate.directory(), "others");
    let leaf = others.client("other", "/CN=other", "");
    append(&scene.clients.pem(), &others.pem());
    let gate = scene.gate.with(ANY).with(BY_CERTIFICATE).start();
    assert!(refuses(&gate, &presenting(&gate, &leaf)));
}

#[test]
fn of_two_lists_of_one_authority_the_newer_counts_in_whatever_order() {
    // Made a year apart, and within one second, where the number of the list tells.
    for made in ["20250101000000Z", "20260101000000Z"] {
        for order in [["old.crl", "new.crl"], ["new.crl", "old.crl"]] {
            let lines = format!("client_auth = \"optional\"\nclient_crl = {order:?}");
            let scene = Scene::asking(&lines);
            let (good, bad) = (
                scene.clients.client("good", "/CN=good", ""),
                scene.clients.client("bad", "/CN=bad", ""),
            );
            scene.clients.list_made_at("old.crl", made);
            scene.clients.revoke(&bad);
            scene.clients.list_made_at("new.crl", "20260101000000Z");
            let gate = scene.gate.with(ANY).with(BY_CERTIFICATE).start();
            get(&gate, &good, "/").expect(200);
            assert!(refuses(&gate, &presenting(&gate, &bad)), "{made} {order:?}");
        }
    }
}

#[test]
fn of_two_lists_in_one_file_the_newer_counts() {
    let scene = Scene::asking("client_auth = \"optional\"\nclient_crl = \"old.crl\"");
    let bad = scene.clients.client("bad", "/CN=bad", "");
    let old = scene.clients.list_made_at("old.crl", "20250101000000Z");
    scene.clients.revoke(&bad);
    let new = scene.clients.list_made_at("new.crl", "20260101000000Z");
    append(&old, &new);
    let gate = scene.gate.with(ANY).with(BY_CERTIFICATE).start();
    assert!(refuses(&gate, &presenting(&gate, &bad)));
}

/// Two authorities of which only one gives out what `any` takes.
struct TwoAuthorities {
    scene: Scene,
    others: Authority,
}

impl TwoAuthorities {
    fn new() -> Self {
        let scene = Scene::optional();
        let others = Authority::new(scene.gate.directory(), "others");
        append(&scene.clients.pem(), &others.pem());
        Self { scene, others }
    }
}

#[test]
fn an_authority_that_is_called_like_another_one_is_not_that_one() {
    let TwoAuthorities { scene, others } = TwoAuthorities::new();
    let false_clients = others.below("false", "/O=Example/CN=clients");
    let forged = false_clients
        .client("forged", "/CN=admin", "")
        .followed_by(&false_clients.pem());
    let honest = scene.clients.client("web", "/CN=web", "");
    let gate = scene.gate.with(ANY).with(BY_CERTIFICATE).start();
    get(&gate, &honest, "/").expect(200);
    for version in [&TLS13, &TLS12] {
        let options = TlsOptions::presenting_over(&gate.ca, &forged, version);
        assert!(refuses(&gate, &options), "{version:?}");
    }
    assert_eq!(scene.origin.requests().len(), 1);
}

#[test]
fn an_authority_below_another_one_and_the_authority_itself_may_be_sent_along() {
    let TwoAuthorities { scene, others } = TwoAuthorities::new();
    let office = scene.clients.below("office", "/O=Example/CN=office");
    let of_office = office
        .client("desk", "/CN=desk", "")
        .followed_by(&office.pem());
    let of_others = others
        .client("other", "/CN=other", "")
        .followed_by(&others.pem());
    let own = scene.gate.directory().join("own.pem");
    let text = std::fs::read_to_string(scene.clients.pem()).expect("two certificates");
    let end = "-----END CERTIFICATE-----\n";
    let first = text.split_inclusive(end).next().expect("one of them");
    std::fs::write(&own, first).expect("our directory");
    let direct = scene.clients.client("web", "/CN=web", "").followed_by(&own);
    let gate = scene.gate.with(ANY).with(BY_CERTIFICATE).start();
    get(&gate, &direct, "/").expect(200);
    for leaf in [&of_office, &of_others] {
        get(&gate, leaf, "/open").expect(200);
        // Of other authorities than the rule names.
        expect_reason(&get(&gate, leaf, "/"), 403, "certificate-unknown");
    }
}

#[test]
fn an_authority_that_gains_a_namesake_loses_what_it_let_in() {
    let scene = Scene::optional();
    let others = Authority::new(scene.gate.directory(), "others");
    let namesake = others.below("namesake", "/O=Example/CN=clients");
    let leaf = namesake
        .client("web", "/CN=web", "")
        .followed_by(&namesake.pem());
    let clients = scene.clients.pem();
    let both = scene.gate.directory().join("both.pem");
    std::fs::copy(&clients, &both).expect("our directory");
    append(&both, &others.pem());
    std::fs::copy(others.pem(), &clients).expect("our directory");
    let gate = scene.gate.with(ANY).with(BY_CERTIFICATE).start();
    let mut open = connect(&gate, &leaf);
    open.send(request("GET", "/", &[])).response().expect(200);
    std::fs::copy(&both, &clients).expect("our directory");
    gate.reload();
    let response = open.send(request("GET", "/open", &[])).response();
    expect_reason(&response, 403, "certificate-unknown");
    open.expect_close();
}

fn append(file: &Path, more: &Path) {
    let text = [file, more].map(|file| std::fs::read(file).expect("a file"));
    std::fs::write(file, text.concat()).expect("our directory");
}

#[test]
fn a_certificate_that_ends_takes_its_connection_with_it() {
    let scene = Scene::optional();
    let end = time::OffsetDateTime::now_utc() + time::Duration::seconds(4);
    let leaf = scene.clients.client_until("web", "/CN=web", "", Some(end));
    let gate = scene.gate.with(ANY).with(BY_CERTIFICATE).start();
    let mut client = connect(&gate, &leaf);
    client.send(request("GET", "/", &[])).response().expect(200);
    let last = eventually("the certificate ends", || {
        let response = client.send(request("GET", "/open", &[])).response();
        (response.status != 200).then_some(response)
    });
    assert!(time::OffsetDateTime::now_utc() >= end - time::Duration::seconds(1));
    expect_reason(&last, 403, "certificate-expired");
    client.expect_close();
}

/// `/` for holders of a token of `corp`, for everybody who has one.
const BY_TOKEN: &str = r#"
[[blueprints]]
name = "api"
upstream = "legacy"
[blueprints.auth]
require = ["bearer"]
issuers = ["corp"]
"#;

#[test]
fn a_bound_token_passes_with_its_certificate_alone() {
    let scene = Scene::optional();
    let (own, other) = (
        scene.clients.client("own", "/CN=own", ""),
        scene.clients.client("other", "/CN=other", ""),
    );
    let issuer = Issuer::http();
    let gate = scene.gate.with(&issuer.section()).with(BY_TOKEN).start();
    let bound = |leaf: &Leaf| {
        let confirmation = json!({ "x5t#S256": thumbprint(leaf) });
        issuer.bearer_of(&Mint::new().claim("cnf", confirmation))
    };
    let token = bound(&own);
    let fields = [("Authorization", token.as_str())];
    let refused = |response: &Response| {
        expect_reason(response, 401, "token-invalid");
        assert_eq!(
            response.headers("www-authenticate"),
            ["Bearer realm=\"app.example\", error=\"invalid_token\""]
        );
    };
    // Before it was ever verified, and after.
    refused(&get_with(&gate, &other, "/before", &fields));
    assert_eq!(gate.proxy.await_access_of("/before")["detail"], "binding");
    let mut client = connect(&gate, &own);
    for _ in 0..4 {
        let bytes = request("GET", "/own", &fields);
        client.send(bytes).response().expect(200);
    }
    let reached = scene.origin.requests().len();
    let mut thief = connect(&gate, &other);
    for _ in 0..4 {
        refused(&thief.send(request("GET", "/thief", &fields)).response());
    }
    refused(&gate.get_with("/none", &fields));
    assert_eq!(gate.proxy.await_access_of("/none")["detail"], "binding");
    // On the owner's own connection a token of another is as good as stolen.
    let foreign = bound(&other);
    let response = client
        .send(request("GET", "/", &[("Authorization", &foreign)]))
        .response();
    refused(&response);
    assert_eq!(scene.origin.requests().len(), reached);
    client
        .send(request("GET", "/own", &fields))
        .response()
        .expect(200);
}

#[test]
fn b26_a_token_bound_to_a_key_is_no_bearer_token_whatever_the_certificate() {
    let scene = Scene::optional();
    let leaf = scene.clients.client("own", "/CN=own", "");
    let issuer = Issuer::http();
    let gate = scene.gate.with(&issuer.section()).with(BY_TOKEN).start();
    for confirmation in [
        json!({ "jkt": thumbprint(&leaf) }),
        json!({ "x5t#S256": thumbprint(&leaf), "jkt": thumbprint(&leaf) }),
        json!({ "x5t": thumbprint(&leaf) }),
    ] {
        let token = issuer.bearer_of(&Mint::new().claim("cnf", confirmation.clone()));
        let response = get_with(&gate, &leaf, "/", &[("Authorization", &token)]);
        assert_eq!(response.status, 401, "{confirmation}");
    }
    scene.origin.expect_untouched();
}

/// What `check` says of this file beside a good authority with an expired list, and its exit code.
fn check(text: &str) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let clients = Authority::new(directory.path(), "clients");
    clients.list(NextUpdate::LongAgo);
    Authority::new(directory.path(), "others");
    write_policy(directory.path(), text);
    let output = portcullis()
        .args(["check", "-c", "gate.toml"])
        .current_dir(directory.path())
        .output()
        .expect("the built program starts");
    let talk = [output.stderr, output.stdout].concat();
    let talk = String::from_utf8_lossy(&talk).into_owned();
    (output.status.code(), talk)
}

const SERVER: &str = "[server]\nhttps = [\"127.0.0.1:0\"]\n\
    [upstreams.legacy]\nservers = [\"http://127.0.0.1:9\"]\n";

#[track_caller]
fn expect_all(talk: &str, texts: &[&str]) {
    for text in texts {
        assert!(talk.contains(text), "no `{text}` in\n{talk}");
    }
}

#[test]
fn check_tells_what_client_certificates_lack() {
    let blueprint = |auth: &str| {
        format!("[[blueprints]]\nname = \"a\"\nupstream = \"legacy\"\n[blueprints.auth]\n{auth}\n")
    };
    let no_authority = format!(
        "{SERVER}[tls]\nself_signed = [\"localhost\"]\nclient_crl = \"clients.crl\"\n{}",
        blueprint("require = [\"mtls\"]\nforward_certificate = true")
    );
    let (code, talk) = check(&no_authority);
    assert_eq!(code, Some(2), "{talk}");
    expect_all(
        &talk,
        &[
            "client certificates need `client_ca`",
            "`mtls` needs client certificates, and the file asks no client for one",
            "no rule for certificates is named",
            "the file asks no client for a certificate",
        ],
    );
    let bad_rules = format!(
        "{SERVER}[tls]\nself_signed = [\"localhost\"]\nclient_ca = \"clients.pem\"\nclient_crl = [\"clients.crl\", \"no.crl\"]\n\
         [client_certificates.web]\nsan_dns = \"*\"\nsubject = \"web\"\nfingerprint = \"ab\"\nsan_dsn = \"x\"\n{}",
        blueprint("require = [\"mtls\"]\ncertificates = [\"wbe\"]")
    );
    let (code, talk) = check(&bad_rules);
    assert_eq!(code, Some(2), "{talk}");
    expect_all(
        &talk,
        &[
            "`*` is no DNS name",
            "`web` is no distinguished name",
            "`ab` is no SHA-256 fingerprint",
            "did you mean `san_dns`",
            "there is no `[client_certificates.wbe]`",
            "the file has `web`",
            "cannot read revocations from",
        ],
    );
}

#[test]
fn check_tells_of_lists_that_are_out_of_date_or_missing() {
    let open = "[[blueprints]]\nname = \"a\"\nupstream = \"legacy\"\nauth = \"public\"\n";
    let lines = "[tls]\nself_signed = [\"localhost\"]\nclient_ca = \"clients.pem\"\nclient_crl = \"clients.crl\"\n";
    let (code, talk) = check(&format!("{SERVER}{lines}{open}"));
    assert_eq!(code, Some(0), "{talk}");
    expect_all(
        &talk,
        &["the revocations of `CN=clients,O=Example` are out of date"],
    );
    let accepting = format!("{SERVER}{lines}client_crl_expired = \"accept\"\n{open}");
    let (code, talk) = check(&accepting);
    assert_eq!(code, Some(0), "{talk}");
    expect_all(
        &talk,
        &["this weakens the gate: what was revoked since a list ended is not known"],
    );
    let twice = lines.replace("\"clients.crl\"", "[\"clients.crl\", \"clients.crl\"]");
    let (code, talk) = check(&format!("{SERVER}{twice}{open}"));
    assert_eq!(code, Some(0), "{talk}");
    expect_all(
        &talk,
        &["more than one list is of the authority `CN=clients,O=Example`"],
    );
    let none = lines.replace("\"clients.crl\"", "[]");
    let (code, talk) = check(&format!("{SERVER}{none}{open}"));
    assert_eq!(code, Some(2), "{talk}");
    expect_all(
        &talk,
        &["an empty list would let revoked certificates pass"],
    );
    let other = lines.replace("clients.pem", "others.pem");
    let (code, talk) = check(&format!("{SERVER}{other}{open}"));
    assert_eq!(code, Some(0), "{talk}");
    expect_all(
        &talk,
        &["no list is of the authority `CN=others,O=Example`"],
    );
}

#[test]
fn explain_judges_a_certificate_as_the_gate_would() {
    let scene = Scene::with_list();
    let (good, bad) = (
        scene.clients.client("good", "/CN=good", ""),
        scene.clients.client("bad", "/CN=bad", ""),
    );
    let stranger = Authority::new(scene.gate.directory(), "strangers").client("s", "/CN=s", "");
    scene.clients.revoke(&bad);
    scene.clients.list(NextUpdate::Tomorrow);
    let gate = scene.gate.with(ANY).with(BY_CERTIFICATE);
    let file = gate.write();
    for (leaf, expected) in [
        (&good, "`good` by issuer `[client_certificates]`"),
        (&bad, "certificate-revoked"),
        (&stranger, "certificate-unknown"),
    ] {
        let output = portcullis()
            .args(["explain", "GET", "https://app.example/", "-c"])
            .arg(&file)
            .arg("--certificate")
            .arg(&leaf.cert)
            .output()
            .expect("the built program starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(expected), "no `{expected}` in\n{text}");
    }
}
