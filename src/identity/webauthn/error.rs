//! Why the answer of an authenticator is not accepted.

use thiserror::Error;

/// Why an answer is not accepted. For the log only: the client learns that it was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WebauthnError {
    /// A part of the answer is longer than any honest one.
    #[error("the answer is too long")]
    TooLong,
    /// `clientDataJSON` is no JSON object with a type, a challenge and an origin.
    #[error("the client data is malformed")]
    ClientData,
    /// Made for the other ceremony.
    #[error("the answer is that of another ceremony")]
    Type,
    /// About another challenge, or about none that was asked lately.
    #[error("the answer is about another challenge")]
    Challenge,
    /// Asked for by a page of an origin that is not configured.
    #[error("the answer was asked for by another origin")]
    Origin,
    /// Asked for by a page inside a page of another origin.
    #[error("the answer was asked for from within another site")]
    CrossOrigin,
    /// The attestation object is malformed.
    #[error("the attestation object is malformed")]
    Attestation,
    /// The authenticator data is malformed, or has a part that does not belong to the ceremony.
    #[error("the authenticator data is malformed")]
    AuthenticatorData,
    /// The credential is bound to another name.
    #[error("the credential is that of another relying party")]
    RelyingParty,
    /// Nobody was there.
    #[error("nobody was present")]
    Presence,
    /// The authenticator did not make sure who uses it.
    #[error("the user was not verified")]
    Verification,
    /// The flags of backup contradict each other, or what was kept.
    #[error("the flags of backup contradict each other")]
    Backup,
    /// The public key is malformed or weak.
    #[error("the public key cannot be used")]
    Key,
    /// The public key is for an algorithm that was not offered.
    #[error("the algorithm of the key is not accepted")]
    Algorithm,
    /// No passkey of the account.
    #[error("the passkey is not one of the account")]
    Credential,
    /// The signature is not that of the key.
    #[error("the signature is wrong")]
    Signature,
    /// The counter did not go on: two authenticators may hold the key.
    #[error("the signature counter went back: the passkey may have been copied")]
    Counter,
}

impl WebauthnError {
    /// The stable code for logs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLong => "passkey-too-long",
            Self::ClientData => "passkey-client-data",
            Self::Type => "passkey-type",
            Self::Challenge => "passkey-challenge",
            Self::Origin => "passkey-origin",
            Self::CrossOrigin => "passkey-cross-origin",
            Self::Attestation => "passkey-attestation",
            Self::AuthenticatorData => "passkey-authenticator-data",
            Self::RelyingParty => "passkey-rp-id",
            Self::Presence => "passkey-user-absent",
            Self::Verification => "passkey-user-not-verified",
            Self::Backup => "passkey-backup",
            Self::Key => "passkey-key",
            Self::Algorithm => "passkey-algorithm",
            Self::Credential => "passkey-unknown",
            Self::Signature => "passkey-signature",
            Self::Counter => "passkey-counter",
        }
    }
}
