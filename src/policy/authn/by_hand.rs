//! Whether a route's credentials are such as browsers add by themselves. For [`crate::policy::csrf`].
//!
//! A cookie, a client certificate and a remembered password go along with whatever a page has its browser ask; a token, a
//! key in a header and a signature must be put there by who holds them.

use super::{Authn, Means, Mode};

impl Authn {
    /// Whether nobody is let in but by credentials that callers put into the request themselves.
    pub fn is_brought_by_hand(&self) -> bool {
        let Self::Required(required) = self else {
            return false;
        };
        // Where nobody is asked, or whoever fails is only noted, cookies may be what the backend goes by.
        required.mode == Mode::Enforce && required.means.iter().all(Means::is_brought_by_hand)
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
