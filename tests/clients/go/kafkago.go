package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

// kafkaGo is segmentio's kafka-go: its Writer and its Reader, as its users have them.
//
// Reader shows null and empty alike; Client.Fetch, the library's other road and other decoder, tells them apart.
// Ranges below smallRange records, where such data lies, are read by it.
type kafkaGo struct{}

const smallRange = 100

func (kafkaGo) createTopics(bootstrap string, topics []topic) error {
	client := &kafka.Client{Addr: kafka.TCP(bootstrap), Timeout: 30 * time.Second}
	request := &kafka.CreateTopicsRequest{}
	for _, t := range topics {
		each := kafka.TopicConfig{Topic: t.name, NumPartitions: t.partitions, ReplicationFactor: 1}
		for key, value := range t.config {
			each.ConfigEntries = append(each.ConfigEntries, kafka.ConfigEntry{ConfigName: key, ConfigValue: value})
		}
		request.Topics = append(request.Topics, each)
	}
	response, err := client.CreateTopics(context.Background(), request)
	if err != nil {
		return err
	}
	for _, t := range topics {
		if err := response.Errors[t.name]; err != nil {
			answer("error", t.name, err)
		} else {
			answer("ok", t.name)
		}
	}
	return nil
}

func (kafkaGo) produce(bootstrap string, p production) (int, error) {
	// A message's own partition is read-only: WriterData carries it to the balancer.
	writer := &kafka.Writer{
		Addr:         kafka.TCP(bootstrap),
		Topic:        p.topic,
		RequiredAcks: kafka.RequireAll,
		BatchSize:    len(p.records),
		BatchBytes:   16 << 20,
		BatchTimeout: 100 * time.Millisecond,
		Compression:  map[string]kafka.Compression{"gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd}[p.codec],
		Balancer: kafka.BalancerFunc(func(message kafka.Message, _ ...int) int {
			return int(message.WriterData.(int32))
		}),
	}
	defer writer.Close()
	var messages []kafka.Message
	for _, r := range p.records {
		message := kafka.Message{Key: r.key, Value: r.value, Time: time.UnixMilli(r.timestamp), WriterData: r.partition}
		for _, h := range r.headers {
			message.Headers = append(message.Headers, kafka.Header{Key: h.name, Value: h.value})
		}
		messages = append(messages, message)
	}
	if err := writer.WriteMessages(context.Background(), messages...); err != nil {
		return 0, err
	}
	return len(messages), nil
}

func (kafkaGo) consume(bootstrap string, all []*wanted) error {
	// A reader is a connection and reads one partition: a few at a time.
	var readers sync.WaitGroup
	queue := make(chan *wanted)
	for range 8 {
		readers.Add(1)
		go func() {
			defer readers.Done()
			for w := range queue {
				read := kafkaGoReader
				if w.end-w.next < smallRange {
					read = kafkaGoFetch
				}
				if err := read(bootstrap, w); err != nil {
					fmt.Fprintf(os.Stderr, "clients: %s-%d: %v\n", w.topic, w.partition, err)
				}
			}
		}()
	}
	for _, w := range all {
		queue <- w
	}
	close(queue)
	readers.Wait()
	return nil
}

func kafkaGoReader(bootstrap string, w *wanted) error {
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{bootstrap}, Topic: w.topic, Partition: int(w.partition),
		MinBytes: 1, MaxBytes: 32 << 20, MaxWait: 100 * time.Millisecond, QueueCapacity: 1000,
	})
	defer reader.Close()
	if err := reader.SetOffset(w.next); err != nil {
		return err
	}
	for !w.done() {
		waiting, cancel := context.WithTimeout(context.Background(), stall)
		message, err := reader.ReadMessage(waiting)
		cancel()
		if err != nil {
			return err
		}
		each := record{timestamp: message.Time.UnixMilli(), key: message.Key, value: message.Value}
		for _, h := range message.Headers {
			each.headers = append(each.headers, header{h.Key, h.Value})
		}
		w.add(message.Offset, &each)
	}
	return nil
}

func kafkaGoFetch(bootstrap string, w *wanted) error {
	client := &kafka.Client{Addr: kafka.TCP(bootstrap), Timeout: stall}
	for last := time.Now(); !w.done() && time.Since(last) < stall; {
		response, err := client.Fetch(context.Background(), &kafka.FetchRequest{
			Topic: w.topic, Partition: int(w.partition), Offset: w.next, MinBytes: 1, MaxBytes: 32 << 20, MaxWait: 100 * time.Millisecond,
		})
		if err == nil {
			err = response.Error
		}
		if err != nil {
			return err
		}
		for {
			r, err := response.Records.ReadRecord()
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
			key, err := kafka.ReadAll(r.Key)
			if err != nil {
				return err
			}
			value, err := kafka.ReadAll(r.Value)
			if err != nil {
				return err
			}
			if r.Offset < w.next {
				continue // a batch comes whole
			}
			last = time.Now()
			each := record{timestamp: r.Time.UnixMilli(), key: key, value: value}
			for _, h := range r.Headers {
				each.headers = append(each.headers, header{h.Key, h.Value})
			}
			w.add(r.Offset, &each)
		}
	}
	return nil
}

func (kafkaGo) listOffsets(bootstrap string, questions []question) error {
	client := &kafka.Client{Addr: kafka.TCP(bootstrap), Timeout: 30 * time.Second}
	for _, q := range questions {
		offset, err := kafkaGoOffset(client, q)
		if err != nil {
			answer("error", q.topic, q.partition, q.timestamp, err)
		} else {
			answer("ok", q.topic, q.partition, q.timestamp, offset)
		}
	}
	return nil
}

func kafkaGoOffset(client *kafka.Client, q question) (int64, error) {
	response, err := client.ListOffsets(context.Background(), &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{q.topic: {{Partition: int(q.partition), Timestamp: q.timestamp}}},
	})
	if err != nil {
		return 0, err
	}
	found := response.Topics[q.topic][0]
	switch {
	case found.Error != nil:
		return 0, found.Error
	case q.timestamp == kafka.FirstOffset:
		return found.FirstOffset, nil
	case q.timestamp == kafka.LastOffset:
		return found.LastOffset, nil
	}
	for offset := range found.Offsets {
		return offset, nil
	}
	return -1, nil
}
