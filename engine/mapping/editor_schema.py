"""JSON Schema of the mapping files and their examples, for editors: completion, descriptions, mistakes at once.

What it says of rows is their form alone. Whether a path, a map or a code exists is checked when the files are loaded.
"""

from __future__ import annotations

from typing import Any, Final

from engine.mapping.examples import UNMAPPED
from engine.mapping.schema import r4

Schema = dict[str, Any]

_MAP_NAME: Final = r"^[A-Z][A-Z0-9]*\[[A-Za-z]+(\.[A-Za-z]+)*(-[A-Za-z0-9-]+)?\]$"
_MAP_IN_GROUP: Final = r"^([A-Z][A-Z0-9_]*\.)*[A-Z][A-Z0-9]*\[[A-Za-z]+(\.[A-Za-z]+)*(-[A-Za-z0-9-]+)?\]( when .+)?$"
_SLOT: Final = r"^[A-Z][A-Z0-9_]*[?*+]?(\s+after\s+[A-Z_0-9]+)?$"
_KEY: Final = r"""^(identifier(\s+[A-Z]+)?|[a-z][a-z-]*\s+('([^'{}]|\{[^'{}]+\})*'|"([^"{}]|\{[^"{}]+\})*"))$"""
_LEFT: Final = r" -> (nothing|kept( when .+)?)$"
_STEP: Final = r"[A-Za-z][A-Za-z0-9]*(\([^)]*\))?"
_PATH: Final = rf"(\.|{_STEP}(\.{_STEP})*)"
_NEEDS: Final = r"\s+needs\s+[^\s,]+(\s*(,|\sor\s)\s*[^\s,]+)*"
_WHEN: Final = r"(\s+when\s+[\s\S]+)?"
_AS: Final = r"\s+as\s+[A-Za-z][A-Za-z0-9_]*(\[[A-Za-z0-9.-]+\])?\s*(\(.*\))?"
_CLAUSES: Final = rf"({_AS}|\s+table\s+\S+|\s+decide\s+\S+|{_NEEDS})*{_WHEN}"
_ASSIGN: Final = rf"[\s\S]+ -> {_PATH}{_CLAUSES}"
_BUILD: Final = rf"{_PATH}({_NEEDS})?{_WHEN}"
_FIELD: Final = r"^[A-Z][A-Z0-9]{2}-[1-9]\d?$"


def editor_schema() -> Schema:
    """Of one document of a file. Draft 2020-12."""
    kinds = ("map", "table", "csv", "decision", "systems", "extensions", "options", "guide")
    example = {"required": ["name", "message"]}
    message = {"required": ["message"], "not": example}
    chosen = [{"if": {"required": [kind], "not": example}, "then": _ref(kind)} for kind in kinds]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A document of a mapping folder",
        "type": "object",
        "anyOf": [*({"required": [kind]} for kind in kinds), message, example],
        "allOf": [*chosen, {"if": message, "then": _ref("message")}, {"if": example, "then": _ref("example")}],
        "$defs": _parts(),
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _text(about: str, **more: Any) -> Schema:
    return {"type": "string", "description": about, **more}


def _uri(about: str) -> Schema:
    return _text(about, pattern=":")


def _texts(about: str, **item: Any) -> Schema:
    """One or a list of them."""
    one = {"type": "string", **item}
    return {"description": about, "anyOf": [one, {"type": "array", "items": one}]}


def _closed(about: str, properties: Schema, *required: str, **more: Any) -> Schema:
    return {
        "description": about, "type": "object", "properties": properties, "required": list(required),
        "additionalProperties": False, **more,
    }  # fmt: skip


def _named(about: str, value: Schema, **more: Any) -> Schema:
    return {"description": about, "type": "object", "additionalProperties": value, **more}


