"""DescribeConfigs, AlterConfigs, IncrementalAlterConfigs, ListConfigResources."""
from engine import scenario

TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP = 2, 4, 8, 16, 32
SET, DELETE, APPEND, SUBTRACT = 0, 1, 2, 3
# What a machine decides, not Kafka.
OF_THE_MACHINE = {
    "advertised.listeners", "controller.listener.names", "controller.quorum.bootstrap.servers", "controller.quorum.voters",
    "inter.broker.listener.name", "listener.security.protocol.map", "listeners", "log.dir", "log.dirs", "metadata.log.dir", "node.id",
    "broker.id", "process.roles", "group.initial.rebalance.delay.ms", "offsets.topic.replication.factor",
    "transaction.state.log.min.isr", "transaction.state.log.replication.factor"}


def describe(t, label, *resources, **fields):
    answer = t.connection.request(t.api, t.version, {**fields, "Resources": [
        {"ResourceType": kind, "ResourceName": name, "ConfigurationKeys": keys} for kind, name, keys in resources]})
    for result in answer["Results"]:
        result["Configs"] = [config for config in result["Configs"] if result["ResourceType"] != BROKER or config["Name"] not in OF_THE_MACHINE]
        for config in result["Configs"]:
            # As one line: thousands of them are recorded.
            config["Synonyms"] = [f"{each['Name']}={each['Value']} ({each['Source']})" for each in config["Synonyms"] or []]
    t.note(label, answer)


@scenario("DescribeConfigs")
def of_topics(t):
    plain, set_ = t.topic("plain"), t.topic("set", retention_ms="5000", cleanup_policy="delete", compression_type="lz4")
    describe(t, "all", (TOPIC, plain.name, None))
    describe(t, "all with synonyms", (TOPIC, set_.name, None), IncludeSynonyms=True)
    describe(t, "some", (TOPIC, set_.name, ["retention.ms", "flush.ms", "no.such.config"]))
    describe(t, "none", (TOPIC, set_.name, []))
    describe(t, "two", (TOPIC, plain.name, ["retention.ms"]), (TOPIC, set_.name, ["retention.ms"]))


@scenario("DescribeConfigs")
def of_the_broker(t):
    some = ["log.retention.ms", "log.retention.hours", "message.max.bytes", "num.partitions", "min.insync.replicas", "broker.rack",
            "auto.create.topics.enable", "compression.type", "log.segment.bytes", "ssl.keystore.password", "no.such.config"]
    describe(t, "some", (BROKER, "1", some), IncludeSynonyms=True)
    describe(t, "some of the default", (BROKER, "", some), IncludeSynonyms=True)
    describe(t, "all of the default", (BROKER, "", None))


@scenario("DescribeConfigs", "4+")
def of_the_broker_all(t):
    describe(t, "all", (BROKER, "1", None), IncludeSynonyms=True)


@scenario("DescribeConfigs", "3+")
def documentation(t):
    topic = t.topic()
    describe(t, "topic", (TOPIC, topic.name, ["retention.ms"]), IncludeDocumentation=True)


@scenario("DescribeConfigs")
def odd_resources(t):
    topic = t.topic()
    describe(t, "unknown topic", (TOPIC, "no-such-topic", None))
    describe(t, "invalid topic", (TOPIC, "a/b", None))
    describe(t, "empty topic", (TOPIC, "", None))
    describe(t, "another broker", (BROKER, "7", ["num.partitions"]))
    describe(t, "broker without number", (BROKER, "one", ["num.partitions"]))
    for kind in (0, 1, 3, 5, 127, -1):
        describe(t, f"type {kind}", (kind, "x", None))
    describe(t, "good and bad", (TOPIC, topic.name, ["retention.ms"]), (TOPIC, "no-such-topic", None), (BROKER, "7", None))
    describe(t, "twice", (TOPIC, topic.name, ["retention.ms"]), (TOPIC, topic.name, ["flush.ms"]))
    describe(t, "nothing")


