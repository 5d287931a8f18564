//! `[csrf]`: requests that another site's page has its visitor's browser make (OWASP, Fetch Metadata; RFC 6455 §10.2).
//!
//! Browsers add cookies, client certificates and passwords that they remember to whatever page asks. So what changes
//! something, and what opens a WebSocket, must come from a page of the very origin that it is for, from the person at the
//! browser, or from an origin that the file names: in this section, or in `cors` for what it lets that origin do. This needs
//! no section. Routes whose callers bring their credentials by themselves are exempt; what only reads is not judged, since
//! `cors` and `SameSite` keep answers from other sites.

use http::{HeaderMap, Method, header};

use super::{authn::Authn, cors::Cors, mode::Mode};
use crate::{
    config::{Key, Kind, OriginPattern, Reader, Section, Value},
    exchange::Exchange,
    wire::{
        fetch_metadata::{self, Source},
        halt::{Halt, Reason, Refusal, Stage},
    },
};

#[cfg(test)]
mod tests;

/// `[….csrf]`
pub static SECTION: Section = Section {
    name: "csrf",
    doc: "whose pages may change something or open a WebSocket, beside those of the host itself",
    keys: &[
        Key::new(
            "mode",
            Kind::Choice(Mode::WORDS),
            "enforce, monitor or off",
            "\"enforce\"",
        ),
        Key::new(
            "origins",
            Kind::List(&Kind::Origin),
            "further origins, `https://*.partner.example` for one label; those that `cors` lets act count too",
            "[]",
        ),
        Key::new(
            "non_browser",
            Kind::Choice(&["without_cookie", "allow", "refuse"]),
            "what becomes of a request that says nothing of its page: it passes without a `Cookie`, always, or never",
            "\"without_cookie\"",
        ),
    ],
};

const EXEMPT: &str = "exempt: no credential here is one that browsers add by themselves";

/// The compiled section.
#[derive(Debug)]
pub struct Csrf {
    mode: Mode,
    origins: Box<[OriginPattern]>,
    non_browser: NonBrowser,
    /// Where the section stands, for `explain`.
    place: Box<str>,
}

/// What becomes of a request that says nothing of its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NonBrowser {
    WithoutCookie,
    Allow,
    Refuse,
}

impl NonBrowser {
    fn describe(self) -> &'static str {
        match self {
            Self::WithoutCookie => "what says nothing of a page passes without Cookie",
            Self::Allow => "what says nothing of a page passes",
            Self::Refuse => "what says nothing of a page is refused",
        }
    }
}

/// Compiles the section through its layers.
pub fn compile(reader: &Reader<'_>) -> Csrf {
    let mode: Mode = reader.get("mode").unwrap_or_default();
    if mode != Mode::Enforce {
        reader.relax(
            "mode",
            format!(
                "this weakens the gate: csrf is in mode `{}`: every site may act with the cookies of its visitors",
                mode.as_str()
            ),
        );
    }
    Csrf {
        mode,
        origins: origins(reader),
        non_browser: non_browser(reader),
        place: reader.stated_at(),
    }
}

fn origins(reader: &Reader<'_>) -> Box<[OriginPattern]> {
    let origins: Vec<OriginPattern> = reader.get("origins").unwrap_or_default();
    let values = reader
        .value("origins")
        .and_then(Value::as_array)
        .unwrap_or_default();
    for star in values.iter().filter(|value| value.as_str() == Some("*")) {
        reader.error_at(
            star.inside(0..1),
            "`*` would let every site act with the cookies of its visitors",
            Some("name the origins; for a route that is for every site, `mode = \"off\"`".into()),
        );
    }
    origins.into()
}

fn non_browser(reader: &Reader<'_>) -> NonBrowser {
    match reader.value("non_browser").and_then(Value::as_str) {
        Some("allow") => {
            reader.relax(
                "non_browser",
                "this weakens the gate: a request with cookies passes if it does not say which page it comes from",
            );
            NonBrowser::Allow
        }
        Some("refuse") => NonBrowser::Refuse,
        _ => NonBrowser::WithoutCookie,
    }
}

