//! The pages as text: HTML that is put together of fixed parts and of values that are escaped on their way in.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;

use crate::{
    identity::webauthn::{Challenge, RelyingParty, cose::ALGORITHMS},
    wire::own_space,
};

/// What a person is told after a wrong code.
pub(super) const WRONG: &str = "That code is not right. Wait for the next one and type it in.";
/// After a wrong passkey.
pub(super) const WRONG_PASSKEY: &str = "That passkey did not do. Try once more.";
/// After a wrong invitation.
pub(super) const WRONG_INVITATION: &str =
    "That invitation does not count: it is not right, was used, or is too old.";

/// Why an invitation is asked for: the account has nothing.
pub(super) const NONE_YET: &str = "<p>No second factor is enrolled for the account ";
/// The route wants another factor than what the account has.
pub(super) const APP_ALONE: &str = "<p>This part of the site wants a passkey. A code of the authenticator app is not enough, and \
    nothing else is enrolled for the account ";
/// Something is to be enrolled.
pub(super) const ONE_MORE: &str =
    "<p>It takes an invitation to enrol a second factor for the account ";

/// The looks of the pages.
pub(super) const STYLE: &str = "\
:root{color-scheme:light dark}\n\
body{font:1rem/1.5 system-ui,sans-serif;max-width:26rem;margin:12vh auto;padding:0 1.5rem}\n\
h1{font-size:1.5rem;line-height:1.25}\n\
label{display:block;font-weight:600;margin-top:1.5rem}\n\
input,button{font:inherit;padding:.5rem .75rem;border-radius:.375rem;border:1px solid #767676}\n\
input{width:9rem;font-size:1.25rem;letter-spacing:.15em}\n\
input.long{width:100%;box-sizing:border-box;font-size:1rem;letter-spacing:normal}\n\
h2{font-size:1.125rem;margin-top:2rem}\n\
code{overflow-wrap:anywhere}\n\
button{margin-top:1rem;cursor:pointer}\n\
input:focus-visible,button:focus-visible{outline:3px solid #2563eb;outline-offset:2px}\n\
.account{overflow-wrap:anywhere}\n\
.message{border-left:.25rem solid #b91c1c;padding-left:.75rem}\n";

/// Of whom a page asks what.
pub(super) struct Asked<'a> {
    /// Whose account it is.
    pub(super) subject: &'a str,
    /// The way back.
    pub(super) sealed: &'a str,
    /// Whether a code would not do there.
    pub(super) wants_passkey: bool,
}

/// What an authenticator is asked.
pub(super) struct Ceremony<'a> {
    /// For whom.
    pub(super) party: &'a RelyingParty,
    /// What its answer must be about.
    pub(super) challenge: Challenge,
    /// The ids of the passkeys that the account has.
    pub(super) passkeys: &'a [Box<[u8]>],
    /// Where a new one is to be made: what the authenticator calls the account, and the name of the service.
    pub(super) new: Option<(&'a str, &'a str)>,
}

/// What somebody may enrol.
pub(super) struct Offer<'a> {
    /// The code of the invitation, where that is the right to it.
    pub(super) invitation: Option<&'a str>,
    /// What an authenticator is asked, where passkeys are offered.
    pub(super) passkey: Option<Ceremony<'a>>,
    /// The secret of an authenticator app: for people, as an address, and sealed; where one is offered.
    pub(super) app: Option<(&'a str, &'a str, &'a str)>,
    /// How many passkeys the account has.
    pub(super) passkeys: usize,
}

