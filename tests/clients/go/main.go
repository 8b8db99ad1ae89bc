// Go's clients under the matrix's command line: `clients LIBRARY COMMAND BOOTSTRAP JOB`, see ../README.md.
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A reader gives up after this long without one record.
const stall = 30 * time.Second

type header struct {
	name  string
	value []byte
}

// record is one record; a nil key, value or header value is null.
type record struct {
	partition int32
	timestamp int64
	key       []byte
	value     []byte
	headers   []header
}

type topic struct {
	name       string
	partitions int
	config     map[string]string
}

type production struct {
	topic      string
	codec      string
	idempotent bool
	// The most records a batch may have; 0: as many as fit.
	batchRecords int
	records      []record
}

type question struct {
	topic     string
	partition int32
	timestamp int64
}

// library is one client. Each method answers for all of its lines.
type library interface {
	createTopics(bootstrap string, topics []topic) error
	produce(bootstrap string, production production) (int, error)
	consume(bootstrap string, wanted []*wanted) error
	listOffsets(bootstrap string, questions []question) error
}

var out = bufio.NewWriter(os.Stdout)
var outLock sync.Mutex

func answer(columns ...any) {
	outLock.Lock()
	defer outLock.Unlock()
	for i, column := range columns {
		if i > 0 {
			out.WriteByte('\t')
		}
		out.WriteString(strings.NewReplacer("\t", " ", "\n", " ").Replace(fmt.Sprint(column)))
	}
	out.WriteByte('\n')
	out.Flush()
}

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
		os.Exit(1)
	}
	return value
}

func number(text string) int64 { return must(strconv.ParseInt(text, 10, 64)) }

// readRecords decodes a records file.
func readRecords(path string) []record {
	data := must(os.ReadFile(path))
	take := func(size int) []byte {
		piece := data[:size:size]
		data = data[size:]
		return piece
	}
	i32 := func() int32 { return int32(binary.BigEndian.Uint32(take(4))) }
	bytes := func() []byte {
		size := i32()
		if size < 0 {
			return nil
		}
		return take(int(size))
	}
	var records []record
	for len(data) > 0 {
		r := record{partition: i32(), timestamp: int64(binary.BigEndian.Uint64(take(8))), key: bytes(), value: bytes()}
		for count := i32(); count > 0; count-- {
			r.headers = append(r.headers, header{string(bytes()), bytes()})
		}
		records = append(records, r)
	}
	return records
}

// wanted is a range of one partition, and the digest of what was read of it. Not for two goroutines at once.
type wanted struct {
	topic          string
	partition      int32
	next, end      int64
	count          int
	withTimestamps bool
	hash           hash.Hash
	dump           *os.File
	buffer         []byte
}

func (w *wanted) done() bool { return w.next >= w.end }

// add takes the next record; anything past the end is ignored, a wrong offset shows in the digest.
func (w *wanted) add(offset int64, r *record) {
	if w.done() {
		return
	}
	timestamp := r.timestamp
	if !w.withTimestamps {
		timestamp = -1
	}
	b := binary.BigEndian.AppendUint64(w.buffer[:0], uint64(offset))
	b = binary.BigEndian.AppendUint64(b, uint64(timestamp))
	put := func(data []byte, null bool) {
		if null {
			b = binary.BigEndian.AppendUint32(b, 0xffffffff)
			return
		}
		b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
		b = append(b, data...)
	}
	put(r.key, r.key == nil)
	put(r.value, r.value == nil)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.headers)))
	for _, h := range r.headers {
		put([]byte(h.name), false)
		put(h.value, h.value == nil)
	}
	w.hash.Write(b)
	if w.dump != nil {
		w.dump.Write(b)
	}
	w.buffer = b
	w.count++
	w.next = offset + 1
}

func lines(path string) [][]string {
	data := must(os.ReadFile(path))
	var rows [][]string
	for _, line := range strings.Split(string(data), "\n") {
		if line != "" {
			rows = append(rows, strings.Split(line, "\t"))
		}
	}
	return rows
}

func config(column string) map[string]string {
	pairs := map[string]string{}
	for _, pair := range strings.Split(column, ",") {
		if key, value, found := strings.Cut(pair, "="); found {
			pairs[key] = value
		}
	}
	return pairs
}

func main() {
	if len(os.Args) != 5 {
		must(0, fmt.Errorf("usage: clients franz-go|sarama|kafka-go COMMAND BOOTSTRAP JOB"))
	}
	client, found := map[string]library{"franz-go": franz{}, "sarama": saramaClient{}, "kafka-go": kafkaGo{}}[os.Args[1]]
	if !found {
		must(0, fmt.Errorf("no library %s", os.Args[1]))
	}
	bootstrap, rows := os.Args[3], lines(os.Args[4])
	switch os.Args[2] {
	case "create-topics":
		var topics []topic
		for _, row := range rows {
			topics = append(topics, topic{row[0], int(number(row[1])), config(row[2])})
		}
		must(0, client.createTopics(bootstrap, topics))
	case "produce":
		for _, row := range rows {
			production := production{row[0], row[1], row[2] == "1", int(number(row[3])), readRecords(row[5])}
			if acknowledged, err := client.produce(bootstrap, production); err != nil {
				answer("error", row[0], err)
			} else {
				answer("ok", row[0], acknowledged)
			}
		}
	case "consume":
		var all []*wanted
		for _, row := range rows {
			w := &wanted{topic: row[0], partition: int32(number(row[1])), next: number(row[2]), end: number(row[3]), withTimestamps: row[4] == "1", hash: sha256.New()}
			if row[5] != "-" {
				w.dump = must(os.Create(row[5]))
			}
			all = append(all, w)
		}
		if err := client.consume(bootstrap, all); err != nil {
			fmt.Fprintln(os.Stderr, "clients:", err)
		}
		for _, w := range all {
			if w.done() {
				answer("ok", w.topic, w.partition, w.count, hex.EncodeToString(w.hash.Sum(nil)))
			} else {
				answer("error", w.topic, w.partition, fmt.Sprintf("stopped at offset %d of %d", w.next, w.end))
			}
		}
	case "list-offsets":
		var questions []question
		for _, row := range rows {
			questions = append(questions, question{row[0], int32(number(row[1])), number(row[2])})
		}
		must(0, client.listOffsets(bootstrap, questions))
	default:
		must(0, fmt.Errorf("unknown command %s", os.Args[2]))
	}
}
