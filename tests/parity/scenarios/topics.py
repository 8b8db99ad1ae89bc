"""Metadata, CreateTopics, DeleteTopics, CreatePartitions, DescribeTopicPartitions."""
import uuid

import wire
from engine import scenario
from scenarios.shared import three_batches

LONG = "x" * 250
INVALID_NAMES = ("", ".", "..", "a/b", "a b", "ü", LONG)


def metadata(t, label, *names, **fields):
    return t.ask(label, Topics=[{"Name": name} for name in names], **{"AllowAutoTopicCreation": False, **fields})


def only_ours(t, label, **fields):
    """All topics; only this scenario's are compared, because others come and go."""
    answer = t.connection.request(t.api, t.version, fields)
    answer["Topics"] = [topic for topic in answer["Topics"] if topic["Name"].startswith(t.prefix)]
    t.note(label, answer)


@scenario("Metadata")
def known(t):
    a, b = t.topic("a", partitions=3), t.topic("b")
    metadata(t, "one", a.name)
    metadata(t, "two", a.name, b.name)
    metadata(t, "twice", a.name, a.name)


@scenario("Metadata")
def all_topics(t):
    t.topic("a", partitions=2)
    t.topic("b")
    only_ours(t, "all", Topics=[] if t.version == 0 else None)


@scenario("Metadata", "1+")
def no_topics(t):
    metadata(t, "none")


@scenario("Metadata", "4+")
def unknown_topics(t):
    topic = three_batches(t)
    metadata(t, "one", "no-such-topic")
    metadata(t, "mixed", topic.name, "no-such-topic", "no-such-topic-either")
    for name in INVALID_NAMES:
        metadata(t, f"name {name[:9]!r}", name)


@scenario("Metadata")
def auto_creation(t):
    name = f"{t.prefix}-auto"
    answer = metadata(t, "first", name, AllowAutoTopicCreation=True)
    t.until("created", lambda: t.id_of(name) != wire.NO_ID)
    t.ready(name, 1)
    metadata(t, "then", name, AllowAutoTopicCreation=True)


@scenario("Metadata")
def auto_creation_of_invalid_names(t):
    for name in INVALID_NAMES:
        metadata(t, f"name {name[:9]!r}", name, AllowAutoTopicCreation=True)


@scenario("Metadata")
def auto_creation_of_colliding_names(t):
    t.topic("a.b")
    metadata(t, "collides", f"{t.prefix}-a_b", AllowAutoTopicCreation=True)


@scenario("Metadata", "10+")
def by_id(t):
    topic = t.topic()
    ask = lambda label, *topics: t.ask(label, Topics=list(topics), AllowAutoTopicCreation=False)
    ask("known", {"TopicId": topic.id, "Name": None})
    ask("unknown", {"TopicId": uuid.UUID(int=77), "Name": None})
    ask("known and unknown", {"TopicId": topic.id, "Name": None}, {"TopicId": uuid.UUID(int=77), "Name": None})
    ask("id and name", {"TopicId": topic.id, "Name": topic.name})
    ask("id and other name", {"TopicId": topic.id, "Name": "no-such-topic"})
    ask("unknown id and name", {"TopicId": uuid.UUID(int=77), "Name": topic.name})
    ask("neither", {"TopicId": wire.NO_ID, "Name": None})
    ask("one by id, one by name", {"TopicId": topic.id, "Name": None}, {"TopicId": wire.NO_ID, "Name": "no-such-topic"})
    ask("twice", {"TopicId": topic.id, "Name": None}, {"TopicId": topic.id, "Name": None})


@scenario("Metadata", "8+")
def authorized_operations(t):
    topic = three_batches(t)
    metadata(t, "topic", topic.name, IncludeTopicAuthorizedOperations=True)
    metadata(t, "unknown topic", "no-such-topic", IncludeTopicAuthorizedOperations=True)
    metadata(t, "cluster", topic.name, IncludeClusterAuthorizedOperations=True)


# ---- CreateTopics


def create(t, label, *topics, **fields):
    answer = t.connection.request(t.api, t.version, {"TimeoutMs": 10000, **fields, "Topics": [new_topic(topic) for topic in topics]})
    for topic in answer["Topics"]:
        if topic.get("TopicId", wire.NO_ID) != wire.NO_ID:
            t.broker.names[topic["TopicId"]] = topic["Name"]
        if topic.get("Configs"):
            # Nearly forty configs a topic: those set and a few others are shown.
            topic["Configs"] = [config for config in topic["Configs"] if config["Name"] in SHOWN_CONFIGS or config["ConfigSource"] != 5]
    t.note(label, answer)
    for topic in answer["Topics"]:
        if topic["ErrorCode"] == 0 and not fields.get("ValidateOnly"):
            # Kafka's controller answers before its broker has applied it.
            t.until("applied", lambda: t.id_of(topic["Name"]) != wire.NO_ID)