def _parts() -> Schema:
    return {
        "scalar": {"type": ["string", "number", "boolean", "null"]},
        "row": _row(),
        "rows": {
            "description": "Rows, in the order of the guide's table. A later one never overwrites an earlier one.",
            "anyOf": [_ref("row"), {"type": "array", "items": _ref("row")}],
        },
        "lets": _named("Names for values, to be used in rows, conditions and keys.", {"type": ["string", "number"]}),
        "groups": _groups(),
        "map": _closed("A map of a segment or a data type.", _map() | _of_map(), "map", "rows"),
        "table": _closed("Codes of HL7 v2 and what they are in FHIR.", {"table": _text("Its name.")} | _table(),
                         "table", "codes"),
        "csv": _closed("A table of codes whose rows stand in a CSV file.", _csv(), "csv", "file"),
        "decision": _closed("A decision table: the first row that fits decides.",
                            {"decision": _text("Its name.")} | _decision(), "decision", "inputs", "rows", "otherwise"),
        "message": _message(),
        "block": _closed("A resource of a message.", _block()),
        "systems": _closed("Names for code systems.", {"systems": _named("Their URIs.", _uri("A URI."))}, "systems"),
        "extensions": _closed("Names for extensions.", {"extensions": _named("Their URLs.", _uri("A URL."))},
                              "extensions"),
        "options": _closed("What a channel may choose.", {"options": _named("By name.", _option())}, "options"),
        "guide": _closed("Where the HL7 guide is not followed, and why.", {"guide": _named(
            "By the guide's map: a reason for all of it, or reasons by field (`PID-8 -> gender`) or code.",
            {"anyOf": [_text("Why."), _named("Why, each.", _text("Why."))]},
        )}, "guide"),
        "override": _override(),
        "example": _example(),
    }  # fmt: skip


def _row() -> Schema:
    inside = _ref("rows")
    reason = _text("The reason.")
    return {
        "description": "FIELD -> path [as MAP] [table T] [decide D] [needs …] [when …]; path = constant; include MAP; "
        "FIELD -> nothing: reason; FIELD -> kept; path: rows; switch, first, when with rows.",
        "anyOf": [
            {"type": "string", "pattern": rf"^include \S+$|{_LEFT}|^{_ASSIGN}$|^{_PATH} = [\s\S]+$"},
            {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 1,
                "additionalProperties": False,
                "patternProperties": {
                    r"^switch ": _named("Rows by code, several with commas between; else: the rest.", inside),
                    r"^first$": inside,
                    r"^when ": inside,
                    _LEFT: reason,
                    rf"^(?!switch |first$|when )(?![\s\S]* -> (nothing$|kept$|kept when )){_ASSIGN}$": inside,
                    rf"^(?!switch |first$|when |[\s\S]* -> ){_BUILD}$": inside,
                },
            },
        ],
    }


def _groups() -> Schema:
    slot = {"type": "string", "pattern": _SLOT}
    group = {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "propertyNames": slot,
        "additionalProperties": _ref("groups"),
    }
    one = {"anyOf": [slot, group]}
    return {
        "description": "Segments and groups in their order: ? at most once, + at least once, * any number. "
        "`X after Y`: also behind Y.",
        "anyOf": [one, {"type": "array", "items": one}],
    }


def _keys(about: str = "How it is found again, best first") -> Schema:
    return _texts(f"{about}: `identifier`, `identifier TYPE`, or a name and a text with {{values}}.", pattern=_KEY)


def _of_map() -> Schema:
    """What a map says of itself, in its file or in an override."""
    return {
        "rows": _ref("rows"),
        "needs": _texts("Elements without which there is nothing."),
        "key": _keys(),
        "update": {"enum": ["create", "fill", "overwrite"], "description": "What it may change of one that is there."},
        "keyless": {
            "enum": ["display", "contain", "drop"],
            "description": "What becomes of it where nothing identifies it.",
        },
        "display": _text("A value: what a reference says of it."),
        "name": _text("What it is called in traces and tests."),
        "beside": _texts("Other segments that its rows read.", pattern=r"^[A-Z][A-Z0-9]{2}$"),
        "target": _text("The type that it makes, where its name does not say it."),
    }


