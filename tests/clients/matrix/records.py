"""Records, their canonical bytes, and the digest by which a reader proves what it read.

A writer gets its records as a file, a reader answers with a SHA-256: no record travels as JSON, and the
same few lines in each language serve both ways. All integers are big-endian, lengths of -1 mean null.

    record       timestamp i64 (ms) | key bytes | value bytes | header count i32 | header*
    header       name bytes | value bytes
    bytes        length i32 | that many bytes
    file         ( partition i32 | record )*
    digest       SHA-256 over ( offset i64 | record )* of one partition, in offset order
"""

import hashlib
import struct
from typing import Iterable, NamedTuple, Optional


class Record(NamedTuple):
    """One record as a writer must send it and every reader must see it."""

    partition: int
    timestamp: int
    key: Optional[bytes]
    value: Optional[bytes]
    headers: tuple = ()  # of (name: str, value: bytes or None), in order, names may repeat


def canonical(record: Record, with_timestamp: bool = True) -> bytes:
    """The record's canonical bytes; without its timestamp, -1 stands in its place."""
    out = [struct.pack(">q", record.timestamp if with_timestamp else -1)]

    def put(data: Optional[bytes]) -> None:
        if data is None:
            out.append(b"\xff\xff\xff\xff")
        else:
            out.append(struct.pack(">i", len(data)))
            out.append(data)

    put(record.key)
    put(record.value)
    out.append(struct.pack(">i", len(record.headers)))
    for name, value in record.headers:
        put(name.encode())
        put(value)
    return b"".join(out)


def write_file(path: str, records: Iterable[Record]) -> None:
    """Writes the file from which a client produces."""
    with open(path, "wb") as file:
        for record in records:
            file.write(struct.pack(">i", record.partition))
            file.write(canonical(record))


def stream(records: Iterable[tuple], with_timestamp: bool = True) -> bytes:
    """What a reader hashes, for pairs of (offset, record)."""
    return b"".join(struct.pack(">q", offset) + canonical(record, with_timestamp) for offset, record in records)


def digest(records: Iterable[tuple], with_timestamp: bool = True) -> str:
    """The answer expected of a reader, for pairs of (offset, record)."""
    return hashlib.sha256(stream(records, with_timestamp)).hexdigest()


def parse_stream(data: bytes) -> list:
    """Pairs of (offset, record) out of a reader's dump; the partition is not in it and reads -1."""
    position, pairs = 0, []

    def take(size: int) -> bytes:
        nonlocal position
        if position + size > len(data):
            raise ValueError(f"dump ends inside a record, at byte {position}")
        piece = data[position : position + size]
        position += size
        return piece

    def take_bytes() -> Optional[bytes]:
        (size,) = struct.unpack(">i", take(4))
        return None if size < 0 else take(size)

    while position < len(data):
        offset, timestamp = struct.unpack(">qq", take(16))
        key, value = take_bytes(), take_bytes()
        (count,) = struct.unpack(">i", take(4))
        headers = tuple(((take_bytes() or b"").decode(), take_bytes()) for _ in range(count))
        pairs.append((offset, Record(-1, timestamp, key, value, headers)))
    return pairs


def first_difference(expected: list, found: list) -> str:
    """Says in one line where two lists of (offset, record) part."""
    for index, (want, got) in enumerate(zip(expected, found)):
        if want[0] != got[0]:
            return f"record {index}: offset {got[0]}, expected {want[0]}"
        for field in ("timestamp", "key", "value", "headers"):
            a, b = getattr(want[1], field), getattr(got[1], field)
            if a != b:
                return f"offset {want[0]}: {field} is {_short(b)}, expected {_short(a)}"
    if len(expected) != len(found):
        return f"{len(found)} records, expected {len(expected)}"
    return "the same records, yet another digest"


def _short(value) -> str:
    text = repr(value)
    return text if len(text) < 120 else f"{text[:100]}… ({len(text)} characters)"
