//! Webhooks that carry a code over their raw body: HMAC-SHA-256 as GitHub, Stripe, Slack and many others send it.
//!
//! The head gives what is claimed ([`Webhook::claimed`]); the code is checked once the body is whole ([`Claim::holds`]).
//! Stripe and Slack sign a time with the body, and it must be near now; the others sign none, so that whoever has seen
//! one can send it again unless it counts once ([`super::once`]): what was signed, whatever codes stand beside the right one
//! and whichever secret made it. SHA-1 (`X-Hub-Signature`) is not spoken.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use subtle::ConstantTimeEq;

use super::once::{Once, Ticket, What};
use crate::{
    crypto::{
        digest::sha256_of,
        hex,
        mac::{MacKey, Tag},
    },
    exchange::body_check::{BodyCheck, BodyError, Single},
};

/// The field of GitHub's code.
pub static X_HUB_SIGNATURE_256: HeaderName = HeaderName::from_static("x-hub-signature-256");
/// The field of GitHub's older code, over SHA-1.
const X_HUB_SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature");
/// The field that GitHub gives each delivery a name in.
pub const X_GITHUB_DELIVERY: HeaderName = HeaderName::from_static("x-github-delivery");
/// The field of Stripe's times and codes.
pub static STRIPE_SIGNATURE: HeaderName = HeaderName::from_static("stripe-signature");
/// The field of Slack's code.
pub static X_SLACK_SIGNATURE: HeaderName = HeaderName::from_static("x-slack-signature");
/// The field of Slack's time.
pub const X_SLACK_REQUEST_TIMESTAMP: HeaderName =
    HeaderName::from_static("x-slack-request-timestamp");

/// Seconds by which a time may be ahead: clocks differ.
const SKEW: u64 = 60;
/// The most codes of one request that are compared.
const MOST_TAGS: usize = 8;

/// How a code is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Hexadecimal.
    Hex,
    /// Base64 with padding.
    Base64,
}

/// Whose form of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// `X-Hub-Signature-256: sha256=…`
    GitHub,
    /// `Stripe-Signature: t=…,v1=…`
    Stripe,
    /// `X-Slack-Signature: v0=…` with `X-Slack-Request-Timestamp`
    Slack,
    /// The code in a field of its own, behind a prefix, over the body alone.
    Plain {
        /// The field.
        field: HeaderName,
        /// What stands before the code.
        prefix: Box<str>,
        /// How the code is written.
        encoding: Encoding,
    },
}

/// One who sends webhooks.
#[derive(Debug)]
pub struct Webhook {
    /// The form of the codes.
    pub form: Form,
    /// Any of them may have made a code; several during a rotation.
    pub secrets: Vec<MacKey>,
    /// Seconds for which a signed time counts.
    pub max_age: u64,
    /// What of a delivery counts once.
    pub once: Option<Once>,
}

