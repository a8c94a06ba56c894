//! The column: found in the schema, and taken out of batches.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray as _, BinaryArray, BinaryViewArray, LargeBinaryArray, RecordBatch,
};
use arrow::datatypes::{
    ArrowDictionaryKeyType, DataType, Field, FieldRef, Fields, Int8Type, Int16Type, Int32Type, Int64Type,
    Schema, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::super::fault::damaged;
use super::super::sink::Sink;
use super::super::strings_hint;
use crate::error::{Context as _, Error, Result};

/// Lists and structures within each other, at most.
const DEEPEST: usize = 64;

/// Where the text is: a column, and fields within it.
pub struct TextColumn {
    /// The column's place.
    pub index: usize,
    fields: Vec<usize>,
    /// Its type has no values but nulls: what a writer makes of a shard without texts.
    pub all_null: bool,
    /// The type is not of strings: every row has to be null. The message and the hint, if one is not.
    wrong: Option<(String, String)>,
}

impl TextColumn {
    /// Finds the column; in the schema that is given back, its strings are bytes.
    pub fn find(schema: &Schema, name: &str) -> Result<(Schema, Self)> {
        let mut all: Vec<FieldRef> = schema.fields().iter().cloned().collect();
        let hint = || strings_hint(&names(schema));
        let no_column = || format!("the Arrow data have no column `{name}`");
        let fields = schema.fields();
        let Some(found) = find(fields, name, false, 0).or_else(|| find(fields, name, true, 0)) else {
            return Err(Error::input(no_column()).hint(hint()));
        };
        let FieldPath {
            index,
            fields,
            data_type,
            whole,
        } = found;
        let mut column = Self {
            index,
            fields,
            all_null: only_nulls(&data_type, 0),
            wrong: None,
        };
        if !column.all_null {
            let field = &all[index];
            if !whole {
                column.wrong = Some((no_column(), hint()));
            } else if let Some(changed) = as_bytes(field.data_type(), &column.fields, 0) {
                all[index] = Arc::new(Field::clone(field).with_data_type(changed));
            } else {
                let message =
                    format!("the column `{name}` holds values of the type {data_type}, not strings");
                column.wrong = Some((message, hint()));
            }
        }
        Ok((Schema::new(all), column))
    }
}

/// Where a name leads.
struct FieldPath {
    index: usize,
    /// The fields within.
    fields: Vec<usize>,
    data_type: DataType,
    /// Whether this is the field of the whole name, and not of its beginning.
    whole: bool,
}

/// The field of a name, or along a path of names joined by dots. With `part` the field that the path ends at before the
/// name does: where it has nothing but nulls, it stands for all that could be within it.
fn find(fields: &Fields, name: &str, part: bool, depth: usize) -> Option<FieldPath> {
    let here = |index, field: &FieldRef, whole| FieldPath {
        index,
        fields: Vec::new(),
        data_type: field.data_type().clone(),
        whole,
    };
    if let Some((index, field)) = fields.find(name) {
        return Some(here(index, field, true));
    }
    if depth > DEEPEST {
        return None;
    }
    name.match_indices('.').find_map(|(dot, _)| {
        let (index, field) = fields.find(&name[..dot])?;
        let within = match field.data_type() {
            DataType::Struct(inner) => find(inner, &name[dot + 1..], part, depth + 1),
            _ => None,
        };
        match within {
            Some(mut place) => {
                place.fields.insert(0, place.index);
                place.index = index;
                Some(place)
            }
            None => part.then(|| here(index, field, false)),
        }
    })
}

/// Names of the columns that hold strings, with those in structures: up to [`LISTED`](super::super::LISTED) of them.
pub fn names(schema: &Schema) -> Vec<String> {
    let mut names = Vec::new();
    strings(schema.fields(), "", 0, &mut names);
    names
}

/// Adds names of the columns that hold strings, with those in structures.
fn strings(fields: &Fields, before: &str, depth: usize, names: &mut Vec<String>) {
    for field in fields {
        if depth > DEEPEST || names.len() >= super::super::LISTED {
            return;
        }
        let name = format!("{before}{}", field.name());
        match field.data_type() {
            DataType::Struct(inner) => strings(inner, &format!("{name}."), depth + 1, names),
            data_type if as_bytes(data_type, &[], 0).is_some() => names.push(name),
            _ => {}
        }
    }
}

/// The element of a list, of whatever layout.
fn element(data_type: &DataType) -> Option<&FieldRef> {
    match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::ListView(field)
        | DataType::LargeListView(field) => Some(field),
        _ => None,
    }
}