/// Refuses what changes something, or opens a WebSocket, at the wish of another site. `cors` and `authn` are those of the
/// same route.
///
/// # Errors
/// 403 `csrf`; 403 `origin-denied` for the handshake of a foreign page.
pub fn admit(
    policy: &Csrf,
    (cors, authn): (&Cors, &Authn),
    exchange: &mut Exchange,
) -> Result<(), Halt> {
    let act = match (exchange.upgrade(), exchange.method()) {
        (Some(_), _) => Act::Handshake,
        (None, &Method::GET | &Method::HEAD | &Method::OPTIONS) => {
            exchange.note(Stage::Csrf, || "a method that changes nothing".to_owned());
            return Ok(());
        }
        (None, _) => Act::Change,
    };
    let case = Case {
        policy,
        cors,
        authn,
        act,
    };
    case.decide(exchange)
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Change,
    Handshake,
}

impl Act {
    fn prefix(self) -> &'static str {
        match self {
            Self::Change => "",
            Self::Handshake => "websocket: ",
        }
    }
}

/// What was found of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// A page of the host itself.
    Own,
    /// No page, but the person at the browser.
    Person,
    /// A page of an origin that the file names.
    Named,
    /// Nothing is said, and that is enough.
    NoBrowser,
    /// Nothing is said, and that is too little; with the code for the log.
    Unsaid(&'static str),
    /// Another page, or one that may be; with the code for the log.
    Foreign(&'static str),
}

impl Finding {
    fn words(self) -> &'static str {
        match self {
            Self::Own => "a page of the host itself asks",
            Self::Person => "the person at the browser asks",
            Self::Named => "a page of an origin that the file names asks",
            Self::NoBrowser => "it says nothing of a page",
            Self::Unsaid(_) => "it says nothing of a page, and has to",
            Self::Foreign(_) => "a page asks that is neither the host's own nor named",
        }
    }

    fn refusal(self, act: Act) -> Option<Refusal> {
        match (self, act) {
            (Self::Own | Self::Person | Self::Named | Self::NoBrowser, _) => None,
            (Self::Foreign(_), Act::Handshake) => {
                Some(Refusal::new(Stage::Csrf, Reason::OriginDenied).detail("websocket"))
            }
            (Self::Unsaid(code) | Self::Foreign(code), _) => {
                Some(Refusal::new(Stage::Csrf, Reason::Csrf).detail(code))
            }
        }
    }
}

/// A request that is to be judged, and by what.
struct Case<'a> {
    policy: &'a Csrf,
    cors: &'a Cors,
    authn: &'a Authn,
    act: Act,
}

