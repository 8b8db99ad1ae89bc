"""What is written: one topic for each client and case, its records drawn from a seed.

Everything here depends on the seed alone, so that each client writes the same bytes and a failure replays.
"""

import json
import random
from typing import Callable, NamedTuple

from .records import Record

PARTITIONS = 2
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
# Past, so that no broker refuses them as being in the future; odd milliseconds, so that none is rounded.
BASE_TIMESTAMP = 1_600_000_000_123
MANY = 100_000


class Case(NamedTuple):
    """A topic to write. `batch_records` is the most records a batch may have, 0: as many as fit."""

    name: str
    codec: str
    idempotent: bool
    batch_records: int
    config: dict
    generate: Callable[[random.Random], list]


def _codec_records(rng: random.Random) -> list:
    """Text that compresses; keyed, so that a key is compressed too."""
    words = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel"]
    out = []
    for index in range(300):
        body = {"n": index, "user": f"user-{rng.randrange(40)}", "text": " ".join(rng.choices(words, k=12))}
        key = f"user-{index % 37}".encode()
        out.append(Record(index % PARTITIONS, BASE_TIMESTAMP + index * 10, key, json.dumps(body).encode()))
    return out


def _key_records(rng: random.Random) -> list:
    keys = [b"plain", None, b"", bytes(range(256)), "schlüssel-鍵-🔑".encode(), rng.randbytes(1000), b"\x00", b"same", b"same", None]
    return [
        Record(index % PARTITIONS, BASE_TIMESTAMP + index, key, f"value {index}".encode())
        for index, key in enumerate(keys * 2)
    ]


def _header_records(rng: random.Random) -> list:
    """Printable values without commas, because kcat shows headers only as text."""
    lists = [
        (),
        (("one", b"1"),),
        (("twice", b"first"), ("twice", b"second")),
        (("a", b"1"), ("a", b"3"), ("a", b"1"), ("b", b"2")),
        (("empty", b""),),
        (("name-äöü-鍵", "wert-äöü-値".encode()),),
        (("long", ("x" * 3000).encode()),),
        tuple((f"h{index}", f"v{rng.randrange(1000)}".encode()) for index in range(50)),
    ]
    return [
        Record(index % PARTITIONS, BASE_TIMESTAMP + index, b"k%d" % index, b"v%d" % index, headers)
        for index, headers in enumerate(lists * 2)
    ]


def _header_order_records(_: random.Random) -> list:
    """The same name with others between, and names out of the alphabet's order."""
    lists = [(("z", b"1"), ("b", b"2"), ("z", b"3"), ("a", b"4"), ("b", b"5")), (("2", b"two"), ("1", b"one"), ("2", b"again"))]
    return [
        Record(index % PARTITIONS, BASE_TIMESTAMP + index, b"k%d" % index, b"v%d" % index, headers)
        for index, headers in enumerate(lists * 2)
    ]


def _header_byte_records(rng: random.Random) -> list:
    lists = [
        (("all", bytes(range(256))),),
        (("trace", rng.randbytes(16)), ("trace", rng.randbytes(16)), ("zero", b"\x00")),
        (("comma", b"a,b=c"), ("line", b"one\ntwo")),
        (("big", rng.randbytes(20_000)),),
    ]
    return [
        Record(index % PARTITIONS, BASE_TIMESTAMP + index, b"k%d" % index, b"v%d" % index, headers)
        for index, headers in enumerate(lists * 2)
    ]


def _header_null_records(_: random.Random) -> list:
    lists = [(("null", None),), (("null", None), ("empty", b""), ("null", None), ("null", b"x"))]
    return [
        Record(index % PARTITIONS, BASE_TIMESTAMP + index, b"k%d" % index, b"v%d" % index, headers)
        for index, headers in enumerate(lists * 2)
    ]


def _timestamp_records(_: random.Random) -> list:
    """Rising, equal, falling, and years apart (a segment rolls there); 0 is missing, librdkafka takes it for now."""
    year = 365 * 24 * 3600 * 1000
    stamps = [
        BASE_TIMESTAMP + delta
        for delta in (0, 1, 1, 1000, 500, 2000, 2000, 1999, 60_000, year, year + 1, 2 * year, year + 5, 2 * year + 1)
    ] + [1, 2, BASE_TIMESTAMP + 3 * year + 7]
    return [
        Record(index % PARTITIONS, stamp, b"k%d" % index, b"at %d" % stamp)
        for index, stamp in enumerate(stamp for stamp in stamps for _ in range(PARTITIONS))
    ]


