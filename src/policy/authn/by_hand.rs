//! Whether a route's credentials are such as browsers add by themselves. For [`crate::policy::csrf`].
//!
//! A cookie, a client certificate and a remembered password go along with whatever a page has its browser ask; a token, a
//! key in a header and a signature must be put there by who holds them. A presigned signature is none of these: any form
//! or link can have one in its address.

use super::{Authn, Means, Mode};
use crate::exchange::Exchange;

impl Authn {
    /// Whether nobody is let in but by credentials that callers put into the request themselves, as this one's are.
    pub fn is_brought_by_hand(&self, exchange: &Exchange) -> bool {
        self.asks_for_hands() && !self.may_be_linked(exchange)
    }

    /// Whether nobody is let in but by credentials that callers put into requests themselves.
    pub fn asks_for_hands(&self) -> bool {
        let Self::Required(required) = self else {
            return false;
        };
        // Where nobody is asked, or whoever fails is only noted, cookies may be what the backend goes by.
        required.mode == Mode::Enforce && required.means.iter().all(Means::is_brought_by_hand)
    }

    /// Whether the address that a link or a form goes to could hold the credential of this request.
    fn may_be_linked(&self, exchange: &Exchange) -> bool {
        let Self::Required(required) = self else {
            return false;
        };
        required.means.iter().any(|means| match means {
            Means::Signature(signature) => signature.may_be_linked(exchange),
            Means::Bearer(_) | Means::ApiKey(_) | Means::Mtls(_) => false,
        })
    }
}

impl Means {
    fn is_brought_by_hand(&self) -> bool {
        match self {
            Self::Signature(_) | Self::Bearer(_) | Self::ApiKey(_) => true,
            Self::Mtls(_) => false,
        }
    }
}
