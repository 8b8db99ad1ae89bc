"""Produce: every check of a batch, and what is stored afterwards (read back with Fetch v11)."""
import struct
import uuid

import records
import wire
from engine import scenario

HOUR_MS = 3_600_000


def produce(t, label, topic, data, partition=0, acks=-1, timeout=10, **fields):
    return t.ask(label, timeout, **{"Acks": acks, "TimeoutMs": 10000, **fields}, TopicData=[
        {"Name": topic.name, "TopicId": topic.id, "PartitionData": [{"Index": partition, "Records": data}]}])


def stored(t, topic, partition=0, label="stored"):
    """All that the partition holds."""
    t.look(label, "Fetch", 11, ReplicaId=-1, MaxWaitMs=0, MinBytes=0, SessionEpoch=-1, Topics=[
        {"Topic": topic.name, "Partitions": [{"Partition": partition, "FetchOffset": 0, "PartitionMaxBytes": 1 << 20}]}])


@scenario("Produce")
def plain(t):
    topic = t.topic(partitions=2)
    produce(t, "one", topic, t.batch(1))
    produce(t, "three", topic, t.batch(3, at=5))
    produce(t, "other partition", topic, t.batch(2), partition=1)
    stored(t, topic)
    stored(t, topic, 1)


@scenario("Produce")
def acks(t):
    topic = t.topic()
    for acks in (1, -1, 2, -2, 32767):
        produce(t, f"acks {acks}", topic, t.batch(1), acks=acks)
    produce(t, "acks 2, unknown partition", topic, t.batch(1), partition=7, acks=2)
    t.ask("acks 2, no topics", Acks=2, TimeoutMs=10000, TopicData=[])
    stored(t, topic)


@scenario("Produce")
def acks_0(t):
    topic = t.topic()

    def silently(label, data, partition=0, topic=topic):
        t.ask_silently(label, Acks=0, TimeoutMs=10000, TopicData=[
            {"Name": topic.name, "TopicId": topic.id, "PartitionData": [{"Index": partition, "Records": data}]}])

    silently("good", t.batch(1))
    silently("good again", t.batch(2))
    silently("wrong CRC", t.batch(1, crc=1))
    silently("unknown partition", t.batch(1), partition=9)
    silently("no records", b"")
    t.ask_silently("no topics", Acks=0, TimeoutMs=10000, TopicData=[])
    stored(t, topic)


@scenario("Produce")
def timeouts(t):
    topic = t.topic()
    for timeout in (0, 1, -1):
        produce(t, f"timeout {timeout}", topic, t.batch(1), TimeoutMs=timeout)


@scenario("Produce")
def unknown(t):
    topic = t.topic(partitions=2)
    known = lambda *partitions: {"Name": topic.name, "TopicId": topic.id, "PartitionData": [
        {"Index": index, "Records": t.batch(1)} for index in partitions]}
    other = lambda name, id: {"Name": name, "TopicId": id, "PartitionData": [{"Index": 0, "Records": t.batch(1)}]}
    ask = lambda label, *topics: t.ask(label, Acks=-1, TimeoutMs=10000, TopicData=list(topics))
    ask("partitions", known(0, 2, -1))
    ask("topic", other("no-such-topic", uuid.UUID(int=77)))
    ask("known and unknown topic", known(0, 1), other("no-such-topic", uuid.UUID(int=77)))
    ask("zero id", other("", wire.NO_ID))
    ask("invalid name", other("a/b", uuid.UUID(int=78)))
    ask("nothing")
    ask("no partitions", known())
    ask("topic twice", known(0), known(1))
    ask("partition twice", known(0, 0))
    stored(t, topic)