def _null_records(_: random.Random) -> list:
    pairs = [(b"gone", None), (b"kept", b"value"), (b"empty", b""), (b"gone", None), (None, b"x")]
    return [
        Record(index % PARTITIONS, BASE_TIMESTAMP + index, key, value)
        for index, (key, value) in enumerate(pairs * 2)
    ]


def _bare_records(_: random.Random) -> list:
    """No key, and a null or empty value."""
    values = [None, b"", b"", None]
    return [Record(index % PARTITIONS, BASE_TIMESTAMP + index, None, value) for index, value in enumerate(values)]


def _large_records(rng: random.Random) -> list:
    """1 MiB of noise, above a broker's and most clients' default limit: the topic's own allows it."""
    return [
        Record(index % PARTITIONS, BASE_TIMESTAMP + index, b"large-%d" % index, rng.randbytes(1 << 20), (("n", b"%d" % index),))
        for index in range(3)
    ]


def _many_records(rng: random.Random) -> list:
    return [
        Record(0, BASE_TIMESTAMP + index // 10, b"%d" % (index % 1000), b"n%d-%x" % (index, rng.getrandbits(24)))
        for index in range(MANY)
    ]


def _idempotent_records(rng: random.Random) -> list:
    return [
        Record(index % PARTITIONS, BASE_TIMESTAMP + index, b"%d" % (index % 10), b"%d:%x" % (index, rng.getrandbits(64)))
        for index in range(3000)
    ]


# Topics that keep old timestamps: time retention would otherwise take the records while they are read.
_KEEP = {"retention.ms": "-1"}
_LARGE = {"retention.ms": "-1", "max.message.bytes": str(16 << 20)}

CASES = tuple(
    [Case(codec, codec, False, 0, _KEEP, _codec_records) for codec in CODECS]
    + [
        Case("keys", "none", False, 0, _KEEP, _key_records),
        Case("headers", "none", False, 0, _KEEP, _header_records),
        Case("header-order", "none", False, 0, _KEEP, _header_order_records),
        Case("header-bytes", "none", False, 0, _KEEP, _header_byte_records),
        Case("header-null", "none", False, 0, _KEEP, _header_null_records),
        Case("timestamps", "none", False, 0, _KEEP, _timestamp_records),
        Case("nulls", "none", False, 0, _KEEP, _null_records),
        Case("bare", "none", False, 0, _KEEP, _bare_records),
        Case("1MB", "none", False, 0, _LARGE, _large_records),
        Case("100k", "none", False, 0, _LARGE, _many_records),
        Case("idempotent", "none", True, 100, _KEEP, _idempotent_records),
    ]
)


def generate(case: Case, seed: int) -> list:
    """The case's records, in the order in which they are produced."""
    return case.generate(random.Random(f"{seed}/{case.generate.__name__}"))


def with_offsets(records: list, partition: int) -> list:
    """Pairs of (offset, record) of one partition of a new topic written in order."""
    return list(enumerate(record for record in records if record.partition == partition))


def by_time(records: list, partition: int) -> list:
    """Questions and answers of offset-by-timestamp for one partition: (timestamp, offset).

    -2 asks for the first offset, -1 for the end; the answer -1 says that no record is as late.
    """
    pairs = with_offsets(records, partition)
    stamps = sorted({record.timestamp for _, record in pairs})
    asked = sorted({stamp + delta for stamp in stamps for delta in (-1, 0, 1)} | {0, stamps[-1] + 10**9})
    answers = [(-2, 0), (-1, len(pairs))]
    for question in asked:
        answers.append((question, next((offset for offset, record in pairs if record.timestamp >= question), -1)))
    return answers


PLANTS = ("codec", "value", "null", "timestamp", "header", "order")


def plant(name: str, records: list) -> list:
    """The records as a broken broker would keep them: a matrix that then passes proves nothing.

    "codec" leaves the records alone; the schedule asks the clients for another codec.
    """
    out, last = list(records), records[-1]
    if name == "value":
        out[-1] = last._replace(value=(last.value or b"") + b"!")
    elif name == "null":
        out = [record._replace(value=record.value or None, key=record.key or None) for record in out]
    elif name == "timestamp":
        out[-1] = last._replace(timestamp=last.timestamp + 1)
    elif name == "header":
        # Duplicate names folded into the last, as a map would keep them.
        out = [record._replace(headers=tuple(dict(record.headers).items())) for record in out]
    elif name == "order" and len(out) > PARTITIONS:
        # Two neighbours of one partition.
        (first, *_), (second, *_) = [[i for i, r in enumerate(out) if r.partition == last.partition][n:] for n in (0, 1)]
        out[first], out[second] = out[second], out[first]
    return out
