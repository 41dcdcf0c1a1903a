//! Resource quantities (`100m`, `1.5Gi`, `1e3`): one i128 count of nano-units with the format it was written in.
//!
//! In: strings from API objects. Out: exact comparison and arithmetic, canonical strings. Values beyond what an
//! i128 of nanos holds (about 1.7e29) are refused at parse; results of arithmetic saturate there.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod format;
mod parse;

pub use parse::{QuantityError, canonical};

const NANOS: i128 = 1_000_000_000;

/// How a quantity was written, and so how it is written again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `12M`: powers of 1000.
    #[default]
    DecimalSI,
    /// `12Mi`: powers of 1024.
    BinarySI,
    /// `12e6`.
    DecimalExponent,
}

/// A fixed-point amount of a resource, exact to the nano-unit.
///
/// Equality and order look at the amount only: `1Ki == 1024`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

// === impl Quantity ===

impl Quantity {
    /// Nothing, in decimal format.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSI };

    /// Parses the wire form; surrounding white space is not accepted.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        parse::parse(text)
    }

    /// `value` whole units.
    pub const fn new(value: i64, format: Format) -> Self {
        Self { nanos: value as i128 * NANOS, format }
    }

    /// `value` thousandths, in decimal format: what CPU is counted in.
    pub const fn from_millis(value: i64) -> Self {
        Self { nanos: value as i128 * (NANOS / 1000), format: Format::DecimalSI }
    }

    /// Whole units in binary format: what memory is counted in.
    pub const fn from_bytes(value: i64) -> Self {
        Self::new(value, Format::BinarySI)
    }

    /// An amount in billionths.
    pub const fn from_nanos(nanos: i128, format: Format) -> Self {
        Self { nanos, format }
    }

    /// The exact amount in billionths.
    pub const fn nanos(self) -> i128 {
        self.nanos
    }

    /// The format this quantity is written in.
    pub const fn format(self) -> Format {
        self.format
    }

    /// The same amount, written in another format.
    pub const fn with_format(self, format: Format) -> Self {
        Self { format, ..self }
    }

    /// Whole units, rounded away from zero; saturates at the ends of i64.
    pub fn value(self) -> i64 {
        self.scaled(NANOS)
    }

    /// Thousandths, rounded away from zero; saturates at the ends of i64.
    pub fn millis(self) -> i64 {
        self.scaled(NANOS / 1000)
    }

    /// The amount as a float, for ratios only.
    pub fn as_f64(self) -> f64 {
        self.nanos as f64 / NANOS as f64
    }

    /// Whether the amount is zero, whatever the format.
    pub const fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether the amount is below zero.
    pub const fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether the amount is a whole number of units.
    pub const fn is_integer(self) -> bool {
        self.nanos % NANOS == 0
    }

    /// Multiplies by a whole number, saturating.
    pub fn saturating_mul(self, factor: i64) -> Self {
        Self { nanos: self.nanos.saturating_mul(i128::from(factor)), ..self }
    }

    fn scaled(self, unit: i128) -> i64 {
        let quotient = self.nanos / unit;
        let rounded = if self.nanos % unit == 0 { quotient } else { quotient + self.nanos.signum() };
        i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX })
    }

    /// A zero takes the format of what it meets, as upstream's Add and Sub do.
    const fn format_with(self, other: Self) -> Format {
        if self.nanos == 0 { other.format } else { self.format }
    }
}

impl std::ops::Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { nanos: self.nanos.saturating_add(other.nanos), format: self.format_with(other) }
    }
}

impl std::ops::Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { nanos: self.nanos.saturating_sub(other.nanos), format: self.format_with(other) }
    }
}

impl std::ops::Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nanos: self.nanos.saturating_neg(), ..self }
    }
}

impl std::ops::AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl std::ops::SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, |total, next| total + next)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl std::hash::Hash for Quantity {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.nanos.hash(state);
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format::canonical(self.nanos, self.format))
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

type OpenApiQuantity = k8s_openapi::apimachinery::pkg::api::resource::Quantity;

impl TryFrom<&OpenApiQuantity> for Quantity {
    type Error = QuantityError;

    fn try_from(quantity: &OpenApiQuantity) -> Result<Self, Self::Error> {
        Self::parse(quantity.0.trim())
    }
}

impl From<Quantity> for OpenApiQuantity {
    fn from(quantity: Quantity) -> Self {
        Self(quantity.to_string())
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Wire {
            Text(String),
            Integer(i64),
            Float(f64),
        }
        let text = match Wire::deserialize(deserializer)? {
            Wire::Text(text) => text.trim().to_owned(),
            Wire::Integer(number) => number.to_string(),
            Wire::Float(number) => number.to_string(),
        };
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