/// Whether a type has no values but nulls, and lists and structures of them.
fn only_nulls(data_type: &DataType, depth: usize) -> bool {
    match data_type {
        DataType::Null => true,
        _ if depth > DEEPEST => false,
        DataType::Dictionary(_, value) => only_nulls(value, depth + 1),
        DataType::Struct(fields) => {
            let mut fields = fields.iter();
            fields.all(|field| only_nulls(field.data_type(), depth + 1))
        }
        other => element(other).is_some_and(|field| only_nulls(field.data_type(), depth + 1)),
    }
}

/// The same type with bytes for the strings along a path; `None` if that leads to no strings.
fn as_bytes(data_type: &DataType, path: &[usize], depth: usize) -> Option<DataType> {
    if depth > DEEPEST {
        return None;
    }
    let inner = |field: &FieldRef| {
        let inner = as_bytes(field.data_type(), &[], depth + 1)?;
        Some(Arc::new(Field::clone(field).with_data_type(inner)))
    };
    if let Some((&first, rest)) = path.split_first() {
        let DataType::Struct(fields) = data_type else {
            return None;
        };
        let mut fields: Vec<FieldRef> = fields.iter().cloned().collect();
        let changed = as_bytes(fields[first].data_type(), rest, depth + 1)?;
        fields[first] = Arc::new(Field::clone(&fields[first]).with_data_type(changed));
        return Some(DataType::Struct(fields.into()));
    }
    Some(match data_type {
        DataType::Utf8 | DataType::Binary => DataType::Binary,
        DataType::LargeUtf8 | DataType::LargeBinary => DataType::LargeBinary,
        DataType::Utf8View | DataType::BinaryView => DataType::BinaryView,
        DataType::Dictionary(key, value) => {
            DataType::Dictionary(key.clone(), Box::new(as_bytes(value, &[], depth + 1)?))
        }
        DataType::List(field) => DataType::List(inner(field)?),
        DataType::LargeList(field) => DataType::LargeList(inner(field)?),
        DataType::FixedSizeList(field, size) => DataType::FixedSizeList(inner(field)?, *size),
        DataType::ListView(field) => DataType::ListView(inner(field)?),
        DataType::LargeListView(field) => DataType::LargeListView(inner(field)?),
        _ => return None,
    })
}

/// Takes the text out of batches.
pub struct TextExtractor<'r, 's> {
    /// Where it is.
    pub column: TextColumn,
    /// What stands between the strings of a list.
    pub join: &'r str,
    /// The text of a row that is put together.
    pub text: Vec<u8>,
    /// Rows so far.
    pub number: u64,
    /// Where it goes.
    pub sink: &'r mut Sink<'s>,
}

impl TextExtractor<'_, '_> {
    /// Takes rows that are null, which no batch has to be decoded for.
    pub fn nulls(&mut self, rows: i64) -> Result<()> {
        let rows = u64::try_from(rows).map_err(|_| damaged(format!("{rows} rows")))?;
        self.number = self.number.saturating_add(rows);
        self.sink.empties(rows)
    }

    /// Takes the rows of a batch.
    pub fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        // A projection has but this column.
        let mut arrays: Vec<ArrayRef> = vec![batch.column(0).clone()];
        for &field in &self.column.fields {
            let inner = arrays
                .last()
                .and_then(|array| array.as_struct_opt())
                .map(|array| array.column(field).clone())
                .ok_or_else(|| Error::internal("a structure"))?;
            arrays.push(inner);
        }
        let Some((array, outer)) = arrays.split_last() else {
            return Ok(());
        };
        // Of a dictionary or runs, null values, too.
        let nulls = (self.column.wrong.is_some())
            .then(|| array.logical_nulls())
            .flatten();
        for row in 0..array.len() {
            self.number += 1;
            let number = self.number;
            let place = || format!("row {number}");
            if outer.iter().any(|array| array.is_null(row)) {
                self.sink.empty()?;
                continue;
            }
            if let Some((message, hint)) = &self.column.wrong {
                let is_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
                if !is_null && !is_nothing(array, row) {
                    return Err(Error::input(message.clone()).hint(hint.clone()).context(place()));
                }
                self.sink.empty()?;
                continue;
            }
            let plain = match array.data_type() {
                _ if array.is_null(row) => None,
                DataType::Binary => array
                    .as_any()
                    .downcast_ref::<BinaryArray>()
                    .map(|array| array.value(row)),
                DataType::LargeBinary => array
                    .as_any()
                    .downcast_ref::<LargeBinaryArray>()
                    .map(|array| array.value(row)),
                DataType::BinaryView => array
                    .as_any()
                    .downcast_ref::<BinaryViewArray>()
                    .map(|array| array.value(row)),
                _ => None,
            };
            let text = if let Some(text) = plain {
                text
            } else {
                self.text.clear();
                let mut joined = Joined {
                    join: self.join.as_bytes(),
                    text: &mut self.text,
                    any: false,
                    longest: self.sink.longest,
                };
                if !joined.append(array, row) {
                    return Err(self.sink.too_long().context(place()));
                }
                if !joined.any {
                    self.sink.empty()?;
                    continue;
                }
                &self.text[..]
            };
            if std::str::from_utf8(text).is_ok() {
                self.sink.push(text, String::new).context(place)?;
            } else {
                self.sink.push(text, place)?;
            }
        }
        Ok(())
    }
}

