//! Passkeys: what an authenticator answers when it makes a credential, and when it proves one (W3C Web Authentication Level 3 §7.1, §7.2).
//!
//! `client_data` is what the browser says, `authenticator_data` what the authenticator does, `attestation` the wrapping
//! of the first answer, `cose` the public key in it, `key` the check of a signature, `cbor` the encoding of them all.
//! No attestation is asked for, so none is judged: who made an authenticator is not known here. Whether a challenge is
//! fresh and whose passkey it is are questions of whoever keeps challenges and accounts.

mod attestation;
pub mod authenticator_data;
mod cbor;
pub mod client_data;
pub mod cose;
mod error;
mod key;

use std::fmt;

pub use attestation::authenticator_data_of;
pub use error::WebauthnError;

use self::{
    authenticator_data::AuthenticatorData, client_data::ClientData, cose::PublicKey, key::Verifier,
};
use crate::crypto::digest::{Sha256, sha256};

/// The longest `clientDataJSON`, in bytes: it holds a challenge and an origin.
pub const MAX_CLIENT_DATA: usize = 4 * 1024;
/// The longest attestation object, in bytes; statements with certificates take a few thousand.
pub const MAX_ATTESTATION: usize = 32 * 1024;
/// The longest authenticator data, in bytes: the longest id and key, and room for extensions.
pub const MAX_AUTHENTICATOR_DATA: usize = 8 * 1024;
/// The longest signature, in bytes: that of an RSA key of 8192 bits.
pub const MAX_SIGNATURE: usize = 1024;

/// The random bytes that an answer must be about.
pub type Challenge = [u8; 32];

/// Whether the authenticator must have made sure who uses it, by a PIN or a finger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// It must, or the answer is refused.
    Required,
    /// It is asked to; that somebody was there is enough.
    Preferred,
}

impl Verification {
    /// The word of the W3C interface (§5.8.6).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Preferred => "preferred",
        }
    }
}

/// The relying party: the name that passkeys are bound to, and the pages that may ask for them.
#[derive(Clone, Debug)]
pub struct RelyingParty {
    id: Box<str>,
    id_hash: Sha256,
    origins: Box<[Box<str>]>,
    verification: Verification,
}

/// What an authenticator answers when it makes a credential.
#[derive(Clone, Copy, Debug)]
pub struct Registration<'a> {
    /// `clientDataJSON`.
    pub client_data: &'a [u8],
    /// `attestationObject`.
    pub attestation: &'a [u8],
}

/// What an authenticator answers when it proves a credential.
#[derive(Clone, Copy, Debug)]
pub struct Assertion<'a> {
    /// The id of the credential.
    pub credential: &'a [u8],
    /// `clientDataJSON`.
    pub client_data: &'a [u8],
    /// `authenticatorData`.
    pub authenticator_data: &'a [u8],
    /// The signature over both.
    pub signature: &'a [u8],
}

/// A credential as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Passkey {
    /// Its id, at most 1023 bytes.
    pub id: Box<[u8]>,
    /// Its public key, a `COSE_Key` in CBOR.
    pub key: Box<[u8]>,
    /// The signature counter of its last use; 0 with authenticators that have none.
    pub counter: u32,
    /// Whether it may be copied to other devices of its owner; it stays what it was.
    pub eligible: bool,
}

impl fmt::Debug for Passkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passkey")
            .field("counter", &self.counter)
            .field("eligible", &self.eligible)
            .finish_non_exhaustive()
    }
}

/// What a good assertion tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The counter to keep.
    pub counter: u32,
    /// Whether the authenticator made sure who uses it.
    pub verified: bool,
}

impl RelyingParty {
    /// Of a host name and of origins in their exact form (RFC 6454 §6.2).
    pub fn new(id: &str, origins: Box<[Box<str>]>, verification: Verification) -> Self {
        Self {
            id: id.into(),
            id_hash: sha256(id.as_bytes()),
            origins,
            verification,
        }
    }

    /// The name that passkeys are bound to.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it asks of the authenticator.
    pub fn verification(&self) -> Verification {
        self.verification
    }

    /// Whether a page of this origin may ask for passkeys.
    pub fn has_origin(&self, origin: &str) -> bool {
        self.origins.iter().any(|known| **known == *origin)
    }

