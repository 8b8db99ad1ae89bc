"""ListOffsets, OffsetForLeaderEpoch, DeleteRecords, InitProducerId, DescribeProducers."""
from engine import scenario
from scenarios.shared import three_batches

EARLIEST, LATEST, MAX, LOCAL, TIERED = -2, -1, -3, -4, -5


def list_offsets(t, label, topic, *partitions, **fields):
    partitions = [{"PartitionIndex": index, "Timestamp": timestamp, **more} for index, timestamp, more in partitions]
    return t.ask(label, **{"ReplicaId": -1, **fields}, Topics=[{"Name": topic, "Partitions": partitions}])


@scenario("ListOffsets")
def special_timestamps(t):
    topic = three_batches(t)
    for name, timestamp in (("earliest", EARLIEST), ("latest", LATEST), ("max", MAX), ("earliest local", LOCAL), ("tiered", TIERED),
                            ("minus six", -6), ("minus seven", -7), ("lowest", -2**63)):
        list_offsets(t, name, topic.name, (0, timestamp, {}), (1, timestamp, {}))


@scenario("ListOffsets")
def by_timestamp(t):
    topic = three_batches(t)
    for at in (0, 10, 11, 13, 20, 21, 22, 30, 31):
        list_offsets(t, f"t0+{at}", topic.name, (0, t.t0 + at, {}), (1, t.t0 + at, {}))
    list_offsets(t, "zero", topic.name, (0, 0, {}))
    list_offsets(t, "highest", topic.name, (0, 2**63 - 1, {}))


@scenario("ListOffsets")
def by_timestamp_out_of_order(t):
    topic = t.topic()
    for at in (30, 10, 20, 10):
        t.produce(topic, 0, t.batch(2, at=at))
    for at in (5, 10, 11, 12, 20, 21, 30, 31, 32):
        list_offsets(t, f"t0+{at}", topic.name, (0, t.t0 + at, {}))
    list_offsets(t, "max", topic.name, (0, MAX, {}))


@scenario("ListOffsets")
def by_timestamp_compressed(t):
    topic = t.topic()
    for codec in (1, 2, 3, 4):
        t.produce(topic, 0, t.batch(3, at=codec * 10, compression=codec))
    for at in (11, 22, 31, 42, 43):
        list_offsets(t, f"t0+{at}", topic.name, (0, t.t0 + at, {}))
    list_offsets(t, "max", topic.name, (0, MAX, {}))


@scenario("ListOffsets")
def log_append_time(t):
    topic = t.topic(message_timestamp_type="LogAppendTime")
    t.produce(topic, 0, t.batch(3))
    list_offsets(t, "before", topic.name, (0, t.t0, {}))
    list_offsets(t, "max", topic.name, (0, MAX, {}))
    list_offsets(t, "after", topic.name, (0, t.t0 + 2 * 3_600_000, {}))


@scenario("ListOffsets")
def unknown(t):
    topic = three_batches(t)
    list_offsets(t, "topic", "no-such-topic", (0, LATEST, {}))
    list_offsets(t, "partition", topic.name, (0, LATEST, {}), (2, LATEST, {}), (-1, LATEST, {}))
    list_offsets(t, "invalid name", "a/b", (0, LATEST, {}))
    list_offsets(t, "empty name", "", (0, LATEST, {}))
    t.ask("nothing", ReplicaId=-1, Topics=[])
    t.ask("no partitions", ReplicaId=-1, Topics=[{"Name": topic.name, "Partitions": []}])


@scenario("ListOffsets")
def long_names(t):
    for size in (249, 250, 1000, 32_768)[:4 if t.version >= 6 else 3]:
        list_offsets(t, f"{size} characters", "x" * size, (0, LATEST, {}), (1, EARLIEST, {}))


@scenario("ListOffsets")
def duplicates(t):
    topic = three_batches(t)
    list_offsets(t, "same", topic.name, (0, LATEST, {}), (0, LATEST, {}))
    list_offsets(t, "different", topic.name, (0, LATEST, {}), (0, EARLIEST, {}), (1, LATEST, {}))


@scenario("ListOffsets")
def leader_epoch(t):
    topic = three_batches(t)
    for epoch in (-1, 0, 1, 5, -2):
        for timestamp in (LATEST, EARLIEST, t.t0 + 20):
            list_offsets(t, f"epoch {epoch}", topic.name, (0, timestamp, {"CurrentLeaderEpoch": epoch}))


