"""aiokafka: pure Python and asyncio, its record codec in Cython."""

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from client import Stall, answer, main


def create_topics(bootstrap, topics):
    async def run():
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        try:
            new = [NewTopic(topic, partitions, 1, topic_configs=config) for topic, partitions, config in topics]
            result = await admin.create_topics(new)
            for error in result.topic_errors:
                if error[1]:
                    answer("error", error[0], f"error {error[1]} {error[2] if len(error) > 2 else ''}")
                else:
                    answer("ok", error[0])
        finally:
            await admin.close()

    asyncio.run(run())


def produce(bootstrap, topic, codec, idempotent, batch_records, records):
    async def run():
        producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            compression_type=None if codec == "none" else codec,
            enable_idempotence=idempotent,
            acks="all",
            max_batch_size=16 << 20 if not batch_records else 4096,
            max_request_size=16 << 20,
            linger_ms=20,
        )
        await producer.start()
        try:
            sent = []
            for partition, timestamp, key, value, headers in records:
                sent.append(
                    await producer.send(topic, value, key, partition, timestamp_ms=timestamp, headers=headers)
                )
            await producer.flush()
            return len([await future for future in sent])
        finally:
            await producer.stop()

    return asyncio.run(run())


def consume(bootstrap, wanted):
    async def run():
        consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=100,
        )
        await consumer.start()
        try:
            partitions = {TopicPartition(each.topic, each.partition): each for each in wanted.values()}
            consumer.assign(list(partitions))
            for partition, each in partitions.items():
                consumer.seek(partition, each.next)
            left, stall = {partition for partition, each in partitions.items() if not each.done()}, Stall()
            while left and not stall.over():
                for partition, messages in (await consumer.getmany(timeout_ms=200)).items():
                    stall.progress()
                    each = partitions[partition]
                    for message in messages:
                        each.add(message.offset, message.timestamp, message.key, message.value, message.headers)
                    if each.done():
                        left.discard(partition)
        finally:
            await consumer.stop()

    asyncio.run(run())


def list_offsets(bootstrap, questions):
    async def run():
        consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=None)
        await consumer.start()
        try:
            for topic, partition, timestamp in questions:
                which = TopicPartition(topic, partition)
                try:
                    if timestamp == -2:
                        offset = (await consumer.beginning_offsets([which]))[which]
                    elif timestamp == -1:
                        offset = (await consumer.end_offsets([which]))[which]
                    else:
                        found = (await consumer.offsets_for_times({which: timestamp}))[which]
                        offset = found.offset if found else -1
                    answer("ok", topic, partition, timestamp, offset)
                except Exception as error:
                    answer("error", topic, partition, timestamp, error)
        finally:
            await consumer.stop()

    asyncio.run(run())


main(create_topics, produce, consume, list_offsets)
