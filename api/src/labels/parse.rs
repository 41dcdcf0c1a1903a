//! The grammar of the label selector language over its tokens.
//!
//! In: tokens. Out: requirements, or the sentence upstream answers for the same mistake.

use super::lex::{Token, scan};
use super::{Operator, Requirement, SelectorError};
use crate::names;

struct Parser {
    tokens: Vec<(Token, String)>,
    position: usize,
}

/// Whether `in` and `notin` are operators here or plain words.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    Operator,
    Values,
}

pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { tokens: scan(text), position: 0 };
    parser.requirements().map_err(SelectorError)
}

// === impl Parser ===

impl Parser {
    fn look(&self, context: Context) -> (Token, &str) {
        let last = self.tokens.len() - 1;
        let (token, literal) = &self.tokens[self.position.min(last)];
        match token {
            Token::In | Token::NotIn if context == Context::Values => (Token::Identifier, literal),
            token => (*token, literal),
        }
    }

    fn next(&mut self, context: Context) -> (Token, String) {
        let (token, literal) = self.look(context);
        let item = (token, literal.to_owned());
        self.position += 1;
        item
    }

    fn requirements(&mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.look(Context::Values) {
                (Token::Identifier | Token::DoesNotExist, _) => {
                    let requirement = self.requirement();
                    requirements
                        .push(requirement.map_err(|error| format!("unable to parse requirement: {error}"))?);
                    match self.next(Context::Values) {
                        (Token::End, _) => return Ok(requirements),
                        (Token::Comma, _) => match self.look(Context::Values) {
                            (Token::Identifier | Token::DoesNotExist, _) => {}
                            (_, found) => {
                                return Err(format!("found '{found}', expected: identifier after ','"));
                            }
                        },
                        (_, found) => {
                            return Err(format!("found '{found}', expected: ',' or 'end of string'"));
                        }
                    }
                }
                (Token::End, _) => return Ok(requirements),
                (_, found) => {
                    return Err(format!("found '{found}', expected: !, identifier, or 'end of string'"));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (mut token, mut key) = self.next(Context::Values);
        let negated = token == Token::DoesNotExist;
        if negated {
            (token, key) = self.next(Context::Values);
        }
        if token != Token::Identifier {
            return Err(format!("found '{key}', expected: identifier"));
        }
        let problems = names::label_key(&key);
        if !problems.is_empty() {
            return Err(format!("<nil>: Invalid value: {key:?}: {}", problems.join("; ")));
        }
        let bare = matches!(self.look(Context::Values).0, Token::End | Token::Comma);
        let (operator, values) = if negated {
            (Operator::DoesNotExist, Vec::new())
        } else if bare {
            (Operator::Exists, Vec::new())
        } else {
            let operator = self.operator()?;
            let values = match operator {
                Operator::In | Operator::NotIn => self.value_set()?,
                _ => vec![self.exact_value()?],
            };
            (operator, values)
        };
        Requirement::new(&key, operator, values).map_err(|error| error.to_string())
    }

    fn operator(&mut self) -> Result<Operator, String> {
        Ok(match self.next(Context::Operator) {
            (Token::In, _) => Operator::In,
            (Token::NotIn, _) => Operator::NotIn,
            (Token::Equals, _) => Operator::Equals,
            (Token::DoubleEquals, _) => Operator::DoubleEquals,
            (Token::NotEquals, _) => Operator::NotEquals,
            (Token::GreaterThan, _) => Operator::GreaterThan,
            (Token::LessThan, _) => Operator::LessThan,
            (_, found) => return Err(format!("found '{found}', expected: in, notin, =, ==, !=, gt, lt")),
        })
    }

    /// `(a,b)`; an empty place between commas is the empty value.
    fn value_set(&mut self) -> Result<Vec<String>, String> {
        let (token, found) = self.next(Context::Values);
        if token != Token::OpenPar {
            return Err(format!("found '{found}' expected: '('"));
        }
        let mut values = Vec::new();
        loop {
            match self.next(Context::Values) {
                (Token::Identifier, value) => {
                    values.push(value);
                    match self.next(Context::Values) {
                        (Token::Comma, _) => {}
                        (Token::ClosedPar, _) => break,
                        (_, found) => return Err(format!("found '{found}', expected: ',' or ')'")),
                    }
                    if self.look(Context::Values).0 == Token::ClosedPar {
                        values.push(String::new());
                        self.position += 1;
                        break;
                    }
                }
                (Token::Comma, _) => values.push(String::new()),
                (Token::ClosedPar, _) => {
                    values.push(String::new());
                    break;
                }
                (_, found) => return Err(format!("found '{found}', expected: ',', ')' or identifier")),
            }
        }
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }

    fn exact_value(&mut self) -> Result<String, String> {
        if matches!(self.look(Context::Values).0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.next(Context::Values) {
            (Token::Identifier, value) => Ok(value),
            (_, found) => Err(format!("found '{found}', expected: identifier")),
        }
    }
}
