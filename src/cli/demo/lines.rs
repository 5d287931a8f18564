//! What the demo prints: shell variables, then one curl line a guard, each with what its output shows and hides.
//!
//! The page is a shell script as it stands. Behind `shows:` are words that the output holds, behind `hides:` words
//! that it does not, set apart by ` | ` and compared without regard to case; a test holds every line to them.

use std::fmt::Write;

use super::{
    Places,
    issuer::{Holder, Issuer},
};

const READER: Holder = Holder {
    name: "rita",
    roles: &["reader"],
    scope: "api.read",
};
const ADMIN: Holder = Holder {
    name: "adam",
    roles: &["admin"],
    scope: "api.read reports.read",
};

/// One guard.
struct Line {
    says: &'static str,
    shows: &'static str,
    hides: &'static str,
    command: &'static str,
}

/// The whole page.
pub(super) fn page(places: &Places, issuer: &Issuer) -> String {
    let mut page = format!(
        "# A weak application stands behind the gate. Open https://{host}:{port}/ (self-signed certificate), or paste\n\
         # the variables into a shell and then any line below them. Ctrl-C here ends it.\n\n",
        host = places.https.host(),
        port = places.https.port(),
    );
    for (name, value) in [
        (
            "gate",
            format!("https://{}:{}", places.https.host(), places.https.port()),
        ),
        (
            "plain",
            format!("http://{}:{}", places.http.host(), places.http.port()),
        ),
        (
            "metrics",
            format!("http://{}/metrics", places.admin.address),
        ),
        ("legacy", format!("http://{}", places.legacy)),
        ("reader", issuer.token(&READER)),
        ("admin", issuer.token(&ADMIN)),
        ("expired", issuer.expired(&READER)),
        ("foreign", issuer.foreign(&READER)),
    ] {
        // Writing to a string does not fail.
        let _ = writeln!(page, "{name}={value}");
    }
    for line in LINES {
        let _ = write!(page, "\n# {}\n#   shows: {}\n", line.says, line.shows);
        if !line.hides.is_empty() {
            let _ = writeln!(page, "#   hides: {}", line.hides);
        }
        let _ = writeln!(page, "{}", line.command);
    }
    page
}

