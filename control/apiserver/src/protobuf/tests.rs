//! Bodies as client-go sends them, and bodies that are none.

use serde_json::json;

use super::*;

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn object(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let type_meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [MAGIC, &field(1, &type_meta), &field(2, raw)].concat()
}

/// Of `kubectl create deployment web --image nginx --replicas 2`.
const DEPLOYMENT: &str = "\
    6b3873000a150a07617070732f7631120a4465706c6f796d656e7412ab010a1f\
    0a0377656212001a0022002a003200380042005a0a0a03617070120377656212\
    7a0802120c0a0a0a0361707012037765621a600a1c0a0012001a0022002a0032\
    00380042005a0a0a036170701203776562124012220a056e67696e7812056e67\
    696e782a0042006a007200800100880100900100a201001a00320042004a0052\
    005800600068008201008a01009a0100c2010022020a00280038001a0c080010\
    0018002000280038001a002200";

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[test]
fn deployment_is_what_json_would_have_said() {
    let decoded = try_decode(&from_hex(DEPLOYMENT)).unwrap();
    assert_eq!(
        decoded,
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "name": "web", "labels": { "app": "web" } },
            "spec": {
                "replicas": 2,
                "selector": { "matchLabels": { "app": "web" } },
                "strategy": {},
                "template": {
                    "metadata": { "labels": { "app": "web" } },
                    "spec": { "containers": [{ "name": "nginx", "image": "nginx", "resources": {} }] },
                },
            },
            "status": {},
        })
    );
}

#[test]
fn special_types_are_written_as_json_writes_them() {
    let data = field(2, &[field(1, b"key"), field(2, b"\x00\xff")].concat());
    let decoded = try_decode(&object("v1", "Secret", &data)).unwrap();
    assert_eq!(decoded["data"], json!({ "key": "AP8=" }));

    // spec.maxUnavailable as a percentage, spec.unhealthyPodEvictionPolicy left out.
    let percent = [&[0x08, 1, 0x10, 0][..], &field(3, b"25%")].concat();
    let spec = field(2, &field(3, &percent));
    let decoded = try_decode(&object("policy/v1", "PodDisruptionBudget", &spec)).unwrap();
    assert_eq!(decoded["spec"]["maxUnavailable"], json!("25%"));

    // A Lease's renewTime: 1 700 000 000 seconds and 1 500 nanoseconds.
    let time = [&[0x08, 0x80, 0xe2, 0xcf, 0xaa, 0x06, 0x10, 0xdc, 0x0b][..]].concat();
    let decoded =
        try_decode(&object("coordination.k8s.io/v1", "Lease", &field(2, &field(4, &time)))).unwrap();
    assert_eq!(decoded["spec"]["renewTime"], json!("2023-11-14T22:13:20.000001Z"));

    // extra: a map of lists.
    let extra =
        field(5, &[field(1, b"scopes"), field(2, &[field(1, b"a"), field(1, b"b")].concat())].concat());
    let review =
        try_decode(&object("authorization.k8s.io/v1", "SubjectAccessReview", &field(2, &extra))).unwrap();
    assert_eq!(review["spec"]["extra"], json!({ "scopes": ["a", "b"] }));
}

#[test]
fn options_of_a_delete_are_known_in_every_group() {
    for group in ["v1", "apps/v1", "policy/v1"] {
        let decoded = try_decode(&object(group, "DeleteOptions", &[0x08, 0])).unwrap();
        assert_eq!(decoded["gracePeriodSeconds"], json!(0), "a zero that was sent on purpose stays");
    }
}

#[test]
fn fields_of_the_future_are_left_out() {
    let raw = [field(1, &field(1, b"a")), vec![0xfa, 0x3f, 1, b'x']].concat();
    let decoded = try_decode(&object("v1", "ConfigMap", &raw)).unwrap();
    assert_eq!(decoded, json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" } }));
}

#[test]
fn what_is_no_object_is_refused() {
    assert_eq!(try_decode(b"{}"), Err(DecodeError::Magic));
    let unknown = try_decode(&object("example.com/v1", "Foo", b""));
    assert_eq!(unknown, Err(DecodeError::Kind("example.com/v1 Foo".into())));
    let whole = from_hex(DEPLOYMENT);
    for length in 0..whole.len() {
        // The last fields may be missing, but nothing is read past the end.
        let _ = try_decode(&whole[..length]);
    }
    let short = object("v1", "ConfigMap", &[0x0a, 200]);
    assert_eq!(try_decode(&short), Err(DecodeError::Wire(WireError::Short)));
    let endless = object("v1", "ConfigMap", &[0xff; 11]);
    assert_eq!(try_decode(&endless), Err(DecodeError::Wire(WireError::Varint)));
}
