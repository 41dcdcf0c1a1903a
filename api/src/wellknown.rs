//! The words the ecosystem agreed on: label and annotation keys, taints, finalizers, condition types, reasons,
//! names of built-in objects.
//!
//! In: nothing. Out: constants, one module a family.

pub mod annotations;
pub mod conditions;
pub mod finalizers;
pub mod labels;
pub mod names;
pub mod reasons;
pub mod taints;
