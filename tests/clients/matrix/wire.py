"""A few requests of Kafka's protocol by hand: the referee, which shares no code with any client.

It creates topics for clients that cannot, and reads stored batches with their headers, so that the codec
and the producer's sequence in the log are asserted and not only what a client makes of them.
"""

import socket
import struct
import time
import zlib
from typing import NamedTuple, Optional

from .records import Record

CODEC_NAMES = ("none", "gzip", "snappy", "lz4", "zstd")
UNKNOWN_TOPIC_OR_PARTITION, TOPIC_ALREADY_EXISTS, LEADER_NOT_AVAILABLE = 3, 36, 5


class Batch(NamedTuple):
    """A stored record batch's header; `records_block` is what follows it, compressed as stored."""

    base_offset: int
    last_offset: int
    magic: int
    codec: str
    log_append_time: bool
    transactional: bool
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int
    records_block: bytes


class Reader:
    """Takes big-endian fields off a byte string."""

    def __init__(self, data: bytes, position: int = 0):
        self.data, self.position = data, position

    def take(self, size: int) -> bytes:
        if size < 0 or self.position + size > len(self.data):
            raise ValueError(f"{size} bytes wanted at {self.position} of {len(self.data)}")
        piece = self.data[self.position : self.position + size]
        self.position += size
        return piece

    def number(self, form: str) -> int:
        return struct.unpack(">" + form, self.take(struct.calcsize(form)))[0]

    def string(self) -> Optional[str]:
        size = self.number("h")
        return None if size < 0 else self.take(size).decode()

    def varint(self) -> int:
        shift = result = 0
        while True:
            byte = self.data[self.position]
            self.position += 1
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (result >> 1) ^ -(result & 1)
            shift += 7
            if shift > 63:
                raise ValueError("a varint longer than ten bytes")

    def varint_bytes(self) -> Optional[bytes]:
        size = self.varint()
        return None if size < 0 else self.take(size)


def _string(text: Optional[str]) -> bytes:
    if text is None:
        return struct.pack(">h", -1)
    data = text.encode()
    return struct.pack(">h", len(data)) + data


class Connection:
    """One blocking connection; requests in the oldest non-flexible versions that brokers still take."""

    def __init__(self, bootstrap: str, timeout_seconds: float = 30):
        host, port = bootstrap.split(",")[0].rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout_seconds)
        self.correlation_id = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def _exactly(self, size: int) -> bytes:
        pieces = []
        while size > 0:
            piece = self.socket.recv(min(size, 1 << 20))
            if not piece:
                raise ConnectionError("the broker closed the connection inside an answer")
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def call(self, api_key: int, version: int, body: bytes) -> Reader:
        self.correlation_id += 1
        head = struct.pack(">hhi", api_key, version, self.correlation_id) + _string("matrix-referee")
        self.socket.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
        (size,) = struct.unpack(">i", self._exactly(4))
        answer = Reader(self._exactly(size))
        found = answer.number("i")
        if found != self.correlation_id:
            raise ValueError(f"answer to request {found}, expected {self.correlation_id}")
        return answer

    def create_topics(self, topics: list) -> dict:
        """CreateTopics v2 for (name, partitions, config); returns the error code by name."""
        body = struct.pack(">i", len(topics))
        for name, partitions, config in topics:
            body += _string(name) + struct.pack(">ihi", partitions, 1, 0) + struct.pack(">i", len(config))
            body += b"".join(_string(key) + _string(value) for key, value in config.items())
        answer = self.call(19, 2, body + struct.pack(">i?", 30_000, False))
        answer.number("i")
        out = {}
        for _ in range(answer.number("i")):
            name, code = answer.string(), answer.number("h")
            answer.string()
            out[name] = code
        return out

    def partition_counts(self, names: list) -> dict:
        """Metadata v4 without auto-creation: partitions by topic name, or minus the error code."""
        body = struct.pack(">i", len(names)) + b"".join(_string(name) for name in names) + b"\x00"
        answer = self.call(3, 4, body)
        answer.number("i")
        for _ in range(answer.number("i")):
            answer.number("i"), answer.string(), answer.number("i"), answer.string()
        answer.string(), answer.number("i")
        out = {}
        for _ in range(answer.number("i")):
            code, name, _internal = answer.number("h"), answer.string(), answer.number("b")
            partitions = answer.number("i")
            for _ in range(partitions):
                answer.number("h"), answer.number("i"), answer.number("i")
                for _ in range(2):
                    for _ in range(answer.number("i")):
                        answer.number("i")
            out[name] = -code if code else partitions
        return out

    def topic_config(self, name: str, keys: list) -> dict:
        """DescribeConfigs v1 of one topic: value by key."""
        body = struct.pack(">ib", 1, 2) + _string(name) + struct.pack(">i", len(keys))
        body += b"".join(_string(key) for key in keys) + b"\x00"
        answer = self.call(32, 1, body)
        answer.number("i")
        out = {}
        for _ in range(answer.number("i")):
            code, message = answer.number("h"), answer.string()
            answer.number("b"), answer.string()
            if code:
                raise ValueError(f"DescribeConfigs of {name}: error {code} {message}")
            for _ in range(answer.number("i")):
                key, value = answer.string(), answer.string()
                answer.number("b"), answer.number("b"), answer.number("b")
                for _ in range(answer.number("i")):
                    answer.string(), answer.string(), answer.number("b")
                out[key] = value
        return out

    def fetch(self, topic: str, partition: int, offset: int, max_bytes: int = 32 << 20) -> tuple:
        """Fetch v4 at `offset`: (high watermark, record bytes)."""
        body = struct.pack(">iiiib", -1, 1000, 1, max_bytes, 0) + struct.pack(">i", 1) + _string(topic)
        body += struct.pack(">iiqi", 1, partition, offset, max_bytes)
        answer = self.call(1, 4, body)
        answer.number("i")
        answer.number("i"), answer.string(), answer.number("i"), answer.number("i")
        code, high_watermark, _stable = answer.number("h"), answer.number("q"), answer.number("q")
        for _ in range(answer.number("i")):
            answer.number("q"), answer.number("q")
        if code:
            raise ValueError(f"Fetch of {topic}-{partition} at {offset}: error {code}")
        return high_watermark, answer.take(max(0, answer.number("i")))

    def batches(self, topic: str, partition: int, expected_end: int, deadline_seconds: float = 15) -> list:
        """Every stored batch from offset 0, waiting until the high watermark reaches `expected_end`."""
        out, offset, deadline = [], 0, time.monotonic() + deadline_seconds
        while True:
            high_watermark, data = self.fetch(topic, partition, offset)
            for batch in split_batches(data):
                if batch.last_offset < offset:
                    continue
                if batch.base_offset != offset:
                    raise ValueError(f"{topic}-{partition}: a batch at {batch.base_offset}, expected {offset}")
                out.append(batch)
                offset = batch.last_offset + 1
            if offset >= high_watermark and (offset >= expected_end or time.monotonic() > deadline):
                return out