def _map() -> Schema:
    return {
        "map": _text("SEGMENT[Type], DATATYPE[Type] or the same with -Variant.", pattern=_MAP_NAME),
        "takes": _texts("Names of its arguments."),
        "cached": {"type": "boolean", "description": "Whether equal values are made once for a connection."},
    }


def _table() -> Schema:
    target = {
        "anyOf": [
            _ref("scalar"),
            {
                "type": "array",
                "items": _ref("scalar"),
                "minItems": 1,
                "maxItems": 3,
                "description": "Code, display, system (its URI, or its name in systems.yaml).",
            },
        ]
    }
    return {
        "title": _text("What it is."),
        "system": _text("The URI of the system of the codes on the right, where they don't say another.", pattern=":"),
        "codes": _named("v2 code: FHIR code, or [code, display], or [code, display, system].", target),
        "otherwise": target | {"description": "What any other code becomes. Without it, that is told as unknown-code."},
    }


def _csv() -> Schema:
    return {
        "csv": _text("The table's name."),
        "title": _text("What it is."),
        "file": _text("The CSV file, beside this one."),
        "system": _text("The URI of the system of the codes on the right, where the file does not say it."),
        "delimiter": _text("One character between columns; a comma, if nothing else is said.", pattern=r'^[^"\r\n]$'),
        "encoding": _text("Of the file; utf-8, if nothing else is said."),
    }


def _decision() -> Schema:
    cell = {"anyOf": [_ref("scalar"), {"type": "array", "items": _ref("scalar")}]}
    return {
        "title": _text("What it is."),
        "inputs": {"type": "array", "items": {"type": "string"}, "description": "Names of the inputs, for people."},
        "rows": {
            "type": "array",
            "items": {"type": "array", "items": cell, "minItems": 2},
            "description": "A cell for each input (any, valued, empty, a code, a list of codes), and the result.",
        },
        "otherwise": _ref("scalar") | {"description": "The result where no row fits; '' for none."},
    }


def _message() -> Schema:
    blocks = {"anyOf": [_ref("block"), {"const": "none"}]}
    properties = {
        "message": _text("Its name, as a message structure's.", pattern=r"^[A-Z][A-Z0-9_]*$"),
        "title": _text("What it is."),
        "use": _text("The message that this one says only its differences from."),
        "accepts": _texts("The messages that it is for.", pattern=r"^[A-Z0-9]{3}\^[A-Z0-9]+$"),
        "groups": _ref("groups"),
        "resources": _named("What is made of it, in the order of the output. none: not, though `use` has it.", blocks),
        "let": _ref("lets"),
        "texts": {
            "enum": ["as-sent", "joined"],
            "description": "joined: OBX of TX and FT, alike in all but their line, are one OBX with a line each.",
        },
    }
    needed = {"anyOf": [{"required": ["use"]}, {"required": ["accepts", "groups", "resources"]}]}
    return _closed("A message structure.", properties, "message", **needed)


def _resources() -> list[str]:
    schema = r4()
    return sorted(name for name in schema.types if schema.is_resource(name))


def _block() -> Schema:
    return {
        "like": _text("The resource above that this one says only its differences from."),
        "before": _text("The resource of `use` that this new one comes before."),
        "for": _text("The group or segment that each is made for: PATIENT, OBSERVATION.NTE."),
        "make": {"enum": _resources(), "description": "The resource type."},
        "role": {
            "enum": ["anchor", "fact", "provenance"],
            "description": "anchor: shared with other messages; fact: this message's own.",
        },
        "name": _text("What it is called in traces and tests, where that is not its name here."),
        "when": _text("A condition. Without it, one is made wherever its segments are."),
        "from": _texts(
            "Maps of segments, the more important first: OBX[Observation], NTE[Observation] when NTE-2 != 'X'.",
            pattern=_MAP_IN_GROUP,
        ),
        "rows": _ref("rows"),
        "key": _keys(),
        "update": {"enum": ["create", "fill", "overwrite"], "description": "What it may change of one that is there."},
        "keyless": {"enum": ["contain", "drop"], "description": "What becomes of it where nothing identifies it."},
        "let": _ref("lets"),
        "event": _text("A value: when what it says was so. An older event never overwrites a newer one."),
        "apart": _text("An element that tells apart what has the same identifiers: two that differ in it are two."),
        "becomes": _text(
            "A condition: where the one that has its number becomes this, though it is of something else."
        ),
        "series": _text("An element that is one value: which one it is of several with one key (the times of a test)."),
        "formerly": _keys("Under what it was stored by a message that did not know its key yet"),
        "drops": _texts("Elements that are removed before what it says is put in their place."),
    }


