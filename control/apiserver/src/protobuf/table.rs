//! Which number stands for which field.
//!
//! In: `messages.txt`. Out: its messages, read when the first body in this format comes.

use std::collections::HashMap;
use std::sync::LazyLock;

static TEXT: &str = include_str!("messages.txt");
const META: &str = "meta/v1";

/// All messages.
#[derive(Debug)]
pub(super) struct Table {
    messages: Vec<Message>,
    names: HashMap<&'static str, usize>,
}

/// The fields of one type, sorted by number.
#[derive(Debug)]
pub(super) struct Message {
    fields: Vec<Field>,
}

#[derive(Debug)]
pub(super) struct Field {
    /// The JSON name.
    pub(super) name: String,
    pub(super) number: u32,
    pub(super) shape: Shape,
    pub(super) kind: Kind,
    /// An empty value says something, other than no value.
    pub(super) keeps_zero: bool,
}

/// How often a field occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    List,
    /// Keys are strings.
    Map,
    /// The message's fields stand among those around it.
    Embedded,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Bool,
    Integer,
    Double,
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    RawJson,
    /// Its place in the table.
    Message(usize),
}

// === impl Table ===

impl Table {
    pub(super) fn global() -> &'static Self {
        static TABLE: LazyLock<Table> = LazyLock::new(|| {
            // A test reads the same text.
            Table::parse(TEXT).expect("the embedded table is well-formed")
        });
        &TABLE
    }

    /// The message of an object's type.
    pub(super) fn kind(&self, api_version: &str, kind: &str) -> Option<&Message> {
        let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
        // Packages are called by the first label of their group.
        let package = group.split('.').next().unwrap_or_default();
        // Every group has this one.
        let own = if kind == "DeleteOptions" { META.to_owned() } else { format!("{package}/{version}") };
        self.names.get(&*format!("{own}.{kind}")).map(|&place| self.message(place))
    }

    pub(super) fn message(&self, place: usize) -> &Message {
        &self.messages[place]
    }

    fn parse(text: &'static str) -> Result<Self, String> {
        let rows = || text.lines().filter(|line| !line.starts_with('#'));
        let name_of = |row: &'static str| row.split(' ').next().unwrap_or_default();
        let names: HashMap<_, _> = rows().enumerate().map(|(place, row)| (name_of(row), place)).collect();
        let messages = rows()
            .map(|row| {
                let package = name_of(row).rsplit_once('.').map_or("", |(package, _)| package);
                let fields = row.split(' ').skip(1).filter(|field| !field.is_empty());
                let fields = fields.map(|field| Field::parse(field, package, &names));
                let mut fields = fields.collect::<Result<Vec<_>, _>>()?;
                fields.sort_by_key(|field| field.number);
                Ok(Message { fields })
            })
            .collect::<Result<_, String>>()?;
        Ok(Self { messages, names })
    }
}

// === impl Message ===

impl Message {
    pub(super) fn fields(&self) -> &[Field] {
        &self.fields
    }

    pub(super) fn field(&self, number: u32) -> Option<&Field> {
        let place = self.fields.binary_search_by_key(&number, |field| field.number).ok()?;
        self.fields.get(place)
    }

    /// The items of a message that is written as a list.
    pub(super) fn whole_list(&self) -> Option<&Field> {
        match &self.fields[..] {
            [only] if only.name.is_empty() && only.shape == Shape::List => Some(only),
            _ => None,
        }
    }
}

// === impl Field ===

impl Field {
    /// `name=number:type`.
    fn parse(text: &str, package: &str, names: &HashMap<&str, usize>) -> Result<Self, String> {
        let fault = || format!("{package}: {text}");
        let (name, rest) = text.split_once('=').ok_or_else(fault)?;
        let (number, rest) = rest.split_once(':').ok_or_else(fault)?;
        let keeps_zero = rest.ends_with('!');
        let rest = rest.trim_end_matches('!');
        let (shape, kind) = match rest.split_at_checked(1) {
            Some(("*", kind)) => (Shape::List, kind),
            Some(("%", kind)) => (Shape::Map, kind),
            _ if name.is_empty() => (Shape::Embedded, rest),
            _ => (Shape::One, rest),
        };
        let kind = match kind {
            "s" => Kind::Text,
            "b" => Kind::Bool,
            "i" => Kind::Integer,
            "d" => Kind::Double,
            "y" => Kind::Bytes,
            "T" => Kind::Time,
            "U" => Kind::MicroTime,
            "Q" => Kind::Quantity,
            "I" => Kind::IntOrString,
            "R" => Kind::RawJson,
            message => {
                let full =
                    if message.starts_with('.') { format!("{package}{message}") } else { message.into() };
                Kind::Message(*names.get(&*full).ok_or_else(fault)?)
            }
        };
        let number = number.parse().map_err(|_| fault())?;
        Ok(Self { name: name.to_owned(), number, shape, kind, keeps_zero })
    }
}

#[cfg(test)]
mod tests;
