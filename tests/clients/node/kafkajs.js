'use strict'
// kafkajs. It has no way to read without a group, so it only writes here.

const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = require('kafkajs')
const { answer, run } = require('./client')

// kafkajs itself has gzip; the others are for a package to add, as its documentation says.
CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
CompressionCodecs[CompressionTypes.LZ4] = () => {
  const lz4 = require('lz4-napi')
  return { compress: encoder => lz4.compressFrame(encoder.buffer), decompress: buffer => lz4.decompressFrame(buffer) }
}
CompressionCodecs[CompressionTypes.ZSTD] = () => {
  const simple = new Promise(resolve => require('zstd-codec').ZstdCodec.run(zstd => resolve(new zstd.Simple())))
  return {
    compress: async encoder => Buffer.from((await simple).compress(encoder.buffer, 3)),
    decompress: async buffer => Buffer.from((await simple).decompress(buffer))
  }
}

const CODECS = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy, lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD }

const connect = bootstrap => new Kafka({ clientId: 'kafkajs', brokers: bootstrap.split(','), logLevel: logLevel.WARN })

async function withAdmin (bootstrap, work) {
  const admin = connect(bootstrap).admin()
  await admin.connect()
  try {
    return await work(admin)
  } finally {
    await admin.disconnect()
  }
}

async function createTopics (bootstrap, topics) {
  await withAdmin(bootstrap, async admin => {
    try {
      await admin.createTopics({
        topics: topics.map(({ topic, partitions, config }) => ({ topic, numPartitions: partitions, replicationFactor: 1, configEntries: config }))
      })
      for (const { topic } of topics) answer('ok', topic)
    } catch (error) {
      for (const { topic } of topics) answer('error', topic, error)
    }
  })
}

/** kafkajs takes headers as an object, a name's several values as an array. */
function headersOf (pairs) {
  const headers = {}
  for (const [name, value] of pairs) {
    headers[name] = name in headers ? [].concat(headers[name], [value]) : value
  }
  return headers
}

async function produce (bootstrap, { topic, codec, idempotent, batchRecords, records }) {
  const producer = connect(bootstrap).producer({ idempotent, maxInFlightRequests: 1, allowAutoTopicCreation: false })
  await producer.connect()
  try {
    const messages = records.map(({ partition, timestamp, key, value, headers }) => ({ partition, timestamp: String(timestamp), key, value, headers: headersOf(headers) }))
    // One send is one batch for each partition in it; its encoder's time grows with the square of a batch
    // (100 k records: two minutes), so large ones are cut.
    const step = batchRecords || 1000
    for (let at = 0; at < messages.length; at += step) {
      await producer.send({ topic, acks: -1, compression: CODECS[codec], messages: messages.slice(at, at + step) })
    }
    return messages.length
  } finally {
    await producer.disconnect()
  }
}

async function listOffsets (bootstrap, questions) {
  // It answers for all partitions of a topic at once, and for "nothing as late" with the log end.
  await withAdmin(bootstrap, async admin => {
    const asked = new Map()
    for (const { topic, partition, timestamp } of questions) {
      try {
        const key = `${topic} ${timestamp}`
        if (!asked.has(key)) {
          asked.set(key, timestamp < 0 ? admin.fetchTopicOffsets(topic) : admin.fetchTopicOffsetsByTimestamp(topic, timestamp))
        }
        const found = (await asked.get(key)).find(each => each.partition === partition)
        answer('ok', topic, partition, timestamp, timestamp === -2 ? found.low : timestamp === -1 ? found.high : found.offset)
      } catch (error) {
        answer('error', topic, partition, timestamp, error)
      }
    }
  })
}

run({ createTopics, produce, consume: () => { throw new Error('kafkajs cannot read without a group') }, listOffsets })