@scenario("DescribeConfigs")
def of_client_metrics_and_groups(t):
    describe(t, "metrics", (CLIENT_METRICS, "no-such-subscription", None))
    describe(t, "metrics, empty name", (CLIENT_METRICS, "", None))
    describe(t, "group", (GROUP, "no-such-group", None))
    describe(t, "group, empty name", (GROUP, "", None))


@scenario("DescribeConfigs")
def of_loggers(t):
    """Only that there is an answer: loggers are Java's."""
    answer = t.connection.request(t.api, t.version, Resources=[{"ResourceType": BROKER_LOGGER, "ResourceName": "1", "ConfigurationKeys": []}])
    t.note("its own", answer["Results"][0]["ErrorCode"])
    describe(t, "another's", (BROKER_LOGGER, "7", []))


# ---- altering


def effect(t, topic, *names):
    """Waits until the broker has seen what the controller has answered: an answer that does not change for 50 ms."""
    keys = list(names) or ["retention.ms", "segment.bytes", "cleanup.policy", "compression.type", "max.message.bytes"]
    ask = lambda: t.broker.setup.request("DescribeConfigs", 4, Resources=[
        {"ResourceType": TOPIC, "ResourceName": topic.name, "ConfigurationKeys": keys}])["Results"][0]
    settled = t.settled(ask)
    t.note("effect", {"Configs": [{"Name": each["Name"], "Value": each["Value"], "Source": each["ConfigSource"]} for each in settled["Configs"]]})


def alter(t, label, *resources, **fields):
    return t.ask(label, **fields, Resources=[
        {"ResourceType": kind, "ResourceName": name, "Configs": [{"Name": key, "Value": value} for key, value in configs]}
        for kind, name, configs in resources])


@scenario("AlterConfigs")
def replaced(t):
    topic = t.topic(retention_ms="5000", segment_bytes="2000000")
    alter(t, "one of two", (TOPIC, topic.name, [("retention.ms", "6000")]))
    effect(t, topic)
    alter(t, "none", (TOPIC, topic.name, []))
    effect(t, topic)
    alter(t, "null value", (TOPIC, topic.name, [("retention.ms", None)]))
    effect(t, topic)
    alter(t, "validate only", (TOPIC, topic.name, [("retention.ms", "7000")]), ValidateOnly=True)
    effect(t, topic)


BAD_VALUES = [("retention.ms", "abc"), ("retention.ms", ""), ("retention.ms", "-2"), ("no.such.config", "1"), ("", "1"),
              ("cleanup.policy", "shred"), ("segment.bytes", "1"), ("compression.type", "lzma"), ("min.insync.replicas", "0"),
              ("message.timestamp.type", "x"), ("max.message.bytes", "-1"), ("preallocate", "x")]


@scenario("AlterConfigs")
def bad_values(t):
    topic = t.topic(retention_ms="5000")
    for name, value in BAD_VALUES:
        alter(t, f"{name}={value}", (TOPIC, topic.name, [("segment.bytes", "2000000"), (name, value)]))
    alter(t, "twice", (TOPIC, topic.name, [("retention.ms", "1000"), ("retention.ms", "2000")]))
    effect(t, topic)


@scenario("AlterConfigs")
def _odd_resources(t):
    topic = t.topic()
    good = [("retention.ms", "6000")]
    alter(t, "unknown topic", (TOPIC, "no-such-topic", good))
    alter(t, "invalid topic", (TOPIC, "a/b", good))
    alter(t, "empty topic", (TOPIC, "", good))
    for kind in (0, 1, 3, 127, -1):
        alter(t, f"type {kind}", (kind, "x", good))
    alter(t, "another broker", (BROKER, "7", [("log.retention.ms", "6000")]))
    alter(t, "broker without number", (BROKER, "one", [("log.retention.ms", "6000")]))
    alter(t, "good and bad", (TOPIC, topic.name, good), (TOPIC, "no-such-topic", good))
    # Kafka never answers this.
    alter(t, "twice", (TOPIC, topic.name, good), (TOPIC, topic.name, []), timeout=1.5)
    alter(t, "nothing")
    effect(t, topic)


