//! Why a signature of AWS Signature Version 4 does not count, with the codes for the log. The client is not told.

use thiserror::Error;

/// The request cannot be read without guessing: 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unclear {
    /// Something that should stand once stands twice.
    #[error("a credential that stands twice")]
    Repeated,
    /// A signature in the header and another credential in the query.
    #[error("credentials in two places")]
    TwoPlaces,
    /// Not the form of a signature.
    #[error("not a well-formed signature")]
    Malformed,
}

/// Why a signature does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SigV4Error {
    /// 400 instead of 403.
    #[error(transparent)]
    Unclear(#[from] Unclear),
    /// Another algorithm than `AWS4-HMAC-SHA256`.
    #[error("another algorithm")]
    Algorithm,
    /// Nobody has this key.
    #[error("an unknown key")]
    UnknownKey,
    /// The day, the region or the service is another one.
    #[error("signed for another day, region or service")]
    Scope,
    /// No date, or one too far from now.
    #[error("a date that is too far from now")]
    Date,
    /// A presigned request after its time.
    #[error("expired")]
    Expired,
    /// A presigned request where none is accepted, or one that lives too long.
    #[error("presigned")]
    Presigned,
    /// The list of signed fields has another form than its one.
    #[error("a malformed list of signed fields")]
    SignedHeaders,
    /// A field that has to be signed is not.
    #[error("a field that is not signed")]
    Unsigned,
    /// A signed field is not there.
    #[error("a signed field that is missing")]
    Absent,
    /// A path with a sign that was signed as its escape would be, and that backends may read in another way.
    #[error("an ambiguous path")]
    Path,
    /// A query that could be read in two ways.
    #[error("an ambiguous query")]
    Query,
    /// Repeated names of a presigned query in another order than the signed one.
    #[error("repeats in the query that are out of order")]
    QueryOrder,
    /// The body is not signed.
    #[error("a body that is not signed")]
    UnsignedPayload,
    /// The body is signed piece by piece.
    #[error("a body signed piece by piece")]
    Streaming,
    /// The hash of the body is none.
    #[error("a malformed hash of the body")]
    PayloadHash,
    /// A session token that is not the right one, or none, or one too many.
    #[error("the session token")]
    SessionToken,
    /// The body is another one.
    #[error("another body")]
    Body,
    /// The code is another one.
    #[error("the signature itself")]
    Signature,
}

impl SigV4Error {
    /// The stable code for logs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Unclear(Unclear::Repeated) => "credential-repeated",
            Self::Unclear(Unclear::TwoPlaces) => "credential-in-two-places",
            Self::Unclear(Unclear::Malformed) => "credential-malformed",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown-key",
            Self::Scope => "scope",
            Self::Date => "date",
            Self::Expired => "expired",
            Self::Presigned => "presigned",
            Self::SignedHeaders => "signed-headers",
            Self::Unsigned => "unsigned-header",
            Self::Absent => "signed-header-missing",
            Self::Path => "path",
            Self::Query => "query",
            Self::QueryOrder => "query-order",
            Self::UnsignedPayload => "unsigned-payload",
            Self::Streaming => "streaming-payload",
            Self::PayloadHash => "payload-hash",
            Self::SessionToken => "session-token",
            Self::Body => "body",
            Self::Signature => "signature",
        }
    }
}
