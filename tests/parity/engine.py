"""Runs scenarios against one broker and writes down what it answered, with what may differ between brokers masked.

A scenario is a function for one API; it runs once for each version, on topics of its own, and asks through `t`:
`t.ask(label, Field=…)` is the API under test, `t.look(label, api, version, …)` another one that shows an effect. Everything
asked so is an answer to compare; `t.topic`, `t.produce` and the other helpers set up and are not compared.
"""
import socket
import time
import uuid

import records
import wire

SCENARIOS = []  # (api, name, versions, function)
DAY_MS = 86_400_000
# What tells the elements of a list apart, first that all of them have and that is unique.
IDENTITIES = (("ResourceType", "ResourceName"), ("EntityType", "EntityName"), ("ConfigResource",), ("Name",), ("TopicName",), ("Topic",), ("TopicId",),
              ("PartitionIndex",), ("PartitionId",), ("Partition",), ("Index",), ("ErrorPartitionIndex",), ("ApiKey",), ("NodeId",), ("BrokerId",),
              ("ReplicaId",), ("ResourceName",), ("GroupId",), ("TransactionalId",), ("ProducerId",), ("Key",), ("User",), ("LogDir",))
TEXTS = {"ErrorMessage", "BatchIndexErrorMessage", "Documentation"}


def scenario(api, versions=None):
    """Registers a scenario for these versions, or for all that have a schema; its name is the function's."""
    versions = versions or wire.APIS[api]["request"]["versions"]

    def register(function):
        SCENARIOS.append((api, function.__name__.strip("_"), versions, function))
        return function

    return register


