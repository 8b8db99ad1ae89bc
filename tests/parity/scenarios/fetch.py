"""Fetch: offsets, limits, epochs, isolation, sessions."""
import uuid

import wire
from engine import scenario
from scenarios.shared import three_batches


def partition(index, offset, max_bytes=1 << 20, **more):
    return {"Partition": index, "FetchOffset": offset, "PartitionMaxBytes": max_bytes, **more}


def named(topic, *partitions):
    return {"Topic": topic.name, "TopicId": topic.id, "Partitions": list(partitions)}


def fetch(t, label, *topics, **fields):
    """Sessionless, and at once, unless the fields say otherwise."""
    return t.ask(label, **{"ReplicaId": -1, "MaxWaitMs": 0, "MinBytes": 0, "SessionEpoch": -1, **fields}, Topics=list(topics))


@scenario("Fetch")
def offsets(t):
    topic = three_batches(t)
    for offset in (0, 1, 3, 4, 5, 6, 7, 100, -1, -2, 2**63 - 1, -2**63):
        fetch(t, f"from {offset}", named(topic, partition(0, offset)))
    fetch(t, "empty partition", named(topic, partition(1, 0)))
    fetch(t, "both", named(topic, partition(0, 0), partition(1, 0)))
    fetch(t, "one out of range", named(topic, partition(0, 3), partition(1, 5)))


@scenario("Fetch")
def below_log_start(t):
    topic = t.topic()
    t.produce(topic, 0, t.batch(3))
    t.produce(topic, 0, t.batch(3))
    t.broker.setup.request("DeleteRecords", 2, TimeoutMs=10000, Topics=[
        {"Name": topic.name, "Partitions": [{"PartitionIndex": 0, "Offset": 4}]}])
    for offset in (0, 3, 4, 5, 6):
        fetch(t, f"from {offset}", named(topic, partition(0, offset)))
        fetch(t, f"from {offset} with log start 4", named(topic, partition(0, offset, LogStartOffset=4)))


@scenario("Fetch")
def unknown(t):
    topic = three_batches(t)
    other = lambda name, id: {"Topic": name, "TopicId": id, "Partitions": [partition(0, 0)]}
    fetch(t, "partitions", named(topic, partition(0, 5), partition(2, 0), partition(-1, 0)))
    fetch(t, "topic", other("no-such-topic", uuid.UUID(int=77)))
    fetch(t, "known and unknown topic", named(topic, partition(0, 5)), other("no-such-topic", uuid.UUID(int=77)))
    fetch(t, "invalid name", other("a/b", uuid.UUID(int=78)))
    fetch(t, "empty name, zero id", other("", wire.NO_ID))
    fetch(t, "nothing")
    fetch(t, "no partitions", named(topic))


@scenario("Fetch", "4-12")
def long_names(t):
    """Topics have at most 249 characters, strings on the wire 32,767 bytes, also where their length is a varint."""
    ask = lambda size: fetch(t, f"{size} characters", {"Topic": "x" * size, "Partitions": [partition(0, 0), partition(1, 0)]})
    ask(249)
    ask(250)
    ask(1000)
    if t.version >= 12:
        ask(32_768)


@scenario("Fetch")
def duplicates(t):
    topic = three_batches(t)
    fetch(t, "partition twice", named(topic, partition(0, 5), partition(0, 5)))
    fetch(t, "topic twice", named(topic, partition(0, 5)), named(topic, partition(1, 0)))


@scenario("Fetch")
def limits(t):
    topic = three_batches(t)
    for size in (0, 1, 90, 200, 10_000, -1):
        fetch(t, f"max bytes {size}", named(topic, partition(0, 0)), MaxBytes=size)
        fetch(t, f"partition max bytes {size}", named(topic, partition(0, 0, size)))
    fetch(t, "two partitions, little room", named(topic, partition(0, 3, 1), partition(1, 0, 1)), MaxBytes=1)


