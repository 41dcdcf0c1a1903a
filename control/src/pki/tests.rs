//! Keys that stay, certificates that follow what is asked of them.

use std::os::unix::fs::PermissionsExt;

use xebec_apiserver::authn::UserInfo;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;

fn serving(address: &str) -> Subject {
    serving_subject("cluster.local", [address.parse().unwrap()])
}

#[test]
fn second_start_finds_what_the_first_made() {
    let folder = tempfile::tempdir().unwrap();
    let first = prepare(folder.path(), serving("192.0.2.1"), LIFE).unwrap();
    let second = prepare(folder.path(), serving("192.0.2.1"), LIFE).unwrap();
    assert_eq!(first.authority.certificate(), second.authority.certificate());
    assert_eq!(first.serving.certificate, second.serving.certificate);
    assert_eq!(first.kubelet_client.certificate, second.kubelet_client.certificate);
    assert_eq!(first.service_accounts.public(), second.service_accounts.public());
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let private = entry.path().extension().is_some_and(|extension| extension == "key");
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if private { 0o600 } else { 0o644 }, "{}", entry.path().display());
    }
}

#[test]
fn serving_certificate_follows_the_addresses_and_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let first = prepare(folder.path(), serving("192.0.2.1"), LIFE).unwrap();
    let moved = prepare(folder.path(), serving("192.0.2.2"), LIFE).unwrap();
    assert_eq!(first.authority.certificate(), moved.authority.certificate());
    assert_ne!(first.serving.certificate, moved.serving.certificate);
    std::fs::write(folder.path().join("apiserver.key"), &first.serving.key).unwrap();
    let mended = prepare(folder.path(), serving("192.0.2.2"), LIFE).unwrap();
    assert_ne!(mended.serving.certificate, moved.serving.certificate);
    std::fs::remove_file(folder.path().join("ca.crt")).unwrap();
    let other = prepare(folder.path(), serving("192.0.2.2"), LIFE).unwrap();
    assert_ne!(other.serving.certificate, mended.serving.certificate);
}

#[test]
fn serving_certificate_is_for_servers_under_every_name() {
    let folder = tempfile::tempdir().unwrap();
    let subject =
        serving_subject("cluster.test", ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()]);
    let pki = prepare(folder.path(), subject, LIFE).unwrap();
    let der = CertificateDer::from_pem_slice(pki.serving.certificate.as_bytes()).unwrap();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let names = current::said(&certificate);
    for name in [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.test",
        "localhost",
        "127.0.0.1",
        "::1",
        "192.0.2.1",
        "2001:db8::1",
    ] {
        assert!(names.contains(name), "{name} is missing: {names:?}");
    }
    assert_eq!(names.len(), 9, "{names:?}");
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.client_auth && !usage.any);
    assert!(!certificate.is_ca());
}

#[test]
fn certificate_for_another_use_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(folder.path()).unwrap();
    let client = Subject { name: "jane".into(), groups: Vec::new(), usage: Usage::Client };
    let pair = authority.issue(&client, LIFE).unwrap();
    assert_eq!(current::check(&pair, &client, &authority), Ok(()));
    assert_eq!(current::check(&pair, &serving("192.0.2.1"), &authority), Err("it is for another use"));
}

#[test]
fn client_certificate_says_who_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(folder.path()).unwrap();
    let issue = |groups: &[&str]| {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        authority.issue(&Subject { name: "jane".into(), groups, usage: Usage::Client }, LIFE)
    };
    for groups in [&[][..], &["one"], &["one", "two"]] {
        let der = CertificateDer::from_pem_slice(issue(groups).unwrap().certificate.as_bytes()).unwrap();
        let user = UserInfo::from_certificate(&der).unwrap();
        assert_eq!(user.name, "jane");
        let mut found = user.groups;
        found.sort();
        let mut wanted = [groups, &["system:authenticated"]].concat();
        wanted.sort_unstable();
        assert_eq!(found, wanted);
    }
    assert!(issue(&["one", "two", "three"]).is_err());
}

#[test]
fn a_request_is_signed_for_the_subject_that_was_judged() {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(folder.path()).unwrap();
    let mut greedy = CertificateParams::new(vec!["kubernetes".to_owned()]).unwrap();
    greedy.distinguished_name.push(DnType::CommonName, "system:kube-controller-manager");
    let request = greedy.serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let mut judged = DistinguishedName::new();
    judged.push(DnType::CommonName, "system:node:n1");
    let usages = ["digital signature".to_owned(), "client auth".to_owned()];
    let life = std::time::Duration::from_secs(600);
    let pem = authority.sign_request(request.der(), judged, Vec::new(), &usages, life).unwrap();
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    assert_eq!(UserInfo::from_certificate(&der).unwrap().name, "system:node:n1");
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(certificate.subject_alternative_name().unwrap(), None);
}

#[test]
fn missing_authority_says_how_to_make_it() {
    let folder = tempfile::tempdir().unwrap();
    let refused = Authority::load(folder.path()).err().unwrap().to_string();
    assert!(refused.contains("`xebec-control run`"), "{refused}");
}

#[test]
fn what_is_about_to_expire_is_made_anew_and_the_rest_is_not() {
    let folder = tempfile::tempdir().unwrap();
    // Of a second's life nothing is left as soon as somebody looks: whole seconds are compared.
    let mut short = prepare(folder.path(), serving("192.0.2.1"), Duration::from_secs(1)).unwrap();
    let first = short.serving.certificate.clone();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while short.renewed().unwrap() != (true, true) {
        assert!(std::time::Instant::now() < deadline, "it is never renewed");
        std::thread::yield_now();
    }
    assert_ne!(short.serving.certificate, first);
    let mut lasting = prepare(folder.path(), serving("192.0.2.1"), LIFE).unwrap();
    let on_disk = || std::fs::read_to_string(folder.path().join("apiserver.crt")).unwrap();
    while lasting.renewed().unwrap() != (false, false) {
        assert!(std::time::Instant::now() < deadline, "it is renewed without end");
    }
    assert_eq!(on_disk(), lasting.serving.certificate);
}

#[test]
fn a_short_life_is_not_old_when_it_begins() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(folder.path()).unwrap();
    let client = Subject { name: "jane".into(), groups: Vec::new(), usage: Usage::Client };
    let pair = authority.issue(&client, Duration::from_secs(600)).unwrap();
    let validity = Validity::of(&pair.certificate).unwrap();
    assert!(now() - validity.not_before <= 152 && validity.not_after - now() >= 598);
}
