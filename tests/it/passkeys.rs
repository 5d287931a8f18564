//! Passkeys as the gate's own second factor, and what is enrolled in the browser (case b34).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;

use crate::harness::authenticator::{Authenticator, VERIFIED};
use crate::harness::eventually::eventually;
use crate::harness::gate::Running;
use crate::harness::proxy::portcullis;
use crate::harness::python::{python, run_json};
use crate::harness::second_factor::{App, Browser, KEY, OPENS, OTHER_KEY, SENDS, Scene, Words};
use crate::harness::{Origin, Response};

const ORIGIN: &str = "https://app.example";

const PASSKEYS: Words = Words {
    keys: "[{ env = \"KEY\" }]",
    session: "",
    mfa: "rp_id = \"app.example\"\norigins = [\"https://app.example\", \"https://a.app.example\"]",
    demand: "step_up = { acr = [\"mfa\"], max_age = \"5m\" }",
};

fn scene() -> Scene {
    Scene::with(&PASSKEYS)
}

fn authenticator() -> Authenticator {
    Authenticator::new("app.example", ORIGIN)
}

#[track_caller]
fn invited(scene: &Scene, subject: &str) -> String {
    let output = scene.try_enrol(&["--issuer", "corp", "--invite", subject]);
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{talk}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The value of an attribute, the first of its name on a page.
#[track_caller]
fn attribute(page: &Response, name: &str) -> String {
    let text = page.text();
    let (_, rest) = text
        .split_once(&format!(" {name}=\""))
        .unwrap_or_else(|| panic!("no `{name}`: {text}"));
    rest.split('"').next().unwrap_or_default().to_owned()
}

/// What the page asks an authenticator.
#[track_caller]
fn challenge(page: &Response) -> Vec<u8> {
    let text = attribute(page, "data-challenge");
    URL_SAFE_NO_PAD.decode(text).expect("base64url")
}

#[track_caller]
fn expect_reason(response: &Response, status: u16, reason: &str) {
    response.expect(status);
    let text = response.text();
    assert!(text.contains(reason), "{reason}: {text}");
}

fn form(fields: &[(&str, &[u8])]) -> String {
    let field = |(name, value): &(&str, &[u8])| format!("{name}={}", URL_SAFE_NO_PAD.encode(value));
    fields.iter().map(field).collect::<Vec<_>>().join("&")
}

/// The form that proves a passkey, for what a page asks.
fn shown(by: &Authenticator, challenge: &[u8]) -> String {
    let shown = by.show(challenge);
    form(&[
        ("credential", &by.id),
        ("client", &shown.client_data),
        ("data", &shown.authenticator_data),
        ("signature", &shown.signature),
    ])
}

/// The form that makes one.
fn made(by: &Authenticator, challenge: &[u8]) -> String {
    let made = by.register(challenge);
    form(&[
        ("client", &made.client_data),
        ("attestation", &made.attestation),
    ])
}

/// Goes to the page for `/pay`: its address, and the page.
#[track_caller]
fn page_of(browser: &mut Browser, gate: &Running) -> (String, Response) {
    let address = browser.sent_to_page(gate, "/pay");
    let page = browser.opens(gate, &address);
    (address, page)
}

/// Types an invitation: where the page of enrolment is, and what it answers.
#[track_caller]
fn invite_page(browser: &mut Browser, gate: &Running, code: &str) -> (String, Response) {
    let (_, page) = page_of(browser, gate);
    expect_reason(&page, 403, "No second factor is enrolled");
    let address = attribute(&page, "action");
    assert!(address.starts_with("/.portcullis/enrol?rt="), "{address}");
    let form = format!("invitation={code}");
    let answer = browser.sends(gate, (&address, &form), &SENDS);
    (address, answer)
}

/// An account with a passkey, made by invitation in a browser of its own.
#[track_caller]
fn enrolled(scene: &Scene, subject: &str) -> Authenticator {
    let (code, by) = (invited(scene, subject), authenticator());
    let mut browser = scene.browser(subject);
    let (address, page) = invite_page(&mut browser, &scene.gate, &code);
    page.expect(200);
    let form = format!("invitation={code}&{}", made(&by, &challenge(&page)));
    let answer = browser.sends(&scene.gate, (&address, &form), &SENDS);
    answer.expect(303);
    assert_eq!(answer.header("location"), Some("/pay"));
    browser.opens(&scene.gate, "/pay").expect(200);
    by
}

/// Of the same form sent twice at once.
#[track_caller]
fn expect_one_passed(statuses: &[u16]) {
    let passed = statuses.iter().filter(|status| **status == 303);
    assert_eq!(passed.count(), 1, "{statuses:?}");
    assert!(statuses.contains(&403), "{statuses:?}");
}

#[test]
fn b34_a_passkey_is_enrolled_by_an_invitation_and_then_shown() {
    let scene = scene();
    let by = enrolled(&scene, "alice");
    let mut browser = scene.browser("alice");
    let (address, page) = page_of(&mut browser, &scene.gate);
    page.expect(200);
    assert_eq!(attribute(&page, "data-passkey"), "prove");
    assert_eq!(attribute(&page, "data-party"), "app.example");
    assert_eq!(attribute(&page, "data-verification"), "required");
    assert_eq!(
        attribute(&page, "data-credentials"),
        URL_SAFE_NO_PAD.encode(&by.id)
    );
    assert_eq!(attribute(&page, "src"), "/.portcullis/mfa.js");
    assert!(!page.text().contains("one-time-code"), "no app is enrolled");
    let pending = browser.cookie.clone();
    let right = shown(&by, &challenge(&page));
    let answer = browser.sends(&scene.gate, (&address, &right), &SENDS);
    answer.expect(303);
    assert_eq!(answer.header("location"), Some("/pay"));
    assert_ne!(browser.cookie, pending, "a new name");
    browser.opens(&scene.gate, "/pay").expect(200);
    for file in scene.account_files() {
        let text = std::fs::read_to_string(file).expect("the account");
        assert!(!text.contains(&URL_SAFE_NO_PAD.encode(&by.id)), "{text}");
    }
    let script = scene.gate.get("/.portcullis/mfa.js");
    script.expect(200);
    assert_eq!(
        script.header("content-type"),
        Some("text/javascript; charset=utf-8")
    );
    assert_eq!(script.header("x-content-type-options"), Some("nosniff"));
}

#[test]
fn b34_a_wrong_passkey_is_403_and_nothing_is_recorded() {
    type Lie = fn(&mut Authenticator);
    let scene = scene();
    let lies: [(&str, Lie, &str); 8] = [
        (
            "origin",
            |by| by.origin = "https://evil.example".into(),
            "passkey-origin",
        ),
        (
            "frame",
            |by| by.more = ",\"crossOrigin\":true".into(),
            "passkey-cross-origin",
        ),
        (
            "party",
            |by| by.rp_id = "evil.example".into(),
            "passkey-rp-id",
        ),
        (
            "type",
            |by| by.kind = Some("webauthn.create"),
            "passkey-type",
        ),
        (
            "unverified",
            |by| by.flags = 0x01,
            "passkey-user-not-verified",
        ),
        ("absent", |by| by.flags = 0x04, "passkey-user-absent"),
        ("other", |by| by.id = authenticator().id, "passkey-unknown"),
        (
            "key",
            |by| {
                let id = by.id.clone();
                *by = authenticator();
                by.id = id;
            },
            "passkey-signature",
        ),
    ];
    for (at, (subject, lie, detail)) in (1..).zip(lies) {
        let mut by = enrolled(&scene, subject);
        lie(&mut by);
        let mut browser = scene.browser(subject);
        browser.address = format!("192.0.2.{at}");
        let (address, page) = page_of(&mut browser, &scene.gate);
        let form = shown(&by, &challenge(&page));
        let answer = browser.sends(&scene.gate, (&address, &form), &SENDS);
        expect_reason(&answer, 403, "That passkey did not do");
        assert!(!answer.text().contains(detail), "the reason is for the log");
        assert_ne!(challenge(&answer), challenge(&page), "asked anew");
        browser.opens(&scene.gate, "/pay").expect(302);
        let line = scene
            .gate
            .proxy
            .await_access(detail, |line| line["detail"] == detail);
        assert_eq!(line["reason"], "second-factor-wrong", "{line}");
        assert_eq!(line["enduser.id"], subject, "{line}");
    }
}

#[test]
fn b34_a_challenge_counts_once_in_its_own_session() {
    let scene = scene();
    let by = enrolled(&scene, "alice");
    let mut browser = scene.browser("alice");
    let mut other = scene.browser("alice");
    let (address, page) = page_of(&mut browser, &scene.gate);
    let (others, page_of_other) = page_of(&mut other, &scene.gate);
    let right = shown(&by, &challenge(&page));
    // Of another session.
    let answer = other.sends(&scene.gate, (&others, &right), &SENDS);
    expect_reason(&answer, 403, "did not do");
    // What that one was asked itself still counts.
    let own = shown(&by, &challenge(&page_of_other));
    other
        .sends(&scene.gate, (&others, &own), &SENDS)
        .expect(303);
    // Shown again: first in the session that it was right in, then in a new one.
    let old = browser.clone();
    browser
        .sends(&scene.gate, (&address, &right), &SENDS)
        .expect(303);
    let answer = old.clone().sends(&scene.gate, (&address, &right), &SENDS);
    expect_reason(&answer, 403, "session-missing");
    let mut new = scene.browser("alice");
    let (address, _) = page_of(&mut new, &scene.gate);
    let answer = new.sends(&scene.gate, (&address, &right), &SENDS);
    expect_reason(&answer, 403, "did not do");
    new.opens(&scene.gate, "/pay").expect(302);
    eventually("two tries with a challenge that does not count", || {
        let lines = scene.gate.proxy.access_lines().into_iter();
        let used = lines.filter(|line| line["detail"] == "passkey-challenge");
        (used.count() == 2).then_some(())
    });
}

#[test]
fn b34_one_answer_shown_twice_at_once_counts_once() {
    let scene = scene();
    let by = enrolled(&scene, "alice");
    let mut browser = scene.browser("alice");
    let (address, page) = page_of(&mut browser, &scene.gate);
    let right = shown(&by, &challenge(&page));
    let gate = &scene.gate;
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let one = |mut browser: Browser| {
            let (address, right) = (&address, &right);
            scope.spawn(move || browser.sends(gate, (address, right), &SENDS).status)
        };
        let both = [one(browser.clone()), one(browser.clone())];
        both.map(|thread| thread.join().expect("an answer"))
            .to_vec()
    });
    expect_one_passed(&statuses);
}

