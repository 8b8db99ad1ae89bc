"""Kafka's wire, driven by schema.json: any request and response of any version, and a blocking connection.

Messages are dicts by Kafka's field names. A field left out of a request takes its default; a field that the version lacks is
left out of the bytes, so that one dict serves all versions.
"""
import json
import pathlib
import socket
import struct
import uuid

SCHEMA = json.loads((pathlib.Path(__file__).parent / "schema.json").read_text())
APIS = {api["name"]: api for api in SCHEMA["apis"]}
BY_KEY = {api["key"]: api for api in SCHEMA["apis"]}
NO_ID = uuid.UUID(int=0)
FIXED = {"int8": ">b", "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q", "float64": ">d"}


class Closed(Exception):
    """The broker closed the connection instead of answering."""


def versions(text):
    if text in (None, "none"):
        return (0, -1)
    if text.endswith("+"):
        return (int(text[:-1]), 32767)
    low, _, high = text.partition("-")
    return (int(low), int(high or low))


def within(version, text):
    low, high = versions(text)
    return low <= version <= high


def default(field, version):
    if "d" in field:
        value = field["d"]
        # A default of null holds only where the version has null.
        if value is not None or within(version, field.get("null")):
            return uuid.UUID(value) if field["t"] == "uuid" else value
    kind = field["t"]
    if kind.startswith("[]"):
        return []
    if "f" in field:
        return {}
    return {"string": "", "bytes": b"", "records": None, "bool": False, "uuid": NO_ID}.get(kind, 0)


# ---- encoding


def put_varint(out, value):
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def encode(message, version, values):
    out = bytearray()
    flexible = within(version, message["flexible"])
    put_struct(out, message["fields"], version, flexible, values)
    return bytes(out)


def put_struct(out, fields, version, flexible, values):
    unknown = set(values) - {field["n"] for field in fields}
    if unknown:
        raise KeyError(f"no such fields: {sorted(unknown)}")
    tagged = []
    for field in fields:
        if not within(version, field["v"]):
            continue
        value = values[field["n"]] if field["n"] in values else default(field, version)
        if flexible and within(version, field.get("tv")):
            if field["n"] in values:
                content = bytearray()
                put_field(content, field, version, flexible, value)
                tagged.append((field["tag"], content))
        else:
            put_field(out, field, version, flexible, value)
    if flexible:
        put_varint(out, len(tagged))
        for tag, content in sorted(tagged):
            put_varint(out, tag)
            put_varint(out, len(content))
            out += content


def put_field(out, field, version, flexible, value):
    kind = field["t"]
    if kind.startswith("[]"):
        put_length(out, flexible, ">i", value)
        for each in value or []:
            put_value(out, field, kind[2:], version, flexible, each)
    elif "f" in field and within(version, field.get("null")):
        out += struct.pack(">b", -1 if value is None else 1)
        if value is not None:
            put_struct(out, field["f"], version, flexible, value)
    else:
        put_value(out, field, kind, version, flexible, value)


def put_value(out, field, kind, version, flexible, value):
    if kind in FIXED:
        out += struct.pack(FIXED[kind], value)
    elif kind == "bool":
        out.append(1 if value else 0)
    elif kind == "uuid":
        out += value.bytes
    elif kind == "string":
        value = value.encode() if isinstance(value, str) else value
        put_length(out, flexible, ">h", value)
        out += value or b""
    elif kind in ("bytes", "records"):
        put_length(out, flexible, ">i", value)
        out += value or b""
    else:
        put_struct(out, field["f"], version, flexible, value)


def put_length(out, flexible, plain, value):
    if flexible:
        put_varint(out, 0 if value is None else len(value) + 1)
    else:
        out += struct.pack(plain, -1 if value is None else len(value))


# ---- decoding


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if count < 0 or self.at + count > len(self.data):
            raise ValueError(f"byte {self.at}: {count} bytes claimed, {len(self.data) - self.at} left")
        self.at += count
        return self.data[self.at - count:self.at]

    def fixed(self, kind):
        return struct.unpack(kind, self.take(struct.calcsize(kind)))[0]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def signed_varint(self):
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def length(self, flexible, plain):
        """None for null."""
        length = self.varint() - 1 if flexible else self.fixed(plain)
        return None if length == -1 else length