@scenario("Produce")
def odd_records(t):
    topic = t.topic()
    good = t.batch(2)
    for label, data in (("none", b""), ("ten bytes", good[:10]), ("header only", good[:61]), ("cut by one", good[:-1]),
                        ("one byte more", good + b"\0"), ("eleven more", good + b"\0" * 11), ("two batches", good + good),
                        ("two, second cut", good + good[:40]), ("two, second cut early", good + good[:16]),
                        ("length zero", good[:8] + struct.pack(">i", 0) + good[12:]),
                        ("length 48", good[:8] + struct.pack(">i", 48) + good[12:]),
                        ("length 49", good[:8] + struct.pack(">i", 49) + good[12:]),
                        ("length negative", good[:8] + struct.pack(">i", -1) + good[12:]),
                        ("length huge", good[:8] + struct.pack(">i", 2**31 - 1) + good[12:])):
        produce(t, label, topic, data)
    stored(t, topic)


@scenario("Produce", "13+")
def null_records(t):
    """Kafka never answers this; once is enough, it takes the time to wait in vain."""
    topic = t.topic()
    produce(t, "null", topic, None, timeout=1.5)
    produce(t, "then good", topic, t.batch(1))


@scenario("Produce")
def headers_of_batches(t):
    topic = t.topic()
    for label, bent in (("wrong CRC", {"crc": 12345}), ("magic 0", {"magic": 0}), ("magic 1", {"magic": 1}), ("magic 3", {"magic": 3}),
                        ("magic -1", {"magic": -1}), ("base offset 5", {"base_offset": 5}), ("base offset -1", {"base_offset": -1}),
                        ("leader epoch 7", {"leader_epoch": 7}), ("count too high", {"record_count": 3}),
                        ("count too low", {"record_count": 1}), ("count zero", {"record_count": 0}), ("count negative", {"record_count": -1}),
                        ("last delta too high", {"last_offset_delta": 5}), ("last delta too low", {"last_offset_delta": 0}),
                        ("last delta negative", {"last_offset_delta": -1}),
                        ("both too high", {"record_count": 3, "last_offset_delta": 2}),
                        ("both too low", {"record_count": 1, "last_offset_delta": 0}),
                        ("max timestamp too high", {"max_timestamp": t.t0 + 1000}), ("max timestamp too low", {"max_timestamp": t.t0 - 1000}),
                        ("max timestamp -1", {"max_timestamp": -1}),
                        ("control", {"attributes": 0x20}), ("LogAppendTime", {"attributes": 0x08}), ("delete horizon", {"attributes": 0x40}),
                        ("unused attribute", {"attributes": 0x80}), ("no records", {"records": []})):
        produce(t, label, topic, t.batch(2, **bent))
    stored(t, topic)


@scenario("Produce")
def records_in_batches(t):
    topic = t.topic()
    record = records.record
    for label, each in (("trailing bytes", {"payload": record() + b"\0\0"}), ("cut", {"payload": record()[:-2], "record_count": 1, "last_offset_delta": 0}),
                        ("garbage", {"payload": b"\xff" * 30}), ("negative length", {"payload": b"\x01" + record()}),
                        ("length too short", {"payload": b"\x02" + record()[1:]}),
                        ("null key and value", {"records": [record(None, None)]}), ("empty key and value", {"records": [record(b"", b"")]}),
                        ("headers twice", {"records": [record(headers=((b"a", b"1"), (b"a", b"2"), (b"b", None), (b"", b"")))]}),
                        ("negative timestamp delta", {"records": [record(timestamp_delta=-5)]}),
                        ("timestamps fall", {"records": [record(timestamp_delta=9), record(offset_delta=1, timestamp_delta=3)]})):
        if "payload" in each:
            each = {"record_count": 1, "last_offset_delta": 0, "records": [record()], **each}
        produce(t, label, topic, t.batch(**each))
    stored(t, topic)


@scenario("Produce")
def inner_offsets(t):
    topic = t.topic()
    for label, deltas in (("gap", (0, 2)), ("from one", (1, 2)), ("same", (0, 0)), ("falling", (1, 0)), ("negative", (-1, 0))):
        produce(t, label, topic, t.batch(records=[records.record(offset_delta=delta) for delta in deltas]))