/// Whether an element has no value: it is null, or a structure or list of such elements.
fn is_nothing(array: &dyn Array, row: usize) -> bool {
    let all = |list: &ArrayRef| (0..list.len()).all(|row| is_nothing(list, row));
    if array.is_null(row) {
        return true;
    }
    match array.data_type() {
        DataType::Null => true,
        DataType::Struct(_) => {
            let columns = array.as_struct().columns();
            columns.iter().all(|column| is_nothing(column, row))
        }
        DataType::List(_) => all(&array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => all(&array.as_list::<i64>().value(row)),
        DataType::FixedSizeList(..) => all(&array.as_fixed_size_list().value(row)),
        DataType::ListView(_) => all(&array.as_list_view::<i32>().value(row)),
        DataType::LargeListView(_) => all(&array.as_list_view::<i64>().value(row)),
        _ => false,
    }
}

/// The strings of a row, joined.
struct Joined<'j> {
    join: &'j [u8],
    text: &'j mut Vec<u8>,
    any: bool,
    longest: usize,
}

impl Joined<'_> {
    /// Appends the strings of an element; whether they are not too long.
    fn append(&mut self, array: &dyn Array, row: usize) -> bool {
        if array.is_null(row) {
            return true;
        }
        match array.data_type() {
            DataType::Binary => self.push(array.as_binary::<i32>().value(row)),
            DataType::LargeBinary => self.push(array.as_binary::<i64>().value(row)),
            DataType::BinaryView => self.push(array.as_binary_view().value(row)),
            DataType::List(_) => self.list(&array.as_list::<i32>().value(row)),
            DataType::LargeList(_) => self.list(&array.as_list::<i64>().value(row)),
            DataType::FixedSizeList(..) => self.list(&array.as_fixed_size_list().value(row)),
            DataType::ListView(_) => self.list(&array.as_list_view::<i32>().value(row)),
            DataType::LargeListView(_) => self.list(&array.as_list_view::<i64>().value(row)),
            DataType::Dictionary(key, _) => match **key {
                DataType::Int8 => self.dictionary::<Int8Type>(array, row),
                DataType::Int16 => self.dictionary::<Int16Type>(array, row),
                DataType::Int32 => self.dictionary::<Int32Type>(array, row),
                DataType::Int64 => self.dictionary::<Int64Type>(array, row),
                DataType::UInt8 => self.dictionary::<UInt8Type>(array, row),
                DataType::UInt16 => self.dictionary::<UInt16Type>(array, row),
                DataType::UInt32 => self.dictionary::<UInt32Type>(array, row),
                _ => self.dictionary::<UInt64Type>(array, row),
            },
            _ => true,
        }
    }

    fn push(&mut self, value: &[u8]) -> bool {
        if self.any {
            self.text.extend_from_slice(self.join);
        }
        self.any = true;
        if self.text.len() + value.len() > self.longest {
            return false;
        }
        self.text.extend_from_slice(value);
        true
    }

    fn list(&mut self, values: &ArrayRef) -> bool {
        (0..values.len()).all(|row| self.append(values, row))
    }

    fn dictionary<K: ArrowDictionaryKeyType>(&mut self, array: &dyn Array, row: usize) -> bool {
        let array = array.as_dictionary::<K>();
        match array.key(row) {
            Some(key) => self.append(array.values(), key),
            None => true,
        }
    }
}