#[test]
fn b34_a_counter_that_goes_back_is_refused_and_told() {
    let scene = scene();
    let mut by = authenticator();
    by.counter = 7;
    let code = invited(&scene, "alice");
    let mut browser = scene.browser("alice");
    let (address, page) = invite_page(&mut browser, &scene.gate, &code);
    let form = format!("invitation={code}&{}", made(&by, &challenge(&page)));
    browser
        .sends(&scene.gate, (&address, &form), &SENDS)
        .expect(303);
    for (counter, status) in [(8, 303), (8, 403), (3, 403), (9, 303)] {
        by.counter = counter;
        let mut browser = scene.browser("alice");
        let (address, page) = page_of(&mut browser, &scene.gate);
        let form = shown(&by, &challenge(&page));
        browser
            .sends(&scene.gate, (&address, &form), &SENDS)
            .expect(status);
    }
    scene
        .gate
        .proxy
        .await_talk("a passkey may have been copied");
}

#[test]
fn b34_wrong_passkeys_count_with_wrong_codes() {
    let scene = scene();
    let app = scene.enrol("alice");
    let mut browser = scene.browser("alice");
    let (address, page) = page_of(&mut browser, &scene.gate);
    assert!(!page.text().contains("data-passkey"), "none is enrolled");
    let stranger = shown(&authenticator(), &[0; 32]);
    for _ in 0..3 {
        let answer = browser.sends(&scene.gate, (&address, &stranger), &SENDS);
        expect_reason(&answer, 403, "did not do");
    }
    for _ in 0..2 {
        browser
            .types(&scene.gate, &address, &app.wrong_code())
            .expect(403);
    }
    let answer = browser.sends(&scene.gate, (&address, &stranger), &SENDS);
    expect_reason(&answer, 429, "second-factor-limited");
    assert!(answer.header("retry-after").is_some());
    let mut elsewhere = scene.browser("alice");
    elsewhere.address = "192.0.2.9".to_owned();
    let (address, _) = page_of(&mut elsewhere, &scene.gate);
    elsewhere
        .types(&scene.gate, &address, &app.code(0))
        .expect(429);
}