@scenario("AlterConfigs")
def _of_the_broker(t):
    alter(t, "static name", (BROKER, "1", [("num.partitions", "3")]))
    alter(t, "bad value", (BROKER, "1", [("log.retention.ms", "abc")]))
    alter(t, "good, validate only", (BROKER, "1", [("log.retention.ms", "6000")]), ValidateOnly=True)
    alter(t, "default, validate only", (BROKER, "", [("log.retention.ms", "6000")]), ValidateOnly=True)


# ---- incremental


def change(t, label, *resources, **fields):
    return t.ask(label, **fields, Resources=[
        {"ResourceType": kind, "ResourceName": name, "Configs": [
            {"Name": key, "ConfigOperation": operation, "Value": value} for key, operation, value in configs]}
        for kind, name, configs in resources])


@scenario("IncrementalAlterConfigs")
def changed(t):
    topic = t.topic(retention_ms="5000", segment_bytes="2000000")
    steps = (("set", [("retention.ms", SET, "6000")]), ("delete", [("segment.bytes", DELETE, None)]),
             ("delete what is not set", [("segment.bytes", DELETE, None)]), ("delete with a value", [("retention.ms", DELETE, "1")]),
             ("two at once", [("retention.ms", SET, "7000"), ("max.message.bytes", SET, "2000")]),
             ("append to a list", [("cleanup.policy", APPEND, "delete")]), ("subtract all", [("cleanup.policy", SUBTRACT, "delete")]),
             ("subtract what is not there", [("cleanup.policy", SUBTRACT, "compact")]), ("set the list", [("cleanup.policy", SET, "delete")]),
             ("append to a number", [("retention.ms", APPEND, "1")]), ("subtract from a number", [("retention.ms", SUBTRACT, "1")]),
             ("set null", [("retention.ms", SET, None)]), ("append null", [("cleanup.policy", APPEND, None)]),
             ("operation 9", [("retention.ms", 9, "1")]), ("operation -1", [("retention.ms", -1, "1")]),
             ("twice", [("retention.ms", SET, "1000"), ("retention.ms", SET, "2000")]),
             ("set and delete", [("retention.ms", SET, "1000"), ("retention.ms", DELETE, None)]), ("nothing", []))
    for label, configs in steps:
        change(t, label, (TOPIC, topic.name, configs))
        effect(t, topic)


@scenario("IncrementalAlterConfigs")
def throttled_replicas(t):
    """A list config whose default is empty."""
    topic = t.topic()
    change(t, "default", (TOPIC, topic.name, [("leader.replication.throttled.replicas", SET, "")]))
    change(t, "not a list of replicas", (TOPIC, topic.name, [("leader.replication.throttled.replicas", SET, "x")]))


@scenario("IncrementalAlterConfigs")
def _bad_values(t):
    topic = t.topic(retention_ms="5000")
    for name, value in BAD_VALUES:
        change(t, f"{name}={value}", (TOPIC, topic.name, [("segment.bytes", SET, "2000000"), (name, SET, value)]))
    change(t, "delete an unknown one", (TOPIC, topic.name, [("no.such.config", DELETE, None)]))
    change(t, "validate only", (TOPIC, topic.name, [("retention.ms", SET, "7000")]), ValidateOnly=True)
    change(t, "bad, validate only", (TOPIC, topic.name, [("retention.ms", SET, "x")]), ValidateOnly=True)
    effect(t, topic)


@scenario("IncrementalAlterConfigs")
def absent_features(t):
    """What needs a cleaner, a second tier or throttles."""
    topic = t.topic()
    for name, value in (("cleanup.policy", "compact"), ("cleanup.policy", "compact,delete"), ("delete.retention.ms", "5"), ("min.compaction.lag.ms", "5"),
                        ("min.cleanable.dirty.ratio", "0.1"), ("max.compaction.lag.ms", "5"), ("remote.storage.enable", "true"),
                        ("local.retention.ms", "5"), ("leader.replication.throttled.replicas", "*"), ("follower.replication.throttled.replicas", "0:1")):
        change(t, f"{name}={value}", (TOPIC, topic.name, [(name, SET, value)]), ValidateOnly=True)
    for name, value in (("cleanup.policy", "delete"), ("delete.retention.ms", "86400000"), ("min.compaction.lag.ms", "0"),
                        ("min.cleanable.dirty.ratio", "0.5"), ("remote.storage.enable", "false"), ("local.retention.ms", "-2")):
        change(t, f"default {name}", (TOPIC, topic.name, [(name, SET, value)]), ValidateOnly=True)


