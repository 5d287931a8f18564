//! Unit tests of [`super`]: whose page may do what, by section.

use super::{Csrf, admit, compile};
use crate::{
    exchange::Exchange,
    policy::{
        authn::{self, Authn, Books},
        cors::{self, Cors},
        trial::{compiled, errors, exchange, handshake, judged, layered, relaxations},
    },
    wire::halt::{Halt, Reason, Stage},
};

const SESSION: (&str, &str) = ("cookie", "s=1");
const OWN: &str = "https://app.example";
const SHOP: &str = "https://shop.example";
const EVIL: &str = "https://evil.example";

/// The sections of a route.
struct Route {
    csrf: Csrf,
    cors: Cors,
    authn: Authn,
}

impl Route {
    fn public(csrf: &str) -> Self {
        Self {
            csrf: compiled(csrf, compile),
            cors: layered(&[], cors::compile).0,
            authn: Authn::Public(Box::default()),
        }
    }

    fn with_cors(csrf: &str, cors: &str) -> Self {
        Self {
            cors: compiled(cors, cors::compile),
            ..Self::public(csrf)
        }
    }

    fn asking(auth: &str) -> Self {
        let text = format!("[auth]\n{auth}");
        Self {
            // Whether the issuers of the section exist is not asked here.
            authn: judged(&text, |levels| authn::compile(levels, &Books::default())).0,
            ..Self::public("")
        }
    }

    fn judges(&self, mut asked: Box<Exchange>) -> Option<(Reason, &'static str)> {
        match admit(&self.csrf, (&self.cors, &self.authn), &mut asked) {
            Ok(()) => None,
            Err(Halt::Refuse(refusal)) => {
                assert_eq!(refusal.stage, Stage::Csrf);
                Some((refusal.reason, refusal.detail.expect("a word for the log")))
            }
            Err(Halt::Reply(_)) => panic!("this policy answers nothing"),
        }
    }

