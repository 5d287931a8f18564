//! Where the signature of AWS Signature Version 4 stands in a request: in `Authorization`, or in the query.
//!
//! Reads what is claimed and judges none of it. A request with a signature in both places, or two of either, is refused.

use http::header;

use super::{SigV4Error, Unclear, canonical::hex_pair};
use crate::{crypto::hex, identity::message::Message};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The parameter that holds the signature.
pub(super) const SIGNATURE: &str = "X-Amz-Signature";

/// What a request claims.
#[derive(Debug)]
pub struct Claim {
    /// Whose key.
    pub key_id: String,
    /// Day, region, service and `aws4_request`.
    pub scope: Scope,
    /// Names of the signed fields, as sent.
    pub signed_headers: String,
    /// The signature.
    pub signature: [u8; 32],
    /// What stands in the query beside it, if it stands there.
    pub presigned: Option<Presigned>,
}

/// What a key is good for.
#[derive(Debug, PartialEq, Eq)]
pub struct Scope {
    /// `20150830`
    pub day: String,
    /// Such as `eu-central-1`.
    pub region: String,
    /// Such as `execute-api`.
    pub service: String,
}

/// A signature in the query.
#[derive(Debug)]
pub struct Presigned {
    /// `X-Amz-Date`
    pub date: String,
    /// `X-Amz-Expires`, in seconds.
    pub expires: u64,
    /// `X-Amz-Security-Token`
    pub token: Option<String>,
}

/// Whether a request brings a signature of this kind, good or bad.
pub fn is_brought(message: &Message<'_>) -> bool {
    in_header(message) || in_query(message)
}

fn in_header(message: &Message<'_>) -> bool {
    let values = message.headers.get_all(header::AUTHORIZATION);
    values
        .iter()
        .any(|value| value.as_bytes().starts_with(b"AWS4-"))
}

/// Whether a signature stands in the query, where any link can put one.
pub fn in_query(message: &Message<'_>) -> bool {
    has_signature(message.query.unwrap_or_default())
}

fn has_signature(query: &str) -> bool {
    let mut names = query.split('&').map(name_of);
    names.any(|name| decoded(name).as_deref() == Some(SIGNATURE))
}

/// A query without the seven parameters of a presigned request, if it is the query of one. The others stay as they came.
pub fn concealed(query: &str) -> Option<String> {
    if !has_signature(query) {
        return None;
    }
    let mut parameters = Parameters::default();
    let mut is_other = |pair: &&str| {
        let name = decoded(name_of(pair));
        name.is_none_or(|name| parameters.place(&name).is_none())
    };
    let others: Vec<&str> = query.split('&').filter(|pair| is_other(pair)).collect();
    Some(others.join("&"))
}

fn name_of(pair: &str) -> &str {
    pair.split('=').next().unwrap_or_default()
}

/// What the request claims, if it brings a signature.
///
/// # Errors
/// [`Unclear`] if it brings two, or one that cannot be read; [`SigV4Error::Algorithm`] for another algorithm.
pub fn presented(message: &Message<'_>) -> Result<Option<Claim>, SigV4Error> {
    match (in_header(message), in_query(message)) {
        (false, false) => Ok(None),
        (true, true) => Err(Unclear::TwoPlaces.into()),
        (true, false) => of_header(message).map(Some),
        (false, true) => {
            // Whatever that is for, it is a second word on who asks.
            if message.headers.contains_key(header::AUTHORIZATION) {
                return Err(Unclear::TwoPlaces.into());
            }
            of_query(message.query.unwrap_or_default()).map(Some)
        }
    }
}

fn of_header(message: &Message<'_>) -> Result<Claim, SigV4Error> {
    let mut values = message.headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(Unclear::Malformed)?;
    if values.next().is_some() {
        return Err(Unclear::Repeated.into());
    }
    let value = value.to_str().map_err(|_| Unclear::Malformed)?;
    let (algorithm, parts) = value.split_once(' ').ok_or(Unclear::Malformed)?;
    if algorithm != ALGORITHM {
        return Err(SigV4Error::Algorithm);
    }
    let (mut credential, mut signed_headers, mut signature) = (None, None, None);
    for part in parts.split(',') {
        let (name, value) = part.trim().split_once('=').ok_or(Unclear::Malformed)?;
        let place = match name {
            "Credential" => &mut credential,
            "SignedHeaders" => &mut signed_headers,
            "Signature" => &mut signature,
            _ => return Err(Unclear::Malformed.into()),
        };
        if place.replace(value).is_some() {
            return Err(Unclear::Malformed.into());
        }
    }
    let (Some(credential), Some(signed_headers), Some(signature)) =
        (credential, signed_headers, signature)
    else {
        return Err(Unclear::Malformed.into());
    };
    claim((credential, signed_headers, signature), None)
}