/// The page that asks for a factor, with a word about the one before: an authenticator app's code, a passkey, or either.
pub(super) fn factor(
    asked: &Asked<'_>,
    message: Option<&str>,
    (app, passkey): (bool, Option<&Ceremony<'_>>),
) -> Bytes {
    let mut html = Html::page("Second factor");
    html.about(
        "<p>This part of the site needs a second factor for the account ",
        asked,
        message,
    );
    if let Some(ceremony) = passkey {
        html.passkey(own_space::MFA, asked, ceremony);
        for name in ["credential", "client", "data", "signature"] {
            html.hidden(name, "");
        }
        html.raw(PASSKEY_MESSAGE);
        html.raw("<div><button type=\"submit\">Use a passkey</button></div>\n</form>\n");
        if !app {
            html.raw(NO_SCRIPT);
        }
    }
    if app {
        html.form(own_space::MFA, asked);
        html.code("Code of six digits from your authenticator app", message);
        html.raw("<div><button type=\"submit\">Continue</button></div>\n</form>\n");
    }
    html.end()
}

/// The page that asks for an invitation: why, and a word about the one before.
pub(super) fn invitation(asked: &Asked<'_>, (why, message): (&'static str, Option<&str>)) -> Bytes {
    let mut html = Html::page("Enrol a second factor");
    html.about(why, asked, message);
    html.form(own_space::ENROL, asked);
    html.raw(
        "<label for=\"invitation\">Invitation, as the operator gave it to you</label>\n\
         <input id=\"invitation\" name=\"invitation\" class=\"long\" type=\"text\" autocomplete=\"off\" \
         autocapitalize=\"characters\" spellcheck=\"false\" maxlength=\"64\" required autofocus",
    );
    html.points_at(message);
    html.raw(">\n<div><button type=\"submit\">Continue</button></div>\n</form>\n");
    html.end()
}

/// The page on which somebody who may enrol does so.
pub(super) fn offer(asked: &Asked<'_>, message: Option<&str>, offer: &Offer<'_>) -> Bytes {
    let mut html = Html::page("Enrol a second factor");
    html.about(
        "<p>Enrol what proves you at this site, for the account ",
        asked,
        message,
    );
    if offer.passkeys > 0 {
        html.raw("<p>Passkeys of the account: ");
        html.text(&offer.passkeys.to_string());
        html.raw("</p>\n");
    }
    if let Some(ceremony) = &offer.passkey {
        html.raw("<h2>Passkey</h2>\n");
        html.passkey(own_space::ENROL, asked, ceremony);
        for name in ["client", "attestation"] {
            html.hidden(name, "");
        }
        html.invited(offer);
        html.raw(PASSKEY_MESSAGE);
        html.raw("<div><button type=\"submit\">Make a passkey</button></div>\n</form>\n");
        html.raw(NO_SCRIPT);
    }
    if let Some((secret, address, sealed)) = offer.app {
        html.raw("<h2>Authenticator app</h2>\n<p>Give this secret to the app, or <a href=\"");
        html.text(address);
        html.raw("\">open it there</a>. It is shown here alone.</p>\n<p><code>");
        html.text(secret);
        html.raw("</code></p>\n");
        html.form(own_space::ENROL, asked);
        html.hidden("secret", sealed);
        html.invited(offer);
        html.code("Code of six digits that the app then shows", message);
        html.raw("<div><button type=\"submit\">Enrol</button></div>\n</form>\n");
    }
    html.end()
}

/// What the script shows when the browser or the authenticator breaks off.
const PASSKEY_MESSAGE: &str =
    "<p class=\"message\" role=\"alert\" hidden>No passkey came. Try once more.</p>\n";

/// For browsers in which the form of a passkey stays hidden.
const NO_SCRIPT: &str =
    "<noscript><p>A passkey needs a browser that runs scripts.</p></noscript>\n";

/// A page in the making.
struct Html {
    text: String,
    has_script: bool,
}

