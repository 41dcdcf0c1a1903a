//! Tokens that hold, and each way in which one does not.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const NOW: i64 = 1_800_000_000;

#[derive(Default)]
struct Objects(HashMap<(&'static str, String), BoundObject>);

impl BoundObjects for Objects {
    fn find(&self, kind: BoundKind, namespace: &str, name: &str) -> Option<BoundObject> {
        let kind = match kind {
            BoundKind::ServiceAccount => "serviceaccount",
            BoundKind::Pod => "pod",
            BoundKind::Secret => "secret",
            BoundKind::Node => "node",
        };
        self.0.get(&(kind, format!("{namespace}/{name}"))).cloned()
    }
}

impl Objects {
    fn with(mut self, kind: &'static str, name: &str, uid: &str, deletion_timestamp: Option<i64>) -> Self {
        self.0.insert((kind, name.into()), BoundObject { uid: uid.into(), deletion_timestamp });
        self
    }
}

struct Fixture {
    issuer: TokenIssuer,
    verifier: TokenVerifier,
}

fn fixture() -> Fixture {
    let key = SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap();
    let verifier = TokenVerifier::new(ISSUER, vec![key.public().clone()]);
    Fixture { issuer: TokenIssuer::new(ISSUER, key), verifier }
}

fn reference(name: &str, uid: &str) -> ObjectRef {
    ObjectRef { name: name.into(), uid: uid.into() }
}

fn subject() -> TokenSubject {
    TokenSubject {
        namespace: "ns".into(),
        service_account: reference("sa", "1"),
        pod: Some(reference("web", "2")),
        secret: None,
        node: Some(reference("n1", "3")),
    }
}

fn present() -> Objects {
    Objects::default().with("serviceaccount", "ns/sa", "1", None).with("pod", "ns/web", "2", None)
}

fn token(fixture: &Fixture, subject: &TokenSubject) -> String {
    fixture.issuer.issue_at(subject, &[], 3600, NOW).unwrap().token
}

#[test]
fn token_stands_for_its_service_account() {
    let fixture = fixture();
    let issued = fixture.issuer.issue_at(&subject(), &[], 3600, NOW).unwrap();
    let verified = fixture.verifier.verify_at(&issued.token, &[], &present(), NOW).unwrap();
    assert_eq!(issued.expires_at, NOW + 3600);
    assert_eq!(verified.audiences, [ISSUER]);
    let user = verified.user;
    assert_eq!((&*user.name, &*user.uid), ("system:serviceaccount:ns:sa", "1"));
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]);
    let extra = |key: &str| user.extra[key][0].clone();
    assert_eq!((extra(POD_NAME_KEY), extra(POD_UID_KEY)), ("web".into(), "2".into()));
    assert_eq!((extra(NODE_NAME_KEY), extra(NODE_UID_KEY)), ("n1".into(), "3".into()));
    assert_eq!(extra(CREDENTIAL_ID_KEY), format!("JTI={}", issued.credential_id));
}

#[test]
fn token_dies_with_what_it_is_bound_to() {
    let fixture = fixture();
    let token = token(&fixture, &subject());
    let verify = |objects: Objects| fixture.verifier.verify_at(&token, &[], &objects, NOW).map(drop);
    let gone = |kind, name: &str| Err(TokenError::Gone { kind, namespace: "ns".into(), name: name.into() });
    let replaced =
        |kind, name: &str| Err(TokenError::Replaced { kind, namespace: "ns".into(), name: name.into() });

    let account = || Objects::default().with("serviceaccount", "ns/sa", "1", None);
    assert_eq!(verify(account()), gone(BoundKind::Pod, "web"));
    assert_eq!(verify(Objects::default()), gone(BoundKind::ServiceAccount, "sa"));
    assert_eq!(verify(account().with("pod", "ns/web", "9", None)), replaced(BoundKind::Pod, "web"));
    let other = present().with("serviceaccount", "ns/sa", "9", None);
    assert_eq!(verify(other), replaced(BoundKind::ServiceAccount, "sa"));
    assert_eq!(verify(present().with("pod", "ns/web", "2", Some(NOW))), Ok(()));
    assert_eq!(verify(present().with("pod", "ns/web", "2", Some(NOW - 61))), gone(BoundKind::Pod, "web"));
}