/// The parameters of AWS, each once.
#[derive(Default)]
struct Parameters {
    algorithm: Option<String>,
    credential: Option<String>,
    date: Option<String>,
    expires: Option<String>,
    signed_headers: Option<String>,
    signature: Option<String>,
    token: Option<String>,
}

impl Parameters {
    fn read(query: &str) -> Result<Self, SigV4Error> {
        let mut parameters = Self::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(name) = decoded(name) else {
                continue;
            };
            if let Some(place) = parameters.place(&name) {
                let value = decoded(value).ok_or(Unclear::Malformed)?;
                if place.replace(value).is_some() {
                    return Err(Unclear::Repeated.into());
                }
            }
        }
        Ok(parameters)
    }

    fn place(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "X-Amz-Algorithm" => &mut self.algorithm,
            "X-Amz-Credential" => &mut self.credential,
            "X-Amz-Date" => &mut self.date,
            "X-Amz-Expires" => &mut self.expires,
            "X-Amz-SignedHeaders" => &mut self.signed_headers,
            SIGNATURE => &mut self.signature,
            "X-Amz-Security-Token" => &mut self.token,
            _ => return None,
        })
    }
}

fn of_query(query: &str) -> Result<Claim, SigV4Error> {
    let parameters = Parameters::read(query)?;
    let need = |value: Option<String>| value.ok_or(SigV4Error::Unclear(Unclear::Malformed));
    if need(parameters.algorithm)? != ALGORITHM {
        return Err(SigV4Error::Algorithm);
    }
    let expires = need(parameters.expires)?;
    let digits = !expires.is_empty() && expires.bytes().all(|byte| byte.is_ascii_digit());
    let presigned = Presigned {
        date: need(parameters.date)?,
        expires: expires
            .parse()
            .ok()
            .filter(|_| digits)
            .ok_or(Unclear::Malformed)?,
        token: parameters.token,
    };
    let credential = need(parameters.credential)?;
    let signed_headers = need(parameters.signed_headers)?;
    let signature = need(parameters.signature)?;
    claim((&credential, &signed_headers, &signature), Some(presigned))
}

fn claim(
    (credential, signed_headers, signature): (&str, &str, &str),
    presigned: Option<Presigned>,
) -> Result<Claim, SigV4Error> {
    let parts: Vec<&str> = credential.split('/').collect();
    let [key_id, day, region, service, "aws4_request"] = parts.as_slice() else {
        return Err(Unclear::Malformed.into());
    };
    Ok(Claim {
        key_id: (*key_id).to_owned(),
        scope: Scope {
            day: (*day).to_owned(),
            region: (*region).to_owned(),
            service: (*service).to_owned(),
        },
        signed_headers: signed_headers.to_owned(),
        signature: hex::decode(signature.as_bytes()).ok_or(Unclear::Malformed)?,
        presigned,
    })
}

/// A name or value of a query without its escapes; `None` for what is no text.
fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => out.push(hex_pair(bytes.next()?, bytes.next()?)?),
            _ => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::concealed;

    #[test]
    fn b42_the_parameters_of_a_presigned_request_are_taken_out_and_no_others() {
        let all = "X-Amz-Algorithm=1&X-Amz-Credential=2&X-Amz-Date=3&X-Amz-Expires=4&X-Amz-SignedHeaders=5\
                   &X-Amz-Security-Token=6&X-Amz-Signature=7";
        let mixed = format!("b=%7e+&{all}&a=1=2&&x-amz-date=8&%ff=9");
        for (query, kept) in [
            (all, Some("")),
            (&*mixed, Some("b=%7e+&a=1=2&&x-amz-date=8&%ff=9")),
            ("a&X%2DAmz-%53ignature=7&X-Amz-Dat%65=3", Some("a")),
            (
                "X-Amz-Signature&X-Amz-Signature=2&X-Amz-Signatures=3",
                Some("X-Amz-Signatures=3"),
            ),
            ("X-Amz-Date=3&a=1", None),
            ("a=X-Amz-Signature", None),
            ("x-amz-signature=7", None),
            ("", None),
        ] {
            assert_eq!(concealed(query).as_deref(), kept, "{query}");
        }
    }
}