@scenario("Produce")
def compression(t):
    topic = t.topic()
    for codec, name in enumerate(("none", "gzip", "snappy", "lz4", "zstd")):
        produce(t, name, topic, t.batch(3, at=codec * 10, compression=codec))
    stored(t, topic)
    for codec in (5, 6, 7):
        produce(t, f"codec {codec}", topic, t.batch(1, compression=codec))
    for codec, name in enumerate(("gzip", "snappy", "lz4", "zstd"), 1):
        good = records.compress(codec, records.record())
        produce(t, f"{name} of garbage", topic, t.batch(compression=codec, payload=b"\x11\x22\x33\x44" * 10))
        produce(t, f"{name} empty", topic, t.batch(compression=codec, payload=b""))
        produce(t, f"{name} cut", topic, t.batch(compression=codec, payload=good[:-3]))
        produce(t, f"{name} count too high", topic, t.batch(compression=codec, record_count=2, last_offset_delta=1, records=[records.record()]))
        produce(t, f"{name} trailing record", topic, t.batch(compression=codec, record_count=1, last_offset_delta=0, values=[b"a", b"b"]))
    stored(t, topic, label="at last")


@scenario("Produce")
def conversion(t):
    """`compression.type` of the topic against that of the batch."""
    for wanted in ("uncompressed", "gzip", "snappy", "lz4", "zstd"):
        topic = t.topic(wanted, compression_type=wanted)
        for codec in range(5):
            produce(t, f"{codec} to {wanted}", topic, t.batch(2, at=codec * 10, compression=codec, headers=((b"h", b"1"), (b"h", b"2"))))
        stored(t, topic)


@scenario("Produce")
def timestamps(t):
    topic = t.topic(message_timestamp_before_max_ms=str(2 * HOUR_MS))
    for label, at in (("within", 0), ("too old", -3 * HOUR_MS), ("too new", 3 * HOUR_MS)):
        produce(t, label, topic, t.batch(2, at=at))
    produce(t, "second too new", topic, t.batch(2, timestamp_step=3 * HOUR_MS))
    produce(t, "minus one", topic, records.batch(-1, 1))
    produce(t, "minus two", topic, records.batch(-2, 1))
    produce(t, "zero", topic, records.batch(0, 1))
    stored(t, topic)


@scenario("Produce")
def log_append_time(t):
    topic = t.topic(message_timestamp_type="LogAppendTime")
    produce(t, "plain", topic, t.batch(2))
    produce(t, "gzip", topic, t.batch(2, compression=1))
    produce(t, "too old and too new", topic, t.batch(2, at=-HOUR_MS, timestamp_step=5 * HOUR_MS))
    produce(t, "claims LogAppendTime", topic, t.batch(1, attributes=0x08))
    stored(t, topic)


@scenario("Produce")
def sizes(t):
    topic = t.topic(max_message_bytes="300", segment_bytes="1048576")
    fits = 300 - len(t.batch(values=[b""])) - 2
    for size in (fits - 1, fits, fits + 1, fits + 2, fits + 3, 1000):
        data = t.batch(values=[b"v" * size])
        produce(t, f"{len(data)} bytes", topic, data)
    produce(t, "compressed", topic, t.batch(values=[b"v" * 1000], compression=1))
    stored(t, topic)


@scenario("Produce")
def larger_than_a_segment(t):
    topic = t.topic(max_message_bytes="3000000", segment_bytes="1048576")
    produce(t, "more than a segment", topic, t.batch(values=[bytes(1_100_000)]))
    produce(t, "good", topic, t.batch(1))


@scenario("Produce")
def recompressed_beyond_the_limit(t):
    topic = t.topic(max_message_bytes="300", compression_type="uncompressed")
    produce(t, "grows", topic, t.batch(values=[b"v" * 1000], compression=1))
    stored(t, topic)