    /// The word for the log of a POST that is refused.
    fn post(&self, fields: &[(&'static str, &str)]) -> Option<&'static str> {
        let (reason, detail) = self.judges(exchange("POST", "https", fields))?;
        assert_eq!(reason, Reason::Csrf);
        Some(detail)
    }

    /// The same of a handshake.
    fn open(&self, fields: &[(&'static str, &str)]) -> Option<(Reason, &'static str)> {
        self.judges(handshake("https", fields))
    }
}

#[test]
fn a28_what_changes_something_comes_from_the_own_pages_or_from_nobody() {
    let route = Route::public("");
    for fine in [
        &[("sec-fetch-site", "same-origin"), SESSION][..],
        &[("sec-fetch-site", "same-origin"), ("origin", OWN), SESSION],
        &[("sec-fetch-site", "none"), SESSION],
        &[("origin", OWN), SESSION],
        &[],
    ] {
        assert_eq!(route.post(fine), None, "{fine:?}");
    }
    for (foreign, detail) in [
        (
            &[("sec-fetch-site", "cross-site"), SESSION][..],
            "cross-site",
        ),
        (&[("sec-fetch-site", "cross-site")], "cross-site"),
        (&[("sec-fetch-site", "same-site"), SESSION], "same-site"),
        (&[("sec-fetch-site", "anything"), SESSION], "unknown-site"),
        (
            &[("sec-fetch-site", "cross-site"), ("origin", OWN)],
            "cross-site",
        ),
        (
            &[("sec-fetch-site", "same-origin"), ("origin", EVIL)],
            "contradiction",
        ),
        (&[("origin", EVIL), SESSION], "other-origin"),
        (&[("origin", EVIL)], "other-origin"),
        (&[("origin", "http://app.example"), SESSION], "other-origin"),
        (&[("origin", "null"), SESSION], "null-origin"),
        (&[("origin", ""), SESSION], "other-origin"),
        (&[SESSION], "cookie-without-page"),
        (&[("origin", OWN), ("origin", OWN), SESSION], "two-values"),
        (
            &[
                ("sec-fetch-site", "same-origin"),
                ("sec-fetch-site", "same-origin"),
            ],
            "two-values",
        ),
    ] {
        assert_eq!(route.post(foreign), Some(detail), "{foreign:?}");
    }
}

#[test]
fn every_method_that_may_change_something_is_judged() {
    let route = Route::public("");
    let foreign = [("sec-fetch-site", "cross-site"), ("origin", EVIL), SESSION];
    for method in ["POST", "PUT", "PATCH", "DELETE", "PROPPATCH", "get"] {
        assert!(
            route.judges(exchange(method, "https", &foreign)).is_some(),
            "{method}"
        );
    }
    for method in ["GET", "HEAD", "OPTIONS"] {
        assert_eq!(
            route.judges(exchange(method, "https", &foreign)),
            None,
            "{method}"
        );
    }
}

#[test]
fn an_origin_that_the_file_names_may_act() {
    let route = Route::public("origins = ['https://shop.example', 'https://*.partner.example']");
    for named in [SHOP, "https://a.partner.example"] {
        let fields = [("sec-fetch-site", "cross-site"), ("origin", named), SESSION];
        assert_eq!(route.post(&fields), None, "{named}");
        assert_eq!(route.post(&fields[1..]), None, "{named}");
        assert_eq!(route.open(&fields), None, "{named}");
    }
    for other in [
        "https://shop.example:8443",
        "http://shop.example",
        "https://shop.example/",
        "https://SHOP.example",
        "https://shop.example, https://shop.example",
        "https://a.b.partner.example",
        "null",
    ] {
        let fields = [("origin", other), SESSION];
        assert!(route.post(&fields).is_some(), "{other}");
        assert!(route.open(&fields).is_some(), "{other}");
    }
    let twice = [("origin", SHOP), ("origin", SHOP), SESSION];
    assert_eq!(route.post(&twice), Some("two-values"));
    let hidden = [("sec-fetch-site", "cross-site"), SESSION];
    assert_eq!(route.post(&hidden), Some("cross-site"), "whoever that is");
}

#[test]
fn what_cors_lets_an_origin_do_it_may() {
    let act = |cors: &str, fields: &[(&'static str, &str)]| {
        let mut all = vec![("sec-fetch-site", "cross-site")];
        all.extend(fields);
        Route::with_cors("", cors).post(&all).is_none()
    };
    let shop = ("origin", SHOP);
    let listed = "origins = ['https://shop.example']";
    let visitors = "origins = ['https://shop.example']\ncredentials = true";
    assert!(act(visitors, &[shop, SESSION]));
    assert!(!act(visitors, &[("origin", EVIL), SESSION]));
    assert!(!act(
        &format!("{visitors}\nmethods = ['GET']"),
        &[shop, SESSION]
    ));
    // Without credentials it may do as much as anybody, but not in the name of its visitor.
    assert!(act(listed, &[shop]));
    assert!(!act(listed, &[shop, SESSION]));
    assert!(act(listed, &[shop, ("authorization", "Bearer x")]));
    assert!(!act(listed, &[shop, ("authorization", "Basic x")]));
    assert!(!act(listed, &[("origin", EVIL)]));
    let star = "origins = ['*']";
    assert!(act(star, &[("origin", EVIL)]));
    assert!(!act(star, &[("origin", EVIL), SESSION]));
    assert!(!act(star, &[("origin", "null")]));
    assert!(!act("mode = 'off'", &[shop]));
    // A form is nothing that `cors` speaks of: nobody is to be signed in by another site's.
    let form = ("sec-fetch-mode", "navigate");
    assert!(!act(star, &[("origin", EVIL), form]));
    assert!(!act(visitors, &[shop, form, SESSION]));
    let named = Route::public("origins = ['https://shop.example']");
    assert_eq!(named.post(&[shop, form, SESSION]), None);
}

#[test]
fn who_says_nothing_of_a_page_passes_as_the_section_says() {
    let refuse = Route::public("non_browser = 'refuse'");
    assert_eq!(refuse.post(&[]), Some("no-page"));
    assert_eq!(refuse.post(&[("origin", OWN), SESSION]), None);
    assert_eq!(refuse.open(&[]), Some((Reason::Csrf, "no-page")));
    let allow = Route::public("non_browser = 'allow'");
    assert_eq!(allow.post(&[SESSION]), None);
    assert_eq!(allow.post(&[("origin", EVIL)]), Some("other-origin"));
    assert_eq!(relaxations("non_browser = 'allow'", compile).len(), 1);
    for strict in [
        "non_browser = 'refuse'",
        "non_browser = 'without_cookie'",
        "",
    ] {
        assert!(relaxations(strict, compile).is_empty(), "{strict}");
    }
}

#[test]
fn b39_credentials_that_no_browser_adds_are_no_pages_to_borrow() {
    let foreign = [("sec-fetch-site", "cross-site"), ("origin", EVIL), SESSION];
    for exempt in [
        "require = ['bearer']",
        "require = ['api_key']",
        "require = ['bearer', 'api_key', 'signature']",
    ] {
        let route = Route::asking(exempt);
        assert_eq!(route.post(&foreign), None, "{exempt}");
        assert_eq!(route.post(&[SESSION]), None, "{exempt}");
        assert_eq!(route.open(&[SESSION]), None, "{exempt}");
        let opened = route.open(&foreign);
        assert_eq!(
            opened,
            Some((Reason::OriginDenied, "websocket")),
            "{exempt}"
        );
    }
    for judged in [
        "require = ['mtls']",
        "require = ['bearer', 'mtls']",
        "require = ['bearer']\nmode = 'monitor'",
        "require = ['bearer']\nmode = 'off'",
    ] {
        let route = Route::asking(judged);
        assert_eq!(route.post(&foreign), Some("cross-site"), "{judged}");
    }
}

#[test]
fn without_a_section_only_pages_of_the_host_itself_open_a_websocket() {
    let route = Route::public("");
    for fine in [&[][..], &[("origin", OWN)], &[("origin", OWN), SESSION]] {
        assert_eq!(route.open(fine), None, "{fine:?}");
    }
    assert_eq!(
        route.open(&[SESSION]),
        Some((Reason::Csrf, "cookie-without-page"))
    );
    for foreign in [
        EVIL,
        "http://app.example",
        "https://app.example:8443",
        "https://app.example:443",
        "https://app.example.evil.com",
        "https://evil.example/https://app.example",
        "HTTPS://APP.example",
        "https://app.example/",
        "null",
        "",
        "app.example",
        "https://app.example, https://evil.example",
    ] {
        let found = route.open(&[("origin", foreign)]);
        assert_eq!(
            found,
            Some((Reason::OriginDenied, "websocket")),
            "{foreign:?}"
        );
    }
    for two in [[OWN, OWN], [OWN, EVIL]] {
        let found = route.open(&[("origin", two[0]), ("origin", two[1])]);
        assert_eq!(found, Some((Reason::OriginDenied, "websocket")), "{two:?}");
    }
}

#[test]
fn the_origins_of_cors_open_websockets_and_a_star_names_nobody() {
    let open = |cors: &str, origin: &str| {
        Route::with_cors("", cors)
            .open(&[("origin", origin)])
            .is_none()
    };
    let listed = "origins = ['https://shop.example', 'https://*.partner.example']";
    for fine in [SHOP, "https://a.partner.example"] {
        assert!(open(listed, fine), "{fine}");
    }
    for foreign in [EVIL, "https://a.b.partner.example"] {
        assert!(!open(listed, foreign), "{foreign}");
    }
    assert!(!open("origins = ['*']", EVIL));
    assert!(open("websocket = 'any'", EVIL));
    assert!(!open("websocket = 'any'", "null"));
    let any = Route::with_cors("", "websocket = 'any'");
    assert!(any.open(&[("origin", SHOP), ("origin", EVIL)]).is_some());
    assert_eq!(any.post(&[("origin", EVIL)]), Some("other-origin"));
}

#[test]
fn an_origin_opens_websockets_in_the_name_of_its_visitor_where_cors_says_so() {
    let listed = "origins = ['https://shop.example']";
    let visitors = format!("{listed}\ncredentials = true");
    let any = "websocket = 'any'";
    for (cors, fields, opens) in [
        (listed, &[SESSION][..], false),
        (listed, &[("authorization", "Basic x")], false),
        (listed, &[("authorization", "Bearer x")], true),
        (listed, &[], true),
        (&visitors, &[SESSION], true),
        (any, &[SESSION], true),
    ] {
        let fields = [&[("origin", SHOP)], fields].concat();
        let opened = Route::with_cors("", cors).open(&fields).is_none();
        assert_eq!(opened, opens, "{cors} {fields:?}");
    }
    // The cookie is nothing that such a backend goes by.
    let by_hand = Route {
        cors: compiled(listed, cors::compile),
        ..Route::asking("require = ['bearer']")
    };
    assert_eq!(by_hand.open(&[("origin", SHOP), SESSION]), None);
}

#[test]
fn modes_watch_or_let_go() {
    let foreign = [("origin", EVIL), SESSION];
    let noted = |route: &Route, mut asked: Box<Exchange>| {
        assert!(admit(&route.csrf, (&route.cors, &route.authn), &mut asked).is_ok());
        asked.would_refuse
    };
    let post = || exchange("POST", "https", &foreign);
    let open = || handshake("https", &foreign);
    let watched = Route::public("mode = 'monitor'");
    assert_eq!(noted(&watched, post()), [(Stage::Csrf, Reason::Csrf)]);
    assert_eq!(
        noted(&watched, open()),
        [(Stage::Csrf, Reason::OriginDenied)]
    );
    let off = Route::public("mode = 'off'");
    assert!(noted(&off, post()).is_empty() && noted(&off, open()).is_empty());
    // What `cors` leaves to the backend is the opening of WebSockets alone.
    let watched = Route::with_cors("", "mode = 'monitor'\norigins = []");
    assert_eq!(
        noted(&watched, open()),
        [(Stage::Csrf, Reason::OriginDenied)]
    );
    assert_eq!(watched.post(&foreign), Some("other-origin"));
    let off = Route::with_cors("", "mode = 'off'");
    assert!(noted(&off, open()).is_empty());
    assert_eq!(off.post(&foreign), Some("other-origin"));
    for mode in ["mode = 'monitor'", "mode = 'off'"] {
        assert_eq!(relaxations(mode, compile).len(), 1, "{mode}");
    }
}

#[test]
fn every_site_is_no_entry_of_the_list() {
    let found = errors("origins = ['https://shop.example', '*']", compile);
    let under: Vec<_> = found.iter().map(|(under, _)| under.as_str()).collect();
    assert_eq!(under, ["*"], "{found:?}");
}
