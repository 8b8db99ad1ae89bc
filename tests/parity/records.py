"""Record batches (magic 2): built, also wrongly on purpose, and taken apart. Compression is by hand where Python has none: the
encoders store, the decoders read everything but compressed zstd."""
import gzip
import struct
import zlib

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)


def make_crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC_TABLE = make_crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def signed_varint(value):
    value = value << 1 if value >= 0 else (-value << 1) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def record(value=b"value", key=b"key", headers=(), offset_delta=0, timestamp_delta=0):
    body = b"\0" + signed_varint(timestamp_delta) + signed_varint(offset_delta)
    for data in (key, value):
        body += signed_varint(-1) if data is None else signed_varint(len(data)) + data
    body += signed_varint(len(headers))
    for name, data in headers:
        body += signed_varint(len(name)) + name
        body += signed_varint(-1) if data is None else signed_varint(len(data)) + data
    return signed_varint(len(body)) + body


def batch(timestamp, count=1, values=None, records=None, base_offset=0, leader_epoch=-1, magic=2, compression=NONE, attributes=0,
          producer=(-1, -1, -1), crc=None, record_count=None, last_offset_delta=None, max_timestamp=None, length=None,
          payload=None, key=b"key", headers=(), timestamp_step=1):
    """A batch of `count` records `value-0`, … one millisecond apart from `timestamp` on. The other arguments bend it."""
    if values is None:
        values = [b"value-%d" % n for n in range(count)]
    if records is None:
        records = [record(value, key, headers, n, n * timestamp_step) for n, value in enumerate(values)]
    if payload is None:
        payload = compress(compression, b"".join(records))
    if record_count is None:
        record_count = len(records)
    if last_offset_delta is None:
        last_offset_delta = len(records) - 1
    if max_timestamp is None:
        max_timestamp = timestamp + max(0, len(records) - 1) * timestamp_step
    after_crc = struct.pack(">hiqqqhii", attributes | compression, last_offset_delta, timestamp, max_timestamp, *producer,
                            record_count) + payload
    if crc is None:
        crc = crc32c(after_crc)
    body = struct.pack(">ibI", leader_epoch, magic, crc) + after_crc
    return struct.pack(">qi", base_offset, len(body) if length is None else length) + body


def compress(codec, data):
    if codec == GZIP:
        return gzip.compress(data, mtime=0)
    if codec == SNAPPY:  # one raw block of literals
        out = bytearray()
        size = len(data)
        while size >= 0x80:
            out.append(size & 0x7F | 0x80)
            size >>= 7
        out.append(size)
        for start in range(0, len(data), 60):
            part = data[start:start + 60]
            out.append(len(part) - 1 << 2)
            out += part
        return bytes(out)
    if codec == LZ4:  # a frame of one stored block
        descriptor = bytes([0x60, 0x40])
        checksum = xxh32(descriptor) >> 8 & 0xFF
        return (b"\x04\x22\x4d\x18" + descriptor + bytes([checksum]) + struct.pack("<I", len(data) | 1 << 31) + data
                + b"\0\0\0\0")
    if codec == ZSTD:  # a frame of one raw block, its size in four bytes
        return (b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(data)) + struct.pack("<I", len(data) << 3 | 1)[:3] + data)
    return data


def decompress(codec, data):
    """None where we cannot."""
    if codec == NONE:
        return data
    if codec == GZIP:
        return zlib.decompress(data, 31)
    if codec == SNAPPY:
        if not data.startswith(b"\x82SNAPPY\0"):
            return snappy_block(data)
        out, at = b"", 16
        while at < len(data):
            size = struct.unpack(">i", data[at:at + 4])[0]
            out += snappy_block(data[at + 4:at + 4 + size])
            at += 4 + size
        return out
    if codec == LZ4:
        return lz4_frame(data)
    if codec == ZSTD:
        return zstd_stored(data)
    return None


def snappy_block(data):
    out, at, shift, size = bytearray(), 0, 0, 0
    while True:
        byte = data[at]
        size |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            break
    while at < len(data):
        tag = data[at]
        at += 1
        if tag & 3 == 0:
            length = tag >> 2
            if length >= 60:
                extra = length - 59
                length = int.from_bytes(data[at:at + extra], "little")
                at += extra
            out += data[at:at + length + 1]
            at += length + 1
            continue
        if tag & 3 == 1:
            length, offset = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | data[at]
            at += 1
        else:
            extra = 2 if tag & 3 == 2 else 4
            length, offset = (tag >> 2) + 1, int.from_bytes(data[at:at + extra], "little")
            at += extra
        for _ in range(length):
            out.append(out[-offset])
    return bytes(out)