def until(what, condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {seconds} s: {what}")
        time.sleep(0.002)


class Topic:
    def __init__(self, name, id):
        self.name, self.id = name, id


class Run:
    """All scenarios against one broker. Topics have fixed names; those of an earlier run are deleted first."""

    def __init__(self, address):
        self.address = address
        self.names = {}  # topic id -> name
        self.fixtures = {}
        # Client timestamps lie an hour back, so that they are never taken for the broker's own.
        self.t0 = int(time.time() * 1000) - DAY_MS // 24
        self.setup = wire.Connection(address, "parity-setup")
        self.versions = {}
        for row in self.setup.request("ApiVersions", 0)["ApiKeys"]:
            if row["ApiKey"] in wire.BY_KEY:
                self.versions[wire.BY_KEY[row["ApiKey"]]["name"]] = (row["MinVersion"], row["MaxVersion"])

        self.clear()

    def clear(self):
        old = [topic["Name"] for topic in self.setup.request("Metadata", 9, Topics=None)["Topics"] if topic["Name"].startswith("parity-")]
        for start in range(0, len(old), 100):
            self.setup.request("DeleteTopics", 5, TopicNames=old[start:start + 100], TimeoutMs=30000)
        until("topics of an earlier run deleted", lambda: not any(
            topic["Name"].startswith("parity-") for topic in self.setup.request("Metadata", 9, Topics=None)["Topics"]), 30)

    def run(self, wanted=lambda api, version, name: True, progress=lambda text: None):
        """{(api, scenario, version): answers} of all scenarios that `wanted` picks in the versions the broker advertises."""
        results = {}
        for api, name, versions, function in SCENARIOS:
            if api not in self.versions:
                continue
            low, high = self.versions[api]
            started = time.monotonic()
            for version in range(low, high + 1):
                if wire.within(version, versions) and wanted(api, version, name):
                    t = Test(self, api, version, name)
                    try:
                        function(t)
                    except wire.Closed:
                        t.answers.append(["setup", "closed"])
                    except Exception as error:  # the scenario cannot go on with what it was answered: a difference, not our end
                        t.answers.append(["setup", f"{type(error).__name__}: {error}"])
                    t.connection.close()
                    results[api, name, version] = t.answers
            progress(f"{api} {name} {time.monotonic() - started:.1f} s")
        return results


class Test:
    """One scenario in one version: `t`."""

    def __init__(self, run, api, version, name):
        self.broker, self.api, self.version, self.answers = run, api, version, []
        self.prefix = f"parity-{api}-{version}-{name.replace('_', '-')}"
        self.connection = wire.Connection(run.address)
        self.t0 = run.t0
        self.producer_ids = {}

    # ---- what is compared

    def ask(self, label, timeout=10, **fields):
        return self.look(label, self.api, self.version, timeout, **fields)

    def look(self, label, api, version, timeout=10, **fields):
        """Asks, notes the masked answer, and returns the answer as it came (None: closed or silent)."""
        try:
            self.connection.timeout = timeout
            answer = self.connection.request(api, version, fields)
        except wire.Closed:
            self.answers.append([label, "closed"])
            return None
        except socket.timeout:
            self.connection.close()
            self.answers.append([label, "no answer"])
            return None
        self.answers.append([label, self.masked(answer)])
        return answer

    def note(self, label, value):
        self.answers.append([label, self.masked(value)])

    def ask_bytes(self, label, body, version=None, answer_version=None, **header):
        """Sends a body as it stands, under this API's header, and decodes the answer as `answer_version`."""
        version = self.version if version is None else version
        answer_version = version if answer_version is None else answer_version
        response = wire.APIS[self.api]["response"]
        flexible = wire.within(answer_version, response["flexible"]) and self.api != "ApiVersions"
        correlation_id = self.connection.send(self.api, version, body, **header)
        try:
            answer = wire.decode(response, answer_version, self.connection.receive(correlation_id, flexible))
        except wire.Closed:
            self.answers.append([label, "closed"])
            return None
        self.answers.append([label, self.masked(answer)])
        return answer

    def ask_silently(self, label, **fields):
        """For requests without an answer: says whether the next request on the connection is answered, or it was closed."""
        self.connection.send(self.api, self.version, wire.encode(wire.APIS[self.api]["request"], self.version, fields))
        try:
            self.connection.request("ApiVersions", 0)
            self.answers.append([label, "silent"])
        except wire.Closed:
            self.answers.append([label, "closed"])

    # ---- setting up

    def topic(self, suffix="t", partitions=1, **configs):
        """A topic of this scenario's own, ready to be written to."""
        return self.create(f"{self.prefix}-{suffix}", partitions, configs)

    def fixture(self, name, make):
        """A topic that scenarios share because they only read it; `make(t, topic)` fills it."""
        if name not in self.broker.fixtures:
            topic = self.create(f"parity-fixture-{name}", 2, {})
            self.broker.fixtures[name] = topic
            make(self, topic)
        return self.broker.fixtures[name]

    def create(self, name, partitions, configs):
        configs = [{"Name": key.replace("_", "."), "Value": value} for key, value in configs.items()]
        answer = self.broker.setup.request("CreateTopics", 7, TimeoutMs=10000, Topics=[
            {"Name": name, "NumPartitions": partitions, "ReplicationFactor": 1, "Configs": configs}])["Topics"][0]
        if answer["ErrorCode"]:
            raise RuntimeError(f"cannot create {name}: {answer['ErrorCode']} {answer['ErrorMessage']}")
        self.broker.names[answer["TopicId"]] = name
        self.ready(name, partitions)
        return Topic(name, answer["TopicId"])

    def ready(self, name, partitions):
        """Waits until every partition answers: metadata first knows a topic, the log follows."""
        self.until(f"{name} ready", lambda: [
            partition["ErrorCode"] for partition in self.broker.setup.request("ListOffsets", 5, ReplicaId=-1, Topics=[
                {"Name": name, "Partitions": [{"PartitionIndex": n, "Timestamp": -1} for n in range(partitions)]}
            ])["Topics"][0]["Partitions"]] == [0] * partitions)

    until = staticmethod(lambda what, condition, seconds=10: until(what, condition, seconds))

    def settled(self, ask, quiet_seconds=0.05):
        """The answer of `ask` once it has stayed the same for a while: the controller answers before the broker has applied."""
        answer, since = ask(), time.monotonic()
        while time.monotonic() - since < quiet_seconds:
            time.sleep(0.01)
            again = ask()
            if again != answer:
                answer, since = again, time.monotonic()
        return answer

    def id_of(self, name):
        """The id of a topic that a request created, noted for masking."""
        topic = self.broker.setup.request("Metadata", 12, Topics=[{"Name": name}], AllowAutoTopicCreation=False)["Topics"][0]
        if topic["TopicId"] != wire.NO_ID:
            self.broker.names[topic["TopicId"]] = name
        return topic["TopicId"]

    def batch(self, count=1, at=0, **bent):
        """A record batch whose first timestamp is t0 + at."""
        return records.batch(self.t0 + at, count, **bent)

    def produce(self, topic, partition, data, acks=-1):
        answer = self.broker.setup.request("Produce", 9, Acks=acks, TimeoutMs=10000, TopicData=[
            {"Name": topic.name, "PartitionData": [{"Index": partition, "Records": data}]}])
        answer = answer["Responses"][0]["PartitionResponses"][0]
        if answer["ErrorCode"]:
            raise RuntimeError(f"cannot produce to {topic.name}: {answer['ErrorCode']}")
        return answer["BaseOffset"]

    # ---- masking

    def masked(self, value, field=""):
        if isinstance(value, dict):
            return {key: self.masked(each, key) for key, each in value.items() if not (key == "ThrottleTimeMs" and each == 0)}
        if isinstance(value, list):
            return self.masked_list([self.masked(each, field) for each in value], value)
        if isinstance(value, uuid.UUID):
            if value == wire.NO_ID:
                return "no id"
            return f"id of {self.short(self.broker.names[value])}" if value in self.broker.names else "some id"
        if isinstance(value, bytes):
            if field == "Records":
                return records.take_apart(value, lambda time: self.masked_number(time, ""))
            return value.hex()
        if isinstance(value, str):
            return self.masked_text(value, field)
        if isinstance(value, bool) or value is None:
            return value
        return self.masked_number(value, field)

    def masked_list(self, items, raw):
        """Lists of structs become dicts by what identifies their elements: their order says nothing."""
        if not items or not all(isinstance(item, dict) for item in items):
            return items
        for names in IDENTITIES:
            if all(name in item for item in items for name in names):
                # By id or by name, a topic is the same element: so that versions with either have one recorded answer.
                keys = ["/".join(str(item[name]).removeprefix("id of ") for name in names) for item in items]
                if len(set(keys)) == len(keys):
                    for item in items:
                        for name in names:
                            del item[name]
                    return dict(sorted(zip(keys, items)))
        return items

    def masked_text(self, value, field):
        if field in TEXTS and value:
            return "text"
        if field in ("Host", "ClusterId", "LogDir") and value:
            return field
        return self.short(value)

    def short(self, text):
        return text.replace(self.prefix, "~")

    def masked_number(self, value, field):
        if field == "ProducerId" and value >= 0:
            return self.producer_ids.setdefault(value, f"producer {len(self.producer_ids)}")
        if field == "Port" and value > 0 or field in ("TotalBytes", "UsableBytes") and value > 0:
            return field
        if field == "FinalizedFeaturesEpoch" and value > 0:
            return "some epoch"
        if field == "SessionId" and value > 0:
            return "session"
        if abs(value - self.t0) < DAY_MS:
            return f"t0+{value - self.t0}" if value - self.t0 < DAY_MS // 48 else "now"
        return value
