//! The fields of the forms of these pages, as they come.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::answers::invalid;
use crate::wire::{form, halt::Halt};

/// The answer of an authenticator that proves a passkey.
pub(super) struct Shown {
    /// The id of the credential.
    pub(super) credential: Vec<u8>,
    /// What the browser says.
    pub(super) client: Vec<u8>,
    /// What the authenticator says.
    pub(super) data: Vec<u8>,
    /// Its signature.
    pub(super) signature: Vec<u8>,
}

impl Shown {
    /// The answer in a form; `None` where the form is not one of a passkey.
    ///
    /// # Errors
    /// 400 `form-invalid`.
    pub(super) fn read(form: &str) -> Result<Option<Self>, Halt> {
        if optional(form, "credential")?.is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            credential: bytes(form, "credential")?,
            client: bytes(form, "client")?,
            data: bytes(form, "data")?,
            signature: bytes(form, "signature")?,
        }))
    }
}

/// The answer of an authenticator that made a passkey.
pub(super) struct Made {
    /// What the browser says.
    pub(super) client: Vec<u8>,
    /// What the authenticator says, in its wrapping.
    pub(super) attestation: Vec<u8>,
}

impl Made {
    /// The answer in a form; `None` where the form is not one of a new passkey.
    ///
    /// # Errors
    /// 400 `form-invalid`.
    pub(super) fn read(form: &str) -> Result<Option<Self>, Halt> {
        if optional(form, "attestation")?.is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            client: bytes(form, "client")?,
            attestation: bytes(form, "attestation")?,
        }))
    }
}

/// The value of a field, where it stands.
///
/// # Errors
/// 400 `form-invalid` where it stands twice or is no text.
pub(super) fn optional(form: &str, name: &'static str) -> Result<Option<String>, Halt> {
    form::field(form, name).map_err(|_| invalid(name))
}

/// The value of a field.
///
/// # Errors
/// 400 `form-invalid`.
pub(super) fn needed(form: &str, name: &'static str) -> Result<String, Halt> {
    optional(form, name)?.ok_or_else(|| invalid(name))
}

fn bytes(form: &str, name: &'static str) -> Result<Vec<u8>, Halt> {
    URL_SAFE_NO_PAD
        .decode(needed(form, name)?)
        .map_err(|_| invalid(name))
}
