//! Judges the chains of client certificates: what rustls' own verifier says, and one thing more. For `client_trust`.
//!
//! Rules for client certificates may state who signed one, by name. A name is not kept by anybody: each authority that
//! is trusted can sign another one that is called like its neighbour. So what a client sends along between its certificate
//! and an authority of the file may not have the name of one of these, unless it has the key of that one as well.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use crate::crypto::certificate::Authority;

/// The verifier of the handshake and of every judgement after it.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    chains: Arc<dyn ClientCertVerifier>,
    /// Those of the file.
    authorities: Vec<Authority>,
}

impl ClientVerifier {
    /// Asks `chains`, which trusts these authorities.
    pub(super) fn new(chains: Arc<dyn ClientCertVerifier>, authorities: Vec<Authority>) -> Self {
        Self {
            chains,
            authorities,
        }
    }

    /// Refuses a certificate that has the name of an authority of the file and another key.
    fn check_name(&self, sent: &CertificateDer<'_>) -> Result<(), Error> {
        let sent = Authority::of_der(sent)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let mut namesakes = self
            .authorities
            .iter()
            .filter(|own| own.name == sent.name)
            .peekable();
        if namesakes.peek().is_none() || namesakes.any(|own| own.key == sent.key) {
            return Ok(());
        }
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.chains.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chains.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        for sent in intermediates {
            self.check_name(sent)?;
        }
        self.chains.verify_client_cert(leaf, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.chains.requires_raw_public_keys()
    }
}
