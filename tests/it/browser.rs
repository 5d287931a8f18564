//! What a real browser makes of the gate's answers: headless Chromium, with a fresh profile for each page.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::eventually::{eventually, eventually_within};
use crate::harness::origin::answer;
use crate::harness::process::{Process, missing};
use crate::harness::{Conn, Gate, Origin};
use crate::tunnels::switch;

/// A page, and everything the browser loads for it, has this long.
const PATIENCE: Duration = Duration::from_mins(1);

const PAGE: &str = r#"<!doctype html><title>Legacy</title>
<p id="inline">inline script blocked</p><p id="own">own script blocked</p><p id="data">own data blocked</p>
<script>document.getElementById('inline').textContent = 'inline script ran'</script>
<script src="/own.js"></script>"#;

const SCRIPT: &str = r"document.getElementById('own').textContent = 'own script ran';
fetch('/data').then((answer) => answer.text()).then((text) => {
  document.getElementById('data').textContent = 'own data ' + text;
});";

/// Loads `url` with `app.example` at this machine, and gives the document as it stands once its scripts have run.
fn dump(url: &str) -> String {
    let profile = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new("chromium");
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
        ])
        .args([
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
        ])
        .args([
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--no-proxy-server",
        ])
        .args([
            "--ignore-certificate-errors",
            "--host-resolver-rules=MAP app.example 127.0.0.1",
        ])
        .args(["--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(url)
        .env("HOME", profile.path())
        .stdin(Stdio::null());
    let found = Command::new("chromium").arg("--version").output();
    assert!(
        found.is_ok_and(|output| output.status.success()),
        "{}",
        missing(&command, &std::io::ErrorKind::NotFound.into())
    );
    let mut browser = Process::spawn("chromium", &mut command);
    eventually_within(PATIENCE, &format!("the browser has shown {url}"), || {
        (!browser.is_running()).then_some(())
    });
    let lines = browser.stdout.clone();
    eventually_within(PATIENCE, "the document is whole", || {
        let text = lines.all().join("\n");
        text.contains("</html>").then_some(text)
    })
}

fn html(body: &str) -> Vec<u8> {
    answer(200, &[("Content-Type", "text/html")], body)
}

#[test]
fn inline_script_is_blocked_and_the_page_works_otherwise() {
    let origin = Origin::serve(|received| match received.head.target() {
        "/own.js" => answer(200, &[("Content-Type", "text/javascript")], SCRIPT),
        "/data" => answer(200, &[("Content-Type", "text/plain")], "fine"),
        _ => html(PAGE),
    });
    let bare = dump(&format!("{}/", origin.url()));
    assert!(bare.contains("inline script ran"), "{bare}");
    let gate = Gate::before(&origin).open();
    let port = gate.proxy.https().port();
    let guarded = dump(&format!("https://app.example:{port}/"));
    for words in ["inline script blocked", "own script ran", "own data fine"] {
        assert!(guarded.contains(words), "`{words}`: {guarded}");
    }
}

/// Reads the address in its fragment, simply and then with a preflight.
const VISITOR: &str = r#"<!doctype html><title>Visitor</title><p id="simple"></p><p id="preflighted"></p>
<script>
const attempt = (id, options) => fetch(location.hash.slice(1), options)
  .then((answer) => answer.text())
  .catch(() => 'nothing')
  .then((text) => { document.getElementById(id).textContent = id + ' read ' + text; });
attempt('simple', {});
attempt('preflighted', { method: 'PUT', headers: { 'content-type': 'application/json' }, body: '{}' });
</script>"#;

#[test]
fn only_the_allowed_origin_reads_across_origins() {
    let backend = Origin::serve(|received| {
        let open = [("Access-Control-Allow-Origin", "*")];
        answer(200, &open, format!("secret by {}", received.head.method()))
    });
    let (shop, thief) = (Origin::fixed(html(VISITOR)), Origin::fixed(html(VISITOR)));
    let gate = Gate::before(&backend)
        .with(&format!(
            "[[blueprints]]\nname = \"app\"\nupstream = \"legacy\"\nauth = \"public\"\n\
             [blueprints.cors]\norigins = [\"{}\"]\nmethods = [\"GET\", \"PUT\"]\nheaders = [\"content-type\"]\n",
            shop.url()
        ))
        .start();
    let secret = format!("https://app.example:{}/secret", gate.proxy.https().port());
    let friend = dump(&format!("{}/#{secret}", shop.url()));
    for words in [
        "simple read secret by GET",
        "preflighted read secret by PUT",
    ] {
        assert!(friend.contains(words), "`{words}`: {friend}");
    }
    let before = backend.requests().len();
    let stranger = dump(&format!("{}/#{secret}", thief.url()));
    for words in ["simple read nothing", "preflighted read nothing"] {
        assert!(stranger.contains(words), "`{words}`: {stranger}");
    }
    let reached: Vec<_> = backend.requests().split_off(before);
    assert!(
        reached.iter().all(|request| request.head.method() == "GET"),
        "the preflight kept the PUT away: {reached:#?}"
    );
}

/// Opens a WebSocket to the address in its fragment and shows what it says.
const CALLER: &str = r#"<!doctype html><title>Caller</title><p id="heard">heard nothing</p>
<script src="/call.js"></script>"#;

/// The browser's clock runs ahead of a WebSocket, but waits for a fetch.
const CALL: &str = r"fetch('/hold');
const socket = new WebSocket(location.hash.slice(1));
const show = (text) => { document.getElementById('heard').textContent = text; fetch('/shown'); };
socket.onmessage = (message) => show('heard ' + message.data);
socket.onerror = () => show('was refused');";

/// The page and its script, and at `/secret` a WebSocket that tells everybody a secret.
fn caller() -> Origin {
    let shown = AtomicBool::new(false);
    Origin::script(move |conn: &mut Conn| {
        while let Some(received) = conn.request()? {
            conn.send(match received.head.target() {
                "/hold" => {
                    eventually("the page has its answer", || {
                        shown.load(Ordering::SeqCst).then_some(())
                    });
                    answer(200, &[], "")
                }
                "/shown" => {
                    shown.store(true, Ordering::SeqCst);
                    answer(200, &[], "")
                }
                "/call.js" => answer(200, &[("Content-Type", "text/javascript")], CALL),
                "/secret" => [switch(&received.head).as_bytes(), b"\x81\x06secret"].concat(),
                _ => html(CALLER),
            })?;
        }
        Ok(())
    })
}

#[test]
fn only_a_page_of_the_host_itself_opens_a_websocket() {
    let (backend, thief) = (caller(), caller());
    let gate = Gate::before(&backend).open();
    let port = gate.proxy.https().port();
    let socket = format!("wss://app.example:{port}/secret");
    let own = dump(&format!("https://app.example:{port}/#{socket}"));
    assert!(own.contains("heard secret"), "{own}");
    let line = gate.proxy.await_access_of("/secret");
    assert_eq!(line["network.protocol.version"], "2", "a stream: {line}");
    let foreign = dump(&format!("{}/#{socket}", thief.url()));
    assert!(foreign.contains("was refused"), "{foreign}");
    gate.proxy.await_access("the foreign page", |line| {
        line["url.path"] == "/secret" && line["reason"] == "origin-denied"
    });
}

/// Sends the form at the address in its fragment, as a page of a thief does with those of others.
const FORM: &str = r#"<!doctype html><title>Form</title><p>the form</p>
<form method="post"><input name="to" value="thief"></form><script src="/send.js"></script>"#;
const SEND: &str =
    "const form = document.forms[0]; form.action = location.hash.slice(1); form.submit();";

/// The same, and its browser is to tell nobody where it comes from.
const SILENT_FORM: &str = r#"<!doctype html><title>Form</title><meta name="referrer" content="no-referrer">
<form method="post"><input name="to" value="thief"></form><script src="/send.js"></script>"#;

fn forms() -> Origin {
    Origin::serve(|received| match received.head.target() {
        "/send.js" => answer(200, &[("Content-Type", "text/javascript")], SEND),
        "/silent" => html(SILENT_FORM),
        "/transfer" => html("<!doctype html><p>transferred</p>"),
        _ => html(FORM),
    })
}

#[test]
fn a28_only_a_page_of_the_host_itself_posts_a_form() {
    let (backend, thief) = (forms(), forms());
    let gate = Gate::before(&backend).open();
    let site = format!("https://app.example:{}", gate.proxy.https().port());
    let transfer = format!("{site}/transfer");
    let posts = || {
        let all = backend.requests().into_iter();
        all.filter(|request| request.head.method() == "POST")
            .collect::<Vec<_>>()
    };
    for foreign in ["/", "/silent"] {
        let shown = dump(&format!("{}{foreign}#{transfer}", thief.url()));
        assert!(!shown.contains("transferred"), "{shown}");
        let detail =
            |line: &serde_json::Value| line["url.path"] == "/transfer" && line["reason"] == "csrf";
        let line = gate.proxy.await_access("the foreign form", detail);
        assert_eq!(line["detail"], "cross-site", "{line}");
        assert!(posts().is_empty());
    }
    for own in ["/", "/silent"] {
        let before = posts().len();
        let shown = dump(&format!("{site}{own}#{transfer}"));
        assert!(shown.contains("transferred"), "{own}: {shown}");
        assert_eq!(posts().len(), before + 1);
    }
    // The second conceals its origin, and the browser still says that it is the same.
    let last = posts().pop().expect("the silent one");
    assert_eq!(last.head.get("sec-fetch-site"), Some("same-origin"));
    assert_eq!(last.head.get("origin"), Some("null"));
}
