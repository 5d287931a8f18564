//! Signed tokens that the issuer is asked about: what token and answer say together.

use super::asked::{active, signing};
use super::*;
use crate::exchange::principal::Binding;
use crate::identity::issuer::Asked;

/// What comes of a signed token with these claims and an answer with those members.
async fn both(claims: Value, members: Value) -> Result<Arc<Principal>, TokenError> {
    let (server, minter, issuer) = signing(Asked::Always).await;
    server.answer_with(ok(&active(&members)));
    let token = minter.mint("k1", &claims_with(&claims));
    let verdict = check(&issuer, &token).await;
    if let Ok(principal) = &verdict {
        let remembered = recall(token.as_bytes(), &[issuer], NOW).unwrap();
        assert!(Arc::ptr_eq(principal, &remembered));
    }
    verdict
}

#[tokio::test]
async fn a_token_is_bound_by_what_either_side_says() {
    let key = |byte: u8| json!({"cnf": {"jkt": encode([byte; 32])}});
    let certificate = json!({"cnf": {"x5t#S256": encode([7; 32])}});
    let bound = Some(Binding::Key([7; 32]));
    for (claims, members) in [(key(7), json!({})), (json!({}), key(7)), (key(7), key(7))] {
        let principal = both(claims, members).await.unwrap();
        assert_eq!(principal.binding, bound);
    }
    for other in [key(8), certificate] {
        let refused = both(key(7), other).await.unwrap_err();
        assert_eq!(refused, TokenError::BadClaim("cnf"));
    }
}

#[tokio::test]
async fn an_answer_narrows_what_a_signed_token_grants_and_never_widens_it() {
    let claims = || {
        json!({
            "scope": "a b", "realm_access": {"roles": ["r", "s"]}, "groups": ["g", "h"],
        })
    };
    for (members, roles, scopes) in [
        (json!({}), "r s g h", "a b"),
        (json!({"scope": "b c"}), "r s g h", "b"),
        (json!({"scp": ["a"]}), "r s g h", "a"),
        (json!({"scope": ""}), "r s g h", ""),
        (
            json!({"realm_access": {"roles": ["s", "admin"]}}),
            "s g h",
            "a b",
        ),
        (json!({"groups": []}), "r s", "a b"),
        (json!({"groups": ["r", "h"]}), "r s h", "a b"),
        // Every member of a list the issuer knows nothing of: it says nothing.
        (json!({"https://ns/roles": ["admin"]}), "r s g h", "a b"),
    ] {
        let principal = both(claims(), members.clone()).await.unwrap();
        assert_eq!(principal.roles.join(" "), roles, "{members}");
        assert_eq!(principal.scopes.join(" "), scopes, "{members}");
        let told = &principal.headers;
        let text = |value: &Option<http::HeaderValue>| {
            let value = value.as_ref().map(|value| value.to_str().unwrap());
            value.unwrap_or_default().replace(',', " ")
        };
        assert_eq!(text(&told.roles), roles, "{members}");
        assert_eq!(text(&told.scopes), scopes, "{members}");
    }
    let nothing = both(json!({}), json!({"scope": "admin", "groups": ["admin"]}));
    let nothing = nothing.await.unwrap();
    assert!(nothing.roles.is_empty() && nothing.scopes.is_empty());
    let bad = both(claims(), json!({"scope": 7})).await.unwrap_err();
    assert_eq!(bad, TokenError::BadClaim("scope"));
}
