//! Leases.
//!
//! In: a Lease. Out: what is wrong with its spec, in `Errors`.

use xebec_api::names;

use super::field::{Errors, Field};
use super::rules;

pub(super) fn lease(object: &Field<'_>, errors: &mut Errors) {
    let spec = object.child("spec");
    let duration = spec.child("leaseDurationSeconds");
    if duration.int().is_some_and(|seconds| seconds <= 0) {
        errors.invalid(&duration, "must be greater than 0");
    }
    rules::nonnegative(&spec.child("leaseTransitions"), errors);
    let (strategy, preferred) = (spec.child("strategy"), spec.child("preferredHolder"));
    rules::optional_name(&strategy, names::qualified_name, errors);
    if !preferred.text().is_empty() && strategy.text().is_empty() {
        errors.forbidden(&preferred, "may only be specified if `strategy` is defined");
    }
}
