'use strict'
// The command line shared by the Node clients: `CLIENT COMMAND BOOTSTRAP JOB`, see ../README.md.

const crypto = require('crypto')
const fs = require('fs')

// A reader gives up after this long without one record.
const STALL_MS = 30000

/** The records of a file: { partition, timestamp (BigInt), key, value, headers: [[name, value]] }. */
function readRecords (path) {
  const data = fs.readFileSync(path)
  let position = 0
  const i32 = () => { position += 4; return data.readInt32BE(position - 4) }
  const i64 = () => { position += 8; return data.readBigInt64BE(position - 8) }
  const bytes = () => {
    const size = i32()
    if (size < 0) return null
    position += size
    return data.subarray(position - size, position)
  }
  const records = []
  while (position < data.length) {
    const record = { partition: i32(), timestamp: i64(), key: bytes(), value: bytes(), headers: [] }
    for (let count = i32(); count > 0; count--) record.headers.push([bytes().toString(), bytes()])
    records.push(record)
  }
  return records
}

function i32 (value) {
  const data = Buffer.alloc(4)
  data.writeInt32BE(value)
  return data
}

function i64 (value) {
  const data = Buffer.alloc(8)
  data.writeBigInt64BE(BigInt(value))
  return data
}

/** One line of a consume job: a range of one partition, and the digest of what was read of it. */
class Wanted {
  constructor ([topic, partition, start, end, withTimestamps, dump]) {
    this.topic = topic
    this.partition = Number(partition)
    this.next = Number(start)
    this.end = Number(end)
    this.count = 0
    this.withTimestamps = withTimestamps === '1'
    this.hash = crypto.createHash('sha256')
    this.dump = dump === '-' ? null : fs.openSync(dump, 'w')
  }

  done () { return this.next >= this.end }

  /** Takes the next record; anything past the end is ignored, a wrong offset shows in the digest. */
  add (offset, timestamp, key, value, headers) {
    if (this.done()) return
    const pieces = [i64(offset), i64(this.withTimestamps ? timestamp : -1)]
    const put = data => { data === null || data === undefined ? pieces.push(i32(-1)) : pieces.push(i32(data.length), data) }
    put(key)
    put(value)
    pieces.push(i32(headers.length))
    for (const [name, header] of headers) {
      put(Buffer.from(name))
      put(header)
    }
    const data = Buffer.concat(pieces)
    this.hash.update(data)
    if (this.dump !== null) fs.writeSync(this.dump, data)
    this.count++
    this.next = offset + 1
  }

  answer () {
    if (!this.done()) answer('error', this.topic, this.partition, `stopped at offset ${this.next} of ${this.end}`)
    else answer('ok', this.topic, this.partition, this.count, this.hash.digest('hex'))
  }
}

function answer (...columns) {
  fs.writeSync(1, columns.map(column => String(column).replace(/[\t\n]/g, ' ')).join('\t') + '\n')
}

function configOf (column) {
  return column.split(',').filter(Boolean).map(pair => {
    const at = pair.indexOf('=')
    return { name: pair.slice(0, at), value: pair.slice(at + 1) }
  })
}

/** Runs one command on a client that has createTopics, produce (one line at a time), consume and listOffsets. */
async function main (client) {
  const [command, bootstrap, job] = process.argv.slice(2)
  const lines = fs.readFileSync(job, 'utf8').split('\n').filter(Boolean).map(line => line.split('\t'))
  switch (command) {
    case 'create-topics':
      await client.createTopics(bootstrap, lines.map(([topic, partitions, config]) => ({ topic, partitions: Number(partitions), config: configOf(config) })))
      break
    case 'produce':
      for (const [topic, codec, idempotent, batchRecords, , path] of lines) {
        try {
          answer('ok', topic, await client.produce(bootstrap, { topic, codec, idempotent: idempotent === '1', batchRecords: Number(batchRecords), records: readRecords(path) }))
        } catch (error) {
          answer('error', topic, error)
        }
      }
      break
    case 'consume': {
      const wanted = lines.map(line => new Wanted(line))
      await client.consume(bootstrap, wanted)
      for (const each of wanted) each.answer()
      break
    }
    case 'list-offsets':
      await client.listOffsets(bootstrap, lines.map(([topic, partition, timestamp]) => ({ topic, partition: Number(partition), timestamp: Number(timestamp) })))
      break
    default:
      throw new Error(`unknown command ${command}`)
  }
  process.exit(0)
}

module.exports = {
  STALL_MS,
  answer,
  run: client => main(client).catch(error => {
    console.error(error)
    process.exit(1)
  })
}
