"""confluent-kafka: the newest librdkafka, from the wheel."""

import sys

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from client import Stall, answer, main


def create_topics(bootstrap, topics):
    admin = AdminClient({"bootstrap.servers": bootstrap})
    new = [NewTopic(topic, partitions, 1, config=config) for topic, partitions, config in topics]
    for topic, future in admin.create_topics(new, operation_timeout=30).items():
        try:
            future.result(30)
            answer("ok", topic)
        except Exception as error:
            answer("error", topic, error)


def produce(bootstrap, topic, codec, idempotent, batch_records, records):
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "compression.type": codec,
            "enable.idempotence": idempotent,
            "acks": "all",
            "batch.num.messages": batch_records or 1_000_000,
            "batch.size": 16 << 20,
            "message.max.bytes": 16 << 20,
            "linger.ms": 5 if batch_records else 60_000,  # flush() ends it
            "message.timeout.ms": 120_000,
        }
    )
    failures, acknowledged = [], 0

    def delivered(error, _message):
        nonlocal acknowledged
        if error:
            failures.append(error)
        else:
            acknowledged += 1

    # Records produced before the library knows the topic are queued apart and moved over in pieces.
    producer.list_topics(topic, 30)
    for partition, timestamp, key, value, headers in records:
        producer.produce(
            topic, value, key, partition, on_delivery=delivered, timestamp=timestamp, headers=headers or None
        )
    producer.flush(60)
    if failures:
        raise KafkaException(failures[0])
    return acknowledged


def _consumer(bootstrap):
    # The library wants a group id; nothing here joins, subscribes or commits.
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "unused",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "check.crcs": True,
            "fetch.wait.max.ms": 100,
        }
    )


def consume(bootstrap, wanted):
    consumer = _consumer(bootstrap)
    consumer.assign([TopicPartition(each.topic, each.partition, each.next) for each in wanted.values()])
    left, stall = {key for key, each in wanted.items() if not each.done()}, Stall()
    while left and not stall.over():
        for message in consumer.consume(5000, 0.2):
            if message.error():
                print(message.error(), file=sys.stderr)
                continue
            stall.progress()
            key = message.topic(), message.partition()
            each = wanted[key]
            each.add(message.offset(), message.timestamp()[1], message.key(), message.value(), message.headers())
            if each.done():
                left.discard(key)
    consumer.close()


def list_offsets(bootstrap, questions):
    consumer = _consumer(bootstrap)
    for topic, partition, timestamp in questions:
        try:
            if timestamp < 0:
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), 30)
                offset = low if timestamp == -2 else high
            else:
                (found,) = consumer.offsets_for_times([TopicPartition(topic, partition, timestamp)], 30)
                offset = found.offset
            answer("ok", topic, partition, timestamp, offset)
        except Exception as error:
            answer("error", topic, partition, timestamp, error)
    consumer.close()


main(create_topics, produce, consume, list_offsets)
