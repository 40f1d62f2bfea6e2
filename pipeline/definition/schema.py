"""JSON Schema of the pipeline file, for editors: the long form and the short ones."""

from __future__ import annotations

from typing import Any

from pipeline.definition.models import Definition
from pipeline.plan.models import Kind


def json_schema() -> dict[str, Any]:
    """The whole file's schema, draft 2020-12."""
    schema = Definition.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Shipway pipelines"
    definitions = schema["$defs"]
    stage = definitions["StageDef"]
    for kind in Kind:
        body = f"{kind.value.capitalize()}Def"
        shapes: list[Any] = [{"$ref": f"#/$defs/{body}"}, {"type": ["string", "null"]}]
        if kind in (Kind.TEST, Kind.RUN):
            shapes.append({"type": "array", "items": {"type": "string"}})
            definitions[body]["properties"]["matrix"] = stage["properties"]["matrix"]
        stage["properties"][kind.value] = {"anyOf": shapes}
    stage["oneOf"] = [{"required": [kind.value]} for kind in Kind]
    step = {
        "type": "object",
        "properties": {"name": {"type": "string"}, **stage["properties"]},
        "oneOf": stage["oneOf"],
        "additionalProperties": False,
    }
    definitions["Steps"] = {"type": "array", "minItems": 1, "items": step}
    pipeline = definitions["PipelineDef"]["properties"]
    pipeline["stages"] = {"anyOf": [pipeline["stages"], {"$ref": "#/$defs/Steps"}]}
    named = schema["properties"]["pipelines"]["patternProperties"]
    for pattern in named:
        named[pattern] = {"anyOf": [named[pattern], {"$ref": "#/$defs/Steps"}]}
    definitions["Triggers"]["properties"]["push"]["anyOf"].append({"type": "null"})
    _as_we_read(schema)
    return schema


def _as_we_read(node: Any) -> None:
    """Names that fit no pattern are wrong, and what YAML takes for a number or a flag is text where we want text."""
    if isinstance(node, list):
        for item in node:
            _as_we_read(item)
    if not isinstance(node, dict):
        return
    for word in ("gt", "ge", "lt", "le"):
        node.pop(word, None)  # pydantic's own words, about values that are written as text
    if "patternProperties" in node:
        node.setdefault("additionalProperties", False)
    if node.get("type") == "string" and not {"pattern", "enum", "const"} & set(node):
        node["type"] = ["string", "number", "boolean"]
    for value in node.values():
        _as_we_read(value)