#[test]
fn b34_what_is_no_answer_of_an_authenticator_is_refused() {
    let scene = scene();
    let by = enrolled(&scene, "alice");
    let mut browser = scene.browser("alice");
    let (address, page) = page_of(&mut browser, &scene.gate);
    let right = shown(&by, &challenge(&page));
    for (what, form) in [
        (
            "no signature",
            right.split("&signature=").next().unwrap().to_owned(),
        ),
        ("two", format!("{right}&signature=AA")),
        ("no base64url", right.replace("&signature=", "&signature=*")),
        ("no text", format!("{right}%ff")),
        ("nothing", String::new()),
    ] {
        let answer = browser.sends(&scene.gate, (&address, &form), &SENDS);
        answer.expect(400);
        assert!(
            answer.text().contains("form-invalid"),
            "{what}: {}",
            answer.text()
        );
    }
    let long = format!("{right}&x={}", "x".repeat(64 * 1024));
    browser
        .sends(&scene.gate, (&address, &long), &SENDS)
        .expect(413);
    let foreign = SENDS.map(|(name, value)| match name {
        "Sec-Fetch-Site" => (name, "cross-site"),
        "Origin" => (name, "https://evil.example"),
        _ => (name, value),
    });
    expect_reason(
        &browser.sends(&scene.gate, (&address, &right), &foreign),
        403,
        "csrf",
    );
    // None of it has used up the challenge.
    browser
        .sends(&scene.gate, (&address, &right), &SENDS)
        .expect(303);
}

#[test]
fn b34_nobody_enrols_without_an_invitation() {
    let scene = scene();
    let by = authenticator();
    let code = invited(&scene, "bob");
    let mut browser = scene.browser("alice");
    let (address, answer) = invite_page(&mut browser, &scene.gate, "AAAA-BBBB");
    expect_reason(&answer, 403, "That invitation does not count");
    let answer = browser.sends(
        &scene.gate,
        (&address, &format!("invitation={code}")),
        &SENDS,
    );
    expect_reason(&answer, 403, "That invitation does not count");
    let form = made(&by, &[0; 32]);
    let answer = browser.sends(&scene.gate, (&address, &form), &SENDS);
    expect_reason(&answer, 403, "second-factor-needed");
    let form = format!("invitation={code}&{form}");
    let answer = browser.sends(&scene.gate, (&address, &form), &SENDS);
    expect_reason(&answer, 403, "That invitation does not count");
    let direct = browser.opens(&scene.gate, "/.portcullis/enrol");
    direct.expect(200);
    assert!(!direct.text().contains("data-passkey"), "{}", direct.text());
    let mut files = scene.account_files();
    files.retain(|file| file.extension().is_some_and(|kind| kind == "json"));
    assert_eq!(files.len(), 1, "that of bob, who was invited");
    browser.opens(&scene.gate, "/pay").expect(302);
    // Guesses are counted: the fifth wrong one was the last.
    let answer = browser.sends(&scene.gate, (&address, "invitation=x"), &SENDS);
    expect_reason(&answer, 403, "does not count");
    let answer = browser.sends(&scene.gate, (&address, "invitation=x"), &SENDS);
    expect_reason(&answer, 403, "does not count");
    let answer = browser.sends(&scene.gate, (&address, "invitation=x"), &SENDS);
    expect_reason(&answer, 429, "second-factor-limited");
    let nobody = scene.gate.get("/.portcullis/enrol");
    expect_reason(&nobody, 403, "session-missing");
}

