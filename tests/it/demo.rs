//! The first thing that a stranger runs: the demo, whose printed lines do what they promise, and the gate without a file.

use std::fmt::Write;
use std::net::TcpListener;
use std::process::Command;

use crate::harness::message::Head;
use crate::harness::process::{Process, missing};
use crate::harness::proxy::{Proxy, portcullis};
use crate::harness::{Origin, eventually};

/// One printed line with what it promises.
struct Promise {
    says: String,
    shows: Vec<String>,
    hides: Vec<String>,
    command: String,
}

/// The variables that the page sets, and its lines.
fn read_page(page: &[String]) -> (String, Vec<Promise>) {
    let (mut variables, mut promises) = (String::new(), Vec::new());
    let (mut says, mut shows, mut hides) = (String::new(), Vec::new(), Vec::new());
    let words = |text: &str| text.split(" | ").map(str::to_lowercase).collect::<Vec<_>>();
    for line in page {
        if let Some(text) = line.strip_prefix("#   shows: ") {
            shows = words(text);
        } else if let Some(text) = line.strip_prefix("#   hides: ") {
            hides = words(text);
        } else if let Some(text) = line.strip_prefix("# ") {
            text.clone_into(&mut says);
        } else if is_variable(line) {
            variables.push_str(line);
            variables.push('\n');
        } else if !line.is_empty() {
            promises.push(Promise {
                says: std::mem::take(&mut says),
                shows: std::mem::take(&mut shows),
                hides: std::mem::take(&mut hides),
                command: line.clone(),
            });
        }
    }
    (variables, promises)
}

fn is_variable(line: &str) -> bool {
    line.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase())
    })
}

fn start_demo(arguments: &[&str]) -> Process {
    Process::spawn("demo", portcullis().arg("demo").args(arguments))
}

const ANY_PORTS: [&str; 6] = [
    "--https",
    "127.0.0.1:0",
    "--http",
    "127.0.0.1:0",
    "--admin",
    "127.0.0.1:0",
];

/// Waits for the ready line, which comes after the page.
fn page_of(demo: &mut Process) -> Vec<String> {
    demo.await_stderr("the ready line", |line| {
        line.starts_with("portcullis ready ").then_some(())
    });
    let lines = demo.stdout.clone();
    eventually("the page is there to its last line", || {
        let page = lines.all();
        page.last()?
            .contains("portcullis_refusals_total")
            .then_some(page)
    })
}

fn shell(script: &str) -> String {
    let mut command = Command::new("sh");
    command.args(["-c", script]).env("no_proxy", "*");
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{}", missing(&command, &error)));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn every_line_of_the_demo_does_what_its_comment_says() {
    let mut demo = start_demo(&ANY_PORTS);
    let (variables, promises) = read_page(&page_of(&mut demo));
    assert!(promises.len() >= 25, "{} lines", promises.len());
    let mut broken = String::new();
    for promise in &promises {
        assert!(
            !promise.shows.is_empty(),
            "`{}` promises nothing",
            promise.says
        );
        assert!(promise.command.contains("curl"), "{}", promise.command);
        let output = shell(&format!("{variables}{}", promise.command));
        let lower = output.to_lowercase();
        let missing: Vec<_> = promise
            .shows
            .iter()
            .filter(|word| !lower.contains(*word))
            .collect();
        let leaked: Vec<_> = promise
            .hides
            .iter()
            .filter(|word| lower.contains(*word))
            .collect();
        if !missing.is_empty() || !leaked.is_empty() {
            let _ = writeln!(
                broken,
                "{}\n{}\nnot shown: {missing:?}\nnot hidden: {leaked:?}\n{output}\n",
                promise.says, promise.command
            );
        }
    }
    assert!(broken.is_empty(), "{broken}");
    assert!(
        demo.stdout.all().iter().all(|line| !line.starts_with('{')),
        "no access line between the lines of the page"
    );
}

#[test]
fn the_whole_page_is_a_shell_script() {
    let mut demo = start_demo(&ANY_PORTS);
    let page = page_of(&mut demo).join("\n");
    let output = shell(&page);
    assert!(output.contains("200 200 200 429 429 429"), "{output}");
    assert!(output.contains("portcullis_refusals_total{"), "{output}");
}

#[test]
fn an_interrupt_ends_the_demo_in_order() {
    let mut demo = start_demo(&ANY_PORTS);
    page_of(&mut demo);
    demo.signal("INT");
    assert_eq!(demo.await_exit().code(), Some(0));
}

#[test]
fn the_demo_logs_requests_on_standard_error_when_asked_to() {
    let mut demo = start_demo(&[&ANY_PORTS[..], &["--log"]].concat());
    let (variables, _) = read_page(&page_of(&mut demo));
    shell(&format!(
        "{variables}curl -sk -o /dev/null \"$gate/status.json\""
    ));
    demo.await_stderr("the access line", |line| {
        line.contains("\"url.path\":\"/status.json\"").then_some(())
    });
}

#[test]
fn a_stated_port_that_is_taken_is_named() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = other.local_addr().expect("a bound port").to_string();
    let output = portcullis()
        .args(["demo", "--https", &address])
        .output()
        .expect("the built program starts");
    assert_eq!(output.status.code(), Some(1));
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(talk.contains(&address), "{talk}");
    assert!(output.stdout.is_empty());
}

#[test]
fn without_a_file_a_backend_is_behind_the_hardened_preset() {
    let origin = Origin::with_headers(&[("Server", "old/1"), ("Set-Cookie", "session=1")]);
    let proxy = Proxy::spawn(portcullis().args([
        "run",
        "--upstream",
        &origin.url(),
        "--set",
        "server.https=127.0.0.1:0",
    ]));
    proxy.await_talk("portcullis init --upstream");
    let page = shell(&format!(
        "curl -sk -i --max-time 20 https://localhost:{}/",
        proxy.https().port()
    ));
    let head = Head::parse(page.as_bytes());
    assert!(page.contains(" 200"), "{page}");
    assert!(head.all("server").is_empty(), "{page}");
    for name in [
        "strict-transport-security",
        "content-security-policy",
        "x-frame-options",
    ] {
        assert_eq!(head.all(name).len(), 1, "{name}: {page}");
    }
    let cookie = head.all("set-cookie").join("\n");
    for word in ["Secure", "HttpOnly", "SameSite=Lax"] {
        assert!(cookie.contains(word), "{cookie}");
    }
}

#[test]
fn what_a_blueprint_refuses_is_not_served_by_a_broader_one() {
    let mut demo = start_demo(&ANY_PORTS);
    let (variables, _) = read_page(&page_of(&mut demo));
    let status = |arguments: &str| {
        shell(&format!(
            "{variables}curl -sk -o /dev/null -w '%{{http_code}}' {arguments}"
        ))
    };
    assert_eq!(status("\"$gate/api/other\""), "404");
    assert_eq!(status("\"$gate/api\""), "404");
    assert_eq!(status("-X PATCH \"$gate/api/users/7\""), "405");
}

#[test]
fn a_refusal_reaches_an_http2_client_that_is_still_sending() {
    let mut demo = start_demo(&ANY_PORTS);
    let (variables, _) = read_page(&page_of(&mut demo));
    for size in [5, 2_000, 100_000] {
        let statuses = shell(&format!(
            "{variables}for n in 1 2 3 4 5 6 7 8; do head -c {size} /dev/zero | \
             curl -sk --http2 -o /dev/null -w '%{{http_code}} ' --data-binary @- \"$gate/admin\"; done"
        ));
        assert_eq!(statuses, "401 ".repeat(8), "{size} bytes");
    }
}