@scenario("ListOffsets")
def isolation(t):
    topic = three_batches(t)
    for isolation in (0, 1, 2, -1):
        for timestamp in (LATEST, EARLIEST, MAX, t.t0 + 20):
            list_offsets(t, f"isolation {isolation}", topic.name, (0, timestamp, {}), IsolationLevel=isolation)


@scenario("ListOffsets")
def replica_ids(t):
    topic = three_batches(t)
    for replica in (-2, -3, 1, 7):
        list_offsets(t, f"replica {replica}", topic.name, (0, LATEST, {}), (1, LATEST, {}), ReplicaId=replica)


@scenario("ListOffsets")
def after_delete_records(t):
    topic = t.topic()
    t.produce(topic, 0, t.batch(3, at=10))
    t.produce(topic, 0, t.batch(3, at=20))
    t.broker.setup.request("DeleteRecords", 2, TimeoutMs=10000, Topics=[
        {"Name": topic.name, "Partitions": [{"PartitionIndex": 0, "Offset": 4}]}])
    for name, timestamp in (("earliest", EARLIEST), ("latest", LATEST), ("local", LOCAL), ("t0", t.t0), ("t0+21", t.t0 + 21),
                            ("t0+22", t.t0 + 22)):
        list_offsets(t, name, topic.name, (0, timestamp, {}))


# ---- OffsetForLeaderEpoch


def for_epoch(t, label, topic, *partitions, **fields):
    return t.ask(label, **{"ReplicaId": -1, **fields}, Topics=[{"Topic": topic, "Partitions": list(partitions)}])


@scenario("OffsetForLeaderEpoch")
def epochs(t):
    topic = three_batches(t)
    for epoch in (0, 1, 5, -1, -2, 2**31 - 1):
        for_epoch(t, f"epoch {epoch}", topic.name, {"Partition": 0, "LeaderEpoch": epoch}, {"Partition": 1, "LeaderEpoch": epoch})


@scenario("OffsetForLeaderEpoch")
def current_epochs(t):
    topic = three_batches(t)
    for current in (-1, 0, 1, 5, -2):
        for_epoch(t, f"current {current}", topic.name, {"Partition": 0, "LeaderEpoch": 0, "CurrentLeaderEpoch": current})


@scenario("OffsetForLeaderEpoch")
def _unknown(t):
    topic = three_batches(t)
    for_epoch(t, "topic", "no-such-topic", {"Partition": 0, "LeaderEpoch": 0})
    for_epoch(t, "partition", topic.name, {"Partition": 0, "LeaderEpoch": 0}, {"Partition": 2, "LeaderEpoch": 0},
              {"Partition": -1, "LeaderEpoch": 0})
    t.ask("nothing", ReplicaId=-1, Topics=[])
    for_epoch(t, "no partitions", topic.name)


@scenario("OffsetForLeaderEpoch")
def _replica_ids(t):
    topic = three_batches(t)
    for replica in (-2, 0, 1, 7):
        for_epoch(t, f"replica {replica}", topic.name, {"Partition": 0, "LeaderEpoch": 0}, ReplicaId=replica)


# ---- DeleteRecords


def delete_records(t, label, topic, *partitions):
    partitions = [{"PartitionIndex": index, "Offset": offset} for index, offset in partitions]
    return t.ask(label, TimeoutMs=10000, Topics=[{"Name": topic, "Partitions": partitions}])


def see(t, topic):
    for name, timestamp in (("earliest", EARLIEST), ("latest", LATEST)):
        t.look(name, "ListOffsets", 5, ReplicaId=-1, Topics=[
            {"Name": topic.name, "Partitions": [{"PartitionIndex": 0, "Timestamp": timestamp}]}])


@scenario("DeleteRecords")
def plain(t):
    topic = t.topic()
    t.produce(topic, 0, t.batch(3))
    t.produce(topic, 0, t.batch(3))
    for offset in (0, 2, 3, 4, 3, 5):
        delete_records(t, f"before {offset}", topic.name, (0, offset))
    see(t, topic)
    delete_records(t, "all", topic.name, (0, -1))
    see(t, topic)
    delete_records(t, "again", topic.name, (0, -1))
    t.produce(topic, 0, t.batch(1))
    see(t, topic)