SHOWN_CONFIGS = {"cleanup.policy", "retention.ms", "segment.bytes", "min.insync.replicas", "compression.type"}


def new_topic(topic):
    name, partitions, replication, *more = topic
    return {"Name": name, "NumPartitions": partitions, "ReplicationFactor": replication, **(more[0] if more else {})}


def configs(**values):
    return {"Configs": [{"Name": name.replace("_", "."), "Value": value} for name, value in values.items()]}


def described(t, label, *names):
    """What of the names exists now."""
    t.look(label, "Metadata", 9, Topics=[{"Name": name} for name in names], AllowAutoTopicCreation=False)


@scenario("CreateTopics")
def _plain(t):
    a, b = f"{t.prefix}-a", f"{t.prefix}-b"
    create(t, "one", (a, 3, 1))
    create(t, "again", (a, 3, 1))
    create(t, "one new, one old", (a, 1, 1), (b, 2, 1))
    described(t, "then", a, b)


@scenario("CreateTopics")
def defaults(t):
    create(t, "both", (f"{t.prefix}-a", -1, -1))
    create(t, "partitions", (f"{t.prefix}-b", -1, 1))
    create(t, "replication", (f"{t.prefix}-c", 2, -1))
    described(t, "then", f"{t.prefix}-a", f"{t.prefix}-b", f"{t.prefix}-c")


@scenario("CreateTopics")
def numbers_out_of_range(t):
    name = f"{t.prefix}-a"
    for partitions, replication in ((0, 1), (-2, 1), (1, 0), (1, -2), (1, 2), (1, 32767), (0, 0)):
        create(t, f"{partitions} partitions × {replication}", (name, partitions, replication))
    described(t, "then", name)


@scenario("CreateTopics")
def invalid_names(t):
    for name in INVALID_NAMES:
        create(t, f"name {name[:9]!r}", (name, 1, 1))
    create(t, "good and bad", ("a/b", 1, 1), (f"{t.prefix}-good", 1, 1))
    described(t, "then", f"{t.prefix}-good")


@scenario("CreateTopics")
def colliding_names(t):
    create(t, "dot", (f"{t.prefix}-a.b", 1, 1))
    create(t, "underscore", (f"{t.prefix}-a_b", 1, 1))
    create(t, "both at once", (f"{t.prefix}-c.d", 1, 1), (f"{t.prefix}-c_d", 1, 1))


@scenario("CreateTopics")
def duplicate_names(t):
    a, b = f"{t.prefix}-a", f"{t.prefix}-b"
    create(t, "twice", (a, 1, 1), (a, 2, 1), (b, 1, 1))
    described(t, "then", a, b)


@scenario("CreateTopics")
def nothing(t):
    create(t, "nothing")
    create(t, "nothing, validate only", ValidateOnly=True)


@scenario("CreateTopics")
def assignments(t):
    def assigned(*partitions):
        return {"Assignments": [{"PartitionIndex": index, "BrokerIds": list(brokers)} for index, brokers in partitions]}
    name = f"{t.prefix}-a"
    create(t, "unknown broker", (name, -1, -1, assigned((0, [7]))))
    create(t, "known and unknown broker", (name, -1, -1, assigned((0, [1, 7]))))
    create(t, "no broker", (name, -1, -1, assigned((0, []))))
    create(t, "broker twice", (name, -1, -1, assigned((0, [1, 1]))))
    create(t, "negative broker", (name, -1, -1, assigned((0, [-1]))))
    create(t, "gap", (name, -1, -1, assigned((0, [1]), (2, [1]))))
    create(t, "not from zero", (name, -1, -1, assigned((1, [1]))))
    create(t, "partition twice", (name, -1, -1, assigned((0, [1]), (0, [1]))))
    create(t, "and partitions", (name, 2, -1, assigned((0, [1]), (1, [1]))))
    create(t, "and replication", (name, -1, 1, assigned((0, [1]), (1, [1]))))
    create(t, "good", (name, -1, -1, assigned((1, [1]), (0, [1]))))
    described(t, "then", name)


@scenario("CreateTopics")
def with_configs(t):
    a = f"{t.prefix}-a"
    create(t, "good", (a, 1, 1, configs(retention_ms="1000", segment_bytes="2000000", cleanup_policy="delete")))
    t.look("described", "DescribeConfigs", 4, Resources=[
        {"ResourceType": 2, "ResourceName": a, "ConfigurationKeys": ["retention.ms", "segment.bytes", "cleanup.policy", "flush.ms"]}])
    create(t, "twice the same", (f"{t.prefix}-b", 1, 1, {"Configs": [
        {"Name": "retention.ms", "Value": "1"}, {"Name": "retention.ms", "Value": "2"}]}))