#[test]
fn b34_an_invitation_is_used_once_and_only_by_what_is_right() {
    let scene = scene();
    let (code, by) = (invited(&scene, "alice"), authenticator());
    let mut browser = scene.browser("alice");
    let (address, page) = invite_page(&mut browser, &scene.gate, &code.to_lowercase());
    page.expect(200);
    assert_eq!(attribute(&page, "data-passkey"), "make");
    let mut bad = authenticator();
    bad.origin = "https://evil.example".to_owned();
    let form = format!("invitation={code}&{}", made(&bad, &challenge(&page)));
    let again = browser.sends(&scene.gate, (&address, &form), &SENDS);
    expect_reason(&again, 403, "That passkey did not do");
    let form = format!("invitation={code}&{}", made(&by, &challenge(&page)));
    let used = browser.sends(&scene.gate, (&address, &form), &SENDS);
    expect_reason(&used, 403, "That passkey did not do");
    let form = format!("invitation={code}&{}", made(&by, &challenge(&used)));
    browser
        .sends(&scene.gate, (&address, &form), &SENDS)
        .expect(303);
    let mut other = scene.browser("alice");
    let (_, page) = page_of(&mut other, &scene.gate);
    page.expect(200);
    let mut stolen = scene.browser("alice");
    let (address, _) = page_of(&mut stolen, &scene.gate);
    let address = address.replace("/mfa?", "/enrol?");
    // Whoever has a passkey shows it first.
    let answer = stolen.opens(&scene.gate, &address);
    answer.expect(303);
    let place = answer.header("location").expect("a place");
    assert!(place.starts_with("/.portcullis/mfa?rt="), "{place}");
    let form = format!("invitation={code}");
    let answer = stolen.sends(&scene.gate, (&address, &form), &SENDS);
    expect_reason(&answer, 403, "That invitation does not count");
}

#[test]
fn b34_an_invitation_does_not_count_beside_a_factor() {
    let scene = scene();
    let code = invited(&scene, "alice");
    let mut browser = scene.browser("alice");
    let (address, page) = invite_page(&mut browser, &scene.gate, &code);
    page.expect(200);
    // The operator gives an app after all, while whoever has the code is at the page.
    let app = scene.enrol("alice");
    let form = format!(
        "invitation={code}&{}",
        made(&authenticator(), &challenge(&page))
    );
    let answer = browser.sends(&scene.gate, (&address, &form), &SENDS);
    expect_reason(&answer, 403, "That invitation does not count");
    let form = format!("invitation={code}");
    let answer = browser.sends(&scene.gate, (&address, &form), &SENDS);
    expect_reason(&answer, 403, "That invitation does not count");
    scene.proven("alice", (&app, 0));
}

#[test]
fn b37_whichever_factor_is_shown_all_are_sealed_anew() {
    let mut scene = scene();
    let by = enrolled(&scene, "alice");
    let app = scene.enrol("alice");
    scene.reload(&Words {
        keys: "[{ env = \"OTHER_KEY\" }, { env = \"KEY\" }]",
        ..PASSKEYS
    });
    let mut browser = scene.browser("alice");
    let (address, page) = page_of(&mut browser, &scene.gate);
    let form = shown(&by, &challenge(&page));
    browser
        .sends(&scene.gate, (&address, &form), &SENDS)
        .expect(303);
    scene.reload(&Words {
        keys: "[{ env = \"OTHER_KEY\" }]",
        ..PASSKEYS
    });
    scene.proven("alice", (&app, 0));
    let mut browser = scene.browser("alice");
    let (address, page) = page_of(&mut browser, &scene.gate);
    let form = shown(&by, &challenge(&page));
    browser
        .sends(&scene.gate, (&address, &form), &SENDS)
        .expect(303);
}

#[test]
fn b34_one_invitation_used_twice_at_once_enrols_once() {
    let scene = scene();
    let code = invited(&scene, "alice");
    let gate = &scene.gate;
    let walks: Vec<_> = (0..2)
        .map(|_| {
            let mut browser = scene.browser("alice");
            let (address, page) = invite_page(&mut browser, gate, &code);
            let form = format!(
                "invitation={code}&{}",
                made(&authenticator(), &challenge(&page))
            );
            (browser, address, form)
        })
        .collect();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = walks
            .into_iter()
            .map(|(mut browser, address, form)| {
                scope.spawn(move || browser.sends(gate, (&address, &form), &SENDS).status)
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("an answer"))
            .collect()
    });
    expect_one_passed(&statuses);
}

