//! What Go's JSON leaves out: empty values of fields that say nothing when they are empty.
//!
//! In: a decoded object of a built-in kind. Out: the object as upstream would have stored it, without `readyReplicas: 0`
//! or `hostNetwork: false`. Which fields those are is known from the table: the same that leaves them out on the wire.

use serde_json::{Map, Value};

use super::table::{Field, Kind, Message, Shape, Table};
use super::{MAX_DEPTH, is_zero};
use crate::kinds::Gvk;

/// Leaves out what says nothing; kinds without a message stay as they are.
pub(crate) fn omit_zeros(gvk: &Gvk, object: &mut Value) {
    let table = Table::global();
    if let (Some(message), Value::Object(fields)) = (table.kind(&gvk.api_version(), &gvk.kind), object) {
        omit(fields, message, 0);
    }
}

fn omit(fields: &mut Map<String, Value>, message: &Message, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    for field in message.fields() {
        match field.shape {
            Shape::Embedded => {
                if let Kind::Message(inner) = field.kind {
                    omit(fields, Table::global().message(inner), depth + 1);
                }
            }
            Shape::One => {
                let Some(value) = fields.get_mut(&field.name) else { continue };
                if says_nothing(field, value) {
                    fields.remove(&field.name);
                } else {
                    below(field, value, depth);
                }
            }
            Shape::List => {
                let items = fields.get_mut(&field.name).and_then(Value::as_array_mut);
                items.into_iter().flatten().for_each(|item| below(field, item, depth));
            }
            Shape::Map => {
                let entries = fields.get_mut(&field.name).and_then(Value::as_object_mut);
                entries.into_iter().flatten().for_each(|(_, value)| below(field, value, depth));
            }
        }
    }
}

fn says_nothing(field: &Field, value: &Value) -> bool {
    let plain = matches!(field.kind, Kind::Text | Kind::Bool | Kind::Integer | Kind::Double);
    plain && !field.keeps_zero && is_zero(value)
}

fn below(field: &Field, value: &mut Value, depth: usize) {
    if let (Kind::Message(inner), Value::Object(fields)) = (&field.kind, value) {
        omit(fields, Table::global().message(*inner), depth + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn empty_values_are_left_out_where_go_leaves_them_out() {
        let mut deployment = json!({
            "metadata": {"name": "a", "generation": 0},
            "spec": {"replicas": 0, "paused": false, "minReadySeconds": 0, "template": {"spec": {
                "hostNetwork": false, "containers": [{"name": "c", "workingDir": "", "stdin": false}],
            }}},
            "status": {"readyReplicas": 0, "replicas": 2, "observedGeneration": 0},
        });
        omit_zeros(&Gvk::new("apps", "v1", "Deployment"), &mut deployment);
        assert_eq!(
            deployment,
            json!({
                "metadata": {"name": "a"},
                "spec": {"replicas": 0, "template": {"spec": {"containers": [{"name": "c"}]}}},
                "status": {"replicas": 2},
            })
        );
        let mut set = json!({"status": {"replicas": 0, "readyReplicas": 0}});
        omit_zeros(&Gvk::new("apps", "v1", "ReplicaSet"), &mut set);
        assert_eq!(set, json!({"status": {"replicas": 0}}));
    }
}