@scenario("Fetch")
def limits_of_two_full_partitions(t):
    topic = t.topic(partitions=2)
    for index in (0, 1):
        t.produce(topic, index, t.batch(2))
        t.produce(topic, index, t.batch(2, at=5))
    for size in (1, 150, 300, 500):
        fetch(t, f"max bytes {size}", named(topic, partition(0, 0), partition(1, 0)), MaxBytes=size)
        fetch(t, f"partition max bytes {size}", named(topic, partition(0, 0, size), partition(1, 0, size)))
    fetch(t, "first at its end", named(topic, partition(0, 4, 1), partition(1, 0, 1)), MaxBytes=1)


@scenario("Fetch")
def waits(t):
    topic = three_batches(t)
    fetch(t, "no data, 20 ms", named(topic, partition(1, 0)), MaxWaitMs=20, MinBytes=1)
    fetch(t, "not enough data, 20 ms", named(topic, partition(0, 5)), MaxWaitMs=20, MinBytes=10_000)
    fetch(t, "enough data, long wait", named(topic, partition(0, 5)), MaxWaitMs=60_000, MinBytes=10)
    fetch(t, "an error does not wait", named(topic, partition(0, 100)), MaxWaitMs=60_000, MinBytes=10)
    fetch(t, "negative wait", named(topic, partition(1, 0)), MaxWaitMs=-1, MinBytes=1)
    fetch(t, "negative minimum", named(topic, partition(1, 0)), MaxWaitMs=60_000, MinBytes=-1)
    fetch(t, "nothing asked", MaxWaitMs=60_000, MinBytes=1)


@scenario("Fetch", "9+")
def leader_epochs(t):
    topic = three_batches(t)
    for epoch in (-1, 0, 1, 5, -2):
        fetch(t, f"current {epoch}", named(topic, partition(0, 5, CurrentLeaderEpoch=epoch)))


@scenario("Fetch", "12+")
def last_fetched_epochs(t):
    topic = three_batches(t)
    for epoch in (-1, 0, 1, 5, -2):
        for offset in (0, 5, 6, 100):
            fetch(t, f"last fetched {epoch} from {offset}", named(topic, partition(0, offset, CurrentLeaderEpoch=0, LastFetchedEpoch=epoch)))


@scenario("Fetch")
def isolation(t):
    topic = three_batches(t)
    for level in (0, 1, 2, -1):
        fetch(t, f"level {level}", named(topic, partition(0, 5)), IsolationLevel=level)
        fetch(t, f"level {level} of nothing", named(topic, partition(1, 0)), IsolationLevel=level)


@scenario("Fetch")
def compression(t):
    topic = t.topic()
    for codec in (1, 2, 3, 4):
        t.produce(topic, 0, t.batch(2, at=codec * 10, compression=codec))
    fetch(t, "all", named(topic, partition(0, 0)))
    fetch(t, "within a batch", named(topic, partition(0, 3)))
    fetch(t, "the zstd one", named(topic, partition(0, 6)))


@scenario("Fetch")
def zstd_topic(t):
    topic = t.topic(compression_type="zstd")
    t.produce(topic, 0, t.batch(2, compression=4))
    fetch(t, "all", named(topic, partition(0, 0)))


@scenario("Fetch", "4-14")
def replica_ids(t):
    topic = three_batches(t)
    for replica in (-2, 7):
        fetch(t, f"replica {replica}", named(topic, partition(0, 5)), ReplicaId=replica)


@scenario("Fetch", "15+")
def replica_states(t):
    topic = three_batches(t)
    fetch(t, "consumer", named(topic, partition(0, 5)), ReplicaState={"ReplicaId": -1, "ReplicaEpoch": -1})
    fetch(t, "stranger", named(topic, partition(0, 5)), ReplicaState={"ReplicaId": 7, "ReplicaEpoch": 1})


@scenario("Fetch", "11+")
def racks(t):
    topic = three_batches(t)
    fetch(t, "some rack", named(topic, partition(0, 5)), RackId="somewhere")


@scenario("Fetch", "12+")
def cluster_ids(t):
    topic = three_batches(t)
    fetch(t, "another cluster", named(topic, partition(0, 5)), ClusterId="another")


# ---- sessions


def forgotten(topic, *partitions):
    return {"Topic": topic.name, "TopicId": topic.id, "Partitions": list(partitions)}