#[test]
fn b34_an_app_enrolled_in_the_browser_counts_once_it_has_shown_a_code() {
    let scene = Scene::new();
    let code = invited(&scene, "alice");
    let mut browser = scene.browser("alice");
    let (address, page) = invite_page(&mut browser, &scene.gate, &code);
    page.expect(200);
    assert!(!page.text().contains("data-passkey"), "they are off");
    let (app, sealed) = offered_app(&page);
    let form = |number: &str| format!("invitation={code}&secret={sealed}&code={number}");
    let wrong = browser.sends(&scene.gate, (&address, &form(&app.wrong_code())), &SENDS);
    expect_reason(&wrong, 403, "That code is not right");
    assert!(wrong.text().contains(&app.secret), "the same secret");
    browser.opens(&scene.gate, "/pay").expect(302);
    let mut other = scene.browser("alice");
    let (elsewhere, _) = invite_page(&mut other, &scene.gate, &code);
    let answer = other.sends(&scene.gate, (&elsewhere, &form(&app.code(0))), &SENDS);
    expect_reason(&answer, 400, "form-invalid");
    let right = app.code(0);
    browser
        .sends(&scene.gate, (&address, &form(&right)), &SENDS)
        .expect(303);
    browser.opens(&scene.gate, "/pay").expect(200);
    let mut later = scene.browser("alice");
    let page = later.sent_to_page(&scene.gate, "/pay");
    expect_reason(
        &later.types(&scene.gate, &page, &right),
        403,
        "That code is not right",
    );
    later.types(&scene.gate, &page, &app.code(1)).expect(303);
}

/// Goes to the page of enrolment in a session that has shown nothing for it: shows the passkey first. The page.
#[track_caller]
fn page_to_add(browser: &mut Browser, gate: &Running, by: &Authenticator) -> Response {
    let answer = browser.opens(gate, "/.portcullis/enrol");
    answer.expect(303);
    let address = answer.header("location").expect("a place").to_owned();
    assert!(address.starts_with("/.portcullis/mfa?rt="), "{address}");
    let page = browser.opens(gate, &address);
    let form = shown(by, &challenge(&page));
    let answer = browser.sends(gate, (&address, &form), &SENDS);
    answer.expect(303);
    assert_eq!(answer.header("location"), Some("/.portcullis/enrol"));
    browser.opens(gate, "/.portcullis/enrol")
}

/// The secret of an app that a page offers, as the app has it and as it is brought back.
#[track_caller]
fn offered_app(page: &Response) -> (App, String) {
    let app = App::of(&page.text().replace("&amp;", "&"));
    let text = page.text();
    let (_, rest) = text
        .split_once("name=\"secret\" value=\"")
        .expect("a secret");
    let sealed = rest.split('"').next().expect("its end").to_owned();
    (app, sealed)
}

#[test]
fn b34_what_was_enrolled_beside_a_code_opens_nothing_that_wants_a_passkey() {
    let words = Words {
        demand: "step_up = { amr = [\"pop\"] }",
        ..PASSKEYS
    };
    let scene = Scene::with(&words);
    // Whoever has the first factor, and a code that its owner typed into a forged page.
    let app = scene.enrol("alice");
    let mut thief = scene.browser("alice");
    let address = thief.sent_to_page(&scene.gate, "/pay");
    let page = thief.opens(&scene.gate, &address);
    expect_reason(&page, 403, "wants a passkey");
    assert!(!page.text().contains("one-time-code"), "{}", page.text());
    thief.types(&scene.gate, &address, &app.code(0)).expect(303);
    let page = thief.opens(&scene.gate, "/.portcullis/enrol");
    assert!(!page.text().contains("data-passkey"), "{}", page.text());
    let forged = made(&authenticator(), &[0; 32]);
    let address = attribute(&page, "action");
    let answer = thief.sends(&scene.gate, (&address, &forged), &SENDS);
    expect_reason(&answer, 403, "second-factor-needed");
    thief.opens(&scene.gate, "/pay").expect(302);
    // With an invitation it is another thing.
    let (code, by) = (invited(&scene, "alice"), authenticator());
    let mut alice = scene.browser("alice");
    let address = alice.sent_to_page(&scene.gate, "/pay");
    let page = alice.opens(&scene.gate, &address);
    let address = attribute(&page, "action");
    let form = format!("invitation={code}");
    let page = alice.sends(&scene.gate, (&address, &form), &SENDS);
    page.expect(200);
    let form = format!("{form}&{}", made(&by, &challenge(&page)));
    let answer = alice.sends(&scene.gate, (&address, &form), &SENDS);
    answer.expect(303);
    alice.opens(&scene.gate, "/pay").expect(200);
    scene.gate.proxy.await_talk("a second factor was enrolled");
    // And it is shown there from now on, while the app is not asked for.
    let mut later = scene.browser("alice");
    let (address, page) = page_of(&mut later, &scene.gate);
    page.expect(200);
    assert!(!page.text().contains("one-time-code"), "{}", page.text());
    let form = shown(&by, &challenge(&page));
    later
        .sends(&scene.gate, (&address, &form), &SENDS)
        .expect(303);
    later.opens(&scene.gate, "/pay").expect(200);
}

