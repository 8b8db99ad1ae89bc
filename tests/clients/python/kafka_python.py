"""kafka-python: pure Python."""

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from client import Stall, answer, main


def create_topics(bootstrap, topics):
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    for topic, partitions, config in topics:
        try:
            admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=config)])
            answer("ok", topic)
        except Exception as error:
            answer("error", topic, f"{type(error).__name__}: {error}")
    admin.close()


def produce(bootstrap, topic, codec, idempotent, batch_records, records):
    producer = KafkaProducer(
        bootstrap_servers=bootstrap,
        compression_type=None if codec == "none" else codec,
        enable_idempotence=idempotent,
        acks="all",
        batch_size=16 << 20 if not batch_records else 4096,
        max_request_size=16 << 20,
        linger_ms=0 if batch_records else 60_000,  # flush() ends it
    )
    try:
        sent = [
            producer.send(topic, value, key, headers, partition, timestamp_ms=timestamp)
            for partition, timestamp, key, value, headers in records
        ]
        producer.flush(60)
        return len([future.get(30) for future in sent])
    finally:
        producer.close()


def consume(bootstrap, wanted):
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        fetch_max_wait_ms=100,
        max_poll_records=5000,
    )
    partitions = {TopicPartition(each.topic, each.partition): each for each in wanted.values()}
    consumer.assign(list(partitions))
    for partition, each in partitions.items():
        consumer.seek(partition, each.next)
    left, stall = {partition for partition, each in partitions.items() if not each.done()}, Stall()
    while left and not stall.over():
        for partition, messages in consumer.poll(200).items():
            stall.progress()
            each = partitions[partition]
            for message in messages:
                each.add(message.offset, message.timestamp, message.key, message.value, message.headers)
            if each.done():
                left.discard(partition)
    consumer.close()


def list_offsets(bootstrap, questions):
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=None)
    for topic, partition, timestamp in questions:
        which = TopicPartition(topic, partition)
        try:
            if timestamp == -2:
                offset = consumer.beginning_offsets([which])[which]
            elif timestamp == -1:
                offset = consumer.end_offsets([which])[which]
            else:
                found = consumer.offsets_for_times({which: timestamp})[which]
                offset = found.offset if found else -1
            answer("ok", topic, partition, timestamp, offset)
        except Exception as error:
            answer("error", topic, partition, timestamp, f"{type(error).__name__}: {error}")
    consumer.close()


main(create_topics, produce, consume, list_offsets)