/// Why a webhook does not count, or not yet. The codes are for the log alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookError {
    /// What it says of its code cannot be read, or says two things.
    Unclear(&'static str),
    /// It does not count.
    Invalid(&'static str),
}

/// What the head of a delivery claims of its body.
#[derive(Debug)]
pub struct Claim {
    webhook: Arc<Webhook>,
    /// What is signed before the body.
    lead: Vec<u8>,
    tags: Vec<Tag>,
    delivery: Option<HeaderValue>,
    /// When it came, in Unix seconds.
    now: u64,
}

impl Webhook {
    /// The field whose presence says that a request is of this kind.
    pub fn field(&self) -> &HeaderName {
        match &self.form {
            Form::GitHub => &X_HUB_SIGNATURE_256,
            Form::Stripe => &STRIPE_SIGNATURE,
            Form::Slack => &X_SLACK_SIGNATURE,
            Form::Plain { field, .. } => field,
        }
    }

    /// The fields that hold its codes, and codes of the same body in older forms.
    pub fn credentials(&self) -> Vec<HeaderName> {
        let mut fields = vec![self.field().clone()];
        if self.form == Form::GitHub {
            fields.push(X_HUB_SIGNATURE);
        }
        fields
    }

    /// Reads what a delivery claims; `None` where it claims nothing.
    ///
    /// # Errors
    /// [`WebhookError`]
    pub fn claimed(
        self: &Arc<Self>,
        headers: &HeaderMap,
        now: u64,
    ) -> Result<Option<Claim>, WebhookError> {
        let Some(value) = one(headers, self.field())? else {
            return Ok(None);
        };
        let (lead, tags) = self.read(value.as_bytes(), headers, now)?;
        Ok(Some(Claim {
            webhook: Arc::clone(self),
            lead,
            tags,
            delivery: self.delivery(headers)?,
            now,
        }))
    }

    fn read(
        &self,
        value: &[u8],
        headers: &HeaderMap,
        now: u64,
    ) -> Result<(Vec<u8>, Vec<Tag>), WebhookError> {
        match &self.form {
            Form::GitHub => Ok((Vec::new(), vec![code(value, b"sha256=", Encoding::Hex)?])),
            Form::Plain {
                prefix, encoding, ..
            } => Ok((Vec::new(), vec![code(value, prefix.as_bytes(), *encoding)?])),
            Form::Slack => {
                let time = one(headers, &X_SLACK_REQUEST_TIMESTAMP)?;
                let time = time
                    .ok_or(WebhookError::Invalid("time-missing"))?
                    .as_bytes();
                self.is_timely(time, now)?;
                let lead = [&b"v0:"[..], time, b":"].concat();
                Ok((lead, vec![code(value, b"v0=", Encoding::Hex)?]))
            }
            Form::Stripe => {
                let (time, tags) = stripe(value)?;
                self.is_timely(time, now)?;
                Ok(([time, b"."].concat(), tags))
            }
        }
    }

    fn is_timely(&self, time: &[u8], now: u64) -> Result<(), WebhookError> {
        let text = std::str::from_utf8(time).ok();
        let digits = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let second: Option<u64> = digits.and_then(|text| text.parse().ok());
        match second.ok_or(MALFORMED)? {
            second if second > now.saturating_add(SKEW) => {
                Err(WebhookError::Invalid("time-in-future"))
            }
            second if second.saturating_add(self.max_age) < now => {
                Err(WebhookError::Invalid("too-old"))
            }
            _ => Ok(()),
        }
    }

    fn delivery(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, WebhookError> {
        let Some(What::Delivery(field)) = self.once.as_ref().map(|once| &once.what) else {
            return Ok(None);
        };
        match one(headers, field)? {
            Some(value) if !value.is_empty() => Ok(Some(value.clone())),
            _ => Err(WebhookError::Invalid("delivery-missing")),
        }
    }
}

impl BodyCheck for Claim {
    fn judge(&self, body: &[u8]) -> Result<(), BodyError> {
        self.holds(body)
    }

    fn single(&self, body: &[u8]) -> Option<Box<dyn Single>> {
        Some(Box::new(self.ticket(body)?))
    }
}

impl Claim {
    /// Whether the body is the one that was signed, and was not seen before where that counts.
    ///
    /// # Errors
    /// [`BodyError`]
    pub fn holds(&self, body: &[u8]) -> Result<(), BodyError> {
        let made = self
            .webhook
            .secrets
            .iter()
            .map(|secret| secret.sign_all(&[&self.lead, body]));
        // All are compared with all, so that the time tells neither which secret it was nor which code.
        let mut found = subtle::Choice::from(0);
        for own in made {
            for tag in &self.tags {
                found |= own.ct_eq(tag);
            }
        }
        if !bool::from(found) {
            return Err(BodyError::Invalid("signature"));
        }
        if self
            .ticket(body)
            .is_some_and(|own| own.if_unused().is_none())
        {
            return Err(BodyError::Invalid("replayed"));
        }
        Ok(())
    }

    /// What it uses up: what was signed, not the codes that came, since anybody can put others beside the right one.
    fn ticket(&self, body: &[u8]) -> Option<Ticket> {
        let once = self.webhook.once.as_ref()?;
        let signed = sha256_of(&[&self.lead, body]);
        Some(match &self.delivery {
            Some(name) => once.ticket_of_name(name.as_bytes(), &signed, self.now),
            None => once.ticket(&signed, self.now),
        })
    }
}

const MALFORMED: WebhookError = WebhookError::Unclear("signature-malformed");

/// The one value of a field.
fn one<'a>(
    headers: &'a HeaderMap,
    field: &HeaderName,
) -> Result<Option<&'a HeaderValue>, WebhookError> {
    let mut values = headers.get_all(field).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(WebhookError::Unclear("signature-repeated")),
        (value, None) => Ok(value),
    }
}