const LINES: &[Line] = &[
    Line {
        says: "The application itself, without the gate: it tells its version and lets every site read it",
        shows: "200 OK | server: LegacyServer | x-powered-by: | access-control-allow-origin: * | set-cookie: session=",
        hides: "strict-transport-security | content-security-policy | httponly",
        command: r#"curl -s -D - -o /dev/null "$legacy/""#,
    },
    Line {
        says: "Through the gate: security headers on, leaks off",
        shows: "200 | strict-transport-security: max-age=31536000 | content-security-policy: default-src 'self' | x-content-type-options: nosniff | x-frame-options: DENY | referrer-policy: | permissions-policy: | cross-origin-opener-policy: same-origin | cache-control: no-store",
        hides: "LegacyServer | x-powered-by | access-control-allow-origin",
        command: r#"curl -sk -D - -o /dev/null "$gate/""#,
    },
    Line {
        says: "The application's plain session cookie is hardened on the way out",
        shows: "session=c2VjcmV0 | Secure | HttpOnly | SameSite=Lax",
        hides: "",
        command: r#"curl -sk -D - -o /dev/null "$gate/" | grep -i '^set-cookie: session='"#,
    },
    Line {
        says: "http is sent to https",
        shows: "308 https://",
        hides: "",
        command: r#"curl -s -o /dev/null -w '%{http_code} %{redirect_url}\n' "$plain/""#,
    },
    Line {
        says: "The API wants a token; the gate's own answers carry the headers too",
        shows: "401 | www-authenticate: Bearer | credentials-missing | content-security-policy: default-src 'none'",
        hides: "error= | LegacyServer",
        command: r#"curl -sk -i "$gate/api/users/7""#,
    },
    Line {
        says: "A reader may read, and the application learns who asks",
        shows: r#"200 | "for":"rita" | "roles":"reader""#,
        hides: "",
        command: r#"curl -sk -w ' %{http_code}\n' -H "Authorization: Bearer $reader" "$gate/api/users/7""#,
    },
    Line {
        says: "A reader may not delete",
        shows: "403 | role-missing",
        hides: "did",
        command: r#"curl -sk -w ' %{http_code}\n' -X DELETE -H "Authorization: Bearer $reader" "$gate/api/users/7""#,
    },
    Line {
        says: "An admin may",
        shows: r#"200 | DELETE /api/users/7 | "for":"adam""#,
        hides: "",
        command: r#"curl -sk -w ' %{http_code}\n' -X DELETE -H "Authorization: Bearer $admin" "$gate/api/users/7""#,
    },
    Line {
        says: "Saying that one is an admin does not make one: identity headers of clients are dropped",
        shows: r#"200 | "for":"rita" | "roles":"reader""#,
        hides: "mallory",
        command: r#"curl -sk -w ' %{http_code}\n' -H "Authorization: Bearer $reader" -H 'X-Auth-Roles: admin' -H 'X_Auth_Subject: mallory' "$gate/api/users/7""#,
    },
    Line {
        says: "The admin area is for admins: a reader is refused",
        shows: "403 | role-missing",
        hides: "Administration",
        command: r#"curl -sk -w ' %{http_code}\n' -H "Authorization: Bearer $reader" "$gate/admin""#,
    },
    Line {
        says: "The admin area is for admins: an admin is let in",
        shows: "200 | Administration",
        hides: "",
        command: r#"curl -sk -w ' %{http_code}\n' -H "Authorization: Bearer $admin" "$gate/admin""#,
    },
    Line {
        says: "A token without the scope",
        shows: "403 | insufficient_scope | reports.read",
        hides: "",
        command: r#"curl -sk -i -H "Authorization: Bearer $reader" "$gate/api/reports""#,
    },
    Line {
        says: "A token that has expired; the answer does not say what was wrong with it",
        shows: "401 | invalid_token | token-invalid",
        hides: "expired",
        command: r#"curl -sk -i -H "Authorization: Bearer $expired" "$gate/api/users/7""#,
    },
    Line {
        says: "A token made for another service",
        shows: "401 | invalid_token",
        hides: "audience",
        command: r#"curl -sk -i -H "Authorization: Bearer $foreign" "$gate/api/users/7""#,
    },
    Line {
        says: "A token whose signature was tampered with",
        shows: "401 | invalid_token",
        hides: "",
        command: r#"curl -sk -i -H "Authorization: Bearer ${reader%????}AAAA" "$gate/api/users/7""#,
    },
    Line {
        says: "Another site asks for leave (preflight): this one has it",
        shows: "204 | access-control-allow-origin: https://shop.example | access-control-allow-methods: | access-control-max-age: 600",
        hides: "allow-origin: *",
        command: r#"curl -sk -i -X OPTIONS -H 'Origin: https://shop.example' -H 'Access-Control-Request-Method: DELETE' -H 'Access-Control-Request-Headers: authorization' "$gate/api/users/7""#,
    },
    Line {
        says: "This one does not, however much its name looks like it",
        shows: "403 | origin-denied",
        hides: "access-control-allow-origin",
        command: r#"curl -sk -i -X OPTIONS -H 'Origin: https://shop.example.evil.example' -H 'Access-Control-Request-Method: DELETE' "$gate/api/users/7""#,
    },
    Line {
        says: "A page of another site has its visitor's browser post a form, session cookie and all",
        shows: "403 | urn:portcullis:problem:csrf",
        hides: "size",
        command: r#"curl -sk -w ' %{http_code}\n' -H 'Cookie: session=c2VjcmV0' -H 'Origin: https://evil.example' -d hello "$gate/upload""#,
    },
    Line {
        says: "A page of the application itself may",
        shows: "200 | size",
        hides: "",
        command: r#"curl -sk -w ' %{http_code}\n' -H 'Cookie: session=c2VjcmV0' -H "Origin: $gate" -d hello "$gate/upload""#,
    },
    Line {
        says: "Six searches in a row, three a minute are allowed (after a minute it works again)",
        shows: "200 200 200 429 429 429",
        hides: "",
        command: r#"for n in 1 2 3 4 5 6; do curl -sk -o /dev/null -w '%{http_code} ' "$gate/search"; done; echo"#,
    },
    Line {
        says: "One more search: the limit says so in standard fields",
        shows: "429 | retry-after: | ratelimit-policy: | ratelimit: | quota-exceeded",
        hides: "found",
        command: r#"curl -sk -i "$gate/search""#,
    },
    Line {
        says: "Dot segments are resolved before the policy looks: this is /admin",
        shows: "401 | credentials-missing",
        hides: "Administration",
        command: r#"curl -sk -w ' %{http_code}\n' --path-as-is "$gate/public/../admin""#,
    },
    Line {
        says: "An encoded slash can be read in two ways, so it is refused",
        shows: "400 | bad-target",
        hides: "Administration",
        command: r#"curl -sk -w ' %{http_code}\n' --path-as-is "$gate/public/..%2fadmin""#,
    },
    Line {
        says: "Two lengths for one body (request smuggling)",
        shows: "400 | framing-conflict",
        hides: "",
        command: r#"curl -sk -w ' %{http_code}\n' --http1.1 -H 'Content-Length: 3' -H 'Transfer-Encoding: chunked' -d hello "$gate/upload""#,
    },
    Line {
        says: "A host that the certificate is not for",
        shows: "421 | misdirected",
        hides: "",
        command: r#"curl -sk -w ' %{http_code}\n' -H 'Host: bank.example' "$gate/""#,
    },
    Line {
        says: "More than the 1 KiB that this route takes",
        shows: "413 | body-too-large",
        hides: "size",
        command: r#"head -c 2000 /dev/zero | curl -sk -w ' %{http_code}\n' --data-binary @- "$gate/upload""#,
    },
    Line {
        says: "A method that the API does not have",
        shows: "405 | allow: | method-not-allowed",
        hides: "",
        command: r#"curl -sk -i -X PATCH -H "Authorization: Bearer $admin" "$gate/api/users/7""#,
    },
    Line {
        says: "The application crashes: its answer is passed on, with the headers and without its version",
        shows: "500 | x-content-type-options: nosniff | content-security-policy:",
        hides: "LegacyServer | x-powered-by",
        command: r#"curl -sk -D - -o /dev/null "$gate/crash""#,
    },
    Line {
        says: "A backend that is gone",
        shows: "502 | upstream-unreachable",
        hides: "127.0.0.1",
        command: r#"curl -sk -w ' %{http_code}\n' "$gate/gone""#,
    },
    Line {
        says: "A backend that takes too long: this route waits one second",
        shows: "504 | upstream-timeout",
        hides: "at last",
        command: r#"curl -sk -w ' %{http_code}\n' "$gate/slow""#,
    },
    Line {
        says: "All of it was counted",
        shows: r#"portcullis_refusals_total{ | reason="credentials-missing" | reason="rate-limited""#,
        hides: "",
        command: r#"curl -s "$metrics" | grep '^portcullis_refusals_total'"#,
    },
];