@scenario("CreateTopics")
def bad_configs(t):
    name = f"{t.prefix}-a"
    for config, value in (("no.such.config", "1"), ("retention.ms", "abc"), ("retention.ms", ""), ("retention.ms", None),
                          ("retention.ms", "-2"), ("retention.ms", " 5 "), ("retention.ms", "1.5"), ("retention.ms", "9223372036854775808"),
                          ("cleanup.policy", "shred"), ("cleanup.policy", ""), ("cleanup.policy", "delete,delete"),
                          ("segment.bytes", "13"), ("segment.bytes", "2147483648"), ("compression.type", "lzma"), ("compression.type", "GZIP"),
                          ("min.insync.replicas", "0"), ("message.timestamp.type", "Never"), ("preallocate", "maybe"),
                          ("unclean.leader.election.enable", "yes"), ("max.message.bytes", "-1"), ("min.cleanable.dirty.ratio", "2"),
                          ("", "1"), ("message.format.version", "2.0"), ("compression.gzip.level", "10"),
                          ("index.interval.bytes", "-1"), ("flush.messages", "0"), ("file.delete.delay.ms", "-1")):
        create(t, f"{config}={value}", (name, 1, 1, {"Configs": [{"Name": config, "Value": value}]}))
    described(t, "then", name)


@scenario("CreateTopics")
def compacted(t):
    create(t, "compact", (f"{t.prefix}-a", 1, 1, configs(cleanup_policy="compact")))
    create(t, "both", (f"{t.prefix}-b", 1, 1, configs(cleanup_policy="compact,delete")))


@scenario("CreateTopics")
def validate_only(t):
    name = f"{t.prefix}-a"
    create(t, "good", (name, 2, 1), ValidateOnly=True)
    create(t, "bad", (name, 2, 5), ValidateOnly=True)
    create(t, "bad config", (name, 2, 1, configs(retention_ms="x")), ValidateOnly=True)
    described(t, "then", name)


# ---- DeleteTopics


def named(t, *names):
    """The request's list in either form: names up to v5, structs from v6."""
    return {"TopicNames": list(names)} if t.version < 6 else {"Topics": [{"Name": name} for name in names]}


def delete(t, label, **fields):
    answer = t.connection.request(t.api, t.version, {"TimeoutMs": 10000, **fields})
    t.note(label, answer)


def gone(t, name):
    t.until(f"{name} gone", lambda: t.id_of(name) == wire.NO_ID)


@scenario("DeleteTopics")
def _delete_plain(t):
    a, b, c = t.topic("a"), t.topic("b", partitions=3), t.topic("c")
    t.produce(a, 0, t.batch(2))
    delete(t, "one", **named(t, a.name))
    gone(t, a.name)
    described(t, "then", a.name, b.name)
    delete(t, "again", **named(t, a.name))
    delete(t, "two and an unknown one", **named(t, b.name, c.name, "no-such-topic"))
    gone(t, c.name)
    described(t, "at last", a.name, b.name, c.name)


@scenario("DeleteTopics")
def created_again(t):
    topic = t.topic("a")
    t.produce(topic, 0, t.batch(2))
    delete(t, "delete", **named(t, topic.name))
    gone(t, topic.name)
    again = t.topic("a", partitions=2)
    t.note("another id", again.id != topic.id)
    t.look("empty", "ListOffsets", 5, ReplicaId=-1, Topics=[{"Name": again.name, "Partitions": [
        {"PartitionIndex": 0, "Timestamp": -1}, {"PartitionIndex": 1, "Timestamp": -1}]}])


@scenario("DeleteTopics")
def delete_odd_lists(t):
    topic = t.topic("a")
    delete(t, "nothing", **named(t))
    delete(t, "unknown", **named(t, "no-such-topic"))
    for name in INVALID_NAMES:
        delete(t, f"name {name[:9]!r}", **named(t, name))
    delete(t, "twice", **named(t, topic.name, topic.name))
    delete(t, "unknown twice", **named(t, "no-such-topic", "no-such-topic"))


