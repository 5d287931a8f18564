//! The pages as text: HTML that is put together of fixed parts and of values that are escaped on their way in.

use bytes::Bytes;

use crate::wire::own_space;

/// What a person is told after a wrong code.
pub(super) const WRONG: &str = "That code is not right. Wait for the next one and type it in.";

/// The looks of the pages.
pub(super) const STYLE: &str = "\
:root{color-scheme:light dark}\n\
body{font:1rem/1.5 system-ui,sans-serif;max-width:26rem;margin:12vh auto;padding:0 1.5rem}\n\
h1{font-size:1.5rem;line-height:1.25}\n\
label{display:block;font-weight:600;margin-top:1.5rem}\n\
input,button{font:inherit;padding:.5rem .75rem;border-radius:.375rem;border:1px solid #767676}\n\
input{width:9rem;font-size:1.25rem;letter-spacing:.15em}\n\
button{margin-top:1rem;cursor:pointer}\n\
input:focus-visible,button:focus-visible{outline:3px solid #2563eb;outline-offset:2px}\n\
.account{overflow-wrap:anywhere}\n\
.message{border-left:.25rem solid #b91c1c;padding-left:.75rem}\n";

/// Of whom a page asks what.
pub(super) struct Asked<'a> {
    /// Whose account it is.
    pub(super) subject: &'a str,
    /// The way back, as it came.
    pub(super) sealed: &'a str,
}

/// The page that asks for a code, with a word about the one before.
pub(super) fn code_form(asked: &Asked<'_>, message: Option<&str>) -> Bytes {
    let mut html = Html::page("Second factor");
    html.raw(
        "<p>This part of the site needs a second factor for the account <strong class=\"account\">",
    );
    html.text(asked.subject);
    html.raw("</strong>.</p>\n");
    if let Some(message) = message {
        html.raw("<p class=\"message\" id=\"message\" role=\"alert\">");
        html.text(message);
        html.raw("</p>\n");
    }
    html.raw("<form method=\"post\" action=\"");
    html.raw(own_space::MFA);
    html.raw("?rt=");
    html.text(asked.sealed);
    html.raw("\">\n<label for=\"code\">Code of six digits from your authenticator app</label>\n");
    html.raw(
        "<input id=\"code\" name=\"code\" type=\"text\" inputmode=\"numeric\" autocomplete=\"one-time-code\" \
         pattern=\"[0-9 ]*\" maxlength=\"12\" required autofocus",
    );
    if message.is_some() {
        html.raw(" aria-invalid=\"true\" aria-describedby=\"message\"");
    }
    html.raw(">\n<div><button type=\"submit\">Continue</button></div>\n</form>\n");
    html.end()
}

/// A page in the making.
struct Html(String);

impl Html {
    /// A page up to its heading.
    fn page(title: &'static str) -> Self {
        let mut html = Self(String::with_capacity(2048));
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

    /// Markup, which is the program's own.
    fn raw(&mut self, markup: &'static str) {
        self.0.push_str(markup);
    }

    /// A value, in an element or between double quotes.
    fn text(&mut self, value: &str) {
        for sign in value.chars() {
            match sign {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                // What turns text around or has no shape could make one account look like another.
                sign if sign.is_control() || is_unseen(sign) => self.0.push('\u{fffd}'),
                sign => self.0.push(sign),
            }
        }
    }

    fn end(mut self) -> Bytes {
        self.raw("</main>\n</body>\n</html>\n");
        Bytes::from(self.0)
    }
}

/// Signs without a shape and those that set the direction of text (Unicode bidirectional algorithm §2).
fn is_unseen(sign: char) -> bool {
    matches!(sign, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::{Asked, WRONG, code_form};

    #[test]
    fn no_value_becomes_markup() {
        let page = code_form(
            &Asked {
                subject: "<script>alert('1')</script>\"&\u{202e}\u{0}x",
                sealed: "\"><img src=x>",
            },
            Some(WRONG),
        );
        let page = std::str::from_utf8(&page).unwrap();
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
        for never in ["style=", "<script", " onclick", "role=\"alert\""] {
            assert!(!plain.contains(never), "{never}");
        }
        let again = code_form(&asked, Some(WRONG));
        let again = std::str::from_utf8(&again).unwrap();
        assert!(again.contains("role=\"alert\""));
    }
}