#[test]
fn b34_a_passkey_shown_for_it_enrols_one_more_and_the_session_stays_as_it_is() {
    let scene = scene();
    let first = enrolled(&scene, "alice");
    let mut browser = scene.browser("alice");
    let (address, page) = page_of(&mut browser, &scene.gate);
    let form = shown(&first, &challenge(&page));
    browser
        .sends(&scene.gate, (&address, &form), &SENDS)
        .expect(303);
    // It was shown for `/pay`: a script in the pages there enrols nothing by that.
    let page = page_to_add(&mut browser, &scene.gate, &first);
    page.expect(200);
    assert_eq!(attribute(&page, "data-passkey"), "make");
    let user = URL_SAFE_NO_PAD
        .decode(attribute(&page, "data-user"))
        .expect("base64url");
    assert_eq!(user.len(), 64);
    let (address, by) = (attribute(&page, "action"), authenticator());
    let form = made(&by, &challenge(&page));
    let session = browser.cookie.clone();
    let answer = browser.sends(&scene.gate, (&address, &form), &SENDS);
    answer.expect(303);
    assert_eq!(answer.header("location"), Some("/.portcullis/enrol"));
    assert!(answer.header("set-cookie").is_none(), "nothing is proven");
    assert_eq!(browser.cookie, session);
    let name = "portcullis_second_factor_tries_total";
    scene
        .gate
        .proxy
        .await_metric(name, &["outcome=\"enrolled\""], 2.0);
    let page = browser.opens(&scene.gate, "/.portcullis/enrol");
    let count = "Passkeys of the account: 2";
    assert!(page.text().contains(count), "{}", page.text());
    let ids = [&first.id, &by.id].map(|id| URL_SAFE_NO_PAD.encode(id));
    assert_eq!(attribute(&page, "data-credentials"), ids.join(" "));
    // The same one again.
    let form = made(&by, &challenge(&page));
    let address = attribute(&page, "action");
    let answer = browser.sends(&scene.gate, (&address, &form), &SENDS);
    expect_reason(&answer, 403, "That passkey did not do");
    // An app beside them.
    let (app, sealed) = offered_app(&answer);
    let form = format!("secret={sealed}&code={}", app.code(0));
    let answer = browser.sends(&scene.gate, (&address, &form), &SENDS);
    answer.expect(303);
    assert!(answer.header("set-cookie").is_none(), "nothing is proven");
    // Each does from now on, and all are offered.
    let mut later = scene.browser("alice");
    let (address, page) = page_of(&mut later, &scene.gate);
    assert!(page.text().contains("one-time-code"));
    let form = shown(&by, &challenge(&page));
    later
        .sends(&scene.gate, (&address, &form), &SENDS)
        .expect(303);
    scene.proven("alice", (&app, 1));
}

#[test]
fn b34_an_account_has_ten_passkeys_at_most() {
    let scene = scene();
    let first = enrolled(&scene, "alice");
    let mut browser = scene.browser("alice");
    browser.opens(&scene.gate, "/pay").expect(302);
    page_to_add(&mut browser, &scene.gate, &first).expect(200);
    let page = |browser: &mut Browser| browser.opens(&scene.gate, "/.portcullis/enrol");
    let add = |browser: &mut Browser, page: &Response| {
        let form = made(&authenticator(), &challenge(page));
        browser.sends(&scene.gate, (&attribute(page, "action"), &form), &SENDS)
    };
    for _ in 2..=9 {
        let page = page(&mut browser);
        add(&mut browser, &page).expect(303);
    }
    let (tenth, eleventh) = (page(&mut browser), page(&mut browser));
    add(&mut browser, &tenth).expect(303);
    expect_reason(&add(&mut browser, &eleventh), 403, "did not do");
    let full = scene
        .gate
        .proxy
        .await_access("full", |line| line["detail"] == "passkeys-full");
    assert_eq!(full["reason"], "second-factor-wrong", "{full}");
    let page = page(&mut browser);
    let text = page.text();
    assert!(text.contains("Passkeys of the account: 10"), "{text}");
    assert!(!text.contains("data-passkey"), "no room: {text}");
}

