//! The fact that the body of a request still has to prove something: it is what was signed, or who asks is who signed it.
//!
//! `policy::authn` states it from the head; `pipeline::proof` holds the body until it is whole, has it judged and only
//! then lets it go on. How a body is judged is known to whoever made the check.

use std::{fmt::Debug, sync::Arc};

use super::principal::Principal;
use crate::wire::halt::Refusal;

/// Why a body, or what it uses up, does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is not what was signed, or was used before; with the finer code for the log.
    Invalid(&'static str),
    /// It counts once, and there is no room to remember it.
    NoRoom,
}

/// Judges a whole body.
pub trait BodyCheck: Debug + Send + Sync {
    /// Whether a body of so many bytes, or one that begins with so many, could be the one that was signed.
    ///
    /// # Errors
    /// [`BodyError::Invalid`]: no more of it need be held.
    fn could_have(&self, _bytes: usize) -> Result<(), BodyError> {
        Ok(())
    }

    /// Whether these are the bytes that were signed.
    ///
    /// # Errors
    /// [`BodyError`]
    fn judge(&self, body: &[u8]) -> Result<(), BodyError>;

    /// What the request uses up, if that shows with the body alone; asked once the body is judged.
    fn single(&self, _body: &[u8]) -> Option<Box<dyn Single>> {
        None
    }
}

/// Something that counts once. It was found unused when the request was judged; others may have come since.
pub trait Single: Debug + Send + Sync {
    /// Uses it up, if nobody else has.
    ///
    /// # Errors
    /// [`BodyError`]
    fn spend(&self) -> Result<(), BodyError>;

    /// Takes that back: nothing of the request was sent.
    fn give_back(&self);
}

/// What a request uses up when it goes on to the backend, and not before: whatever else may refuse it comes first.
#[derive(Debug)]
pub struct Unspent {
    /// What counts once.
    pub single: Box<dyn Single>,
    /// The answer where it has been used, to which the finer code is added.
    pub refusal: Refusal,
    /// A failure is noted and no more: the policy is in monitor mode.
    pub watched: bool,
}

/// A body that has to prove something before it goes on.
#[derive(Debug)]
pub struct Unproven {
    /// How it is judged.
    pub check: Box<dyn BodyCheck>,
    /// The answer to a body that fails, to which the finer code is added.
    pub refusal: Refusal,
    /// Who asks, if nothing but the body shows that it is he: nobody is believed before that.
    pub caller: Option<Arc<Principal>>,
    /// A failure is noted and no more: the policy is in monitor mode.
    pub watched: bool,
}
