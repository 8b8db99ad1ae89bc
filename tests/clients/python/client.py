"""The command line shared by the Python clients: `CLIENT COMMAND BOOTSTRAP JOB`, see ../README.md."""

import hashlib
import struct
import sys
import time

# A reader gives up after this long without one record.
STALL_SECONDS = 30


def read_records(path):
    """Yields (partition, timestamp, key, value, headers) from a records file."""
    with open(path, "rb") as file:
        data = file.read()
    position, fixed, size_of = 0, struct.Struct(">iq"), struct.Struct(">i")

    def take():
        nonlocal position
        (size,) = size_of.unpack_from(data, position)
        position += 4
        if size < 0:
            return None
        piece = data[position : position + size]
        position += size
        return piece

    while position < len(data):
        partition, timestamp = fixed.unpack_from(data, position)
        position += fixed.size
        key, value = take(), take()
        (count,) = size_of.unpack_from(data, position)
        position += 4
        headers = [(take().decode(), take()) for _ in range(count)]
        yield partition, timestamp, key, value, headers


class Wanted:
    """One line of a consume job: a range of one partition, and the digest of what was read of it."""

    def __init__(self, topic, partition, start, end, with_timestamps, dump):
        self.topic, self.partition = topic, int(partition)
        self.next, self.end, self.count = int(start), int(end), 0
        self.with_timestamps = with_timestamps == "1"
        self.hash = hashlib.sha256()
        self.dump = None if dump == "-" else open(dump, "wb")

    def done(self):
        return self.next >= self.end

    def add(self, offset, timestamp, key, value, headers):
        """Takes the next record; anything past the end is ignored, a wrong offset shows in the digest."""
        if self.next >= self.end:
            return
        pack, null = struct.pack, b"\xff\xff\xff\xff"
        pieces = [
            pack(">qq", offset, timestamp if self.with_timestamps else -1),
            null if key is None else pack(">i", len(key)) + key,
            null if value is None else pack(">i", len(value)) + value,
            pack(">i", len(headers) if headers else 0),
        ]
        for name, header in headers or ():
            name = name.encode()
            pieces += [pack(">i", len(name)), name, null if header is None else pack(">i", len(header)) + header]
        data = b"".join(pieces)
        self.hash.update(data)
        if self.dump:
            self.dump.write(data)
        self.count += 1
        self.next = offset + 1

    def answer(self):
        if self.dump:
            self.dump.close()
        if not self.done():
            return ("error", self.topic, self.partition, f"stopped at offset {self.next} of {self.end}")
        return ("ok", self.topic, self.partition, self.count, self.hash.hexdigest())


class Stall:
    """Says when a reader has waited too long for its next record."""

    def __init__(self):
        self.last = time.monotonic()

    def progress(self):
        self.last = time.monotonic()

    def over(self):
        return time.monotonic() - self.last > STALL_SECONDS


def answer(*columns):
    """Prints one answer line."""
    print("\t".join(str(column).replace("\t", " ").replace("\n", " ") for column in columns), flush=True)


def config_of(column):
    """The config of a create-topics line: `key=value,key=value`."""
    return dict(pair.split("=", 1) for pair in column.split(",") if pair)


def main(create_topics, produce, consume, list_offsets):
    """Runs one command. `produce` is called for each line, the others with all lines at once."""
    command, bootstrap, job = sys.argv[1:4]
    with open(job, encoding="utf-8") as file:
        lines = [line.rstrip("\n").split("\t") for line in file if line.strip()]
    if command == "create-topics":
        create_topics(bootstrap, [(topic, int(partitions), config_of(config)) for topic, partitions, config in lines])
    elif command == "produce":
        for topic, codec, idempotent, batch_records, _count, path in lines:
            try:
                acknowledged = produce(bootstrap, topic, codec, idempotent == "1", int(batch_records), list(read_records(path)))
                answer("ok", topic, acknowledged)
            except Exception as error:  # the answer is this topic's cell; the next topic is tried all the same
                answer("error", topic, f"{type(error).__name__}: {error}")
    elif command == "consume":
        wanted = {}
        for line in lines:
            wanted[line[0], int(line[1])] = Wanted(*line)
        consume(bootstrap, wanted)
        for each in wanted.values():
            answer(*each.answer())
    elif command == "list-offsets":
        list_offsets(bootstrap, [(topic, int(partition), int(timestamp)) for topic, partition, timestamp in lines])
    else:
        sys.exit(f"unknown command {command}")
