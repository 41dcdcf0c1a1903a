//! Canonical strings of quantities: no fraction, the largest suffix that loses nothing.
//!
//! In: nanos and format. Out: the wire string.

use super::{Format, NANOS};

const SI: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

pub(super) fn canonical(nanos: i128, format: Format) -> String {
    if nanos == 0 {
        return "0".to_owned();
    }
    match format {
        // Small and fractional binary amounts are written in decimal rather than rounded.
        Format::BinarySI if nanos.abs() >= 1024 * NANOS && nanos % NANOS == 0 => binary(nanos / NANOS),
        Format::BinarySI | Format::DecimalSI => {
            let (mantissa, thousands) = thousands(nanos, SI.len() - 1);
            format!("{mantissa}{}", SI[thousands])
        }
        Format::DecimalExponent => {
            let (mantissa, thousands) = thousands(nanos, usize::MAX);
            match thousands {
                3 => mantissa.to_string(),
                n => format!("{mantissa}e{}", 3 * i64::try_from(n).unwrap_or(i64::MAX) - 9),
            }
        }
    }
}

fn binary(mut value: i128) -> String {
    let mut power = 0;
    while power + 1 < BINARY.len() && value % 1024 == 0 {
        value /= 1024;
        power += 1;
    }
    format!("{value}{}", BINARY[power])
}

/// Divides by 1000 while nothing is lost, at most `limit` times.
fn thousands(mut value: i128, limit: usize) -> (i128, usize) {
    let mut count = 0;
    while count < limit && value % 1000 == 0 {
        value /= 1000;
        count += 1;
    }
    (value, count)
}
