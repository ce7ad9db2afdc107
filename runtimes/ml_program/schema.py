"""The fields of Core ML's messages that an ML Program consists of.

Numbers are those of ``MIL.proto``, ``Model.proto`` and ``FeatureTypes.proto`` in Apple's published
specification (apple.github.io/coremltools/mlmodel).
"""

from __future__ import annotations

from runtimes.ml_program.wire import Field, Fields

# Messages that contain one another are filled in below.
VALUE: Fields = {}
VALUE_TYPE: Fields = {}
BLOCK: Fields = {}

DIMENSION: Fields = {1: Field("constant", {1: Field("size", "int")}), 2: Field("unknown", {})}
TENSOR_TYPE: Fields = {
    1: Field("dataType", "int"),
    2: Field("rank", "int"),
    3: Field("dimensions", DIMENSION, many=True),
}
VALUE_TYPE |= {
    1: Field("tensorType", TENSOR_TYPE),
    2: Field("listType", {1: Field("type", VALUE_TYPE), 2: Field("length", DIMENSION)}),
    3: Field("tupleType", {1: Field("types", VALUE_TYPE, many=True)}),
    4: Field("dictionaryType", {}),
    5: Field("stateType", {}),
}
TENSOR_VALUE: Fields = {
    1: Field("floats", {1: Field("values", "float", many=True)}),
    2: Field("ints", {1: Field("values", "int", many=True)}),
    3: Field("bools", {1: Field("values", "bool", many=True)}),
    4: Field("strings", {1: Field("values", "string", many=True)}),
    5: Field("longInts", {1: Field("values", "int", many=True)}),
    6: Field("doubles", {1: Field("values", "double", many=True)}),
    7: Field("bytes", {1: Field("values", "bytes")}),
}
IMMEDIATE: Fields = {
    1: Field("tensor", TENSOR_VALUE),
    2: Field("tuple", {1: Field("values", VALUE, many=True)}),
    3: Field("list", {1: Field("values", VALUE, many=True)}),
}
VALUE |= {
    2: Field("type", VALUE_TYPE),
    3: Field("immediateValue", IMMEDIATE),
    5: Field("blobFileValue", {1: Field("fileName", "string"), 2: Field("offset", "int")}),
}
NAMED_TYPE: Fields = {1: Field("name", "string"), 2: Field("type", VALUE_TYPE)}
BINDING: Fields = {1: Field("name", "string"), 2: Field("value", VALUE)}
OPERATION: Fields = {
    1: Field("type", "string"),
    2: Field("inputs", {1: Field("arguments", BINDING, many=True)}, keyed=True),
    3: Field("outputs", NAMED_TYPE, many=True),
    4: Field("blocks", BLOCK, many=True),
    5: Field("attributes", VALUE, keyed=True),
}
BLOCK |= {
    1: Field("inputs", NAMED_TYPE, many=True),
    2: Field("outputs", "string", many=True),
    3: Field("operations", OPERATION, many=True),
}
FUNCTION: Fields = {
    1: Field("inputs", NAMED_TYPE, many=True),
    2: Field("opset", "string"),
    3: Field("block_specializations", BLOCK, keyed=True),
}
PROGRAM: Fields = {1: Field("version", "int"), 2: Field("functions", FUNCTION, keyed=True)}

ARRAY_TYPE: Fields = {1: Field("shape", "int", many=True), 2: Field("dataType", "int")}
FEATURE: Fields = {
    1: Field("name", "string"),
    2: Field("shortDescription", "string"),
    3: Field("type", {5: Field("multiArrayType", ARRAY_TYPE)}),
}
METADATA: Fields = {
    1: Field("shortDescription", "string"),
    2: Field("versionString", "string"),
    3: Field("author", "string"),
    4: Field("license", "string"),
    100: Field("userDefined", "string", keyed=True),
}
DESCRIPTION: Fields = {
    1: Field("input", FEATURE, many=True),
    10: Field("output", FEATURE, many=True),
    100: Field("metadata", METADATA),
}
MODEL: Fields = {
    1: Field("specificationVersion", "int"),
    2: Field("description", DESCRIPTION),
    502: Field("mlProgram", PROGRAM),
}

# MIL.proto, DataType: name and the width of an element in bits.
DATA_TYPES: dict[int, tuple[str, int]] = {
    1: ("bool", 8),
    2: ("string", 0),
    10: ("float16", 16),
    11: ("float32", 32),
    12: ("float64", 64),
    21: ("int8", 8),
    22: ("int16", 16),
    23: ("int32", 32),
    24: ("int64", 64),
    25: ("int4", 4),
    31: ("uint8", 8),
    32: ("uint16", 16),
    33: ("uint32", 32),
    34: ("uint64", 64),
    35: ("uint4", 4),
    36: ("uint2", 2),
    37: ("uint1", 1),
    38: ("uint6", 6),
    39: ("uint3", 3),
}
# How weight.bin numbers the same types.
BLOB_TYPES: dict[int, str] = {
    1: "float16",
    2: "float32",
    3: "uint8",
    4: "int8",
    6: "int16",
    7: "uint16",
    8: "int4",
    9: "uint1",
    10: "uint2",
    11: "uint4",
    12: "uint3",
    13: "uint6",
    14: "int32",
    15: "uint32",
}
