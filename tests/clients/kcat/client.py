"""Debian's kcat under the matrix's command line, see ../README.md. Python's standard library only.

kcat sends a whole file in one run where every record has a key and a value and none has headers; otherwise
one run sends one record, because its headers and its reading of "empty" hold for a run.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python"))
from client import Wanted, answer, read_records  # noqa: E402

# Long enough that random bytes never hold them.
KEY_END, RECORD_END, HEADERS_END = b"<|key-ends-here|>", b"<|record-ends-here|>", b"\x1e"
TIMEOUT_SECONDS = 60


def kcat(bootstrap, arguments, stdin=b""):
    done = subprocess.run(["kcat", "-b", bootstrap, "-q", *arguments], input=stdin, capture_output=True, timeout=TIMEOUT_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.decode(errors="replace").strip() or f"kcat exits with {done.returncode}")
    return done.stdout


def produce(bootstrap, topic, codec, idempotent, batch_records, records):
    settings = {
        "compression.codec": codec,
        "enable.idempotence": "true" if idempotent else "false",
        "acks": "all",
        "batch.num.messages": batch_records or 1_000_000,
        "batch.size": 16 << 20,
        "message.max.bytes": 16 << 20,
        "message.timeout.ms": 30_000,
    }
    common = ["-P", "-t", topic, "-D", RECORD_END] + [part for key, value in settings.items() for part in ("-X", f"{key}={value}")]
    by_partition = {}
    for partition, _timestamp, key, value, headers in records:
        by_partition.setdefault(partition, []).append((key, value, headers))
    for partition, rows in by_partition.items():
        where = [*common, "-p", str(partition)]
        if len(rows) > 20 and all(key and value and not headers for key, value, headers in rows):
            # Long enough for kcat to read all of its input; it sends a batch no earlier.
            linger = 5 if batch_records else 50 if len(rows) < 10_000 else 3000
            kcat(bootstrap, [*where, "-X", f"linger.ms={linger}", "-K", KEY_END], b"".join(key + KEY_END + value + RECORD_END for key, value, _ in rows))
            continue
        for key, value, headers in rows:
            arguments = [*where, "-X", "linger.ms=0"]
            for name, header in headers:
                # Without an equals sign the value is null.
                arguments += ["-H", name.encode() if header is None else name.encode() + b"=" + header]
            if value is None:
                arguments.append("-Z")
            if key is not None:
                arguments += ["-K", KEY_END]
            data = (key + KEY_END if key is not None else b"") + (value or b"")
            # An empty input is no record at all; one that ends by the delimiter is.
            kcat(bootstrap, arguments, data + RECORD_END if not value else data)
    return len(records)


def consume(bootstrap, wanted):
    count = wanted.end - wanted.next
    form = b"%o %T %K %S %k%s%h" + HEADERS_END
    data = kcat(
        bootstrap,
        ["-C", "-t", wanted.topic, "-p", str(wanted.partition), "-o", str(wanted.next), "-c", str(count), "-e"]
        + ["-X", "check.crcs=true", "-X", "fetch.wait.max.ms=100", "-f", form],
    )
    position = 0
    while position < len(data):
        numbers = []
        for _ in range(4):
            end = data.index(b" ", position)
            numbers.append(int(data[position:end]))
            position = end + 1
        offset, timestamp, key_size, value_size = numbers
        key = data[position : position + key_size] if key_size >= 0 else None
        position += max(key_size, 0)
        value = data[position : position + value_size] if value_size >= 0 else None
        position += max(value_size, 0)
        end = data.index(HEADERS_END, position)
        headers = []
        for pair in data[position:end].split(b",") if end > position else ():
            name, text = pair.split(b"=", 1)
            headers.append((name.decode(), None if text == b"NULL" else text))
        position = end + 1
        wanted.add(offset, timestamp, key, value, headers)


def list_offsets(bootstrap, questions):
    """A run asks for a partition once, so each round takes the next question of every partition."""
    left = {}
    for topic, partition, timestamp in questions:
        left.setdefault((topic, partition), []).append(timestamp)
    while left:
        asked = {where: stamps.pop(0) for where, stamps in left.items()}
        left = {where: stamps for where, stamps in left.items() if stamps}
        arguments = ["-Q"] + [part for (topic, partition), stamp in asked.items() for part in ("-t", f"{topic}:{partition}:{stamp}")]
        try:
            found = {}
            for line in kcat(bootstrap, arguments).decode().splitlines():
                topic, partition, _offset, offset = line.split()
                found[topic, partition.strip("[]")] = offset
            for where, stamp in asked.items():
                answer("ok", *where, stamp, found.get(where, "nothing"))
        except Exception as error:
            for where, stamp in asked.items():
                answer("error", *where, stamp, error)


def main():
    command, bootstrap, job = sys.argv[1:4]
    with open(job, encoding="utf-8") as file:
        lines = [line.rstrip("\n").split("\t") for line in file if line.strip()]
    if command == "produce":
        for topic, codec, idempotent, batch_records, _count, path in lines:
            try:
                answer("ok", topic, produce(bootstrap, topic, codec, idempotent == "1", int(batch_records), list(read_records(path))))
            except Exception as error:
                answer("error", topic, error)
    elif command == "consume":

        def one(line):
            wanted = Wanted(*line)
            try:
                consume(bootstrap, wanted)
                return wanted.answer()
            except Exception as error:
                return ("error", wanted.topic, wanted.partition, f"{type(error).__name__}: {error}")

        with ThreadPoolExecutor(2) as pool:
            for columns in pool.map(one, lines):
                answer(*columns)
    elif command == "list-offsets":
        list_offsets(bootstrap, lines)
    else:
        sys.exit(f"kcat has no {command}")


main()