#[test]
fn token_bound_to_a_node_dies_with_the_node() {
    let fixture = fixture();
    let token = token(&fixture, &TokenSubject { pod: None, ..subject() });
    assert!(fixture.verifier.verify_at(&token, &[], &present(), NOW).is_err());
    let objects = present().with("node", "/n1", "3", None);
    assert!(fixture.verifier.verify_at(&token, &[], &objects, NOW).is_ok());
}

#[test]
fn token_is_for_its_audiences_and_its_time() {
    let fixture = fixture();
    let vault = ["vault".to_owned()];
    let other = fixture.issuer.issue_at(&subject(), &vault, 3600, NOW).unwrap().token;
    let refused = fixture.verifier.verify_at(&other, &[], &present(), NOW);
    assert!(matches!(refused, Err(TokenError::Audience { .. })));
    assert_eq!(fixture.verifier.verify_at(&other, &vault, &present(), NOW).unwrap().audiences, vault);

    let token = token(&fixture, &subject());
    let at = |now| fixture.verifier.verify_at(&token, &[], &present(), now).map(drop);
    assert_eq!(at(NOW + 3600 + LEEWAY_SECONDS), Ok(()));
    assert_eq!(at(NOW + 3601 + LEEWAY_SECONDS), Err(TokenError::Expired));
    assert_eq!(at(NOW - LEEWAY_SECONDS - 1), Err(TokenError::NotYetValid));
}

#[test]
fn forged_tokens_are_refused() {
    let (ours, theirs) = (fixture(), fixture());
    let verify = |token: &str| ours.verifier.verify_at(token, &[], &present(), NOW).unwrap_err();
    assert_eq!(verify(&token(&theirs, &subject())), TokenError::Signature);

    let good = token(&ours, &subject());
    let parts: Vec<_> = good.split('.').collect();
    let encode = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let none = format!("{}.{}.", encode(r#"{"alg":"none"}"#), parts[1]);
    assert_eq!(verify(&none), TokenError::Malformed { reason: "its algorithm is not ES256" });
    let payload = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let raised = format!("{}.{}.{}", parts[0], encode(&payload.replace(":sa", ":admin")), parts[2]);
    assert_eq!(verify(&raised), TokenError::Signature);
    for rubbish in ["", ".", "..", "a.b", "a.b.c", &"x".repeat(MAX_TOKEN_BYTES + 1)] {
        assert!(
            matches!(verify(rubbish), TokenError::Malformed { .. }),
            "{}",
            &rubbish[..rubbish.len().min(9)]
        );
    }

    let key = SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap();
    let verifier = TokenVerifier::new(ISSUER, vec![key.public().clone()]);
    let foreign = TokenIssuer::new("https://elsewhere", key).issue_at(&subject(), &[], 3600, NOW).unwrap();
    let refused = verifier.verify_at(&foreign.token, &[], &present(), NOW);
    assert_eq!(refused, Err(TokenError::Issuer { issuer: "https://elsewhere".into() }));
}

#[test]
fn key_set_tells_the_key_that_signed() {
    let fixture = fixture();
    let token = token(&fixture, &subject());
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
    let set = json_web_key_set(fixture.verifier.keys());
    assert_eq!(set["keys"][0]["kid"], header["kid"]);
    assert_eq!(set["keys"][0]["x"].as_str().unwrap().len(), 43);
    assert_eq!(openid_configuration(ISSUER)["jwks_uri"], format!("{ISSUER}/openid/v1/jwks"));
}
