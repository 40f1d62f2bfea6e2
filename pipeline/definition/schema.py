"""JSON Schema of the pipeline file, for editors: the long form and the short ones."""

from __future__ import annotations

from typing import Any

from pipeline.definition.models import Definition
from pipeline.plan.models import Kind


def json_schema() -> dict[str, Any]:
    schema = Definition.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Shipway pipelines"
    definitions = schema["$defs"]
    stage = definitions["StageDef"]
    for kind in Kind:
        shapes: list[Any] = [{"$ref": f"#/$defs/{kind.value.capitalize()}Def"}, {"type": "string"}]
        if kind in (Kind.TEST, Kind.RUN):
            shapes.append({"type": "array", "items": {"type": "string"}})
        stage["properties"][kind.value] = {"anyOf": shapes}
        if kind in (Kind.TEST, Kind.RUN):
            definitions[f"{kind.value.capitalize()}Def"]["properties"]["matrix"] = stage["properties"]["matrix"]
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
    named = schema["properties"]["pipelines"]
    named["additionalProperties"] = {"anyOf": [{"$ref": "#/$defs/PipelineDef"}, {"$ref": "#/$defs/Steps"}]}
    return schema