#[test]
fn b34_what_a_script_fetches_or_frames_is_no_page() {
    let scene = scene();
    let by = enrolled(&scene, "alice");
    let mut browser = scene.browser("alice");
    browser.opens(&scene.gate, "/pay").expect(302);
    let page = page_to_add(&mut browser, &scene.gate, &by);
    let (address, form) = (
        attribute(&page, "action"),
        made(&authenticator(), &challenge(&page)),
    );
    let fetched = |mode: &'static str, dest: &'static str| {
        [
            ("Accept", "text/html"),
            ("Sec-Fetch-Site", "same-origin"),
            ("Sec-Fetch-Mode", mode),
            ("Sec-Fetch-Dest", dest),
        ]
    };
    for (mode, dest) in [
        ("cors", "empty"),
        ("same-origin", "empty"),
        ("navigate", "iframe"),
        ("navigate", "object"),
    ] {
        let fields = fetched(mode, dest);
        for path in ["/.portcullis/enrol", &address] {
            let answer = browser.asks(&scene.gate, ("GET", path), &fields);
            expect_reason(&answer, 403, "csrf");
        }
        let answer = browser.sends(&scene.gate, (&address, &form), &fields);
        expect_reason(&answer, 403, "csrf");
    }
    let line = scene
        .gate
        .proxy
        .await_access("no window", |line| line["detail"] == "no-window");
    assert_eq!(line["stage"], "csrf", "{line}");
    for (path, dest) in [("mfa.js", "script"), ("style.css", "style")] {
        let path = format!("/.portcullis/{path}");
        let fields = fetched("no-cors", dest);
        browser
            .asks(&scene.gate, ("GET", &path), &fields)
            .expect(200);
    }
    browser
        .sends(&scene.gate, (&address, &form), &SENDS)
        .expect(303);
}

#[test]
fn b34_no_other_origin_reads_the_pages() {
    let words = Words {
        mfa: "rp_id = \"app.example\"\norigins = [\"https://app.example\"]\n[defaults.cors]\n\
              origins = [\"https://partner.example\"]\ncredentials = true",
        ..PASSKEYS
    };
    let scene = Scene::with(&words);
    let partner = [("Origin", "https://partner.example")];
    let mut browser = scene.browser("alice");
    let address = browser.sent_to_page(&scene.gate, "/pay");
    for path in ["/.portcullis/style.css", &address] {
        let answer = browser.asks(&scene.gate, ("GET", path), &partner);
        for field in ["origin", "credentials"] {
            let name = format!("access-control-allow-{field}");
            assert_eq!(answer.header(&name), None, "{path}");
        }
    }
}

#[test]
fn b34_pages_that_are_open_side_by_side_all_count_and_what_is_late_is_no_guess() {
    let scene = scene();
    let by = enrolled(&scene, "alice");
    let mut browser = scene.browser("alice");
    let (address, page) = page_of(&mut browser, &scene.gate);
    let sealed = attribute(&page, "action");
    assert_ne!(sealed, address, "the way back is sealed anew");
    browser.opens(&scene.gate, &sealed).expect(200);
    browser.asks(&scene.gate, ("HEAD", &address), &OPENS);
    let right = shown(&by, &challenge(&page));
    let late = shown(&by, &[7; 32]);
    for _ in 0..8 {
        let answer = browser.sends(&scene.gate, (&address, &late), &SENDS);
        expect_reason(&answer, 403, "did not do");
    }
    // Each of those pages has asked something: what the first one asked is forgotten.
    let answer = browser.sends(&scene.gate, (&address, &right), &SENDS);
    expect_reason(&answer, 403, "did not do");
    let first = browser.opens(&scene.gate, &address);
    for _ in 0..3 {
        browser.asks(&scene.gate, ("HEAD", &address), &OPENS);
    }
    let right = shown(&by, &challenge(&first));
    browser
        .sends(&scene.gate, (&address, &right), &SENDS)
        .expect(303);
}

#[test]
fn b34_an_account_file_that_was_put_back_brings_no_invitation_back() {
    let scene = scene();
    let code = invited(&scene, "alice");
    let mut browser = scene.browser("alice");
    let (address, page) = invite_page(&mut browser, &scene.gate, &code);
    let files = scene.account_files();
    let [file] = &files[..] else {
        panic!("one account");
    };
    let before = std::fs::read(file).expect("the account");
    let form = format!(
        "invitation={code}&{}",
        made(&authenticator(), &challenge(&page))
    );
    browser
        .sends(&scene.gate, (&address, &form), &SENDS)
        .expect(303);
    std::fs::write(file, before).expect("the account");
    let mut thief = scene.browser("alice");
    let (_, answer) = invite_page(&mut thief, &scene.gate, &code);
    expect_reason(&answer, 403, "That invitation does not count");
}

#[test]
fn b34_a_passkey_survives_a_restart_and_is_offered_where_it_counts() {
    let scene = scene();
    let by = enrolled(&scene, "alice");
    let Scene { accounts, gate, .. } = scene;
    drop(gate);
    let elsewhere = Words {
        mfa: "rp_id = \"app.example\"\norigins = [\"https://a.app.example\"]",
        ..PASSKEYS
    };
    let mut scene = Scene::in_folder(&elsewhere, accounts);
    let mut browser = scene.browser("alice");
    let (_, page) = page_of(&mut browser, &scene.gate);
    expect_reason(&page, 403, "second-factor-unknown");
    scene.reload(&PASSKEYS);
    let (address, page) = page_of(&mut browser, &scene.gate);
    let form = shown(&by, &challenge(&page));
    browser
        .sends(&scene.gate, (&address, &form), &SENDS)
        .expect(303);
    browser.opens(&scene.gate, "/pay").expect(200);
}

