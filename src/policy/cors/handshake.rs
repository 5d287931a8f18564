//! The origin of a WebSocket handshake (RFC 6455 §4.2.2 and §10.2).
//!
//! Browsers let any page open a WebSocket to any host, send the visitor's cookies along and ask nobody before. So a
//! handshake that names an origin must come from a page of the very host that it asks for, or of one that the section
//! names; this needs no section. Without an `Origin` it is no browser that asks, and the other policies judge alone.

use http::header::ORIGIN;

use super::{Cors, Monitor, Pages, Rules, State};
use crate::{
    exchange::Exchange,
    policy::mode::Mode,
    wire::{
        fetch_metadata,
        halt::{Halt, Reason, Refusal, Stage},
    },
};

/// What was found of the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// No browser asks.
    NoOrigin,
    /// A page of the host itself.
    Own,
    /// A page of an origin that the section names.
    Listed,
    /// A page of whatever site, which the section lets pass.
    AnySite,
    /// Another site, `null`, or more than one origin.
    Foreign,
}

/// Refuses a handshake of a foreign page.
///
/// # Errors
/// 403 `origin-denied`.
pub(super) fn admit(policy: &Cors, exchange: &mut Exchange) -> Result<(), Halt> {
    let rules = match &policy.state {
        State::Backend => {
            exchange.note(Stage::Cors, || {
                format!(
                    "websocket: off, the backend judges the origin ({})",
                    policy.place
                )
            });
            return Ok(());
        }
        State::Absent => None,
        State::Rules(rules) => Some(&**rules),
    };
    let finding = find(rules, exchange);
    exchange.note(Stage::Cors, || {
        format!("websocket: {} ({})", finding.words(), policy.place)
    });
    if finding != Finding::Foreign {
        return Ok(());
    }
    let mode = match rules.map(|rules| rules.monitor) {
        Some(Monitor::Watched) => Mode::Monitor,
        Some(Monitor::Enforced) | None => Mode::Enforce,
    };
    let refusal = Refusal::new(Stage::Cors, Reason::OriginDenied).detail("websocket");
    mode.apply(Err(refusal.into()), exchange)
}

fn find(rules: Option<&Rules>, exchange: &Exchange) -> Finding {
    let mut origins = exchange.headers().get_all(ORIGIN).iter();
    let origin = match (origins.next(), origins.next()) {
        (None, _) => return Finding::NoOrigin,
        (Some(origin), None) => origin.as_bytes(),
        (Some(_), Some(_)) => return Finding::Foreign,
    };
    if fetch_metadata::is_own(origin, exchange.scheme(), exchange.authority()) {
        return Finding::Own;
    }
    match rules {
        Some(rules) if rules.names(origin) => Finding::Listed,
        // Sandboxed frames and local files of anybody have the origin `null`.
        Some(rules) if rules.pages == Pages::Any && origin != b"null" => Finding::AnySite,
        _ => Finding::Foreign,
    }
}

impl Finding {
    fn words(self) -> &'static str {
        match self {
            Self::NoOrigin => "the handshake names no origin",
            Self::Own => "the handshake comes from a page of the host itself",
            Self::Listed => "the origin of the handshake is on the list",
            Self::AnySite => "any site may open it, `null` alone may not",
            Self::Foreign => {
                "the origin of the handshake is neither the host's own nor on the list"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cors, admit, compile};
    use crate::{
        policy::trial::{compiled, exchange, handshake, relaxations},
        wire::halt::{Halt, Reason, Stage},
    };

    const LISTED: &str = "origins = ['https://shop.example', 'https://*.partner.example']";

    fn cors(text: &str) -> Cors {
        compiled(text, compile)
    }

    fn absent() -> Cors {
        let (cors, problems) = crate::policy::trial::layered(&[], compile);
        assert!(problems.is_empty());
        cors
    }

    fn verdict(policy: &Cors, origins: &[&str]) -> Option<Reason> {
        let fields: Vec<_> = origins.iter().map(|origin| ("origin", *origin)).collect();
        let mut handshake = handshake("https", &fields);
        match admit(policy, &mut handshake) {
            Ok(()) => None,
            Err(Halt::Refuse(refusal)) => Some(refusal.reason),
            Err(Halt::Reply(_)) => panic!("a handshake is no preflight"),
        }
    }

    #[test]
    fn without_a_section_only_pages_of_the_host_itself_may() {
        let cors = absent();
        for fine in [&[][..], &["https://app.example"]] {
            assert_eq!(verdict(&cors, fine), None, "{fine:?}");
        }
        for foreign in [
            &["https://evil.example"][..],
            &["http://app.example"],
            &["https://app.example:8443"],
            &["https://app.example:443"],
            &["https://app.example.evil.com"],
            &["https://evil.example/https://app.example"],
            &["HTTPS://APP.example"],
            &["https://app.example/"],
            &["null"],
            &[""],
            &["app.example"],
            &["https://app.example", "https://app.example"],
            &["https://app.example", "https://evil.example"],
            &["https://app.example, https://evil.example"],
        ] {
            let found = verdict(&cors, foreign);
            assert_eq!(found, Some(Reason::OriginDenied), "{foreign:?}");
        }
    }

    #[test]
    fn a_list_lets_its_origins_in_and_a_star_names_nobody() {
        let listed = cors(LISTED);
        for fine in ["https://shop.example", "https://a.partner.example"] {
            assert_eq!(verdict(&listed, &[fine]), None, "{fine}");
        }
        for foreign in ["https://evil.example", "https://a.b.partner.example"] {
            assert!(verdict(&listed, &[foreign]).is_some(), "{foreign}");
        }
        let star = cors("origins = ['*']");
        assert!(verdict(&star, &["https://evil.example"]).is_some());
    }

    #[test]
    fn any_site_is_a_relaxation_and_still_not_null() {
        let any = cors("websocket = 'any'");
        assert_eq!(verdict(&any, &["https://evil.example"]), None);
        for foreign in [&["null"][..], &["https://a.example", "https://b.example"]] {
            assert_eq!(verdict(&any, foreign), Some(Reason::OriginDenied));
        }
        let said = relaxations("websocket = 'any'", compile);
        assert!(
            said.iter().any(|said| said.contains("WebSocket")),
            "{said:?}"
        );
        assert!(relaxations("websocket = 'listed'", compile).is_empty());
    }

    #[test]
    fn the_mode_of_the_section_holds() {
        let watched = cors("mode = 'monitor'\norigins = []");
        let mut handshake = handshake("https", &[("origin", "https://evil.example")]);
        assert!(admit(&watched, &mut handshake).is_ok());
        assert_eq!(
            handshake.would_refuse,
            [(Stage::Cors, Reason::OriginDenied)]
        );
        assert_eq!(
            verdict(&cors("mode = 'off'"), &["https://evil.example"]),
            None
        );
    }

    #[test]
    fn another_request_of_that_page_is_the_browsers_to_judge() {
        let mut request = exchange("GET", "https", &[("origin", "https://evil.example")]);
        assert!(admit(&absent(), &mut request).is_ok());
    }
}
