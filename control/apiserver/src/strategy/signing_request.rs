//! Certificate signing requests: who asks is written by the server, who approves and signs must have the right to.
//!
//! In: requests on their way into the store. Out: the same with the asker in them, or 403.

use serde_json::{Value, json};

use crate::authz::{self, Attributes};
use crate::field_error::FieldError;
use crate::kinds::Gvk;
use crate::meta;
use crate::registry::Cx;
use crate::status::ApiError;
use crate::strategy::Strategy;

mod verdict;

use verdict::is_verdict;

pub(crate) struct RequestStrategy;

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const MIN_SECONDS: i64 = 600;

impl Strategy for RequestStrategy {
    fn prepare_create(&self, cx: &Cx<'_>, object: &mut Value) -> Result<(), ApiError> {
        let user = cx.user;
        meta::set(object, &["spec", "username"], Some(user.name.as_str().into()));
        meta::set(object, &["spec", "uid"], (!user.uid.is_empty()).then(|| user.uid.as_str().into()));
        meta::set(object, &["spec", "groups"], Some(user.groups.clone().into()));
        meta::set(object, &["spec", "extra"], (!user.extra.is_empty()).then(|| json!(user.extra)));
        meta::set(object, &["status"], Some(json!({})));
        if meta::text(object, &["spec", "signerName"]) == CLIENT_SIGNER && asks_for_masters(object) {
            let why = format!("use of {CLIENT_SIGNER} signer with system:masters group is not allowed");
            return Err(ApiError::forbidden(GROUP, "certificatesigningrequests", meta::name(object), why));
        }
        Ok(())
    }

    fn prepare_update(&self, _cx: &Cx<'_>, new: &mut Value, old: &Value) -> Result<(), ApiError> {
        // What is asked for, and by whom, was said once.
        meta::set(new, &["spec"], old.get("spec").cloned());
        Ok(())
    }

    fn admit_update(&self, cx: &Cx<'_>, new: &mut Value, old: &Value) -> Result<(), ApiError> {
        let certificate = |object: &Value| meta::at(object, &["status", "certificate"]).cloned();
        let (verb, needed) = match cx.subresource() {
            "approval" => {
                meta::set(new, &["status", "certificate"], certificate(old));
                ("approve", verdicts(new) != verdicts(old))
            }
            "status" => {
                let mut conditions = verdicts(old);
                conditions
                    .extend(meta::items(new, &["status", "conditions"]).filter(|c| !is_verdict(c)).cloned());
                let conditions = (!conditions.is_empty()).then(|| conditions.into());
                meta::set(new, &["status", "conditions"], conditions);
                ("sign", certificate(new) != certificate(old))
            }
            _ => return Ok(()),
        };
        let problems = verdict::problems(new, old);
        if !problems.is_empty() {
            let kind = Gvk::new(GROUP, "v1", "CertificateSigningRequest");
            return Err(ApiError::invalid(&kind, meta::name(old), &problems));
        }
        let signer = meta::text(old, &["spec", "signerName"]);
        if !needed || may(cx, verb, signer) {
            return Ok(());
        }
        let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
        Err(ApiError::forbidden(GROUP, "certificatesigningrequests", meta::name(old), why))
    }

    fn check(&self, _cx: &Cx<'_>, new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let signer = meta::text(new, &["spec", "signerName"]);
        match signer.split_once('/') {
            _ if signer.is_empty() => errors.push(FieldError::required("spec.signerName", "")),
            Some((domain, path)) if domain.contains('.') && !path.is_empty() => {}
            _ => {
                let detail =
                    "must be a fully qualified domain and path of the form 'example.com/signer-name'";
                errors.push(FieldError::invalid("spec.signerName", &signer.into(), detail));
            }
        }
        if meta::items(new, &["spec", "usages"]).next().is_none() {
            errors.push(FieldError::required("spec.usages", "usages must be provided"));
        }
        if let Some(seconds) =
            new["spec"]["expirationSeconds"].as_i64().filter(|seconds| *seconds < MIN_SECONDS)
        {
            let detail = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.push(FieldError::invalid("spec.expirationSeconds", &seconds.into(), detail));
        }
        if request_groups(new).is_none() {
            let detail = "unable to parse request: it holds no PEM encoded certificate request";
            errors.push(FieldError::invalid("spec.request", &new["spec"]["request"], detail));
        }
        errors
    }
}

fn verdicts(request: &Value) -> Vec<Value> {
    meta::items(request, &["status", "conditions"])
        .filter(|condition| is_verdict(condition))
        .cloned()
        .collect()
}

/// Rules name a signer whole or all of its domain.
fn may(cx: &Cx<'_>, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    [signer.to_owned(), format!("{domain}/*")].iter().any(|name| {
        let asked = Attributes { verb, group: GROUP, resource: "signers", name, ..Attributes::default() };
        authz::allows(cx.registry, cx.user, &asked).is_some()
    })
}

fn asks_for_masters(object: &Value) -> bool {
    request_groups(object).is_some_and(|groups| groups.iter().any(|group| group == "system:masters"))
}

/// The organizations of the subject that is asked for; `None` for what is no request.
fn request_groups(object: &Value) -> Option<Vec<String>> {
    use base64::Engine;
    use x509_parser::prelude::{FromDer, X509CertificationRequest};
    let bytes =
        base64::engine::general_purpose::STANDARD.decode(meta::text(object, &["spec", "request"])).ok()?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&bytes).ok()?;
    if pem.label != "CERTIFICATE REQUEST" {
        return None;
    }
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).ok()?;
    let subject = &request.certification_request_info.subject;
    Some(subject.iter_organization().filter_map(|group| group.as_str().ok()).map(ToOwned::to_owned).collect())
}
