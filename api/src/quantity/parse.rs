//! The grammar of quantities: sign, digits, suffix to nanos and format.
//!
//! In: the wire string. Out: a `Quantity`, or which part of the string is wrong. Amounts finer than a nano round
//! away from zero; binary amounts are capped at 2^63-1, as upstream caps them.

use std::borrow::Cow;

use super::{Format, NANOS, Quantity};

/// Why a string is not a quantity. The wording is upstream's, since clients show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The string does not have the shape number-suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The suffix is none of the known ones.
    #[error("unable to parse quantity's suffix")]
    Suffix,
    /// The number is larger than any resource can be.
    #[error("quantity is out of range: its magnitude must be below 1.7e29")]
    Range,
}

/// The parts of a quantity string, leading zeros of the integer part dropped.
struct Parts<'a> {
    negative: bool,
    integer: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

struct Suffix {
    base: u8,
    exponent: i64,
    format: Format,
}

pub(super) fn parse(text: &str) -> Result<Quantity, QuantityError> {
    let parts = split(text)?;
    let suffix = interpret(parts.suffix)?;
    evaluate(&parts, &suffix)
}

/// The string under which upstream stores a quantity: the input itself where upstream's fast path calls it
/// canonical already (which includes forms like `1.500`), the canonical form otherwise.
pub fn canonical(text: &str) -> Result<Cow<'_, str>, QuantityError> {
    let parts = split(text)?;
    let suffix = interpret(parts.suffix)?;
    let quantity = evaluate(&parts, &suffix)?;
    if text == "0" || keeps_its_spelling(&parts, &suffix) {
        return Ok(Cow::Borrowed(text));
    }
    Ok(Cow::Owned(quantity.to_string()))
}

fn split(text: &str) -> Result<Parts<'_>, QuantityError> {
    if text.is_empty() {
        return Err(QuantityError::Format);
    }
    let (negative, rest) = match text.as_bytes()[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let rest = rest.trim_start_matches('0');
    let (integer, rest) = rest.split_at(digits(rest));
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(after) => after.split_at(digits(after)),
        None => ("", rest),
    };
    let letters = rest.bytes().take_while(|b| b"eEinumkKMGTP".contains(b)).count();
    let mut tail = &rest[letters..];
    if tail.starts_with(['-', '+']) {
        tail = &tail[1..];
    }
    if digits(tail) != tail.len() {
        return Err(QuantityError::Format);
    }
    Ok(Parts { negative, integer, fraction, suffix: rest })
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

fn interpret(suffix: &str) -> Result<Suffix, QuantityError> {
    let si = |exponent| Ok(Suffix { base: 10, exponent, format: Format::DecimalSI });
    let binary = |exponent| Ok(Suffix { base: 2, exponent, format: Format::BinarySI });
    match suffix {
        "n" => si(-9),
        "u" => si(-6),
        "m" => si(-3),
        "" => si(0),
        "k" => si(3),
        "M" => si(6),
        "G" => si(9),
        "T" => si(12),
        "P" => si(15),
        "E" => si(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let power = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
            let exponent = power.parse::<i32>().map_err(|_| QuantityError::Suffix)?;
            Ok(Suffix { base: 10, exponent: i64::from(exponent), format: Format::DecimalExponent })
        }
    }
}

fn evaluate(parts: &Parts<'_>, suffix: &Suffix) -> Result<Quantity, QuantityError> {
    let mut digits: Vec<u8> = parts.integer.bytes().chain(parts.fraction.bytes()).map(|b| b - b'0').collect();
    let fraction = i64::try_from(parts.fraction.len()).map_err(|_| QuantityError::Range)?;
    let mut format = suffix.format;
    let nanos = if suffix.base == 2 {
        const CAP: i128 = i64::MAX as i128 * NANOS;
        for _ in 0..suffix.exponent {
            double(&mut digits);
        }
        let nanos = nanos(&digits, -fraction).unwrap_or(CAP).min(CAP);
        if nanos > 0 && nanos < NANOS {
            format = Format::DecimalSI;
        }
        nanos
    } else {
        nanos(&digits, suffix.exponent - fraction).ok_or(QuantityError::Range)?
    };
    Ok(Quantity { nanos: if parts.negative { -nanos } else { nanos }, format })
}

/// digits × 10^scale as nanos, rounded up; `None` when an i128 cannot hold it.
fn nanos(digits: &[u8], scale: i64) -> Option<i128> {
    let start = digits.iter().position(|&d| d != 0).unwrap_or(digits.len());
    let end = digits.iter().rposition(|&d| d != 0).map_or(start, |last| last + 1);
    let significant = &digits[start..end];
    if significant.is_empty() {
        return Some(0);
    }
    // The power of ten of the last significant digit, in nanos.
    let shift = scale + 9 + i64::try_from(digits.len() - end).ok()?;
    let kept = if shift >= 0 {
        significant.len()
    } else {
        usize::try_from(-shift).map_or(0, |cut| significant.len().saturating_sub(cut))
    };
    let mut value: i128 = 0;
    for &digit in &significant[..kept] {
        value = value.checked_mul(10)?.checked_add(i128::from(digit))?;
    }
    if kept < significant.len() {
        // The last significant digit is not zero, so whatever was cut off rounds up.
        value = value.checked_add(1)?;
    }
    if shift > 0 {
        value = value.checked_mul(10i128.checked_pow(u32::try_from(shift).ok()?)?)?;
    }
    Some(value)
}

fn double(digits: &mut Vec<u8>) {
    let mut carry = 0;
    for digit in digits.iter_mut().rev() {
        let sum = *digit * 2 + carry;
        *digit = sum % 10;
        carry = sum / 10;
    }
    if carry > 0 {
        digits.insert(0, carry);
    }
}

/// Whether upstream keeps the string as it came. Its test is on spelling, not on value, and looks only at numbers
/// small enough for 64 bits.
fn keeps_its_spelling(parts: &Parts<'_>, suffix: &Suffix) -> bool {
    let integer = if parts.integer.is_empty() { "0" } else { parts.integer };
    let length = i64::try_from(integer.len() + parts.fraction.len()).unwrap_or(i64::MAX);
    match suffix.format {
        Format::BinarySI => {
            let fits = parts.fraction.is_empty() && 15 - length - suffix.exponent * 3 / 10 > 0;
            fits && integer.parse::<i64>().is_ok_and(|value| value & 7 != 0)
        }
        Format::DecimalSI | Format::DecimalExponent => {
            let scale = suffix.exponent - i64::try_from(parts.fraction.len()).unwrap_or(i64::MAX);
            let ends_in_thousand = format!("{integer}{}", parts.fraction).ends_with("000");
            length <= 18 && scale >= -9 && scale % 3 == 0 && !ends_in_thousand && !integer.starts_with('0')
        }
    }
}
