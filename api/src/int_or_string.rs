//! Semantics of `IntOrString` where a percentage is allowed (`maxSurge`, `minAvailable` ...).
//!
//! In: the field and the total it scales with. Out: a count, or why the string is no percentage.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Why an `IntOrString` has no scaled value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScaleError {
    /// A string without the percent sign.
    #[error("invalid value for IntOrString: invalid type: string is not a percentage")]
    NotPercent,
    /// A percent sign after something that is no number.
    #[error("invalid value for IntOrString: invalid value {0:?}: not a number")]
    NotNumber(String),
}

/// Which way a percentage of a total is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Towards negative infinity.
    Down,
    /// Towards positive infinity.
    Up,
}

/// The count a field stands for: the number itself, or the percentage of `total`.
pub fn scaled_value(value: &IntOrString, total: i32, rounding: Rounding) -> Result<i32, ScaleError> {
    match value {
        IntOrString::Int(number) => Ok(*number),
        IntOrString::String(text) => {
            let percent = i64::from(percent(text)?);
            let product = percent * i64::from(total);
            let scaled = match rounding {
                Rounding::Down => product.div_euclid(100),
                Rounding::Up => -(-product).div_euclid(100),
            };
            Ok(i32::try_from(scaled).unwrap_or(if scaled < 0 { i32::MIN } else { i32::MAX }))
        }
    }
}

/// The number before the percent sign.
pub fn percent(text: &str) -> Result<i32, ScaleError> {
    let number = text.strip_suffix('%').ok_or(ScaleError::NotPercent)?;
    number.parse().map_err(|_| ScaleError::NotNumber(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> IntOrString {
        IntOrString::String(value.to_owned())
    }

    #[test]
    fn percentages_scale_with_the_total() {
        assert_eq!(scaled_value(&IntOrString::Int(7), 10, Rounding::Up), Ok(7));
        assert_eq!(scaled_value(&text("25%"), 2, Rounding::Up), Ok(1));
        assert_eq!(scaled_value(&text("25%"), 2, Rounding::Down), Ok(0));
        assert_eq!(scaled_value(&text("100%"), 3, Rounding::Down), Ok(3));
        assert_eq!(scaled_value(&text("-10%"), 15, Rounding::Up), Ok(-1));
        assert_eq!(scaled_value(&text("-10%"), 15, Rounding::Down), Ok(-2));
    }

    #[test]
    fn other_strings_are_refused() {
        assert_eq!(scaled_value(&text("5"), 10, Rounding::Up), Err(ScaleError::NotPercent));
        assert!(matches!(scaled_value(&text("a%"), 10, Rounding::Up), Err(ScaleError::NotNumber(_))));
    }
}
