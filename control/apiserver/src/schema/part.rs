//! Schemas that are made while the server runs: of custom resources, with published definitions in them.
//!
//! In: definitions. Out: a [`Schema`] of them; a published definition with everything it refers to.

use std::collections::HashMap;

use super::{Definition, DefinitionId, Property, Schema, Type};

impl Schema {
    /// A schema of these definitions, which refer to each other by their places.
    pub(crate) fn of(definitions: Vec<Definition>) -> Self {
        let places = definitions.iter().enumerate();
        let names = places.filter_map(|(place, one)| Some((one.name.clone(), DefinitionId::at(place)?)));
        Self { names: names.collect(), kinds: HashMap::new(), definitions }
    }

    /// A definition and all it refers to, at new places; and its own place there.
    pub(crate) fn part(&self, name: &str) -> (Vec<Definition>, Option<DefinitionId>) {
        let Some(&root) = self.names.get(name) else { return (Vec::new(), None) };
        let mut order = vec![root];
        let mut next = 0;
        while next < order.len() {
            let definition = self.definition(order[next]);
            next += 1;
            for property in &definition.properties {
                if let Some(id) = property.kind.object().filter(|id| !order.contains(id)) {
                    order.push(id);
                }
            }
        }
        let places: HashMap<DefinitionId, DefinitionId> = order
            .iter()
            .enumerate()
            .filter_map(|(place, id)| Some((*id, DefinitionId::at(place)?)))
            .collect();
        let moved = |property: &Property| Property { kind: property.kind.moved(&places), ..property.clone() };
        let definitions = order.iter().map(|id| {
            let definition = self.definition(*id);
            Definition { properties: definition.properties.iter().map(moved).collect(), ..definition.clone() }
        });
        (definitions.collect(), places.get(&root).copied())
    }
}

impl DefinitionId {
    /// The place as an id; `None` beyond what any schema has.
    pub(crate) fn at(place: usize) -> Option<Self> {
        u16::try_from(place).ok().map(Self)
    }
}

impl Type {
    fn moved(&self, places: &HashMap<DefinitionId, DefinitionId>) -> Self {
        match self {
            Self::Object(id) => places.get(id).map_or(Self::Any, |id| Self::Object(*id)),
            Self::Array(items) => Self::Array(Box::new(items.moved(places))),
            Self::Map(values) => Self::Map(Box::new(values.moved(places))),
            other => other.clone(),
        }
    }
}
