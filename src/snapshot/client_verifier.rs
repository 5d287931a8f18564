//! Judges the chains of client certificates: what rustls' own verifier says, and two things more. For `client_trust`.
//!
//! Rules for client certificates may state who signed one, by name. A name is not kept by anybody: each authority that
//! is trusted can sign another one that is called like its neighbour. So what a client sends along between its certificate
//! and an authority of the file may not have the name of one of these, unless it has the key of that one as well.
//!
//! Of several lists of revocations of one authority rustls asks one, and takes a list of a part of the certificates for one
//! of all (RFC 5280 §5.2.5). So what any list of an authority names is refused.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use crate::crypto::certificate::{Authority, Issued};

/// Serial numbers of revoked certificates by the name of their authority, each as it stands in a certificate.
#[derive(Debug, Default)]
pub(super) struct Revoked(HashMap<Box<[u8]>, HashSet<Box<[u8]>>>);

impl Revoked {
    /// Adds what a list of an authority names.
    pub(super) fn add(&mut self, issuer: &[u8], serials: Vec<Box<[u8]>>) {
        self.0.entry(issuer.into()).or_default().extend(serials);
    }

    fn check(&self, der: &CertificateDer<'_>) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let issued = Issued::of_der(der)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let named = self.0.get(&issued.issuer);
        if named.is_some_and(|serials| serials.contains(&issued.serial)) {
            return Err(Error::InvalidCertificate(CertificateError::Revoked));
        }
        Ok(())
    }
}

/// The verifier of the handshake and of every judgement after it.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    chains: Arc<dyn ClientCertVerifier>,
    /// Those of the file.
    authorities: Vec<Authority>,
    revoked: Revoked,
}

impl ClientVerifier {
    /// Asks `chains`, which trusts these authorities, and lets nobody pass who is `revoked`.
    pub(super) fn new(
        chains: Arc<dyn ClientCertVerifier>,
        authorities: Vec<Authority>,
        revoked: Revoked,
    ) -> Self {
        Self {
            chains,
            authorities,
            revoked,
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
        // First, so that nothing else is read of clients that prove nothing.
        let verified = self.chains.verify_client_cert(leaf, intermediates, now)?;
        self.revoked.check(leaf)?;
        for sent in intermediates {
            self.check_name(sent)?;
            self.revoked.check(sent)?;
        }
        Ok(verified)
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
