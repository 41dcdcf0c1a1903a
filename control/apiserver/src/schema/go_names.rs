//! The names Go gives to types, which upstream's decode errors carry and tools show.
//!
//! In: a type of the schema. Out: `int32`, `[]v1.Container`, `map[string]string` ...

use super::{Definition, Schema, Type};

impl Schema {
    /// The name in an error about a field of this type.
    pub(super) fn go_name(&self, kind: &Type) -> String {
        match kind {
            Type::String => "string".to_owned(),
            Type::Bytes => "[]uint8".to_owned(),
            Type::Time => "v1.Time".to_owned(),
            Type::MicroTime => "v1.MicroTime".to_owned(),
            Type::Quantity => "resource.Quantity".to_owned(),
            Type::IntOrString => "intstr.IntOrString".to_owned(),
            Type::Int32 => "int32".to_owned(),
            Type::Int64 => "int64".to_owned(),
            Type::Number => "float64".to_owned(),
            Type::Boolean => "bool".to_owned(),
            Type::Any => "interface {}".to_owned(),
            Type::Array(items) => format!("[]{}", self.go_name(items)),
            Type::Map(values) => format!("map[string]{}", self.go_name(values)),
            Type::Object(id) => self.definition(*id).go_name(),
        }
    }
}

impl Definition {
    /// Package and type, such as `v1.DeploymentSpec`.
    pub(super) fn go_name(&self) -> String {
        let mut parts = self.name.rsplit('.');
        let (name, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        format!("{package}.{name}")
    }
}
