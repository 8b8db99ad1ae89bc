'use strict'
// @confluentinc/kafka-javascript by its callback API, the one that reads without a group.

const { AdminClient, KafkaConsumer, Producer } = require('@confluentinc/kafka-javascript')
const { STALL_MS, answer, run } = require('./client')

const TIMEOUT_MS = 30000

/** Turns a function that ends with a callback into a promise. */
const ask = call => new Promise((resolve, reject) => call((error, result) => error ? reject(error) : resolve(result)))

const connect = client => ask(done => client.connect({}, done))

async function createTopics (bootstrap, topics) {
  const admin = AdminClient.create({ 'bootstrap.servers': bootstrap })
  for (const { topic, partitions, config } of topics) {
    try {
      await ask(done => admin.createTopic(
        { topic, num_partitions: partitions, replication_factor: 1, config: Object.fromEntries(config.map(({ name, value }) => [name, value])) },
        TIMEOUT_MS, done))
      answer('ok', topic)
    } catch (error) {
      answer('error', topic, error)
    }
  }
  admin.disconnect()
}

async function produce (bootstrap, { topic, codec, idempotent, batchRecords, records }) {
  const producer = new Producer({
    'bootstrap.servers': bootstrap,
    'compression.codec': codec,
    'enable.idempotence': idempotent,
    acks: -1,
    'batch.num.messages': batchRecords || 1000000,
    'batch.size': 16 << 20,
    'message.max.bytes': 16 << 20,
    'linger.ms': batchRecords ? 5 : records.length < 10000 ? 50 : 5000, // produce() below does not yield: all are queued by then
    'queue.buffering.max.messages': 1000000,
    'message.timeout.ms': TIMEOUT_MS,
    dr_cb: true
  })
  await connect(producer)
  producer.setPollInterval(20)
  let acknowledged = 0
  await new Promise((resolve, reject) => {
    producer.on('delivery-report', (error) => {
      if (error) reject(error)
      else if (++acknowledged === records.length) resolve()
    })
    for (const { partition, timestamp, key, value, headers } of records) {
      producer.produce(topic, partition, value, key, Number(timestamp), null, headers.map(([name, header]) => ({ [name]: header })))
    }
  })
  await ask(done => producer.disconnect(done))
  return acknowledged
}

// The library wants a group id; nothing here joins, subscribes or commits.
const consumerOf = bootstrap => new KafkaConsumer(
  { 'bootstrap.servers': bootstrap, 'group.id': 'unused', 'enable.auto.commit': false, 'enable.auto.offset.store': false, 'check.crcs': true, 'fetch.wait.max.ms': 100 },
  { 'auto.offset.reset': 'error' })

async function consume (bootstrap, all) {
  const by = new Map(all.map(wanted => [`${wanted.topic} ${wanted.partition}`, wanted]))
  const consumer = consumerOf(bootstrap)
  await connect(consumer)
  consumer.setDefaultConsumeTimeout(200)
  consumer.assign(all.map(({ topic, partition, next }) => ({ topic, partition, offset: next })))
  let left = all.filter(wanted => !wanted.done()).length
  let last = Date.now()
  while (left > 0 && Date.now() - last < STALL_MS) {
    let messages = []
    try {
      messages = await ask(done => consumer.consume(5000, done))
    } catch (error) {
      // The library looks for its group's coordinator although no one joins; where a broker refuses that, the error comes
      // up here, instead of records and never together with them. Reading goes on, or the stall ends it.
      console.error(error)
    }
    for (const message of messages) {
      last = Date.now()
      const wanted = by.get(`${message.topic} ${message.partition}`)
      const was = wanted.done()
      wanted.add(message.offset, message.timestamp, message.key, message.value, (message.headers || []).map(header => Object.entries(header)[0]))
      if (!was && wanted.done()) left--
    }
  }
}

async function listOffsets (bootstrap, questions) {
  const consumer = consumerOf(bootstrap)
  await connect(consumer)
  for (const { topic, partition, timestamp } of questions) {
    try {
      let offset
      if (timestamp < 0) {
        const { lowOffset, highOffset } = await ask(done => consumer.queryWatermarkOffsets(topic, partition, TIMEOUT_MS, done))
        offset = timestamp === -2 ? lowOffset : highOffset
      } else {
        [{ offset }] = await ask(done => consumer.offsetsForTimes([{ topic, partition, offset: timestamp }], TIMEOUT_MS, done))
      }
      answer('ok', topic, partition, timestamp, offset)
    } catch (error) {
      answer('error', topic, partition, timestamp, error)
    }
  }
}

run({ createTopics, produce, consume, listOffsets })