fn code(value: &[u8], prefix: &[u8], encoding: Encoding) -> Result<Tag, WebhookError> {
    let code = value.strip_prefix(prefix).ok_or(MALFORMED)?;
    match encoding {
        Encoding::Hex => hex::decode(&code.to_ascii_lowercase()).ok_or(MALFORMED),
        Encoding::Base64 => {
            let bytes = STANDARD.decode(code).map_err(|_| MALFORMED)?;
            Tag::try_from(bytes).map_err(|_| MALFORMED)
        }
    }
}

/// The one time and the codes of the scheme `v1`; codes of other schemes are left aside, as Stripe asks.
fn stripe(value: &[u8]) -> Result<(&[u8], Vec<Tag>), WebhookError> {
    let (mut time, mut tags) = (None, Vec::new());
    for pair in value.split(|byte| *byte == b',') {
        let at = pair
            .iter()
            .position(|byte| *byte == b'=')
            .ok_or(MALFORMED)?;
        match pair.split_at(at) {
            (b"t", _) if time.is_some() => {
                return Err(WebhookError::Unclear("signature-repeated"));
            }
            (b"t", rest) => time = Some(rest.get(1..).unwrap_or_default()),
            (b"v1", rest) => tags.push(code(rest, b"=", Encoding::Hex)?),
            _ => {}
        }
    }
    if tags.len() > MOST_TAGS {
        return Err(WebhookError::Unclear("signature-too-large"));
    }
    match time {
        Some(time) if !tags.is_empty() => Ok((time, tags)),
        _ => Err(MALFORMED),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{Encoding, Form, Webhook, WebhookError, X_GITHUB_DELIVERY};
    use crate::{
        crypto::mac::MacKey,
        exchange::body_check::{BodyCheck, BodyError},
        identity::once::{Once, OnceRules, Used, What},
    };

    /// GitHub's documented example.
    const GITHUB_SECRET: &str = "It's a Secret to Everybody";
    const GITHUB_BODY: &[u8] = b"Hello, World!";
    const GITHUB_CODE: &str =
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    /// Slack's documented example.
    const SLACK_SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
    const SLACK_TIME: u64 = 1_531_420_618;
    const SLACK_BODY: &[u8] = b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    const SLACK_CODE: &str = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";

    fn webhook(form: Form, secrets: &[&str]) -> Webhook {
        Webhook {
            form,
            secrets: secrets
                .iter()
                .map(|secret| MacKey::new(secret.as_bytes()))
                .collect(),
            max_age: 300,
            once: None,
        }
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let value = HeaderValue::from_str(value).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        headers
    }

    /// What comes of a delivery: a code for the log, or nothing.
    fn judged(
        webhook: &Arc<Webhook>,
        fields: &[(&'static str, &str)],
        (body, now): (&[u8], u64),
    ) -> Result<(), &'static str> {
        match webhook.claimed(&headers(fields), now) {
            Ok(claim) => {
                let claim = claim.expect("a claim");
                let used = claim.holds(body).and_then(|()| {
                    let single = claim.single(body);
                    single.map_or(Ok(()), |single| single.spend())
                });
                used.map_err(|error| match error {
                    BodyError::Invalid(code) => code,
                    BodyError::NoRoom => "no-room",
                })
            }
            Err(WebhookError::Unclear(code) | WebhookError::Invalid(code)) => Err(code),
        }
    }

    #[test]
    fn the_example_of_github_holds() {
        let github = Arc::new(webhook(Form::GitHub, &[GITHUB_SECRET]));
        let field = [("x-hub-signature-256", GITHUB_CODE)];
        assert_eq!(judged(&github, &field, (GITHUB_BODY, 0)), Ok(()));
        assert_eq!(
            judged(&github, &field, (b"Hello, World", 0)),
            Err("signature")
        );
        assert_eq!(judged(&github, &field, (b"", 0)), Err("signature"));
        let other = Arc::new(webhook(Form::GitHub, &["It's a Secret to everybody"]));
        assert_eq!(judged(&other, &field, (GITHUB_BODY, 0)), Err("signature"));
        let rotated = Arc::new(webhook(Form::GitHub, &["the new one", GITHUB_SECRET]));
        assert_eq!(judged(&rotated, &field, (GITHUB_BODY, 0)), Ok(()));
        assert!(github.claimed(&HeaderMap::new(), 0).unwrap().is_none());
    }

    #[test]
    fn the_example_of_slack_holds_for_five_minutes() {
        let slack = Arc::new(webhook(Form::Slack, &[SLACK_SECRET]));
        let time = SLACK_TIME.to_string();
        let fields = [
            ("x-slack-signature", SLACK_CODE),
            ("x-slack-request-timestamp", time.as_str()),
        ];
        for now in [SLACK_TIME - 60, SLACK_TIME, SLACK_TIME + 300] {
            assert_eq!(judged(&slack, &fields, (SLACK_BODY, now)), Ok(()), "{now}");
        }
        let late = SLACK_TIME + 301;
        assert_eq!(judged(&slack, &fields, (SLACK_BODY, late)), Err("too-old"));
        let early = SLACK_TIME - 61;
        assert_eq!(
            judged(&slack, &fields, (SLACK_BODY, early)),
            Err("time-in-future")
        );
        let moved = [fields[0], ("x-slack-request-timestamp", "1531420619")];
        assert_eq!(
            judged(&slack, &moved, (SLACK_BODY, SLACK_TIME)),
            Err("signature")
        );
        assert_eq!(
            judged(&slack, &fields[..1], (SLACK_BODY, SLACK_TIME)),
            Err("time-missing")
        );
        for odd in [
            "",
            "+1531420618",
            "1531420618 ",
            "15314206180000000000000",
            "0x5B47",
        ] {
            let odd = [fields[0], ("x-slack-request-timestamp", odd)];
            let code = judged(&slack, &odd, (SLACK_BODY, SLACK_TIME));
            assert_eq!(code, Err("signature-malformed"));
        }
    }

    /// The code of `1492774577.{"id":"evt_1"}` under `whsec_test`, made by Python's hmac.
    const STRIPE_CODE: &str = "7656fc2882a7ca0a651666b36bf2f2f22ee204f54f608f227498a2419f2890b2";
    const STRIPE_BODY: &[u8] = b"{\"id\":\"evt_1\"}";

    #[test]
    fn stripe_sends_a_time_and_any_number_of_codes() {
        let stripe = Arc::new(webhook(Form::Stripe, &["whsec_test"]));
        let other = "5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd";
        let now = 1_492_774_577;
        let judge = |value: &str, now: u64| {
            judged(&stripe, &[("stripe-signature", value)], (STRIPE_BODY, now))
        };
        assert_eq!(
            judge(&format!("t=1492774577,v1={STRIPE_CODE}"), now),
            Ok(())
        );
        let several = format!("t=1492774577,v1={other},v1={STRIPE_CODE},v0={other}");
        assert_eq!(judge(&several, now), Ok(()));
        assert_eq!(judge(&several, now + 300), Ok(()));
        assert_eq!(judge(&several, now + 301), Err("too-old"));
        let documented = format!("t=1492774577,v1={other},v0={STRIPE_CODE}");
        assert_eq!(judge(&documented, now), Err("signature"), "v0 is for tests");
        let moved = format!("t=1492774578,v1={STRIPE_CODE}");
        assert_eq!(judge(&moved, now), Err("signature"));
        let nine = format!("t=1492774577{}", format!(",v1={other}").repeat(9));
        assert_eq!(judge(&nine, now), Err("signature-too-large"));
        let twice = format!("t=1,t=1492774577,v1={STRIPE_CODE}");
        assert_eq!(judge(&twice, now), Err("signature-repeated"));
        for bad in ["", "t=1492774577", "v1=00", "t=1492774577,v1=xyz", "x"] {
            assert_eq!(judge(bad, now), Err("signature-malformed"), "{bad}");
        }
        let untimed = format!("v1={STRIPE_CODE}");
        assert_eq!(judge(&untimed, now), Err("signature-malformed"));
    }

    #[test]
    fn a_field_of_ones_own_has_a_prefix_and_an_encoding() {
        let form = |prefix: &str, encoding| Form::Plain {
            field: HeaderName::from_static("x-shop-hmac"),
            prefix: prefix.into(),
            encoding,
        };
        let base64 = "dXEH6g6yUJ/CESIczphLijdXC211hsIsRvQ3nIsEPhc=";
        let hex = GITHUB_CODE.strip_prefix("sha256=").unwrap();
        for (form, good) in [
            (form("", Encoding::Base64), base64.to_owned()),
            (form("", Encoding::Hex), hex.to_ascii_uppercase()),
            (form("v1 ", Encoding::Hex), format!("v1 {hex}")),
        ] {
            let shop = Arc::new(webhook(form, &[GITHUB_SECRET]));
            let judge = |value: &str| judged(&shop, &[("x-shop-hmac", value)], (GITHUB_BODY, 0));
            assert_eq!(judge(&good), Ok(()), "{good}");
            for bad in [
                "",
                "v1",
                &good[1..],
                &good[..good.len() - 1],
                &format!("{good}0"),
            ] {
                assert_eq!(judge(bad), Err("signature-malformed"), "{bad}");
            }
            let twice = [
                ("x-shop-hmac", good.as_str()),
                ("x-shop-hmac", good.as_str()),
            ];
            assert_eq!(
                judged(&shop, &twice, (GITHUB_BODY, 0)),
                Err("signature-repeated")
            );
        }
    }

    #[test]
    fn a_delivery_counts_once_where_that_is_asked_for() {
        let once = |what| {
            let rules = OnceRules {
                entries: 1,
                seconds: 100,
            };
            let used = Arc::default();
            let mut github = webhook(Form::GitHub, &[GITHUB_SECRET]);
            github.once = Some(Once { what, rules, used });
            Arc::new(github)
        };
        let by_code = once(What::Signature);
        let field = ("x-hub-signature-256", GITHUB_CODE);
        let delivery = |id| [field, ("x-github-delivery", id)];
        assert_eq!(
            judged(&by_code, &delivery("a"), (b"forged", 5)),
            Err("signature")
        );
        assert_eq!(judged(&by_code, &delivery("a"), (GITHUB_BODY, 5)), Ok(()));
        assert_eq!(
            judged(&by_code, &delivery("b"), (GITHUB_BODY, 104)),
            Err("replayed")
        );
        assert_eq!(judged(&by_code, &delivery("b"), (GITHUB_BODY, 105)), Ok(()));
        let by_name = once(What::Delivery(X_GITHUB_DELIVERY));
        assert_eq!(
            judged(&by_name, &[field], (GITHUB_BODY, 5)),
            Err("delivery-missing")
        );
        assert_eq!(judged(&by_name, &delivery("a"), (GITHUB_BODY, 5)), Ok(()));
        assert_eq!(
            judged(&by_name, &delivery("a"), (GITHUB_BODY, 5)),
            Err("replayed")
        );
        let other = "sha256=338bb37ea92cd1c8fdf7253d331b554d271ccc4e36d37b83d512252d0ece7677";
        let other = [("x-hub-signature-256", other), ("x-github-delivery", "b")];
        let full = judged(&by_name, &other, (b"other", 5));
        assert_eq!(full, Err("no-room"));
    }

    #[test]
    fn what_counts_once_is_the_delivery_and_not_the_codes_beside_it() {
        let used = Arc::new(Used::default());
        let rules = OnceRules {
            entries: 5,
            seconds: 100,
        };
        let stripe = |secrets: &[&str]| {
            let mut stripe = webhook(Form::Stripe, secrets);
            stripe.once = Some(Once {
                what: What::Signature,
                rules,
                used: Arc::clone(&used),
            });
            Arc::new(stripe)
        };
        let now = 1_492_774_577;
        let judge = |secrets: &[&str], value: &str| {
            let fields = [("stripe-signature", value)];
            judged(&stripe(secrets), &fields, (STRIPE_BODY, now))
        };
        let decoyed = |n: usize| format!("t=1492774577,v1={n:064x},v1={STRIPE_CODE}");
        assert_eq!(judge(&["whsec_test"], &decoyed(0)), Ok(()));
        for n in 0..9 {
            assert_eq!(judge(&["whsec_test"], &decoyed(n)), Err("replayed"), "{n}");
        }
        // Nor is it another one once the secrets have changed places.
        let rotated = judge(&["the new one", "whsec_test"], &decoyed(0));
        assert_eq!(rotated, Err("replayed"));
        assert_eq!(used.entries(), 1);
    }
}