def lz4_frame(data):
    flags = data[4]
    at = 7 + (8 if flags & 8 else 0)
    out = bytearray()
    while True:
        size = struct.unpack("<I", data[at:at + 4])[0]
        at += 4
        if size == 0:
            return bytes(out)
        block = data[at:at + (size & 0x7FFFFFFF)]
        at += len(block) + (4 if flags & 16 else 0)
        if size >> 31:
            out += block
        else:
            lz4_block(block, out)


def lz4_block(block, out):
    at = 0

    def more(length):
        nonlocal at
        if length == 15:
            while True:
                byte = block[at]
                at += 1
                length += byte
                if byte != 255:
                    break
        return length

    while at < len(block):
        token = block[at]
        at += 1
        literals = more(token >> 4)
        out += block[at:at + literals]
        at += literals
        if at >= len(block):
            return
        offset = block[at] | block[at + 1] << 8
        at += 2
        for _ in range(more(token & 15) + 4):
            out.append(out[-offset])


def zstd_stored(data):
    """Frames whose blocks are raw or runs; None for compressed ones."""
    descriptor = data[4]
    single = descriptor >> 5 & 1
    at = 5 + (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3]
    at += (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    out = bytearray()
    while True:
        header = int.from_bytes(data[at:at + 3], "little")
        at += 3
        kind, size = header >> 1 & 3, header >> 3
        if kind == 0:
            out += data[at:at + size]
            at += size
        elif kind == 1:
            out += data[at:at + 1] * size
            at += 1
        else:
            return None
        if header & 1:
            return bytes(out)


def xxh32(data):
    """Of at most 15 bytes, seed 0: all that a frame header needs."""
    p1, p2, p3, p4, p5 = 2654435761, 2246822519, 3266489917, 668265263, 374761393
    mask = 0xFFFFFFFF

    def rotate(value, bits):
        return (value << bits | value >> 32 - bits) & mask

    h, at = (p5 + len(data)) & mask, 0
    while at + 4 <= len(data):
        h = rotate((h + int.from_bytes(data[at:at + 4], "little") * p3) & mask, 17) * p4 & mask
        at += 4
    for byte in data[at:]:
        h = rotate((h + byte * p5) & mask, 11) * p1 & mask
    h ^= h >> 15
    h = h * p2 & mask
    h ^= h >> 13
    h = h * p3 & mask
    return h ^ h >> 16


def take_apart(data, time=str):
    """The batches in `data`, each as [its header in words, a line for each record…]. A cut one at the end, which Kafka may send,
    comes as "cut". `time` says timestamps."""
    from wire import Reader
    out, reader = [], Reader(data)
    while len(data) - reader.at > 0:
        if len(data) - reader.at < 61:
            return out + ["cut"]
        base_offset, length = reader.fixed(">q"), reader.fixed(">i")
        if length > len(data) - reader.at:
            return out + ["cut"]
        body = Reader(bytes(reader.take(length)))
        leader_epoch, magic, crc = body.fixed(">i"), body.fixed(">b"), body.fixed(">I")
        attributes, last_delta, first_time, max_time, *producer, count = struct.unpack(">hiqqqhii", body.data[9:49])
        words = f"{base_offset}+{last_delta} epoch {leader_epoch} times {time(first_time)} {time(max_time)} count {count}"
        words += f" attributes {attributes}" if attributes else ""
        words += f" producer {producer}" if producer != [-1, -1, -1] else ""
        words += f" magic {magic}" if magic != 2 else ""
        words += " CRC WRONG" if crc != crc32c(body.data[9:]) else ""
        plain = decompress(attributes & 7, body.data[49:])
        out.append([words] + (["opaque"] if plain is None else take_records_apart(plain, count)))
    return out


def take_records_apart(data, count):
    """"offset delta, timestamp delta: key = value, headers" of each record."""
    from wire import Reader
    reader, out = Reader(data), []

    def blob():
        length = reader.signed_varint()
        return None if length < 0 else bytes(reader.take(length)).decode("latin-1")

    for _ in range(count):
        reader.signed_varint()
        reader.take(1)
        timestamp_delta, offset_delta, key, value = reader.signed_varint(), reader.signed_varint(), blob(), blob()
        if value is not None and len(value) > 40:
            value = f"{value[:20]}… {len(value)} bytes of CRC {crc32c(value.encode('latin-1')):08x}"
        headers = [(blob(), blob()) for _ in range(reader.signed_varint())]
        out.append(f"{offset_delta}, {timestamp_delta}: {key!r} = {value!r}" + (f", {headers}" if headers else ""))
    return out + (["trailing bytes"] if reader.at != len(data) else [])
