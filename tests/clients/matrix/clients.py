"""The clients: how each is started, and what it lacks.

A reason here turns a cell into n/a, so it must be the client's own lack, never the broker's.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Client:
    """`command` may name {src} (this directory) and {build} (what install made)."""

    name: str
    language: str
    library: str
    command: tuple
    lacks_writing: dict = field(default_factory=dict)  # case name -> reason
    lacks_reading: dict = field(default_factory=dict)  # case name -> reason
    lacks: dict = field(default_factory=dict)  # create | read | by-time -> reason
    stamps: bool = True  # False: it cannot choose a record's timestamp
    past_end: str = "-1"  # what it answers for a time after the last record: -1, or "end" for the log end


CLIENTS = (
    Client("librdkafka", "c", "Debian's librdkafka 2.0.2", ("{build}/c/client",)),
    Client(
        "kcat", "kcat", "Debian's kcat 1.7.1 on librdkafka 2.0.2", ("python3", "{src}/kcat/client.py"),
        stamps=False,
        lacks_writing={
            "timestamps": "has no option for a record's timestamp",
            "header-bytes": "takes header values as arguments, which hold no NUL",
            "bare": "drops an empty line unless it has a key",
        },
        lacks_reading={"header-bytes": "prints header values as text that ends at a NUL"},
        lacks={"create": "does not create topics"},
    ),
    Client("confluent-kafka", "python", "confluent-kafka 2.16.1 on its librdkafka", ("{build}/python/bin/python", "{src}/python/confluent.py")),
    Client(
        "kafka-python", "python", "kafka-python 3.0.12", ("{build}/python/bin/python", "{src}/python/kafka_python.py"),
        lacks_writing={
            "bare": "refuses a record without key and value",
            "header-null": "refuses a header value that is not bytes",
        },
    ),
    Client(
        "aiokafka", "python", "aiokafka 0.14.0",
        ("{build}/python/bin/python", "{src}/python/aiokafka_client.py"),
        lacks_writing={"bare": "refuses a record without key and value"},
    ),
    Client("java-4", "java", "kafka-clients 4.4.0", ("java", "-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", "{build}/java/4/classes:{build}/java/4/lib/*", "Client")),
    Client("java-2", "java", "kafka-clients 2.8.2", ("java", "-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", "{build}/java/2/classes:{build}/java/2/lib/*", "Client")),
    Client("franz-go", "go", "franz-go 1.22.2", ("{build}/go/clients", "franz-go")),
    Client("sarama", "go", "sarama 1.61.1", ("{build}/go/clients", "sarama")),
    Client(
        "kafka-go", "go", "segmentio kafka-go 0.4.51", ("{build}/go/clients", "kafka-go"),
        lacks_writing={"idempotent": "has no idempotent producer"},
    ),
    Client(
        "kafkajs", "node", "kafkajs 2.2.4", ("node", "{build}/node/kafkajs.js"),
        lacks_writing={
            "header-order": "takes headers as an object, which cannot interleave names",
            "header-null": "its encoder fails on a null header value",
        },
        lacks={"read": "cannot read without a group"},
        past_end="end",
    ),
    Client(
        "confluent-js", "node", "@confluentinc/kafka-javascript 1.10.1", ("node", "{build}/node/confluent.js"),
        lacks_writing={"header-null": "refuses a null header value"},
        lacks_reading={"header-null": "shows a null header value as empty"},
    ),
)