def split_batches(data: bytes) -> list:
    """Whole batches in Fetch's record bytes; a cut one at the end is left out."""
    out, position = [], 0
    while position + 61 <= len(data):
        reader = Reader(data, position)
        base_offset, length = reader.number("q"), reader.number("i")
        end = position + 12 + length
        if end > len(data):
            break
        reader.number("i")
        magic = reader.number("b")
        if magic != 2:
            raise ValueError(f"batch at offset {base_offset} has magic {magic}")
        reader.number("I")
        attributes, last_delta = reader.number("h"), reader.number("i")
        base_timestamp, max_timestamp = reader.number("q"), reader.number("q")
        producer = reader.number("q"), reader.number("h"), reader.number("i")
        count = reader.number("i")
        codec = attributes & 7
        out.append(
            Batch(
                base_offset, base_offset + last_delta, magic,
                CODEC_NAMES[codec] if codec < len(CODEC_NAMES) else f"codec {codec}",
                bool(attributes & 8), bool(attributes & 16), base_timestamp, max_timestamp,
                *producer, count, data[position + 61 : end],
            )
        )
        position = end
    return out


def records_of(batch: Batch, partition: int) -> list:
    """Pairs of (offset, record) of an uncompressed or gzip batch, the codecs of Python's own library."""
    block = batch.records_block
    if batch.codec == "gzip":
        block = zlib.decompress(block, wbits=31)
    elif batch.codec != "none":
        raise ValueError(f"{batch.codec} is not read here")
    reader, out = Reader(block), []
    for _ in range(batch.record_count):
        end = reader.varint() + reader.position
        reader.number("b")
        timestamp = batch.max_timestamp if batch.log_append_time else batch.base_timestamp + reader.varint()
        if batch.log_append_time:
            reader.varint()
        offset = batch.base_offset + reader.varint()
        key, value = reader.varint_bytes(), reader.varint_bytes()
        headers = tuple((reader.varint_bytes().decode(), reader.varint_bytes()) for _ in range(reader.varint()))
        if reader.position != end:
            raise ValueError(f"record at offset {offset} ends at {reader.position}, its length says {end}")
        out.append((offset, Record(partition, timestamp, key, value, headers)))
    return out
