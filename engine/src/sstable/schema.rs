//! The columns of an SSTable, and where its pages are: what writer and reader
//! must agree on.

use std::sync::Arc;

use parquet::basic::{ColumnOrder, Repetition, SortOrder, Type as PhysicalType};
use parquet::file::metadata::SortingColumn;
use parquet::schema::types::{SchemaDescriptor, Type};

use super::page::Content;

/// Position of the column of keys; the others follow.
pub(super) const KEY: usize = 0;
pub(super) const VALUE: usize = 1;
pub(super) const SEQ: usize = 2;
pub(super) const KIND: usize = 3;
pub(super) const EXPIRY: usize = 4;

/// What the pages of each column hold.
pub(super) const CONTENTS: [Content; super::COLUMNS_MAX] =
    [Content::Bytes, Content::Bytes, Content::Ints, Content::Ints, Content::Ints];

const NAMES: [(&str, PhysicalType); super::COLUMNS_MAX] = [
    ("key", PhysicalType::BYTE_ARRAY),
    ("value", PhysicalType::BYTE_ARRAY),
    ("seq", PhysicalType::INT64),
    ("kind", PhysicalType::INT32),
    ("expires_at", PhysicalType::INT64),
];

/// The schema of so many columns, all required, with field ids from 1.
pub(super) fn schema(columns: usize) -> parquet::errors::Result<Arc<SchemaDescriptor>> {
    let mut fields = Vec::new();
    for (id, (name, physical)) in (1..).zip(NAMES).take(columns) {
        let field = Type::primitive_type_builder(name, physical)
            .with_repetition(Repetition::REQUIRED)
            .with_id(Some(id));
        fields.push(Arc::new(field.build()?));
    }
    let root = Type::group_type_builder("duramen").with_fields(fields).build()?;
    Ok(Arc::new(SchemaDescriptor::new(Arc::new(root))))
}

/// True if another schema is this one, field ids included.
pub(super) fn is_ours(found: &SchemaDescriptor, columns: usize) -> bool {
    schema(columns).is_ok_and(|ours| ours.root_schema().get_fields() == found.root_schema().get_fields())
}

/// Without these, readers may not trust bounds.
pub(super) fn column_orders(columns: usize) -> Vec<ColumnOrder> {
    let order = |column| match CONTENTS[column] {
        Content::Bytes => SortOrder::UNSIGNED,
        Content::Ints => SortOrder::SIGNED,
    };
    (0..columns).map(|column| ColumnOrder::TYPE_DEFINED_ORDER(order(column))).collect()
}

/// Key ascending, sequence number descending.
pub(super) fn sorting_columns() -> Vec<SortingColumn> {
    vec![
        SortingColumn { column_idx: KEY as i32, descending: false, nulls_first: false },
        SortingColumn { column_idx: SEQ as i32, descending: true, nulls_first: false },
    ]
}
