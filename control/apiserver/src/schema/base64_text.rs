//! Base64 as Go's standard encoding reads it: line breaks are skipped, trailing bits ignored, padding required.
//!
//! In: text. Out: the canonical text of the same bytes, or the place upstream names as wrong.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// The canonical form, `None` when the text is canonical already.
pub(super) fn canonical(text: &str) -> Result<Option<String>, String> {
    let Some(place) = first_error(text.as_bytes()) else {
        let plain: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        let bytes = LENIENT.decode(&plain).map_err(|error| format!("illegal base64 data: {error}"))?;
        let canonical = base64::engine::general_purpose::STANDARD.encode(bytes);
        return Ok((canonical != text).then_some(canonical));
    };
    Err(format!("illegal base64 data at input byte {place}"))
}

/// Where Go's decoder stops: at the first foreign byte, at the start of an incomplete group of four, at what follows
/// the padding.
fn first_error(bytes: &[u8]) -> Option<usize> {
    let significant: Vec<(usize, u8)> =
        bytes.iter().copied().enumerate().filter(|(_, byte)| !matches!(byte, b'\r' | b'\n')).collect();
    for group in significant.chunks(4) {
        for (position, &(place, byte)) in group.iter().enumerate() {
            let known = byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
            if known {
                continue;
            }
            if byte != b'=' || position < 2 {
                return Some(place);
            }
            return after_padding(&significant, place, position, bytes.len());
        }
        if group.len() < 4 {
            return Some(bytes.len() - group.len());
        }
    }
    None
}

fn after_padding(significant: &[(usize, u8)], place: usize, position: usize, length: usize) -> Option<usize> {
    let mut rest = significant.iter().skip_while(|(at, _)| *at <= place);
    if position == 2 {
        match rest.next() {
            None => return Some(length),
            Some((_, b'=')) => {}
            Some((at, _)) => return Some(*at - 1),
        }
    }
    rest.next().map(|(at, _)| *at)
}
