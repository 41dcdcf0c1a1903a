//! What differs between built-in and custom kinds: where schema, defaults and rules come from.
//!
//! In: objects of a served kind. Out: the same, filled and checked. Everything else in the registry is one path.

use serde_json::Value;

use crate::custom::columns;
use crate::defaults;
use crate::field_error::FieldError;
use crate::registry::Served;
use crate::schema::{Definition, Schema};
use crate::status::ApiError;
use crate::strategy::{self, Traits};
use crate::table::{self, Include};
use crate::validation;

// === impl Served ===

impl Served {
    /// Fills defaults into an object of the stored version.
    pub(crate) fn fill(&self, object: &mut Value) {
        match &self.custom {
            Some(custom) => custom.fill(object),
            None => defaults::apply(&self.stored, object),
        }
    }

    /// Fills into an object from the store what its schema has gained since it was written.
    pub(crate) fn fill_read(&self, object: &mut Value) {
        if let Some(custom) = &self.custom {
            custom.fill(object);
        }
    }

    pub(crate) fn traits(&self) -> Traits {
        if self.custom.is_some() { strategy::custom_traits() } else { strategy::traits(&self.stored) }
    }

    pub(crate) fn check_create(&self, object: &Value) -> Vec<FieldError> {
        self.with_rules(validation::validate_create(&self.stored, object), object)
    }

    pub(crate) fn check_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        self.with_rules(validation::validate_update(&self.stored, new, old), new)
    }

    pub(crate) fn check_status(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        self.with_rules(validation::validate_status(&self.stored, new, old), new)
    }

    fn with_rules(&self, mut errors: Vec<FieldError>, object: &Value) -> Vec<FieldError> {
        if let Some(custom) = &self.custom {
            errors.extend(custom.check(object));
        }
        errors
    }

    /// How server-side apply takes objects of the stored version apart; `None` where they are not owned by field.
    pub(crate) fn shapes(&self) -> Result<Option<(&Schema, &Definition)>, ApiError> {
        if let Some(custom) = &self.custom {
            return Ok(custom.shapes());
        }
        let schema = Schema::global().map_err(ApiError::internal)?;
        Ok(schema.kind(&self.stored).map(|definition| (schema, definition)))
    }

    /// The same for the version of the request.
    pub(crate) fn request_shapes(&self) -> Result<Option<(&Schema, &Definition)>, ApiError> {
        if let Some(custom) = &self.custom {
            return Ok(custom.shapes());
        }
        let schema = Schema::global().map_err(ApiError::internal)?;
        Ok(schema.kind(&self.resource.gvk).map(|definition| (schema, definition)))
    }

    pub(crate) fn table(&self, items: &[Value], include: Include) -> Value {
        let now = jiff::Timestamp::now();
        match &self.custom {
            Some(custom) => {
                let shown = custom.columns();
                let cells = |object: &Value| columns::cells(shown, object, now);
                table::render_rows(&columns::definitions(shown), items, include, cells)
            }
            None => table::render(&self.resource.gvk, items, now, include),
        }
    }
}
