//! The gate's own second factor under abuse: frames, guessing, shared addresses, doubled forms, sessions that should end
//! (cases b32, b33, b36, b37).

use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::eventually::{eventually, eventually_pause};
use crate::harness::gate::PUBLIC;
use crate::harness::origin::answer;
use crate::harness::second_factor::{App, Browser, KEY, OPENS, SENDS, Scene, Words};
use crate::harness::{Gate, Origin, Response};

/// What a script of the page says.
const FETCHES: [(&str, &str); 4] = [
    ("Accept", "*/*"),
    ("Sec-Fetch-Mode", "cors"),
    ("Sec-Fetch-Dest", "empty"),
    ("Sec-Fetch-Site", "same-origin"),
];

/// What a browser says of a frame in a page of another site.
const FRAMES: [(&str, &str); 4] = [
    ("Accept", "text/html,application/xhtml+xml,*/*;q=0.8"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Dest", "iframe"),
    ("Sec-Fetch-Site", "cross-site"),
];

#[track_caller]
fn expect_reason(response: &Response, status: u16, reason: &str) {
    response.expect(status);
    let text = response.text();
    assert!(text.contains(reason), "{reason}: {text}");
}

/// The cookie of the browser is left as it is.
#[track_caller]
fn expect_no_cookie(response: &Response) {
    let cookies = response.headers("set-cookie");
    assert!(cookies.is_empty(), "{cookies:?}");
}

#[test]
fn b32_frames_of_a_foreign_page_begin_no_session_and_push_none_out() {
    let scene = Scene::new();
    let app = scene.enrol("alice");
    let mut alice = scene.browser("alice");
    let page = alice.sent_to_page(&scene.gate, "/pay");
    for _ in 0..6 {
        // The certificate or token comes along, the cookie (SameSite=Lax) does not.
        let framed = scene
            .browser("alice")
            .asks(&scene.gate, ("GET", "/pay"), &FRAMES);
        expect_reason(&framed, 403, "second-factor-needed");
        expect_no_cookie(&framed);
        assert!(framed.header("location").is_none());
    }
    assert_eq!(scene.count("portcullis_sessions", "pending"), 1);
    alice.types(&scene.gate, &page, &app.code(0)).expect(303);
    alice.opens(&scene.gate, "/pay").expect(200);
}

#[test]
fn b33_whoever_has_nothing_enrolled_uses_up_no_try_of_an_address() {
    let scene = Scene::new();
    let app = scene.enrol("alice");
    let mut bob = scene.browser("bob");
    let page = bob.sent_to_page(&scene.gate, "/pay");
    for _ in 0..6 {
        let answer = bob.types(&scene.gate, &page, "123456");
        expect_reason(&answer, 403, "second-factor-unknown");
    }
    scene.proven("alice", (&app, 0));
    let tries = |outcome| scene.count("portcullis_second_factor_tries_total", outcome);
    assert_eq!((tries("unenrolled"), tries("wrong")), (6, 0));
}

#[test]
fn b33_what_was_under_way_when_the_session_got_its_new_name_takes_no_cookie_away() {
    let scene = Scene::new();
    let app = scene.enrol("alice");
    let mut alice = scene.browser("alice");
    let page = alice.sent_to_page(&scene.gate, "/pay");
    let old = alice.clone();
    let code = app.code(0);
    alice.types(&scene.gate, &page, &code).expect(303);
    let doubled = old.clone().types(&scene.gate, &page, &code);
    expect_reason(&doubled, 403, "session-missing");
    let fetched = old.clone().asks(&scene.gate, ("GET", "/pay"), &FETCHES);
    expect_reason(&fetched, 401, "step-up-needed");
    let opened = old.clone().opens(&scene.gate, "/pay");
    expect_reason(&opened, 403, "second-factor-needed");
    for answer in [doubled, fetched, opened] {
        expect_no_cookie(&answer);
    }
    scene.origin.expect_untouched();
    alice.opens(&scene.gate, "/pay").expect(200);
    assert_eq!(scene.refused("renamed"), 3);
}

/// Asks for `/pay` each half second, for as long as `time`: the statuses.
fn asks_for(browser: &mut Browser, scene: &Scene, time: Duration) -> Vec<u16> {
    let start = Instant::now();
    let mut statuses = Vec::new();
    while start.elapsed() < time {
        let answer = browser.asks(&scene.gate, ("GET", "/pay"), &FETCHES);
        statuses.push(answer.status);
        eventually_pause(Duration::from_millis(500));
    }
    statuses
}

#[test]
fn b36_a_session_in_use_does_not_end_by_rest_and_one_at_rest_does() {
    let scene = Scene::with(&Words {
        session: "idle = \"4s\"",
        ..Words::default()
    });
    let app = scene.enrol("alice");
    let mut alice = scene.proven("alice", (&app, 0));
    let statuses = asks_for(&mut alice, &scene, Duration::from_secs(8));
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    eventually_pause(Duration::from_secs(6));
    let answer = alice.asks(&scene.gate, ("GET", "/pay"), &FETCHES);
    answer.expect(401);
    assert_eq!(alice.cookie, None, "cleared: {:#?}", answer.head);
    assert_eq!((scene.refused("ended"), scene.refused("expired")), (1, 0));
}

#[test]
fn b36_a_session_in_use_ends_by_age() {
    let scene = Scene::with(&Words {
        session: "idle = \"4s\"\nlifetime = \"6s\"",
        ..Words::default()
    });
    let app = scene.enrol("alice");
    let mut alice = scene.proven("alice", (&app, 0));
    let begun = Instant::now();
    let statuses = asks_for(&mut alice, &scene, Duration::from_secs(5));
    let late = begun.elapsed() > Duration::from_millis(5900);
    assert!(
        late || statuses.iter().all(|status| *status == 200),
        "{statuses:?}"
    );
    eventually("the session is over", || {
        let answer = alice.asks(&scene.gate, ("GET", "/pay"), &FETCHES);
        (answer.status == 401).then_some(())
    });
    assert_eq!(alice.cookie, None);
}

#[test]
fn b36_the_cookie_alone_keeps_no_session_alive() {
    let scene = Scene::with(&Words {
        session: "idle = \"4s\"",
        ..Words::default()
    });
    let app = scene.enrol("alice");
    let alice = scene.proven("alice", (&app, -1));
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(7) {
        let cookie = alice.cookie.as_deref().expect("a cookie");
        let fields = [&OPENS[..], &[("Cookie", cookie)]].concat();
        scene.gate.get_with("/.portcullis/mfa", &fields).expect(403);
        eventually_pause(Duration::from_millis(500));
    }
    alice
        .clone()
        .asks(&scene.gate, ("GET", "/pay"), &FETCHES)
        .expect(401);
}

#[test]
fn b37_without_the_section_the_cookie_is_still_no_backend_s_and_its_session_is_over() {
    let words = Words::default();
    let mut scene = Scene::with(&words);
    let app = scene.enrol("alice");
    let mut alice = scene.proven("alice", (&app, -1));
    let cookie = alice.cookie.clone().expect("a cookie");
    let session = format!("[session]\nkeys = {{ env = \"KEY\" }}\n{PUBLIC}");
    scene.gate.reload_with(&session);
    let both = format!("a=1; {cookie}");
    scene
        .gate
        .get_with("/pay", &[("Cookie", &both)])
        .expect(200);
    let received = scene.origin.last_request();
    assert_eq!(received.head.get("cookie"), Some("a=1"));
    assert_eq!(scene.count("portcullis_sessions", "proven"), 0);
    scene.reload(&words);
    alice
        .asks(&scene.gate, ("GET", "/pay"), &FETCHES)
        .expect(401);
}

#[test]
fn b32_no_way_back_is_so_long_that_its_form_is_refused() {
    let scene = Scene::new();
    let app = scene.enrol("alice");
    let long = |bytes: usize| format!("/pay?{}", "x".repeat(bytes - 5));
    let refused = scene.browser("alice").opens(&scene.gate, &long(2049));
    expect_reason(&refused, 403, "second-factor-needed");
    let mut alice = scene.browser("alice");
    let target = long(2048);
    let page = alice.sent_to_page(&scene.gate, &target);
    let referrer = format!("https://app.example{page}");
    let form = format!("code={}", app.code(0));
    let token = "t".repeat(4096);
    let own = [("Referer", referrer.as_str()), ("Authorization", &token)];
    let fields = [&SENDS[..], &own].concat();
    let back = alice.sends(&scene.gate, (&page, &form), &fields);
    back.expect(303);
    assert_eq!(back.header("location"), Some(&*target));
}

#[test]
fn b33_a_session_ends_when_its_factor_is_replaced_or_its_account_deleted() {
    let scene = Scene::new();
    let app = scene.enrol("alice");
    let mut thief = scene.proven("alice", (&app, 0));
    let replaced = scene.try_enrol(&["--issuer", "corp", "--replace", "alice"]);
    assert!(replaced.status.success());
    let answer = thief.asks(&scene.gate, ("GET", "/pay"), &FETCHES);
    expect_reason(&answer, 401, "step-up-needed");
    assert_eq!(thief.cookie, None);
    let fresh = App::of(&String::from_utf8_lossy(&replaced.stdout));
    let mut alice = scene.proven("alice", (&fresh, 1));
    for file in scene.account_files() {
        std::fs::remove_file(file).expect("our file");
    }
    alice
        .asks(&scene.gate, ("GET", "/pay"), &FETCHES)
        .expect(401);
    let mut bob = scene.proven("bob", (&scene.enrol("bob"), 0));
    bob.opens(&scene.gate, "/pay").expect(200);
}

#[test]
fn b33_the_backend_may_send_a_browser_on_to_another_origin_after_the_form() {
    let html = [("Content-Type", "text/html")];
    let other = Origin::serve(move |_| answer(200, &html, "<!doctype html><p>paid</p>"));
    let other_gate = Gate::before(&other).with(PUBLIC).start();
    // Another port is another origin.
    let place = format!(
        "https://app.example:{}/there",
        other_gate.proxy.https().port()
    );
    let origin = Origin::serve(move |_| answer(302, &[("Location", &place)], ""));
    let accounts = tempfile::tempdir().expect("a temporary directory");
    let scene = Scene::before(origin, &Words::default(), accounts);
    let walk = scene.walk("/pay");
    assert_eq!(walk["paid"]["path"], "/there", "{walk:#}");
    let complaints = walk["complaints"].to_string();
    assert!(!complaints.contains("form-action"), "{complaints}");
}

/// What `check` says of a file with this folder of accounts.
fn checked(folder: &Path) -> String {
    let origin = Origin::echo();
    let sections = format!(
        "[session]\nkeys = {{ env = \"KEY\" }}\n[mfa]\naccounts = '{}'\n{PUBLIC}",
        folder.display()
    );
    let gate = Gate::before(&origin).with(&sections);
    let output = crate::harness::proxy::portcullis()
        .args(["check", "-c"])
        .arg(gate.write())
        .env("KEY", KEY)
        .output()
        .expect("the built program starts");
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{talk}");
    talk
}

/// Makes the folder somebody else's; gives one that is, where the tests may not do so.
fn of_another(folder: &Path) -> &Path {
    match chown(folder, Some(65_534), None) {
        Ok(()) => folder,
        Err(_) => Path::new("/usr"),
    }
}

#[test]
fn check_tells_of_a_folder_in_which_nobody_could_enrol() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let own = checked(folder.path());
    assert!(!own.contains("mfa.accounts"), "{own}");
    let talk = checked(&folder.path().join("none"));
    assert!(talk.contains("none` is not there"), "{talk}");
    let other = of_another(folder.path());
    let about = |path: &Path| std::fs::metadata(path).expect("it is there").uid();
    assert_ne!(about(other), about(Path::new("/proc/self")), "another's");
    let talk = checked(other);
    assert!(talk.contains("is another user's"), "{talk}");
}

#[test]
fn run_tells_of_a_folder_in_which_nobody_could_enrol() {
    let mut scene = Scene::new();
    assert!(!scene.gate.proxy.talk().contains("second factor does not"));
    std::fs::remove_dir(scene.accounts.path()).expect("our folder");
    scene.reload(&Words::default());
    scene
        .gate
        .proxy
        .await_talk("the second factor does not work");
}

#[test]
fn enrol_writes_nothing_into_a_folder_of_another_user() {
    let scene = Scene::new();
    let other = of_another(scene.accounts.path());
    let file = scene.gate.directory.path().join("gate.toml");
    let text = std::fs::read_to_string(&file).expect("the file");
    let own = scene.accounts.path().display().to_string();
    std::fs::write(&file, text.replace(&own, &other.display().to_string())).expect("our file");
    // Root could write there, and the gate could not read it.
    let before = std::fs::read_dir(other).expect("a folder").count();
    let output = scene.try_enrol(&["--issuer", "corp", "alice"]);
    let talk = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{talk}");
    assert!(talk.contains("is another user's"), "{talk}");
    assert!(output.stdout.is_empty(), "no secret is told");
    let after = std::fs::read_dir(other).expect("a folder").count();
    assert_eq!(after, before);
}
