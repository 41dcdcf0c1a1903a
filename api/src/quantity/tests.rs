//! Expectations from upstream's documentation of the quantity format and its published examples.

use proptest::prelude::*;

use super::*;

fn parsed(text: &str) -> Quantity {
    Quantity::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn amounts_and_formats_are_read() {
    use Format::{BinarySI, DecimalExponent, DecimalSI};
    let cases: &[(&str, i128, Format)] = &[
        ("0", 0, DecimalSI),
        ("0Ki", 0, BinarySI),
        (".", 0, DecimalSI),
        ("5n", 5, DecimalSI),
        ("4u", 4_000, DecimalSI),
        ("3m", 3_000_000, DecimalSI),
        ("1", NANOS, DecimalSI),
        ("1Ki", 1024 * NANOS, BinarySI),
        ("3Ei", (3i128 << 60) * NANOS, BinarySI),
        ("0.5Mi", 524_288 * NANOS, BinarySI),
        ("100.035Ki", 102_435_840_000_000, BinarySI),
        ("1E-3", 1_000_000, DecimalExponent),
        ("1.3E+6", 1_300_000 * NANOS, DecimalExponent),
        ("12E", 12_000_000_000_000_000_000 * NANOS, DecimalSI),
        ("3.001n", 4, DecimalSI),
        ("0.0000000001", 1, DecimalSI),
        ("0.5e-9", 1, DecimalExponent),
        ("0.000000000001Ki", 2, DecimalSI),
        ("9Ei", i128::from(i64::MAX) * NANOS, BinarySI),
        ("9223372036854775807Ki", i128::from(i64::MAX) * NANOS, BinarySI),
        ("1.G", 1_000_000_000 * NANOS, DecimalSI),
        (".001", 1_000_000, DecimalSI),
        ("-1.5Ki", -1536 * NANOS, BinarySI),
        ("+1", NANOS, DecimalSI),
    ];
    for &(text, nanos, format) in cases {
        let quantity = parsed(text);
        assert_eq!((quantity.nanos(), quantity.format()), (nanos, format), "{text}");
    }
}

#[test]
fn malformed_strings_are_refused() {
    for text in
        ["", "1.1.M", "1+1.0M", "0.1mi", "0.1am", "aoeu", ".5i", "1i", "-3.01i", "-3.01e-", " 1", "1 ", "1e"]
    {
        assert!(Quantity::parse(text).is_err(), "{text:?}");
    }
    assert_eq!(Quantity::parse("1e40"), Err(QuantityError::Range));
    assert_eq!(Quantity::parse("1q"), Err(QuantityError::Format));
    assert_eq!(Quantity::parse("1mi"), Err(QuantityError::Suffix));
}

#[test]
fn canonical_form_has_the_largest_lossless_suffix() {
    let cases = [
        ("1.5", "1500m"),
        ("1.5Gi", "1536Mi"),
        ("1024Mi", "1Gi"),
        ("1000Ki", "1000Ki"),
        ("1024", "1024"),
        ("512Ki", "512Ki"),
        ("1000m", "1"),
        ("1000k", "1M"),
        ("100000", "100k"),
        ("0.1", "100m"),
        ("0.5Ki", "512"),
        ("0.0001Ki", "102400u"),
        ("1.3E+6", "1300e3"),
        ("12e0", "12"),
        ("0Gi", "0"),
        ("-1024Ki", "-1Mi"),
        ("1025Ki", "1025Ki"),
        ("0.3", "300m"),
    ];
    for (text, canonical) in cases {
        assert_eq!(parsed(text).to_string(), canonical, "{text}");
    }
}

#[test]
fn spelling_survives_where_upstream_keeps_it() {
    for (text, wire) in [
        ("1.500", "1.500"),
        ("+1", "+1"),
        ("1.5", "1500m"),
        ("1000m", "1"),
        ("007Ki", "007Ki"),
        ("8Ki", "8Ki"),
        ("64Mi", "64Mi"),
        ("1024Mi", "1Gi"),
        ("100m", "100m"),
        ("0.5", "500m"),
    ] {
        assert_eq!(canonical(text).unwrap(), wire, "{text}");
    }
}

#[test]
fn rounding_goes_away_from_zero() {
    assert_eq!(parsed("1m").value(), 1);
    assert_eq!(parsed("-1m").value(), -1);
    assert_eq!(parsed("1500m").value(), 2);
    assert_eq!(parsed("1u").millis(), 1);
    assert_eq!(parsed("2").millis(), 2000);
    assert_eq!(parsed("100E").millis(), i64::MAX);
}

#[test]
fn zero_takes_the_format_of_what_is_added() {
    assert_eq!((parsed("0") + parsed("1Gi")).to_string(), "1Gi");
    assert_eq!((parsed("1Gi") + parsed("0")).to_string(), "1Gi");
    assert_eq!((parsed("0") - parsed("100m")).to_string(), "-100m");
}

fn format() -> impl Strategy<Value = Format> {
    prop_oneof![Just(Format::DecimalSI), Just(Format::BinarySI), Just(Format::DecimalExponent)]
}

proptest! {
    #[test]
    fn canonical_strings_read_back_the_same(nanos in -(1i128 << 80)..(1i128 << 80), format in format()) {
        let quantity = Quantity::from_nanos(nanos, format);
        let text = quantity.to_string();
        let again = parsed(&text);
        prop_assert_eq!(again, quantity);
        prop_assert_eq!(again.to_string(), text);
    }

    #[test]
    fn any_string_is_parsed_or_refused(text in "[-+]?[0-9.]{0,45}[eEinumkKMGTP]{0,2}[-+]?[0-9]{0,3}") {
        if let Ok(quantity) = Quantity::parse(&text) {
            prop_assert_eq!(parsed(&quantity.to_string()), quantity);
            prop_assert_eq!(parsed(&canonical(&text).unwrap()), quantity);
        }
    }

    #[test]
    fn order_and_arithmetic_agree(a in -(1i128 << 80)..(1i128 << 80), b in -(1i128 << 80)..(1i128 << 80)) {
        let (a, b) = (Quantity::from_nanos(a, Format::DecimalSI), Quantity::from_nanos(b, Format::BinarySI));
        prop_assert_eq!(a + b, b + a);
        prop_assert_eq!(a + b - b, a);
        prop_assert_eq!(a < b, (a - b).is_negative());
    }

    #[test]
    fn binary_fractions_are_exact(eighths in 0u32..80_000) {
        let text = format!("{}.{:03}Ki", eighths / 8, eighths % 8 * 125);
        prop_assert_eq!(parsed(&text).nanos(), i128::from(eighths) * 128 * NANOS);
    }
}
