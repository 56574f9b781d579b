"""The contract: field tables, validation, JSON Schema and docs made from them."""

from .contract import RECORD_NAMES, SCHEMA_VERSION, Field, Table, table
from .export import docs_page, json_schema, write_docs
from .validate import check_record, raise_first, require_record

__all__ = [
    "RECORD_NAMES",
    "SCHEMA_VERSION",
    "Field",
    "Table",
    "check_record",
    "docs_page",
    "json_schema",
    "raise_first",
    "require_record",
    "table",
    "write_docs",
]
