//! The claim `cnf`: what a token is bound to (RFC 7800 §3.1). For `bearer`.
//!
//! Two members are understood: the thumbprint of a certificate (RFC 8705 §3.1) and that of a key (RFC 9449 §6.1). Any
//! other, or more than one, could mean a proof that nobody would ask for, so it is refused. Nothing is proved here.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::claims::{BadClaim, Claims};
use crate::crypto::digest::Sha256;
use crate::exchange::principal::Binding;

/// What the token is bound to; `None` for a plain bearer token.
///
/// # Errors
/// A `cnf` that is not understood.
pub(super) fn binding(claims: &Claims) -> Result<Option<Binding>, BadClaim> {
    let Some(confirmation) = claims.get("cnf") else {
        return Ok(None);
    };
    let refused = BadClaim("cnf");
    let mut members = confirmation.as_object().ok_or(refused)?.iter();
    let (Some((name, value)), None) = (members.next(), members.next()) else {
        return Err(refused);
    };
    let digest = value.as_str().and_then(thumbprint).ok_or(refused)?;
    match name.as_str() {
        "x5t#S256" => Ok(Some(Binding::Certificate(digest))),
        "jkt" => Ok(Some(Binding::Key(digest))),
        _ => Err(refused),
    }
}

/// A SHA-256 value in base64url without padding, in its one spelling.
fn thumbprint(text: &str) -> Option<Sha256> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{binding, thumbprint};

    #[test]
    fn a_thumbprint_has_one_spelling() {
        let text = "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2";
        let digest = thumbprint(text);
        // The last sign carries two bits of nothing: three others would decode alike.
        assert_eq!(digest, None, "the published example is not canonical");
        assert!(thumbprint("bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg0").is_some());
        assert_eq!(thumbprint(""), None);
        assert_eq!(thumbprint(&format!("{text}=")), None);
        assert_eq!(thumbprint(&text.replace('_', "/")), None);
    }

    #[test]
    fn an_unbound_token_has_no_binding() {
        let claims = json!({"sub": "a"});
        let found = binding(claims.as_object().expect("an object"));
        assert_eq!(found, Ok(None));
    }
}