def _option() -> Schema:
    properties = {
        "of": {"type": "array", "items": {"type": "string"}, "description": "What may be chosen."},
        "default": _text("What is chosen where the channel says nothing."),
        "about": _text("What it decides, for people."),
    }
    return _closed("A choice.", properties, "of", "default", "about")


def _override() -> Schema:
    table = _table()
    del table["title"]
    decision = {name: part for name, part in _decision().items() if name in ("rows", "otherwise")}
    return {
        "description": "What a channel has otherwise, by name: maps, and the parts below.",
        "type": "object",
        "properties": {
            "resources": _named("Of the message, as where a message uses another.",
                                {"anyOf": [_ref("block"), {"const": "none"}]}),
            "groups": _named("Further slots, by group; by the slot that they come behind, if that matters.", {
                "anyOf": [_ref("groups"), {"type": "object", "additionalProperties": _ref("groups")}]
            }),
            "tables": _named("Further and other codes, by table.", _closed("Of a table.", table)),
            "decisions": _named("Rows before the others, by decision.", _closed("Of a decision.", decision)),
            "fields": {
                "description": "Fields that stand in another one: PID-3: PID-2.",
                "type": "object",
                "propertyNames": {"pattern": _FIELD},
                "additionalProperties": {"type": "string", "pattern": _FIELD},
            },
            "let": _ref("lets"),
        },
        "patternProperties": {
            r"^[A-Z][A-Z0-9]*\[": _closed("A map: what it says replaces, rows go by what they fill from what.",
                                           _map() | _of_map())
        },
        "additionalProperties": False,
    }  # fmt: skip


def _example() -> Schema:
    entry = _named("An entry: paths and what stands there.", {})
    wanted = {"anyOf": [entry, {"type": "array", "items": {"anyOf": [entry, {"type": "null"}]}}]}
    one = {"type": "object", "minProperties": 1, "maxProperties": 1}
    names = {"type": "array", "items": {"type": "string"}}
    properties = {
        "name": _text("What it shows."),
        "message": _text("The message, a segment a line."),
        "expect": _named(
            "By resource type: all entries in order, with some of their elements.",
            wanted,
            propertyNames={"enum": _resources()},
        ),
        "output": {"type": "array", "items": one, "description": "All of the output: a list of Type: {elements}."},
        "types": names | {"description": "The types of all entries, in order."},
        "diagnostics": names | {"description": "Exactly these codes."},
        "lost": names | {"description": "Exactly these fields have values that no rule takes."},
        "refused": _text("Instead of an output: the code."),
        "mapping": _text("The mapping, where MSH-9 would not choose it."),
        "options": _named("As a channel chooses them.", _ref("scalar")),
        "override": _ref("override"),
        "unmapped": {"enum": list(UNMAPPED), "description": "What is done about values that no rule takes."},
        "channel": _text("Its id."),
        "connection": _text("Its name."),
        "timezone": _text("Of times without a zone."),
        "identity": _named("Systems of identifiers, by namespace.", _text("A URI.")),
        "encoding": _text("As a channel says it."),
        "charset": _text("Python's name of the encoding in which the message is sent."),
        "received": {"type": "integer", "description": "Microseconds since 1970."},
    }
    outcomes = [{"required": [name]} for name in ("expect", "output", "types", "diagnostics", "lost", "refused")]
    return _closed("A message, and what must become of it.", properties, "name", "message", anyOf=outcomes)