def decode(message, version, data):
    """The fields as a dict; what should not be there comes as "_unknown_tags" and "_trailing"."""
    reader = Reader(data)
    flexible = within(version, message["flexible"])
    values = get_struct(reader, message["fields"], version, flexible)
    if reader.at != len(data):
        values["_trailing"] = len(data) - reader.at
    return values


def get_struct(reader, fields, version, flexible):
    values, tagged = {}, {}
    for field in fields:
        if not within(version, field["v"]):
            continue
        if flexible and within(version, field.get("tv")):
            tagged[field["tag"]] = field
        else:
            values[field["n"]] = get_field(reader, field, version, flexible)
    if flexible:
        last = -1
        for _ in range(reader.varint()):
            tag, size = reader.varint(), reader.varint()
            if tag <= last:
                values["_tags_out_of_order"] = True
            last, start = tag, reader.at
            if tag in tagged:
                values[tagged[tag]["n"]] = get_field(reader, tagged[tag], version, flexible)
            else:
                values.setdefault("_unknown_tags", []).append(tag)
                reader.take(size)
            if reader.at - start != size:
                values.setdefault("_tag_size_wrong", []).append(tag)
    return values


def get_field(reader, field, version, flexible):
    kind = field["t"]
    if kind.startswith("[]"):
        length = reader.length(flexible, ">i")
        if length is None:
            return None
        return [get_value(reader, field, kind[2:], version, flexible) for _ in range(length)]
    if "f" in field and within(version, field.get("null")):
        return None if reader.fixed(">b") < 0 else get_struct(reader, field["f"], version, flexible)
    return get_value(reader, field, kind, version, flexible)


def get_value(reader, field, kind, version, flexible):
    if kind in FIXED:
        return reader.fixed(FIXED[kind])
    if kind == "bool":
        return reader.take(1) != b"\0"
    if kind == "uuid":
        return uuid.UUID(bytes=bytes(reader.take(16)))
    if kind in ("string", "bytes", "records"):
        length = reader.length(flexible, ">h" if kind == "string" else ">i")
        if length is None:
            return None
        data = bytes(reader.take(length))
        return data.decode() if kind == "string" else data
    return get_struct(reader, field["f"], version, flexible)


# ---- a connection


class Connection:
    """One request at a time; a closed connection raises Closed and is opened again by the next request."""

    def __init__(self, address, client_id="parity"):
        host, _, port = address.rpartition(":")
        self.address, self.client_id = (host or "127.0.0.1", int(port)), client_id
        self.socket, self.correlation_id, self.timeout = None, 0, 30

    def close(self):
        if self.socket:
            self.socket.close()
        self.socket = None

    def send(self, name, version, body, client_id=..., flexible=None):
        """The frame of `body`, whatever it is; returns its correlation id."""
        api = APIS[name]
        if self.socket is None:
            self.socket = socket.create_connection(self.address)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(self.timeout)
        self.correlation_id += 1
        header = bytearray(struct.pack(">hhi", api["key"], version, self.correlation_id))
        client_id = self.client_id if client_id is ... else client_id
        put_length(header, False, ">h", client_id and client_id.encode())
        header += (client_id or "").encode()
        if within(version, api["request"]["flexible"]) if flexible is None else flexible:
            header.append(0)
        try:
            self.socket.sendall(struct.pack(">i", len(header) + len(body)) + header + body)
        except OSError:
            pass  # the read says it
        return self.correlation_id

    def receive(self, correlation_id, flexible):
        """The body that answers `correlation_id`."""
        data = self.exactly(struct.unpack(">i", self.exactly(4))[0])
        reader = Reader(data)
        got = reader.fixed(">i")
        if got != correlation_id:
            raise ValueError(f"answer to request {got}, expected {correlation_id}")
        if flexible:
            for _ in range(reader.varint()):
                reader.varint()
                reader.take(reader.varint())
        return data[reader.at:]

    def exactly(self, count):
        data = bytearray()
        while len(data) < count:
            try:
                part = self.socket.recv(count - len(data))
            except ConnectionError:
                part = b""
            if not part:
                self.close()
                raise Closed
            data += part
        return bytes(data)

    def request(self, name, version, values=None, **fields):
        """Asks and decodes. Raises Closed."""
        api = APIS[name]
        correlation_id = self.send(name, version, encode(api["request"], version, values or fields))
        # ApiVersions is answered with header v0 always, so that any client can read it.
        flexible = within(version, api["response"]["flexible"]) and name != "ApiVersions"
        return decode(api["response"], version, self.receive(correlation_id, flexible))