@scenario("Fetch", "7+")
def sessions(t):
    topic = t.topic(partitions=3)
    t.produce(topic, 0, t.batch(2))
    answer = fetch(t, "full", named(topic, partition(0, 0), partition(1, 0)), SessionEpoch=0)
    session = answer["SessionId"]
    ask = lambda label, epoch, *topics, **fields: fetch(t, label, *topics, SessionId=session, SessionEpoch=epoch, **fields)
    ask("incremental, offset moved", 1, named(topic, partition(0, 2)))
    ask("nothing new", 2)
    t.produce(topic, 1, t.batch(1))
    ask("one has data", 3)
    ask("it is still there", 4)
    ask("offset moved", 5, named(topic, partition(1, 1)))
    t.produce(topic, 2, t.batch(1))
    ask("one added", 6, named(topic, partition(2, 0)))
    ask("one forgotten", 7, ForgottenTopicsData=[forgotten(topic, 2)])
    t.produce(topic, 2, t.batch(1))
    ask("forgotten ones are silent", 8)
    ask("out of range shows", 9, named(topic, partition(0, 100)))
    ask("and shows again", 10)
    ask("back in range", 11, named(topic, partition(0, 2)))
    ask("unknown partition", 12, named(topic, partition(9, 0)))
    ask("still unknown", 13)
    ask("forgetting what is not there", 14, ForgottenTopicsData=[forgotten(topic, 77)])
    ask("wrong epoch", 77)
    ask("the right one is still right", 15)
    ask("closed", -1, named(topic, partition(0, 0)))
    ask("gone", 16)


@scenario("Fetch", "7+")
def session_errors(t):
    topic = three_batches(t)
    fetch(t, "no such session", named(topic, partition(0, 5)), SessionId=123456789, SessionEpoch=1)
    fetch(t, "no session, epoch 1", named(topic, partition(0, 5)), SessionId=0, SessionEpoch=1)
    fetch(t, "no such session, closing", named(topic, partition(0, 5)), SessionId=123456789, SessionEpoch=-1)
    fetch(t, "negative epoch", named(topic, partition(0, 5)), SessionId=0, SessionEpoch=-2)
    session = fetch(t, "full", named(topic, partition(0, 5)), SessionEpoch=0)["SessionId"]
    again = fetch(t, "full again from the session", named(topic, partition(0, 5)), SessionId=session, SessionEpoch=0)["SessionId"]
    t.note("another session", again != session)
    fetch(t, "old one", SessionId=session, SessionEpoch=1)
    fetch(t, "new one", SessionId=again, SessionEpoch=1)


@scenario("Fetch", "7+")
def session_of_nothing(t):
    fetch(t, "full of nothing", SessionEpoch=0)


@scenario("Fetch", "7+")
def session_with_unknown_topic(t):
    topic = three_batches(t)
    answer = fetch(t, "full", named(topic, partition(1, 0)), {"Topic": f"{t.prefix}-later", "TopicId": uuid.UUID(int=77), "Partitions": [
        partition(0, 0)]}, SessionEpoch=0)
    if answer["SessionId"]:
        fetch(t, "incremental", SessionId=answer["SessionId"], SessionEpoch=1)


@scenario("Fetch", "7+")
def session_of_a_deleted_topic(t):
    topic = t.topic()
    session = fetch(t, "full", named(topic, partition(0, 0)), SessionEpoch=0)["SessionId"]
    t.broker.setup.request("DeleteTopics", 5, TopicNames=[topic.name], TimeoutMs=10000)
    t.until("deleted", lambda: t.id_of(topic.name) == wire.NO_ID)
    fetch(t, "incremental", SessionId=session, SessionEpoch=1)


@scenario("Fetch", "7-12")
def session_from_names_to_ids(t):
    """A session made with names is asked on with ids."""
    topic = three_batches(t)
    session = fetch(t, "full", named(topic, partition(1, 0)), SessionEpoch=0)["SessionId"]
    t.look("with ids", "Fetch", 13, ReplicaId=-1, MaxWaitMs=0, MinBytes=0, SessionId=session, SessionEpoch=1, Topics=[])
