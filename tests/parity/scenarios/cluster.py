"""ApiVersions, DescribeCluster, DescribeLogDirs, FindCoordinator."""
import wire
from engine import scenario
from scenarios.shared import three_batches


def api_versions(t, label, ask):
    """The table itself is compared key by key, for the keys the broker has: see `the_table`."""
    answer = ask()
    t.note(label, answer if answer is None or isinstance(answer, str) else {**answer, "ApiKeys": "the table" if answer["ApiKeys"] else []})


def asked(t, body, version=None, answer_version=None, **header):
    version = t.version if version is None else version
    answer_version = version if answer_version is None else answer_version
    correlation_id = t.connection.send("ApiVersions", version, body, **header)
    try:
        return wire.decode(wire.APIS["ApiVersions"]["response"], answer_version, t.connection.receive(correlation_id, False))
    except wire.Closed:
        return "closed"


def body_of(t, **fields):
    return wire.encode(wire.APIS["ApiVersions"]["request"], t.version, fields)


GOOD = {"ClientSoftwareName": "parity", "ClientSoftwareVersion": "1.0"}


@scenario("ApiVersions")
def plain(t):
    api_versions(t, "plain", lambda: asked(t, body_of(t, **GOOD)))
    api_versions(t, "again", lambda: asked(t, body_of(t, **GOOD)))
    api_versions(t, "null client id", lambda: asked(t, body_of(t, **GOOD), client_id=None))
    api_versions(t, "empty client id", lambda: asked(t, body_of(t, **GOOD), client_id=""))
    api_versions(t, "bytes after the body", lambda: asked(t, body_of(t, **GOOD) + b"\0\1\2"))


@scenario("ApiVersions")
def the_table(t):
    """Each key that the broker advertises has Kafka's range; keys it lacks are what is not there yet."""
    answer = asked(t, body_of(t, **GOOD))
    t.note("ranges", {str(row["ApiKey"]): [row["MinVersion"], row["MaxVersion"]] for row in answer["ApiKeys"]})


@scenario("ApiVersions", "3+")
def software_names(t):
    for name, version in (("", "1"), ("a", ""), ("a b", "1"), ("-a", "1"), ("a-", "1"), ("a.b-c", "1.2-rc3"), ("ü", "1"), ("a", "1+2"), ("a_b", "1"),
                          ("A9", ".1"), ("a" * 300, "1")):
        api_versions(t, f"{name[:9]!r} {version!r}", lambda: asked(t, body_of(t, ClientSoftwareName=name, ClientSoftwareVersion=version)))


@scenario("ApiVersions", "4+")
def unknown_versions(t):
    for version in (5, 99, 32767, -1):
        for label, body in (("empty body", b""), ("garbage", b"\xff" * 20)):
            answer = asked(t, body, version=version, answer_version=0, flexible=True)
            t.note(f"v{version}, {label}", answer if isinstance(answer, str) else {**answer, "ApiKeys": [
                row for row in answer["ApiKeys"] if row["ApiKey"] == 18]})


@scenario("DescribeCluster")
def _plain(t):
    t.ask("plain")
    t.ask("operations", IncludeClusterAuthorizedOperations=True)
    if t.version >= 1:
        for kind in (1, 2, 0, 3):
            t.ask(f"endpoints {kind}", EndpointType=kind)
    if t.version >= 2:
        t.ask("fenced", IncludeFencedBrokers=True)


@scenario("DescribeLogDirs")
def log_dirs(t):
    topic = three_batches(t)

    def ask(label, topics):
        answer = t.connection.request(t.api, t.version, {"Topics": topics})
        for result in answer["Results"]:
            # Of all partitions only this scenario's: others come and go.
            result["Topics"] = [each for each in result["Topics"] if each["Name"] == topic.name]
        t.note(label, answer)

    of = lambda name, *partitions: {"Topic": name, "Partitions": list(partitions)}
    ask("all", None)
    ask("one", [of(topic.name, 0)])
    ask("both", [of(topic.name, 0, 1)])
    ask("unknown partition", [of(topic.name, 0, 7)])
    ask("unknown topic", [of("no-such-topic", 0)])
    ask("no partitions", [of(topic.name)])
    ask("nothing", [])
    ask("longest name", [of("x" * 249, 0)])
    ask("too long a name", [of("x" * 250, 0)])


@scenario("FindCoordinator")
def coordinators(t):
    def ask(label, kind, *keys):
        fields = {"KeyType": kind, "Key": keys[0]} if t.version < 4 else {"KeyType": kind, "CoordinatorKeys": list(keys)}
        if t.version == 0:
            del fields["KeyType"]
        # The first ask makes Kafka create the topic: only what stays is compared.
        if kind in (0, 1) and keys:
            t.until("coordinator", lambda: t.broker.setup.request("FindCoordinator", 3, KeyType=kind, Key="x")["ErrorCode"] != 15, seconds=30)
        t.ask(label, **fields)
    ask("group", 0, "group")
    ask("empty group", 0, "")
    if t.version >= 1:
        ask("transactional id", 1, "tx")
        ask("empty transactional id", 1, "")
        for kind in (2, 3, -1):
            ask(f"type {kind}", kind, "x")
    if t.version >= 4:
        ask("two", 0, "a", "b")
        ask("none", 0)
        ask("twice", 0, "a", "a")
