"""tf.train.Example through the protobuf runtime, with a descriptor made here in place of generated code.

The reader parses by hand (`example.py`); writing through the official runtime keeps the two independent.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray

#: A feature to write: strings or bytes, float32 values, or integers.
Value = list[bytes] | NDArray[np.floating[Any]] | NDArray[np.integer[Any]]

_Field = descriptor_pb2.FieldDescriptorProto
_LISTS = {"BytesList": _Field.TYPE_BYTES, "FloatList": _Field.TYPE_FLOAT, "Int64List": _Field.TYPE_INT64}
_PACKAGE = "kubric_example"
_SLICE = 1 << 16


def serialise_example(features: Mapping[str, Value]) -> bytes:
    """Serialise flat features, keys in sorted order so that equal content gives equal bytes."""
    example = _example_class()()
    for key, value in features.items():
        feature = example.features.feature[key]
        if isinstance(value, list):
            feature.bytes_list.value.extend(value)
            feature.bytes_list.SetInParent()
        elif np.issubdtype(value.dtype, np.floating):
            feature.float_list.value.extend(value.astype(np.float32).reshape(-1).tolist())
            feature.float_list.SetInParent()
        else:
            flat = value.reshape(-1)
            # In slices: a Python integer takes 36 bytes, and flow has millions.
            for at in range(0, flat.size, _SLICE):
                feature.int64_list.value.extend(flat[at : at + _SLICE].astype(np.int64).tolist())
            feature.int64_list.SetInParent()
    return bytes(example.SerializeToString(deterministic=True))


@cache
def _example_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="kubric_example.proto", package=_PACKAGE, syntax="proto3")
    for name, kind in _LISTS.items():
        _add_field(file.message_type.add(name=name), "value", 1, kind, repeated=True)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(_LISTS, start=1):
        field = _add_field(feature, f"{name[:-4].lower()}_list", number, _Field.TYPE_MESSAGE, of=name)
        field.oneof_index = 0
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    _add_field(entry, "key", 1, _Field.TYPE_STRING)
    _add_field(entry, "value", 2, _Field.TYPE_MESSAGE, of="Feature")
    _add_field(features, "feature", 1, _Field.TYPE_MESSAGE, of="Features.FeatureEntry", repeated=True)
    _add_field(file.message_type.add(name="Example"), "features", 1, _Field.TYPE_MESSAGE, of="Features")
    # A pool of its own cannot collide with TensorFlow's definitions in the same process.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Example"))


def _add_field(
    message: Any, name: str, number: int, kind: int, *, of: str = "", repeated: bool = False
) -> Any:
    label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    field = message.field.add(name=name, number=number, type=kind, label=label)
    if of:
        field.type_name = f".{_PACKAGE}.{of}"
    return field
