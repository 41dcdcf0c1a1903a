//! The table against the published schema: every field of every kind has its number.

use std::collections::BTreeSet;

use super::*;
use crate::schema::Schema;

fn names(table: &Table, message: &Message, found: &mut BTreeSet<String>) {
    for field in &message.fields {
        match (field.shape, field.kind) {
            (Shape::Embedded, Kind::Message(inner)) => names(table, table.message(inner), found),
            _ => drop(found.insert(field.name.clone())),
        }
    }
}

#[test]
fn numbers_are_unique() {
    for (name, &place) in &Table::global().names {
        let numbers: Vec<u32> =
            Table::global().message(place).fields.iter().map(|field| field.number).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{name}: {numbers:?}");
    }
}

#[test]
fn every_field_of_the_schema_has_a_number() {
    let Ok(schema) = Schema::global() else { return };
    let (mut checked, mut missing) = (0, Vec::new());
    for (name, &place) in &Table::global().names {
        let (package, short) = name.split_once('.').unwrap();
        let full = match package {
            META => format!("io.k8s.apimachinery.pkg.apis.meta.v1.{short}"),
            package => format!("io.k8s.api.{}.{short}", package.replace('/', ".")),
        };
        // Embedded messages and lists have no definition.
        let Some(definition) = schema.named(&full) else { continue };
        let mut found = BTreeSet::new();
        names(Table::global(), Table::global().message(place), &mut found);
        for property in &definition.properties {
            checked += 1;
            if !["apiVersion", "kind"].contains(&&*property.name) && !found.remove(&*property.name) {
                missing.push(format!("{name} {}", property.name));
            }
        }
        found.retain(|left| !["apiVersion", "kind"].contains(&&**left));
        assert!(found.is_empty(), "{name} has no fields {found:?}");
    }
    assert!(missing.is_empty(), "{missing:?} have no number");
    assert!(checked > 1500, "only {checked} fields were looked at");
}