#[test]
fn b34_presence_is_enough_where_the_operator_says_so() {
    let words = Words {
        mfa: "rp_id = \"app.example\"\norigins = [\"https://app.example\"]\nuser_verification = \"preferred\"",
        ..PASSKEYS
    };
    let scene = Scene::with(&words);
    let mut by = enrolled(&scene, "alice");
    by.flags = VERIFIED & 0x01;
    let mut browser = scene.browser("alice");
    let (address, page) = page_of(&mut browser, &scene.gate);
    assert_eq!(attribute(&page, "data-verification"), "preferred");
    let form = shown(&by, &challenge(&page));
    browser
        .sends(&scene.gate, (&address, &form), &SENDS)
        .expect(303);
}

#[test]
fn an_invitation_adds_to_what_there_is_or_takes_its_place() {
    let scene = scene();
    let app = scene.enrol("alice");
    let output = scene.try_enrol(&["--issuer", "corp", "--invite", "alice"]);
    assert!(output.status.success());
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(
        talk.contains("the account keeps what it has") && talk.contains("--replace"),
        "{talk}"
    );
    scene.proven("alice", (&app, -1));
    let output = scene.try_enrol(&["--issuer", "corp", "--invite", "--replace", "alice"]);
    assert!(output.status.success());
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(!talk.contains("keeps"), "{talk}");
    let code = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let mut browser = scene.browser("alice");
    let (_, page) = invite_page(&mut browser, &scene.gate, &code);
    page.expect(200);
    let (address, _) = page_of(&mut browser, &scene.gate);
    browser
        .types(&scene.gate, &address, &app.code(0))
        .expect(403);
}

#[test]
fn b34_whoever_lost_a_passkey_is_invited_to_another_one() {
    let scene = scene();
    let lost = enrolled(&scene, "alice");
    let code = invited(&scene, "alice");
    let mut browser = scene.browser("alice");
    browser.opens(&scene.gate, "/pay").expect(302);
    let page = browser.opens(&scene.gate, "/.portcullis/enrol");
    page.expect(200);
    let address = attribute(&page, "action");
    let form = format!("invitation={code}");
    let page = browser.sends(&scene.gate, (&address, &form), &SENDS);
    page.expect(200);
    assert_eq!(
        attribute(&page, "data-credentials"),
        URL_SAFE_NO_PAD.encode(&lost.id)
    );
    let form = format!("{form}&{}", made(&authenticator(), &challenge(&page)));
    browser
        .sends(&scene.gate, (&address, &form), &SENDS)
        .expect(303);
    browser.opens(&scene.gate, "/pay").expect(200);
    // Nothing is left of it.
    let mut later = scene.browser("alice");
    let (address, _) = page_of(&mut later, &scene.gate);
    let address = address.replace("/mfa?", "/enrol?");
    let form = format!("invitation={code}");
    let answer = later.sends(&scene.gate, (&address, &form), &SENDS);
    expect_reason(&answer, 403, "That invitation does not count");
}

#[test]
fn check_tells_of_origins_that_no_route_is_for() {
    let words = Words {
        mfa: "rp_id = \"app.example\"\norigins = [\"https://app.example\", \"https://typo.app.example:8443\"]",
        ..PASSKEYS
    };
    let scene = Scene::with(&words);
    let output = portcullis()
        .args(["check", "-c"])
        .arg(scene.gate.directory.path().join("gate.toml"))
        .env("KEY", KEY)
        .env("OTHER_KEY", OTHER_KEY)
        .output()
        .expect("the built program starts");
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(
        talk.contains("no route is for the host of `https://typo.app.example:8443`"),
        "{talk}"
    );
    assert!(!talk.contains("of `https://app.example`"), "{talk}");
}

#[test]
fn b34_a_real_browser_makes_a_passkey_and_shows_it() {
    let origin = Origin::fixed(crate::harness::origin::answer(
        200,
        &[("Content-Type", "text/html")],
        "<!doctype html><title>Bank</title><p>paid</p>",
    ));
    let accounts = tempfile::tempdir().expect("a temporary directory");
    let mut scene = Scene::before(origin, &PASSKEYS, accounts);
    let port = scene.gate.proxy.https().port();
    // Its origin has the port, which is known only now.
    let mfa = format!("rp_id = \"app.example\"\norigins = [\"https://app.example:{port}\"]");
    scene.reload(&Words {
        mfa: Box::leak(mfa.into_boxed_str()),
        ..PASSKEYS
    });
    let token = scene.browser("alice").token;
    let instructions = json!({
        "url": format!("https://app.example:{port}/pay"),
        "token": token,
        "invitation": invited(&scene, "alice"),
    });
    let told = run_json(python("passkey_browser.py").arg(instructions.to_string()));
    for walk in ["enrolled", "shown"] {
        let text = told[walk].as_str().expect("a text");
        assert!(text.contains("paid"), "{walk}: {told}");
    }
    let text = told["without"].as_str().expect("a text");
    assert!(text.contains("This browser has no passkeys"), "{told}");
    let name = "portcullis_second_factor_tries_total";
    // The invitation, and what was shown; beside what was made.
    for (outcome, count) in [("right", 2.0), ("enrolled", 1.0)] {
        let outcome = format!("outcome=\"{outcome}\"");
        scene.gate.proxy.await_metric(name, &[&outcome], count);
    }
}
