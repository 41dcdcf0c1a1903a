//! Tokens of the label selector language.
//!
//! In: the query string. Out: its tokens with their literals, the last one being `End`.

/// A word or sign of the language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Error,
    End,
    ClosedPar,
    Comma,
    DoesNotExist,
    DoubleEquals,
    Equals,
    GreaterThan,
    Identifier,
    In,
    LessThan,
    NotEquals,
    NotIn,
    OpenPar,
}

pub(super) fn scan(text: &str) -> Vec<(Token, String)> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let Some(first) = rest.chars().next() else {
            tokens.push((Token::End, String::new()));
            return tokens;
        };
        let (token, literal, length) = if is_special(first) { special(rest) } else { word(rest) };
        tokens.push((token, literal));
        rest = &rest[length..];
    }
}

fn word(rest: &str) -> (Token, String, usize) {
    let end = rest.find(|c| is_special(c) || matches!(c, ' ' | '\t' | '\r' | '\n')).unwrap_or(rest.len());
    let literal = &rest[..end];
    let token = match literal {
        "in" => Token::In,
        "notin" => Token::NotIn,
        _ => Token::Identifier,
    };
    (token, literal.to_owned(), end)
}

/// The longest sign at the start; a run of signs that is none becomes an error token that names it.
fn special(rest: &str) -> (Token, String, usize) {
    for length in [2, 1] {
        if let Some(literal) = rest.get(..length)
            && let Some(token) = sign(literal)
        {
            return (token, literal.to_owned(), length);
        }
    }
    let end = rest.find(|c| !is_special(c)).unwrap_or(rest.len());
    (Token::Error, format!("error expected: keyword found '{}'", &rest[..end]), end)
}

fn sign(literal: &str) -> Option<Token> {
    Some(match literal {
        ")" => Token::ClosedPar,
        "," => Token::Comma,
        "!" => Token::DoesNotExist,
        "==" => Token::DoubleEquals,
        "=" => Token::Equals,
        ">" => Token::GreaterThan,
        "<" => Token::LessThan,
        "!=" => Token::NotEquals,
        "(" => Token::OpenPar,
        _ => return None,
    })
}

const fn is_special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}
