//! Fields that name a compiled shape. Which shapes are compiled is no part of the types, so their schema takes any name;
//! the schema that editors read lists those that are handed in.

use serde_json::Value;

use crate::shape::Shapes;

/// The `format` of such a field, which marks it.
const COMPILED_SHAPE: &str = "compiled shape";

/// The schema of a field that names a compiled shape.
pub(super) fn shape_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "format": COMPILED_SHAPE })
}

/// Whether a schema is that of a field that names a compiled shape.
pub(super) fn is_shape(schema: &Value) -> bool {
    schema["format"] == COMPILED_SHAPE
}

/// Writes the names of the compiled shapes into the schema of each field that takes one.
pub(super) fn state_shapes(schema: &mut Value, shapes: Shapes) {
    let is_field = is_shape(schema);
    match schema {
        Value::Object(field) if is_field => {
            let names: Vec<_> = shapes.iter().map(|shape| shape.name).collect();
            let sizes: Vec<_> = shapes
                .iter()
                .map(|s| {
                    format!(
                        "vocabulary {}, rows of {} tokens, width {}, {} heads, {} blocks, conditioning {}",
                        s.vocabulary, s.length, s.width, s.heads, s.blocks, s.conditioning
                    )
                })
                .collect();
            field.shift_remove("format");
            field.insert("enum".to_owned(), names.into());
            // VS Code's: it shows them beside the names.
            field.insert("enumDescriptions".to_owned(), sizes.into());
        }
        Value::Object(members) => members
            .values_mut()
            .for_each(|member| state_shapes(member, shapes)),
        Value::Array(items) => items.iter_mut().for_each(|item| state_shapes(item, shapes)),
        _ => {}
    }
}
