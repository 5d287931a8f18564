//! Signing keys by day: four codes chained over day, region, service and a fixed word make one, and it serves all day.
//!
//! Days of requests are bounded by what their dates may be, and so is what is kept here.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::crypto::{mac::MacKey, secret::Secret};

/// Most days of which keys are kept: a presigned request lives for a week.
const DAYS: usize = 9;

/// The keys of one day, one for each secret.
pub(super) type Keys = Arc<[MacKey]>;

/// The keys in use.
#[derive(Debug, Default)]
pub(super) struct Days(ArcSwap<Vec<(Box<str>, Keys)>>);

impl Days {
    /// The keys of a day, made at its first request.
    pub(super) fn keys(&self, day: &str, make: impl Fn() -> Keys) -> Keys {
        let known = self.0.load();
        if let Some((_, keys)) = known.iter().find(|(known, _)| **known == *day) {
            return Arc::clone(keys);
        }
        let keys = make();
        let mut days: Vec<_> = known.iter().cloned().collect();
        days.push((day.into(), Arc::clone(&keys)));
        // `20150830` sorts as time goes; the oldest ones go.
        days.sort_by(|one, other| other.0.cmp(&one.0));
        days.dedup_by(|one, other| one.0 == other.0);
        days.truncate(DAYS);
        self.0.store(Arc::new(days));
        keys
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.load().len()
    }
}

/// The signing key of one secret.
pub(super) fn signing_key(secret: &Secret, [day, region, service]: [&str; 3]) -> MacKey {
    let mut first = Vec::with_capacity(4 + secret.expose().len());
    first.extend_from_slice(b"AWS4");
    first.extend_from_slice(secret.expose());
    // Wiped like the secret itself.
    let first = Secret::new(first);
    let parts = [day, region, service, "aws4_request"];
    parts
        .into_iter()
        .fold(MacKey::new(first.expose()), |key, part| {
            MacKey::new(&key.sign(part.as_bytes()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::hex;

    #[test]
    fn the_published_example_of_a_signing_key_holds() {
        // AWS General Reference, "Examples of how to derive a signing key".
        let secret = Secret::new(b"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_vec());
        let key = signing_key(&secret, ["20120215", "us-east-1", "iam"]);
        let published = b"f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d";
        let published = hex::decode::<32>(published).expect("64 digits");
        assert!(MacKey::new(&published).verifies(b"a", &key.sign(b"a")));
    }

    #[test]
    fn the_number_of_days_is_bounded() {
        let days = Days::default();
        for day in 10..40 {
            let day = format!("201508{day}");
            let make = || Keys::from([MacKey::new(day.as_bytes())]);
            let first = days.keys(&day, make);
            assert!(Arc::ptr_eq(&first, &days.keys(&day, || Keys::from([]))));
        }
        assert_eq!(days.count(), DAYS);
        let old = days.keys("20150101", || Keys::from([MacKey::new(b"old")]));
        assert_eq!(old.len(), 1);
        assert_eq!(
            days.count(),
            DAYS,
            "an old day does not push out a newer one"
        );
    }
}