@scenario("DeleteRecords")
def out_of_range(t):
    topic = t.topic()
    t.produce(topic, 0, t.batch(3))
    for offset in (4, 100, -2, 2**63 - 1, -2**63):
        delete_records(t, f"before {offset}", topic.name, (0, offset))
    see(t, topic)


@scenario("DeleteRecords")
def _delete_unknown(t):
    topic = t.topic(partitions=2)
    t.produce(topic, 0, t.batch(3))
    delete_records(t, "topic", "no-such-topic", (0, 0))
    delete_records(t, "partition", topic.name, (0, 1), (1, 0), (2, 0), (-1, 0))
    delete_records(t, "twice", topic.name, (0, 1), (0, 2))
    t.ask("nothing", TimeoutMs=10000, Topics=[])
    delete_records(t, "no partitions", topic.name)
    see(t, topic)


# ---- InitProducerId


def producer_ids_ready(t):
    """The first ask makes the broker fetch its block of ids."""
    t.until("producer ids", lambda: t.broker.setup.request("InitProducerId", 4, TransactionalId=None)["ErrorCode"] == 0)


@scenario("InitProducerId")
def idempotent(t):
    producer_ids_ready(t)
    t.ask("first", TransactionalId=None, TransactionTimeoutMs=60000)
    t.ask("second", TransactionalId=None, TransactionTimeoutMs=60000)
    t.ask("no timeout", TransactionalId=None, TransactionTimeoutMs=-1)
    t.ask("huge timeout", TransactionalId=None, TransactionTimeoutMs=2**31 - 1)


@scenario("InitProducerId", "3+")
def with_producer(t):
    producer_ids_ready(t)
    for producer, epoch in ((0, 0), (5, 3), (-1, 0), (5, -1), (-2, -2), (2**62, 0), (7, 32767)):
        t.ask(f"producer {producer} epoch {epoch}", TransactionalId=None, TransactionTimeoutMs=60000, ProducerId=producer,
              ProducerEpoch=epoch)


@scenario("InitProducerId")
def transactional(t):
    t.ask("empty", TransactionalId="", TransactionTimeoutMs=60000)
    def ready():
        # Asking makes Kafka create the coordinator's topic.
        t.broker.setup.request("FindCoordinator", 3, Key="parity-warm-up", KeyType=1)
        answer = t.broker.setup.request("InitProducerId", 4, TransactionalId="parity-warm-up", TransactionTimeoutMs=60000)
        return answer["ErrorCode"] not in (14, 15, 16, 51)
    t.until("transaction coordinator", ready, seconds=30)
    t.ask("named", TransactionalId=f"{t.prefix}-{t.t0}", TransactionTimeoutMs=60000)
    t.ask("no timeout", TransactionalId=f"{t.prefix}-{t.t0}", TransactionTimeoutMs=0)
    t.ask("huge timeout", TransactionalId=f"{t.prefix}-{t.t0}", TransactionTimeoutMs=2**31 - 1)


# ---- DescribeProducers


@scenario("DescribeProducers")
def long_names(t):
    for size in (249, 250, 1000, 32_768):
        t.ask(f"{size} characters", Topics=[{"Name": "x" * size, "PartitionIndexes": [0, 1]}])


@scenario("DescribeProducers")
def producers(t):
    topic = t.topic(partitions=2)
    t.produce(topic, 0, t.batch(3))
    ask = lambda label, name, *partitions: t.ask(label, Topics=[{"Name": name, "PartitionIndexes": list(partitions)}])
    ask("none", topic.name, 0)
    t.produce(topic, 0, t.batch(3, producer=(1000, 0, 0)))
    t.produce(topic, 0, t.batch(2, at=50, producer=(1000, 0, 3)))
    t.produce(topic, 0, t.batch(1, producer=(1001, 4, 7)))
    t.produce(topic, 1, t.batch(1, producer=(1001, 4, 0)))
    ask("two", topic.name, 0, 1)
    ask("partition", topic.name, 0, 2, -1)
    ask("topic", "no-such-topic", 0)
    ask("no partitions", topic.name)
    ask("invalid name", "a/b", 0)
    ask("twice", topic.name, 1, 1)
    t.ask("nothing", Topics=[])
