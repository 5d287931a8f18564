//! `[network]`: the networks that a client's address must, or must not, belong to.
//!
//! `deny` wins; a list in `allow` lets in nobody else. The address is that of the client after the trusted-proxy walk.
//! It knows addresses only, neither names nor countries.

use std::net::IpAddr;

use super::mode::Mode;
use crate::{
    config::{Cidr, Key, Kind, Reader, Section},
    exchange::Exchange,
    wire::halt::{Halt, Reason, Stage},
};

/// The longest list; a longer one belongs in a firewall.
const MOST: usize = 10_000;

/// The declaration of `[network]`.
pub static SECTION: Section = Section {
    name: "network",
    doc: "networks that clients must or must not come from",
    keys: &[
        Key::new(
            "mode",
            Kind::Choice(Mode::WORDS),
            "enforce, monitor or off",
            "\"enforce\"",
        ),
        Key::new(
            "allow",
            Kind::List(&Kind::Network),
            "networks that may ask, and no other; all where nothing is said",
            "",
        ),
        Key::new(
            "deny",
            Kind::List(&Kind::Network),
            "networks that may not ask, even when `allow` holds them",
            "[]",
        ),
    ],
};

/// The compiled section.
#[derive(Debug, Default)]
pub struct Network {
    mode: Mode,
    /// `None` lets in everybody.
    allow: Option<Ranges>,
    deny: Ranges,
    /// Where `allow` and `deny` stand, for `explain`.
    places: Places,
}

#[derive(Debug, Default)]
struct Places {
    allow: Box<str>,
    deny: Box<str>,
}

/// Sorted ranges that do not touch, both ends included: one binary search whatever the length of the list.
#[derive(Debug, Default)]
struct Ranges {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

/// Refuses addresses that are denied or not on the list of those allowed.
///
/// # Errors
/// 403 `network-denied`.
pub fn admit(policy: &Network, exchange: &mut Exchange) -> Result<(), Halt> {
    let client = exchange.client;
    exchange.note(Stage::Network, || policy.explain(client));
    if policy.mode == Mode::Off || policy.admits(client) {
        return Ok(());
    }
    let refused = Halt::refuse(Stage::Network, Reason::NetworkDenied);
    policy.mode.apply(Err(refused), exchange)
}

/// Compiles the section through its layers.
pub fn compile(reader: &Reader<'_>) -> Network {
    let mode: Mode = reader.get("mode").unwrap_or_default();
    let allow = networks(reader, "allow");
    if allow.is_empty() && reader.get::<Vec<Cidr>>("allow").is_some() {
        reader.error(
            "allow",
            "an empty list may mean nobody or everybody",
            Some("name networks; `[\"0.0.0.0/0\", \"::/0\"]` is everybody".to_owned()),
        );
    }
    let deny = networks(reader, "deny");
    if mode != Mode::Enforce && !(allow.is_empty() && deny.is_empty()) {
        reader.relax(
            "mode",
            format!(
                "this weakens the gate: networks are in mode `{}`",
                mode.as_str()
            ),
        );
    }
    Network {
        mode,
        allow: (!allow.is_empty()).then(|| Ranges::new(&allow)),
        deny: Ranges::new(&deny),
        places: Places {
            allow: reader.whence("allow"),
            deny: reader.whence("deny"),
        },
    }
}

fn networks(reader: &Reader<'_>, key: &str) -> Vec<Cidr> {
    let list: Vec<Cidr> = reader.get(key).unwrap_or_default();
    if list.len() > MOST {
        let message = format!(
            "{} networks are more than the {MOST} that a list may hold",
            list.len()
        );
        reader.error(
            key,
            message,
            Some("join neighbours into larger networks".to_owned()),
        );
    }
    list
}

impl Network {
    fn admits(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        !self.deny.holds(client) && self.allow.as_ref().is_none_or(|allow| allow.holds(client))
    }