@scenario("IncrementalAlterConfigs")
def __odd_resources(t):
    topic = t.topic()
    good = [("retention.ms", SET, "6000")]
    change(t, "unknown topic", (TOPIC, "no-such-topic", good))
    change(t, "invalid topic", (TOPIC, "a/b", good))
    change(t, "empty topic", (TOPIC, "", good))
    for kind in (0, 1, 3, 127, -1):
        change(t, f"type {kind}", (kind, "x", good))
    change(t, "another broker", (BROKER, "7", [("log.retention.ms", SET, "6000")]))
    change(t, "broker without number", (BROKER, "one", [("log.retention.ms", SET, "6000")]))
    change(t, "good and bad", (TOPIC, topic.name, good), (TOPIC, "no-such-topic", good))
    change(t, "twice", (TOPIC, topic.name, good), (TOPIC, topic.name, [("retention.ms", SET, "1")]))
    change(t, "nothing")
    effect(t, topic)


@scenario("IncrementalAlterConfigs")
def __of_the_broker(t):
    def source(label, resource, *keys):
        def ask():
            answer = t.broker.setup.request("DescribeConfigs", 4, IncludeSynonyms=True, Resources=[
                {"ResourceType": BROKER, "ResourceName": resource, "ConfigurationKeys": list(keys)}])["Results"][0]
            return [[each["Name"], each["Value"], each["ConfigSource"], [s["Source"] for s in each["Synonyms"]]] for each in answer["Configs"]]
        t.note(label, t.settled(ask))
    change(t, "static name", (BROKER, "1", [("num.partitions", SET, "3")]))
    change(t, "static name of the default", (BROKER, "", [("num.partitions", SET, "3")]))
    change(t, "bad value", (BROKER, "1", [("log.retention.ms", SET, "abc")]))
    change(t, "out of range", (BROKER, "1", [("message.max.bytes", SET, "-5")]))
    change(t, "unknown name", (BROKER, "1", [("no.such.config", DELETE, None)]))
    change(t, "default", (BROKER, "", [("log.segment.bytes", SET, "5000000")]))
    source("then", "1", "log.segment.bytes")
    source("of the default", "", "log.segment.bytes")
    change(t, "this broker", (BROKER, "1", [("log.segment.bytes", SET, "6000000")]))
    source("then", "1", "log.segment.bytes")
    topic = t.topic()
    effect(t, topic, "segment.bytes")
    change(t, "both deleted", (BROKER, "1", [("log.segment.bytes", DELETE, None)]), (BROKER, "", [("log.segment.bytes", DELETE, None)]))
    source("then", "1", "log.segment.bytes")
    change(t, "min.insync.replicas of this broker", (BROKER, "1", [("min.insync.replicas", SET, "2")]))
    change(t, "min.insync.replicas deleted", (BROKER, "", [("min.insync.replicas", DELETE, None)]))


# ---- ListConfigResources


@scenario("ListConfigResources")
def resources(t):
    """Topics come and go: of them only ours is compared."""
    t.topic()
    for label, kinds in (("all", []), ("topics", [TOPIC]), ("brokers", [BROKER]), ("loggers", [BROKER_LOGGER]), ("metrics", [CLIENT_METRICS]),
                         ("groups", [GROUP]), ("unknown type", [77]), ("two", [BROKER, GROUP])):
        answer = t.connection.request(t.api, t.version, ResourceTypes=kinds) if t.version else t.connection.request(t.api, t.version)
        answer["ConfigResources"] = [each for each in answer["ConfigResources"] if each.get("ResourceType", 0) != TOPIC or each["ResourceName"].startswith(t.prefix)]
        t.note(label, answer)