@scenario("Produce")
def idempotent(t):
    topic = t.topic()
    send = lambda label, producer, epoch, sequence, count=1: produce(t, label, topic, t.batch(count, producer=(producer, epoch, sequence)))
    send("first", 500, 0, 0, 2)
    send("duplicate", 500, 0, 0, 2)
    send("next", 500, 0, 2)
    send("duplicate of the one before", 500, 0, 0, 2)
    send("gap", 500, 0, 7)
    send("overlap", 500, 0, 1, 3)
    send("duplicate of a part", 500, 0, 0, 1)
    for sequence in range(3, 9):
        send(f"sequence {sequence}", 500, 0, sequence)
    send("duplicate of the fifth back", 500, 0, 4)
    send("duplicate of the sixth back", 500, 0, 3)
    send("higher epoch, not from zero", 500, 1, 9)
    send("higher epoch", 500, 1, 0)
    send("old epoch", 500, 0, 9)
    send("duplicate under the old epoch", 500, 0, 8)
    send("unknown producer, not from zero", 501, 3, 40)
    send("its next", 501, 3, 41)
    stored(t, topic)


@scenario("Produce")
def idempotent_edges(t):
    topic = t.topic()
    send = lambda label, producer, epoch, sequence, count=1: produce(t, label, topic, t.batch(count, producer=(producer, epoch, sequence)))
    send("no sequence", 600, 0, -1)
    send("negative sequence", 600, 0, -5)
    send("no producer, but a sequence", -1, -1, 3)
    send("negative producer", -2, 0, 0)
    send("highest sequence", 601, 0, 2**31 - 1)
    send("wraps to zero", 601, 0, 0)
    send("wraps within", 602, 0, 2**31 - 2, 4)
    send("after the wrap", 602, 0, 2)
    send("highest epoch", 603, 32767, 0)
    stored(t, topic)


@scenario("Produce")
def producer_without_epoch(t):
    topic = t.topic()
    produce(t, "negative epoch", topic, t.batch(1, producer=(600, -1, 0)))


@scenario("Produce")
def idempotent_partitions_stand_alone(t):
    topic = t.topic(partitions=2)
    ask = lambda label, *sequences: t.ask(label, Acks=-1, TimeoutMs=10000, TopicData=[
        {"Name": topic.name, "TopicId": topic.id, "PartitionData": [
            {"Index": index, "Records": t.batch(1, producer=(700, 0, sequence))} for index, sequence in enumerate(sequences)]}])
    ask("both", 0, 0)
    ask("second has a gap", 1, 5)
    ask("first duplicate, second next", 1, 1)


@scenario("Produce")
def transactional_ids(t):
    topic = t.topic()
    produce(t, "id, plain batch", topic, t.batch(1), TransactionalId="tx")
    produce(t, "id, idempotent batch", topic, t.batch(1, producer=(800, 0, 0)), TransactionalId="tx")
    produce(t, "transactional batch, no id", topic, t.batch(1, attributes=0x10, producer=(800, 0, 0)))
    produce(t, "transactional batch without producer, no id", topic, t.batch(1, attributes=0x10))
    produce(t, "empty id", topic, t.batch(1), TransactionalId="")
    stored(t, topic)


@scenario("Produce", "0-2")
def removed_versions(t):
    """Advertised for librdkafka's sake (KAFKA-18659), never served."""
    body = struct.pack(">hii", 1, 10000, 0)
    t.ask_bytes("empty", body, answer_version=3)


@scenario("Produce")
def min_insync_replicas(t):
    """Never more than there are replicas: a min of 2 on a topic of one does not stop writes."""
    topic = t.topic(min_insync_replicas="2")
    produce(t, "all", topic, t.batch(1))
    produce(t, "one", topic, t.batch(1), acks=1)