    /// Which list decides, for `explain`.
    fn explain(&self, client: IpAddr) -> String {
        if self.mode == Mode::Off {
            return "off".to_owned();
        }
        let canonical = client.to_canonical();
        let (word, place) = if self.deny.holds(canonical) {
            ("is on the list `deny`", &self.places.deny)
        } else if let Some(allow) = &self.allow {
            if allow.holds(canonical) {
                ("is on the list `allow`", &self.places.allow)
            } else {
                ("is not on the list `allow`", &self.places.allow)
            }
        } else {
            ("is not denied", &self.places.deny)
        };
        format!("{client} {word} ({place})")
    }

    /// What the policy demands, for `check -v`.
    pub fn describe(&self) -> Vec<(String, String)> {
        let count = |ranges: &Ranges| ranges.v4.len() + ranges.v6.len();
        let mut lines = Vec::new();
        if let Some(allow) = &self.allow {
            lines.push((
                "allow".to_owned(),
                format!("{} ranges ({})", count(allow), self.mode.as_str()),
            ));
        }
        if count(&self.deny) > 0 {
            lines.push((
                "deny".to_owned(),
                format!("{} ranges ({})", count(&self.deny), self.mode.as_str()),
            ));
        }
        lines
    }
}

impl Ranges {
    fn new(networks: &[Cidr]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match (network.0.network(), network.0.broadcast()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => {
                    v4.push((u32::from(first), u32::from(last)));
                }
                (IpAddr::V6(first), IpAddr::V6(last)) => {
                    v6.push((u128::from(first), u128::from(last)));
                }
                _ => {}
            }
        }
        Self {
            v4: merge(v4),
            v6: merge(v6),
        }
    }

    fn holds(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => within(&self.v4, u32::from(address)),
            IpAddr::V6(address) => within(&self.v6, u128::from(address)),
        }
    }
}

/// Networks nest or lie apart, so in order of their first address each is inside the last one kept or begins a new one.
fn merge<T: Copy + Ord>(mut ranges: Vec<(T, T)>) -> Box<[(T, T)]> {
    ranges.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    let mut kept: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for range in ranges {
        if kept.last().is_none_or(|last| range.0 > last.1) {
            kept.push(range);
        }
    }
    kept.into()
}

fn within<T: Copy + Ord>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|range| range.0 <= address);
    after
        .checked_sub(1)
        .and_then(|at| ranges.get(at))
        .is_some_and(|range| address <= range.1)
}

#[cfg(test)]
mod tests {
    use super::{Network, compile};
    use crate::policy::trial::{compiled, exchange};
    use crate::wire::halt::{Halt, Reason};

    fn network(text: &str) -> Network {
        compiled(text, compile)
    }

    #[test]
    fn deny_wins_and_a_list_lets_in_nobody_else() {
        let policy = network(
            "allow = ['10.0.0.0/8', '2001:db8::/32', '10.1.0.0/16']\ndeny = ['10.1.2.0/24', '10.1.2.7']",
        );
        for (address, admitted) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("10.1.2.7", false),
            ("10.1.3.0", true),
            ("::ffff:10.0.0.1", true),
            ("::ffff:10.1.2.1", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("::1", false),
        ] {
            assert_eq!(
                policy.admits(address.parse().unwrap()),
                admitted,
                "{address}"
            );
        }
        assert!(network("").admits("192.0.2.1".parse().unwrap()));
        assert!(!network("deny = ['0.0.0.0/0', '::/0']").admits("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn monitor_mode_lets_pass_and_notes_it() {
        let mut asked = exchange("GET", "https", &[]);
        let policy = network("deny = ['127.0.0.0/8']");
        assert!(
            matches!(super::admit(&policy, &mut asked), Err(Halt::Refuse(r)) if r.reason == Reason::NetworkDenied)
        );
        let policy = network("mode = 'monitor'\ndeny = ['127.0.0.0/8']");
        assert!(super::admit(&policy, &mut asked).is_ok());
        assert_eq!(asked.would_refuse.len(), 1);
        let policy = network("mode = 'off'\ndeny = ['127.0.0.0/8']");
        assert!(super::admit(&policy, &mut asked).is_ok());
        assert_eq!(asked.would_refuse.len(), 1);
    }
}
