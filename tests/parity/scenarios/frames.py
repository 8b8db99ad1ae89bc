"""Frames below any one API: sizes, headers, odd encodings, order of answers. Filed under ApiVersions and Metadata."""
import socket
import struct

import wire
from engine import scenario


def outcome(t, label, data, answers=1, finish=False):
    """Sends bytes on a connection of its own; notes how many answers came, or that it was closed before."""
    with socket.create_connection(t.connection.address, timeout=10) as connection:
        got = []
        try:
            connection.sendall(data)
            if finish:
                connection.shutdown(socket.SHUT_WR)
            for _ in range(answers):
                head = exactly(connection, 4)
                got.append(struct.unpack(">i", exactly(connection, struct.unpack(">i", head)[0])[:4])[0])
        except socket.timeout:
            got.append("no answer")
        except (OSError, EOFError):
            got.append("closed")
        t.note(label, got)


def exactly(connection, count):
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def frame(key, version, correlation_id, body=b"", client_id=b"\xff\xff", tags=None):
    header = struct.pack(">hhi", key, version, correlation_id) + client_id + (b"" if tags is None else tags)
    return struct.pack(">i", len(header) + len(body)) + header + body


PING = lambda correlation_id: frame(18, 0, correlation_id)
METADATA_OF_NONE = struct.pack(">i", 0)


@scenario("ApiVersions", "0")
def frame_sizes(t):
    for size in (0, 1, 7, -1, -2**31, 2**31 - 1, 104857601):
        outcome(t, f"size {size}", struct.pack(">i", size) + b"\0" * 8, finish=True)
    outcome(t, "cut", PING(1)[:-1], finish=True)
    outcome(t, "nothing", b"", finish=True)
    outcome(t, "good, then cut", PING(1) + PING(2)[:-1], answers=2, finish=True)
    outcome(t, "HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    outcome(t, "TLS", bytes.fromhex("16030100c5010000c10303") + b"\0" * 200)


@scenario("ApiVersions", "0")
def unknown_requests(t):
    for key, version in ((4, 0), (7, 3), (88, 0), (93, 0), (999, 0), (-1, 0), (32767, 0), (1, 3), (1, 99), (3, -1), (3, 14), (0, 14), (17, 2), (52, 0), (62, 0)):
        outcome(t, f"key {key} v{version}", frame(key, version, 5, b"\0" * 40))


@scenario("ApiVersions", "0")
def headers(t):
    for label, client_id in (("null", b"\xff\xff"), ("empty", b"\0\0"), ("length -2", b"\xff\xfe"), ("too long", b"\x7f\xff"),
                             ("not UTF-8", b"\0\2\xff\xfe"), ("NUL", b"\0\1\0"), ("long", b"\x01\x00" + b"x" * 256)):
        outcome(t, f"client id {label}", frame(18, 0, 5, client_id=client_id))
    body = b"\x02a\x021\0"
    for label, tags in (("none", b"\0"), ("one unknown", b"\1\x64\2ab"), ("empty one", b"\1\0\0"), ("out of order", b"\2\5\0\4\0"), ("twice", b"\2\5\0\5\0"),
                        ("count too high", b"\2\5\0"), ("size too high", b"\1\5\x7f"), ("overlong varint", b"\x80\x80\x80\x80\x80\0"), ("missing", b"")):
        outcome(t, f"tags {label}", frame(18, 3, 5, body, tags=tags), finish=True)


@scenario("Metadata", "1")
def plain_bodies(t):
    name = b"\0\1a"
    for label, body in (("empty", b""), ("trailing bytes", METADATA_OF_NONE + b"\1\2\3"), ("null", b"\xff\xff\xff\xff"), ("count -2", b"\xff\xff\xff\xfe"),
                        ("count too high", struct.pack(">i", 2) + b"\0\1"), ("count huge", b"\x7f\xff\xff\xff"), ("name null", struct.pack(">i", 1) + b"\xff\xff"),
                        ("name length -2", struct.pack(">i", 1) + b"\xff\xfe"), ("name cut", struct.pack(">i", 1) + name[:-1])):
        outcome(t, label, frame(3, 1, 5, body), finish=True)


@scenario("Metadata", "12")
def flexible_bodies(t):
    head, tail = b"", b"\0\0\0"  # no automatic creation, no operations, no tags
    for label, body in (("no topics", b"\1" + tail), ("null", b"\0" + tail), ("unknown tag", b"\1\0\0\1\x64\2ab"), ("known to none, empty", b"\1\0\0\1\0\0"),
                        ("tag count too high", b"\1\0\0\5"), ("overlong count", b"\x81\x80\x80\x80\x80\0" + tail), ("five bytes of count", b"\x81\x80\x80\x80\0" + tail),
                        ("count huge", b"\xff\xff\xff\xff\x0f" + tail), ("boolean 7", b"\1\7\7\0"), ("trailing bytes", b"\1" + tail + b"\1\2"), ("cut", b"\1\0\0")):
        outcome(t, label, frame(3, 12, 5, head + body, tags=b"\0"), finish=True)


@scenario("DescribeTopicPartitions", "0")
def presence_bytes(t):
    """The one nullable struct in a request."""
    cursor = b"\2a" + struct.pack(">i", 0) + b"\0"
    for label, body in (("null", b"\xff"), ("null -2", b"\xfe"), ("present", b"\1" + cursor), ("zero", b"\0" + cursor), ("two", b"\2" + cursor)):
        outcome(t, label, frame(75, 0, 5, b"\2\2a\0" + struct.pack(">i", 10) + body + b"\0", tags=b"\0"), finish=True)


@scenario("ApiVersions", "0")
def order_of_answers(t):
    outcome(t, "five at once", b"".join(PING(n) for n in range(5)), answers=5)
    produce_0 = frame(0, 3, 2, b"\xff\xff" + struct.pack(">hii", 0, 1000, 0))
    outcome(t, "acks 0 between", PING(1) + produce_0 + PING(3), answers=2)
    fetch = frame(1, 4, 2, struct.pack(">iiiibi", -1, 200, 1, 1000, 0, 0))
    outcome(t, "a fetch of nothing between", PING(1) + fetch + PING(3), answers=3)
    topic = t.topic()
    name = topic.name.encode()
    waiting = struct.pack(">iiiibih", -1, 100, 1, 1000, 0, 1, len(name)) + name + struct.pack(">iiqi", 1, 0, 0, 1000)
    outcome(t, "a waiting fetch between", PING(1) + frame(1, 4, 2, waiting) + PING(3), answers=3)
    outcome(t, "an unknown request after", PING(1) + frame(999, 0, 2) + PING(3), answers=3)
