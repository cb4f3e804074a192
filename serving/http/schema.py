"""What FastAPI cannot derive for the OpenAPI document: bodies that are read as bytes, and the results."""

from __future__ import annotations

from typing import Any

ABOUT = """Stages of Alzheimer's disease from slices of brain MRI. **For research; not a medical device.**

The Open Inference Protocol (version 2) under `/v2`, also with binary tensors, and uploads for people and scripts.
Errors are `{"error": "..."}`."""

_FILES: dict[str, Any] = {
    "type": "object",
    "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
    "required": ["file"],
}
_FORM = {"content": {"multipart/form-data": {"schema": _FILES}}, "required": True}

_NUMBERS = {"type": "object", "additionalProperties": {"type": "number"}}
_NAME = {"type": ["string", "null"]}
_NUMBER = {"type": ["number", "null"]}
_STATUS = {"type": "string", "enum": ["ok", "abstained", "rejected"]}
_TEXTS = {"type": "array", "items": {"type": "string"}}
_RESULT = {
    "status": _STATUS,
    "label": _NAME,
    "cdr": _NUMBER,
    "probability": _NUMBER,
    "probabilities": _NUMBERS,
    "reason": {"type": "string"},
}
_PREDICTION = {
    "type": "object",
    "properties": {
        **_RESULT,
        "code": {"type": "string"},
        "guard": {"anyOf": [_NUMBERS, {"const": "none"}]},
        "transforms": _TEXTS,
        "warnings": _TEXTS,
        "backend": {"type": "string"},
        "precision": {"type": "string"},
        "model_digest": {"type": "string"},
        "timings": _NUMBERS,
    },
}
_INDICES = {"type": "array", "items": {"type": "integer"}}
_STUDY = {
    "type": "object",
    "properties": {
        **_RESULT,
        "spread": _NUMBERS,
        "agreement": _NUMBER,
        "used": _INDICES,
        "rejected": _INDICES,
        "method": {"type": "string", "enum": ["calibrated", "mean"]},
        "slices": {"type": "array", "items": _PREDICTION},
        "files": _TEXTS,
        "skipped": {"type": "object", "additionalProperties": {"type": "integer"}},
    },
}
_TENSOR = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "parameters": {"type": "object"},
        "data": {"type": "array", "items": {}},
    },
    "required": ["name", "datatype", "shape"],
}
_REQUESTED = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
    "required": ["name"],
}
_TENSORS = {"type": "array", "items": _TENSOR}
_INFER_REQUEST = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "parameters": {"type": "object"},
        "inputs": _TENSORS,
        "outputs": {"type": "array", "items": _REQUESTED},
    },
    "required": ["inputs"],
}
_INFER_RESPONSE = {
    "type": "object",
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string"},
        "parameters": {"type": "object"},
        "outputs": _TENSORS,
    },
}


def _responses(schema: dict[str, Any]) -> dict[str, Any]:
    error = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    refused = {"description": "Refused: what was got, and what was expected", "content": _json(error)}
    codes = ("400", "401", "403", "408", "413", "415", "503", "504")
    return {"200": {"description": "Predictions", "content": _json(schema)}, **dict.fromkeys(codes, refused)}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


_FILE_PREDICTION = {**_PREDICTION, "properties": {"file": {"type": "string"}, **_PREDICTION["properties"]}}  # type: ignore[dict-item]
PREDICT = {"requestBody": _FORM, "responses": _responses({"type": "array", "items": _FILE_PREDICTION})}
STUDIES = {"requestBody": _FORM, "responses": _responses(_STUDY)}
INFER = {
    "requestBody": {"content": _json(_INFER_REQUEST), "required": True},
    "responses": {**_responses(_INFER_RESPONSE), "404": {"description": "No such model or version"}},
}
