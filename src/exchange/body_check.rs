//! The fact that the body of a request still has to prove something: it is what was signed, or who asks is who signed it.
//!
//! `policy::authn` states it from the head; `pipeline::proof` holds the body until it is whole, has it judged and only
//! then lets it go on. How a body is judged is known to whoever made the check.

use std::{fmt::Debug, sync::Arc};

use super::principal::Principal;
use crate::wire::halt::Refusal;

/// Why a body does not prove what it has to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is not what was signed; with the finer code for the log.
    Invalid(&'static str),
    /// It counts once, and there is no room to remember it.
    NoRoom,
}

/// Judges a whole body.
pub trait BodyCheck: Debug + Send + Sync {
    /// Whether these are the bytes that were signed.
    ///
    /// # Errors
    /// [`BodyError`]
    fn judge(&self, body: &[u8]) -> Result<(), BodyError>;
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
