#!/usr/bin/env python3
"""Turns Kafka's message schemas into the two files this project keeps of them.

    make_schema.py --jar kafka-clients-4.1.0.jar     both files, from the JSON schemas inside the jar
    make_schema.py                                   the Rust table alone, from schema.json
    make_schema.py --check                           writes nothing; fails if the Rust table is not what schema.json says

schema.json drives the parity harness. The Rust table drives client/src/frame_check.rs: for each request and response and
version the flat list of what stands on the wire.

schema.json: {"source", "apis": [{"key", "name", "listeners", "unstable", "request": M, "response": M}]}, one API a line;
M = {"versions", "flexible", "fields": [F]}; F = {"n": name, "t": type, "v": versions, and where they apply "null": versions in
which it may be null, "tag": number, "tv": versions in which it is tagged, "d": default, "f": [F]}.
Versions are "3", "3-5", "3+" or "none".
"""
import argparse
import json
import pathlib
import re
import sys
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
SCHEMA = HERE / "schema.json"
TABLE = HERE.parent.parent / "client/src/frame_check/schema_table.rs"
FOREVER = 32767

# Keys the kafka-protocol crate has no type for: nothing to guard.
NOT_IN_CRATE = {88, 89}

FIXED_SIZES = {"bool": 1, "int8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8, "float64": 8, "uuid": 16}
# What one field costs in the crate's structs (64-bit): strings and bytes are views of the frame, four words each.
STRING_SIZE, VEC_SIZE, TAG_MAP_SIZE = 32, 24, 24


def versions(text):
    """Inclusive (low, high); an empty range for "none"."""
    if text in (None, "none"):
        return (0, -1)
    if text.endswith("+"):
        return (int(text[:-1]), FOREVER)
    low, _, high = text.partition("-")
    return (int(low), int(high or low))


def within(version, text):
    low, high = versions(text)
    return low <= version <= high


# ---- the jar -> schema.json


def read_jar(path):
    messages = {}
    with zipfile.ZipFile(path) as jar:
        for name in jar.namelist():
            if name.startswith("common/message/") and name.endswith(("Request.json", "Response.json")):
                text = jar.read(name).decode()
                text = re.sub(r"^\s*//.*$", "", text, flags=re.M)
                message = json.loads(text)
                messages[message["apiKey"], message["type"]] = message
    apis = []
    for key in sorted({key for key, _ in messages}):
        request, response = messages[key, "request"], messages[key, "response"]
        if request["validVersions"] == "none":
            continue
        apis.append({
            "key": key,
            "name": request["name"].removesuffix("Request"),
            "listeners": request.get("listeners", []),
            "unstable": request.get("latestVersionUnstable", False),
            "request": compact_message(request),
            "response": compact_message(response),
        })
    return {"source": "facts of the message schemas in " + pathlib.Path(path).name, "apis": apis}


def compact_message(message):
    structs = {struct["name"]: struct["fields"] for struct in message.get("commonStructs", [])}
    return {
        "versions": message["validVersions"],
        "flexible": message["flexibleVersions"],
        "fields": [compact_field(field, structs) for field in message["fields"]],
    }


def compact_field(field, structs):
    # Some names begin with a small letter there; none does here.
    out = {"n": field["name"][0].upper() + field["name"][1:], "t": field["type"], "v": field["versions"]}
    if "nullableVersions" in field:
        out["null"] = field["nullableVersions"]
    if "tag" in field:
        out["tag"], out["tv"] = field["tag"], field["taggedVersions"]
    if "default" in field:
        out["d"] = default_value(field)
    element = field["type"].removeprefix("[]")
    inner = field.get("fields") or structs.get(element)
    if inner:
        out["f"] = [compact_field(each, structs) for each in inner]
    elif element not in FIXED_SIZES and element not in ("string", "bytes", "records"):
        sys.exit(f"make_schema: type {field['type']} of {field['name']} is not known")
    return out


def default_value(field):
    text = field["default"]
    if text == "null":
        return None
    if field["type"] == "bool":
        return str(text).lower() == "true"
    if field["type"] in FIXED_SIZES and field["type"] not in ("float64", "uuid"):
        return int(str(text), 0)
    return text


def write_schema(schema):
    lines = ",\n".join(json.dumps(api, separators=(",", ":")) for api in schema["apis"])
    SCHEMA.write_text('{"source":%s,"apis":[\n%s\n]}\n' % (json.dumps(schema["source"]), lines))


# ---- schema.json -> the Rust table


class Table:
    """Shapes by their text, so that the many versions that share one share its static too."""

    def __init__(self):
        self.shapes = {}
        self.lines = []

    def shape(self, ops, min_size, weight):
        body = f"Shape {{ min_size: {min_size}, decoded_size: {weight}, ops: &[{', '.join(ops)}] }}"
        if body not in self.shapes:
            self.shapes[body] = f"S{len(self.shapes)}"
            self.lines.append(f"static {self.shapes[body]}: Shape = {body};")
        return "&" + self.shapes[body]

    def struct(self, fields, version, message):
        """(ops, smallest wire size, size decoded) of one struct in one version, tagged fields at its end."""
        flexible = within(version, message["flexible"])
        ops, min_size, decoded, tags = [], 0, TAG_MAP_SIZE if versions(message["flexible"])[1] >= 0 else 0, []
        for field in fields:
            decoded += self.decoded_size(field, message)
            if "tag" in field and flexible and within(version, field["tv"]):
                op, size, weight = self.field(field, version, message)
                tags.append(f"({field['tag']}, Some({self.shape(merged(op), size, weight)}))")
            elif "tag" in field and versions(field["v"]) == versions(field["tv"]):
                # Known, but of another version: Kafka and the crate both refuse it.
                tags.append(f"({field['tag']}, None)")
            elif within(version, field["v"]):
                op, size, _ = self.field(field, version, message)
                ops += op
                min_size += size
        if flexible:
            ops.append(f"Op::Tags(&[{', '.join(tags)}])")
            min_size += 1
        return merged(ops), min_size, -(-decoded // 8) * 8

    def field(self, field, version, message):
        flexible = within(version, message["flexible"])
        nullable = within(version, field.get("null"))
        name = ("Compact" if flexible else "") + ("Nullable" if nullable else "")
        kind = field["t"]
        if kind.startswith("[]"):
            if "f" in field:
                ops, min_size, weight = self.struct(field["f"], version, message)
            else:
                ops, min_size, weight = self.scalar(kind[2:], flexible)
            assert min_size > 0, f"an element of {field['n']} takes no bytes: its count would be unbounded"
            return [f"Op::{name}Array({self.shape(ops, min_size, weight)})"], 1 if flexible else 4, VEC_SIZE
        if "f" in field:
            ops, min_size, weight = self.struct(field["f"], version, message)
            if nullable:
                return [f"Op::NullableStruct({self.shape(ops, min_size, weight)})"], 1, weight
            return ops, min_size, weight
        ops, size, weight = self.scalar(kind, flexible, name)
        return ops, size, weight

    def scalar(self, kind, flexible, name=None):
        if kind in FIXED_SIZES:
            return [f"Op::Fixed({FIXED_SIZES[kind]})"], FIXED_SIZES[kind], FIXED_SIZES[kind]
        name = ("Compact" if flexible else "") if name is None else name
        if kind == "string":
            return [f"Op::{name}String"], 1 if flexible else 2, STRING_SIZE
        return [f"Op::{name}Bytes"], 1 if flexible else 4, STRING_SIZE

    def decoded_size(self, field, message):
        low, high = versions(field["v"])
        valid = versions(message["versions"])
        if high < valid[0] or low > valid[1]:
            return 0
        if field["t"].startswith("[]"):
            return VEC_SIZE
        if "f" in field:
            return TAG_MAP_SIZE + sum(self.decoded_size(each, message) for each in field["f"])
        return FIXED_SIZES.get(field["t"], STRING_SIZE)


def merged(ops):
    """Neighbouring fixed sizes as one."""
    out = []
    for op in ops:
        before = re.fullmatch(r"Op::Fixed\((\d+)\)", out[-1]) if out else None
        now = re.fullmatch(r"Op::Fixed\((\d+)\)", op)
        if before and now:
            out[-1] = f"Op::Fixed({int(before[1]) + int(now[1])})"
        else:
            out.append(op)
    return out


def rust_table(schema):
    table, rows = Table(), {}
    for api in schema["apis"]:
        if api["key"] in NOT_IN_CRATE:
            continue
        low, high = versions(api["request"]["versions"])
        high -= api["unstable"]  # nobody advertises it, and the crate cannot read it
        if high < low:
            continue
        bodies = {}
        for kind in ("request", "response"):
            message, shapes = api[kind], []
            for version in range(low, high + 1):
                ops, min_size, decoded_size = table.struct(message["fields"], version, message)
                shapes.append(table.shape(ops, min_size, decoded_size))
            bodies[kind] = ", ".join(shapes)
        flexible = versions(api["request"]["flexible"])
        assert versions(api["response"]["flexible"]) == flexible, api["name"]
        flexible_from = flexible[0] if flexible[1] >= 0 else "i16::MAX"
        rows[api["key"]] = (
            f'    Some(Api {{ name: "{api["name"]}", min_version: {low}, max_version: {high}, flexible_from: {flexible_from},\n'
            f"        requests: &[{bodies['request']}],\n"
            f"        responses: &[{bodies['response']}] }}),")
    out = [
        "//! Generated by `tests/parity/make_schema.py` from `tests/parity/schema.json`: do not edit.",
        "//!",
        f"//! What stands on the wire in each version of each request and response; {schema['source']}.",
        "use super::{Api, Op, Shape};",
        "",
        "/// By API key.",
        f"pub(super) static APIS: [Option<Api>; {max(rows) + 1}] = [",
    ]
    out += [rows.get(key, "    None,") for key in range(max(rows) + 1)]
    out += ["];", ""] + table.lines
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jar", help="Kafka's clients jar; without it schema.json is taken as it is")
    parser.add_argument("--check", action="store_true", help="compare the Rust table with schema.json, write nothing")
    args = parser.parse_args()
    if args.jar:
        write_schema(read_jar(args.jar))
    table = rust_table(json.loads(SCHEMA.read_text()))
    if args.check:
        if not TABLE.exists() or TABLE.read_text() != table:
            sys.exit(f"make_schema: {TABLE.name} is not what schema.json says; run make_schema.py")
        return
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(table)
    print(f"make_schema: {TABLE.name}: {table.count('static S')} shapes")


if __name__ == "__main__":
    main()