impl Html {
    /// A page up to its heading.
    fn page(title: &'static str) -> Self {
        let mut html = Self {
            text: String::with_capacity(2048),
            has_script: false,
        };
        html.raw("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
        html.raw(
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>",
        );
        html.raw(title);
        html.raw("</title>\n<link rel=\"stylesheet\" href=\"");
        html.raw(own_space::STYLE);
        html.raw("\">\n</head>\n<body>\n<main>\n<h1>");
        html.raw(title);
        html.raw("</h1>\n");
        html
    }

    /// Whose account a page is about, and a word about what was sent before.
    fn about(&mut self, start: &'static str, asked: &Asked<'_>, message: Option<&str>) {
        self.raw(start);
        self.raw("<strong class=\"account\">");
        self.text(asked.subject);
        self.raw("</strong>.</p>\n");
        if let Some(message) = message {
            self.raw("<p class=\"message\" id=\"message\" role=\"alert\">");
            self.text(message);
            self.raw("</p>\n");
        }
    }

    /// The start of a form, which keeps the way back.
    fn form(&mut self, page: &'static str, asked: &Asked<'_>) {
        self.raw("<form method=\"post\" action=\"");
        self.action(page, asked);
        self.raw("\">\n");
        self.has_script = true;
    }

    fn action(&mut self, page: &'static str, asked: &Asked<'_>) {
        self.raw(page);
        self.raw("?rt=");
        self.text(asked.sealed);
        if asked.wants_passkey && page == own_space::MFA {
            self.text(own_space::WANTS_PASSKEY);
        }
    }

    /// The start of a form that the script fills and shows.
    fn passkey(&mut self, page: &'static str, asked: &Asked<'_>, ceremony: &Ceremony<'_>) {
        let (party, passkeys) = (ceremony.party, ceremony.passkeys.iter());
        let ids: Vec<String> = passkeys.map(|id| URL_SAFE_NO_PAD.encode(id)).collect();
        self.raw("<form method=\"post\" hidden action=\"");
        self.action(page, asked);
        let what = if ceremony.new.is_some() {
            "make"
        } else {
            "prove"
        };
        self.data("passkey", what);
        self.data("challenge", &URL_SAFE_NO_PAD.encode(ceremony.challenge));
        self.data("party", party.id());
        self.data("verification", party.verification().as_str());
        self.data("credentials", &ids.join(" "));
        if let Some((user, service)) = ceremony.new {
            let algorithms = ALGORITHMS.map(|algorithm| algorithm.to_string());
            self.data("algorithms", &algorithms.join(" "));
            self.data("user", user);
            self.data("service", service);
            self.data("name", asked.subject);
        }
        self.raw("\">\n");
        self.has_script = true;
    }

    /// Ends an attribute and begins one more, which the script reads.
    fn data(&mut self, name: &'static str, value: &str) {
        self.raw("\" data-");
        self.raw(name);
        self.raw("=\"");
        self.text(value);
    }

    /// The invitation, for the next step.
    fn invited(&mut self, offer: &Offer<'_>) {
        if let Some(code) = offer.invitation {
            self.hidden("invitation", code);
        }
    }

    /// A field that nobody sees.
    fn hidden(&mut self, name: &'static str, value: &str) {
        self.raw("<input type=\"hidden\" name=\"");
        self.raw(name);
        self.raw("\" value=\"");
        self.text(value);
        self.raw("\">\n");
    }

    /// The field of a code.
    fn code(&mut self, label: &'static str, message: Option<&str>) {
        self.raw("<label for=\"code\">");
        self.raw(label);
        self.raw(
            "</label>\n<input id=\"code\" name=\"code\" type=\"text\" inputmode=\"numeric\" autocomplete=\"one-time-code\" \
             pattern=\"[0-9 ]*\" maxlength=\"12\" required autofocus",
        );
        self.points_at(message);
        self.raw(">\n");
    }

    fn points_at(&mut self, message: Option<&str>) {
        if message.is_some() {
            self.raw(" aria-invalid=\"true\" aria-describedby=\"message\"");
        }
    }

    /// Markup, which is the program's own.
    fn raw(&mut self, markup: &'static str) {
        self.text.push_str(markup);
    }

    /// A value, in an element or between double quotes.
    fn text(&mut self, value: &str) {
        for sign in value.chars() {
            match sign {
                '&' => self.text.push_str("&amp;"),
                '<' => self.text.push_str("&lt;"),
                '>' => self.text.push_str("&gt;"),
                '"' => self.text.push_str("&quot;"),
                '\'' => self.text.push_str("&#39;"),
                // What turns text around or has no shape could make one account look like another.
                sign if sign.is_control() || is_unseen(sign) => self.text.push('\u{fffd}'),
                sign => self.text.push(sign),
            }
        }
    }

    fn end(mut self) -> Bytes {
        self.raw("</main>\n");
        if self.has_script {
            self.raw("<script src=\"");
            self.raw(own_space::SCRIPT);
            self.raw("\"></script>\n");
        }
        self.raw("</body>\n</html>\n");
        Bytes::from(self.text)
    }
}

/// Signs without a shape and those that set the direction of text (Unicode bidirectional algorithm §2).
fn is_unseen(sign: char) -> bool {
    matches!(sign, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::{Asked, Ceremony, NONE_YET, Offer, WRONG, factor, invitation, offer};
    use crate::identity::webauthn::{RelyingParty, Verification};

    fn code_form(asked: &Asked<'_>, message: Option<&str>) -> bytes::Bytes {
        factor(asked, message, (true, None))
    }

    #[test]
    fn no_value_becomes_markup() {
        let page = code_form(
            &Asked {
                subject: "<script>alert('1')</script>\"&\u{202e}\u{0}x",
                sealed: "\"><img src=x>",
                wants_passkey: false,
            },
            Some(WRONG),
        );
        let page = std::str::from_utf8(&page).unwrap();
        let page = page.replace("<script src=\"/.portcullis/mfa.js\"></script>", "");
        for evil in ["<script", "<img", "\u{202e}", "\u{0}"] {
            assert!(!page.contains(evil), "{page}");
        }
        assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot;&amp;"));
        assert!(page.contains("?rt=&quot;&gt;&lt;img src=x&gt;\""));
    }

    #[test]
    fn the_page_is_for_everybody() {
        let asked = Asked {
            subject: "alice",
            sealed: "abc",
            wants_passkey: false,
        };
        let plain = code_form(&asked, None);
        let plain = std::str::from_utf8(&plain).unwrap();
        for wanted in [
            "<html lang=\"en\">",
            "<label for=\"code\">",
            "inputmode=\"numeric\"",
            "autocomplete=\"one-time-code\"",
            "action=\"/.portcullis/mfa?rt=abc\"",
            "<strong class=\"account\">alice</strong>",
        ] {
            assert!(plain.contains(wanted), "{wanted}\n{plain}");
        }
        let own = "<script src=\"/.portcullis/mfa.js\"></script>";
        assert!(plain.contains(own), "a form goes once");
        for never in ["style=", "<script", " onclick", "role=\"alert\""] {
            assert!(!plain.replace(own, "").contains(never), "{never}");
        }
        let again = code_form(&asked, Some(WRONG));
        let again = std::str::from_utf8(&again).unwrap();
        assert!(again.contains("role=\"alert\""));
    }

    #[test]
    fn no_value_becomes_markup_on_the_pages_of_passkeys_and_enrolment() {
        let evil = "<script>\"'&";
        let asked = Asked {
            subject: evil,
            sealed: evil,
            wants_passkey: true,
        };
        let party = RelyingParty::new("app.example", Box::default(), Verification::Required);
        let ids = [Box::from([1, 2, 3])];
        let ceremony = |new| Ceremony {
            party: &party,
            challenge: [7; 32],
            passkeys: &ids,
            new,
        };
        let offered = Offer {
            invitation: Some(evil),
            passkey: Some(ceremony(Some((evil, evil)))),
            app: Some((evil, evil, evil)),
            passkeys: 1,
        };
        for page in [
            factor(&asked, Some(evil), (true, Some(&ceremony(None)))),
            invitation(&asked, (NONE_YET, Some(evil))),
            offer(&asked, Some(evil), &offered),
        ] {
            let page = std::str::from_utf8(&page).unwrap();
            let own = "<script src=\"/.portcullis/mfa.js\"></script>";
            assert!(!page.replace(own, "").contains("<script"), "{page}");
            assert!(!page.contains("\"'&"), "{page}");
            assert!(page.contains("&lt;script&gt;&quot;&#39;&amp;"), "{page}");
            assert!(page.ends_with("</html>\n"));
        }
    }
}