    /// The new passkey, once its answer is about this challenge and this party (§7.1).
    ///
    /// # Errors
    /// See [`WebauthnError`].
    pub fn register(
        &self,
        challenge: &Challenge,
        answer: &Registration<'_>,
    ) -> Result<Passkey, WebauthnError> {
        within(answer.client_data, MAX_CLIENT_DATA)?;
        within(answer.attestation, MAX_ATTESTATION)?;
        let said = ClientData::read(answer.client_data)?;
        self.judge_client(&said, "webauthn.create", challenge)?;
        let data = authenticator_data_of(answer.attestation)?;
        within(data, MAX_AUTHENTICATOR_DATA)?;
        let data = AuthenticatorData::read(data)?;
        self.judge_authenticator(&data)?;
        let made = data.attested.ok_or(WebauthnError::AuthenticatorData)?;
        // A key that checks nothing would lock its owner out.
        Verifier::of(&PublicKey::read(made.key)?).ok_or(WebauthnError::Key)?;
        Ok(Passkey {
            id: made.id.into(),
            key: made.key.into(),
            counter: data.counter,
            eligible: data.flags.backup_eligible(),
        })
    }

    /// Checks that the holder of a kept passkey is there now (§7.2).
    ///
    /// # Errors
    /// See [`WebauthnError`].
    pub fn verify(
        &self,
        challenge: &Challenge,
        answer: &Assertion<'_>,
        passkey: &Passkey,
    ) -> Result<Proven, WebauthnError> {
        within(answer.client_data, MAX_CLIENT_DATA)?;
        within(answer.authenticator_data, MAX_AUTHENTICATOR_DATA)?;
        within(answer.signature, MAX_SIGNATURE)?;
        if *answer.credential != *passkey.id {
            return Err(WebauthnError::Credential);
        }
        let said = ClientData::read(answer.client_data)?;
        self.judge_client(&said, "webauthn.get", challenge)?;
        let data = AuthenticatorData::read(answer.authenticator_data)?;
        if data.attested.is_some() {
            return Err(WebauthnError::AuthenticatorData);
        }
        self.judge_authenticator(&data)?;
        if data.flags.backup_eligible() != passkey.eligible {
            return Err(WebauthnError::Backup);
        }
        let key = Verifier::of(&PublicKey::read(&passkey.key)?).ok_or(WebauthnError::Key)?;
        let message = [answer.authenticator_data, &sha256(answer.client_data)].concat();
        if !key.verifies(&message, answer.signature) {
            return Err(WebauthnError::Signature);
        }
        // Last: only the signature makes the counter a word of the authenticator (§6.1.1).
        let counts = data.counter > 0 || passkey.counter > 0;
        if counts && data.counter <= passkey.counter {
            return Err(WebauthnError::Counter);
        }
        Ok(Proven {
            counter: data.counter,
            verified: data.flags.user_verified(),
        })
    }

    fn judge_client(
        &self,
        said: &ClientData,
        kind: &str,
        challenge: &Challenge,
    ) -> Result<(), WebauthnError> {
        if *said.kind != *kind {
            return Err(WebauthnError::Type);
        }
        if !said.is_about(challenge) {
            return Err(WebauthnError::Challenge);
        }
        if said.is_framed {
            return Err(WebauthnError::CrossOrigin);
        }
        if !self.has_origin(&said.origin) {
            return Err(WebauthnError::Origin);
        }
        Ok(())
    }

    fn judge_authenticator(&self, data: &AuthenticatorData<'_>) -> Result<(), WebauthnError> {
        if *data.rp_id_hash != self.id_hash {
            return Err(WebauthnError::RelyingParty);
        }
        if !data.flags.user_present() {
            return Err(WebauthnError::Presence);
        }
        if self.verification == Verification::Required && !data.flags.user_verified() {
            return Err(WebauthnError::Verification);
        }
        if data.flags.backed_up() && !data.flags.backup_eligible() {
            return Err(WebauthnError::Backup);
        }
        Ok(())
    }
}

fn within(bytes: &[u8], limit: usize) -> Result<(), WebauthnError> {
    if bytes.len() > limit {
        return Err(WebauthnError::TooLong);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