impl Case<'_> {
    fn decide(&self, exchange: &mut Exchange) -> Result<(), Halt> {
        let (prefix, place) = (self.act.prefix(), &self.policy.place);
        // Credentials that no browser adds are no page's to borrow. A handshake is judged by its page all the same.
        if self.act == Act::Change && self.authn.is_brought_by_hand(exchange) {
            exchange.note(Stage::Csrf, || EXEMPT.to_owned());
            return Ok(());
        }
        let mode = self.mode();
        if mode == Mode::Off {
            exchange.note(Stage::Csrf, || {
                format!("{prefix}off, the backend judges ({place})")
            });
            return Ok(());
        }
        let finding = self.judge(exchange);
        exchange.note(Stage::Csrf, || {
            format!("{prefix}{} ({place})", finding.words())
        });
        match finding.refusal(self.act) {
            Some(refusal) => mode.apply(Err(refusal.into()), exchange),
            None => Ok(()),
        }
    }

    /// Where `cors` leaves matters to the backend, handshakes are among them.
    fn mode(&self) -> Mode {
        match self.act {
            Act::Change => self.policy.mode,
            Act::Handshake => self.policy.mode.weaker_of(self.cors.mode()),
        }
    }

    fn judge(&self, exchange: &Exchange) -> Finding {
        let headers = exchange.headers();
        match fetch_metadata::source(headers, exchange.scheme(), exchange.authority()) {
            Source::Own => Finding::Own,
            Source::Person => Finding::Person,
            Source::Unsaid => self.without_page(exchange),
            Source::Ambiguous => Finding::Foreign("two-values"),
            Source::Foreign(foreign) => match foreign.origin {
                Some(origin) if self.names(origin, exchange) => Finding::Named,
                _ => Finding::Foreign(foreign.sign.as_str()),
            },
        }
    }

    fn without_page(&self, exchange: &Exchange) -> Finding {
        let headers = exchange.headers();
        if self.authn.is_brought_by_hand(exchange) {
            return Finding::NoBrowser;
        }
        match self.policy.non_browser {
            NonBrowser::Refuse => Finding::Unsaid("no-page"),
            NonBrowser::WithoutCookie if headers.contains_key(header::COOKIE) => {
                Finding::Unsaid("cookie-without-page")
            }
            NonBrowser::WithoutCookie | NonBrowser::Allow => Finding::NoBrowser,
        }
    }

    /// Whether the file lets pages of this origin do that.
    fn names(&self, origin: &[u8], exchange: &Exchange) -> bool {
        let mut own = self.policy.origins.iter();
        if own.any(|pattern| pattern.matches(origin)) {
            return true;
        }
        match self.act {
            // What the backend goes by is not the cookie where credentials are brought by hand.
            Act::Handshake
                if borrows_credentials(exchange) && !self.authn.is_brought_by_hand(exchange) =>
            {
                self.cors.lets_open_as_visitor(origin)
            }
            Act::Handshake => self.cors.lets_open(origin),
            // A form goes to a page: no script asks, so `cors` has no say, and `*` there must not let it sign anybody in.
            Act::Change if fetch_metadata::navigates(exchange.headers()) => false,
            Act::Change if borrows_credentials(exchange) => {
                self.cors.lets_change_as_visitor(origin, exchange.method())
            }
            Act::Change => self.cors.lets_change(origin, exchange.method()),
        }
    }
}

/// Whether a request has credentials that browsers add for whatever page asks.
fn borrows_credentials(exchange: &Exchange) -> bool {
    let headers = exchange.headers();
    headers.contains_key(header::COOKIE)
        || exchange.connection.client_certificate().is_some()
        || !has_only_tokens(headers)
}

/// Whether each `Authorization` is a token, which a page must have to send it; passwords are added by browsers.
fn has_only_tokens(headers: &HeaderMap) -> bool {
    headers.get_all(header::AUTHORIZATION).iter().all(|value| {
        let scheme = value.as_bytes().split(|byte| *byte == b' ').next();
        scheme.is_some_and(|scheme| {
            scheme.eq_ignore_ascii_case(b"bearer") || scheme.eq_ignore_ascii_case(b"dpop")
        })
    })
}

impl Csrf {
    /// Whose pages may act, for `check -v`; on a route that is exempt only handshakes are judged.
    pub fn describe(&self, (cors, authn): (&Cors, &Authn)) -> Vec<(String, String)> {
        let changes = if authn.asks_for_hands() {
            EXEMPT.to_owned()
        } else {
            let (mode, rest) = (self.mode.as_str(), self.non_browser.describe());
            format!("{mode} ({}); {rest}", self.place)
        };
        let mut pages = vec!["the host itself".to_owned()];
        pages.extend(self.origins.iter().map(ToString::to_string));
        let acting = pages.join(", ");
        pages.extend(cors.opened());
        let handshakes = self.mode.weaker_of(cors.mode()).as_str();
        let opening = format!("{handshakes}; pages of {}", pages.join(", "));
        vec![
            ("unsafe methods".to_owned(), changes),
            ("pages of".to_owned(), acting),
            ("websockets".to_owned(), opening),
        ]
    }
}