@scenario("DeleteTopics", "6+")
def delete_by_id(t):
    a, b, c = t.topic("a"), t.topic("b"), t.topic("c")
    ask = lambda label, *topics: delete(t, label, Topics=[{"TopicId": id, "Name": name} for id, name in topics])
    ask("unknown", (uuid.UUID(int=77), None))
    ask("neither", (wire.NO_ID, None))
    ask("both", (a.id, a.name))
    ask("id and other name", (a.id, "no-such-topic"))
    ask("twice", (a.id, None), (a.id, None))
    ask("id, and name of the same", (b.id, None), (wire.NO_ID, b.name))
    ask("id and name", (a.id, None), (wire.NO_ID, c.name))
    ask("unknown twice", (uuid.UUID(int=77), None), (uuid.UUID(int=77), None))
    gone(t, c.name)
    described(t, "then", a.name, b.name, c.name)


# ---- CreatePartitions


def grow(t, label, *topics, **fields):
    answer = t.connection.request(t.api, t.version, {"TimeoutMs": 10000, **fields, "Topics": [
        {"Name": name, "Count": count, "Assignments": None if brokers is None else [{"BrokerIds": each} for each in brokers]}
        for name, count, brokers in topics]})
    t.note(label, answer)


@scenario("CreatePartitions")
def _grow_plain(t):
    a, b = t.topic("a"), t.topic("b")
    t.produce(a, 0, t.batch(2))
    grow(t, "one", (a.name, 3, None))
    t.ready(a.name, 3)
    grow(t, "two", (a.name, 4, None), (b.name, 2, None))
    t.ready(a.name, 4)
    t.ready(b.name, 2)
    described(t, "then", a.name, b.name)


@scenario("CreatePartitions")
def counts(t):
    topic = t.topic("a", partitions=3)
    for count in (3, 2, 1, 0, -1, -2**31):
        grow(t, f"to {count}", (topic.name, count, None))
    described(t, "then", topic.name)


@scenario("CreatePartitions")
def _grow_unknown(t):
    topic = t.topic("a")
    grow(t, "nothing")
    grow(t, "unknown", ("no-such-topic", 3, None))
    for name in INVALID_NAMES:
        grow(t, f"name {name[:9]!r}", (name, 3, None))
    grow(t, "twice", (topic.name, 2, None), (topic.name, 3, None))
    described(t, "then", topic.name)


@scenario("CreatePartitions")
def _grow_assigned(t):
    topic = t.topic("a")
    for label, count, brokers in (("unknown broker", 2, [[7]]), ("no broker", 2, [[]]), ("broker twice", 2, [[1, 1]]),
                                  ("negative broker", 2, [[-1]]), ("too few", 3, [[1]]), ("too many", 2, [[1], [1]]), ("none", 2, []),
                                  ("two replicas", 2, [[1, 2]]), ("good", 2, [[1]])):
        grow(t, label, (topic.name, count, brokers))
    t.ready(topic.name, 2)
    described(t, "then", topic.name)


@scenario("CreatePartitions")
def _grow_validate_only(t):
    topic = t.topic("a")
    grow(t, "good", (topic.name, 2, None), ValidateOnly=True)
    grow(t, "bad", (topic.name, 1, None), ValidateOnly=True)
    described(t, "then", topic.name)


# ---- DescribeTopicPartitions


@scenario("DescribeTopicPartitions")
def topics_and_partitions(t):
    a, b = t.topic("a", partitions=3), t.topic("b", partitions=2)
    ask = lambda label, *names, **fields: t.ask(label, Topics=[{"Name": name} for name in names], **fields)
    ask("one", a.name)
    ask("two, not in order", b.name, a.name)
    ask("unknown", "no-such-topic")
    ask("known and unknown", a.name, "no-such-topic")
    ask("twice", a.name, a.name)
    for name in INVALID_NAMES:
        ask(f"name {name[:9]!r}", name)


@scenario("DescribeTopicPartitions")
def pages(t):
    a, b, c = t.topic("a", partitions=3), t.topic("b", partitions=2), t.topic("c")
    names = [{"Name": each.name} for each in (a, b, c)]
    for limit in (1, 2, 3, 4, 5, 6, 7, 0, -1):
        t.ask(f"limit {limit}", Topics=names, ResponsePartitionLimit=limit)
    for label, name, partition in (("start", a.name, 0), ("within", a.name, 2), ("next topic", b.name, 1), ("past the end", b.name, 2),
                                   ("name between", a.name + "-", 0), ("name before", "A", 0), ("name after", "z" * 60, 0),
                                   ("negative", a.name, -1)):
        t.ask(f"cursor {label}", Topics=names, ResponsePartitionLimit=3, Cursor={"TopicName": name, "PartitionIndex": partition})


@scenario("DescribeTopicPartitions")
def every_topic(t):
    t.topic("a")
    answer = t.connection.request(t.api, t.version, Topics=[], ResponsePartitionLimit=2000)
    answer["Topics"] = [topic for topic in answer["Topics"] if topic["Name"].startswith(t.prefix)]
    t.note("all", answer)
