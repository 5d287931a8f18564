//! What authenticators and browsers answer, read; without the keys that check it.

#[path = "../../../../src/identity/webauthn/attestation.rs"]
mod attestation;
#[path = "../../../../src/identity/webauthn/authenticator_data.rs"]
pub mod authenticator_data;
#[path = "../../../../src/identity/webauthn/cbor.rs"]
mod cbor;
#[path = "../../../../src/identity/webauthn/client_data.rs"]
pub mod client_data;
#[path = "../../../../src/identity/webauthn/cose.rs"]
pub mod cose;
#[path = "../../../../src/identity/webauthn/error.rs"]
mod error;

pub use attestation::authenticator_data_of;
pub use error::WebauthnError;
