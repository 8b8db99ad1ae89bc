package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// franz is franz-go.
type franz struct{}

func (franz) createTopics(bootstrap string, topics []topic) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap))
	if err != nil {
		return err
	}
	defer client.Close()
	request := kmsg.NewPtrCreateTopicsRequest()
	request.TimeoutMillis = 30_000
	for _, t := range topics {
		each := kmsg.NewCreateTopicsRequestTopic()
		each.Topic, each.NumPartitions, each.ReplicationFactor = t.name, int32(t.partitions), 1
		for key, value := range t.config {
			pair := kmsg.NewCreateTopicsRequestTopicConfig()
			pair.Name, pair.Value = key, &value
			each.Configs = append(each.Configs, pair)
		}
		request.Topics = append(request.Topics, each)
	}
	response, err := request.RequestWith(context.Background(), client)
	if err != nil {
		return err
	}
	for _, t := range response.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			answer("error", t.Topic, err)
		} else {
			answer("ok", t.Topic)
		}
	}
	return nil
}

func (franz) produce(bootstrap string, p production) (int, error) {
	codec := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}[p.codec]
	batchBytes, linger := int32(16<<20), time.Minute // Flush ends it
	if p.batchRecords > 0 {
		// The library counts bytes, not records: this makes many batches.
		batchBytes, linger = 4096, 0
	}
	options := []kgo.Opt{
		kgo.SeedBrokers(bootstrap), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(codec),
		kgo.ProducerBatchMaxBytes(batchBytes), kgo.ProducerLinger(linger), kgo.MaxBufferedRecords(200_000),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordRetries(10), // its delivery timeout would count from the record's timestamp
	}
	if !p.idempotent {
		options = append(options, kgo.DisableIdempotentWrite())
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	var sent sync.WaitGroup
	var lock sync.Mutex
	var failure error
	acknowledged := 0
	sent.Add(len(p.records))
	for _, r := range p.records {
		each := &kgo.Record{Topic: p.topic, Partition: r.partition, Timestamp: time.UnixMilli(r.timestamp), Key: r.key, Value: r.value}
		for _, h := range r.headers {
			each.Headers = append(each.Headers, kgo.RecordHeader{Key: h.name, Value: h.value})
		}
		client.Produce(context.Background(), each, func(_ *kgo.Record, err error) {
			defer sent.Done()
			lock.Lock()
			defer lock.Unlock()
			if err != nil {
				failure = err
			} else {
				acknowledged++
			}
		})
	}
	if err := client.Flush(context.Background()); err != nil {
		return acknowledged, err
	}
	sent.Wait()
	return acknowledged, failure
}

func (franz) consume(bootstrap string, all []*wanted) error {
	type place struct {
		topic     string
		partition int32
	}
	offsets, by, left := map[string]map[int32]kgo.Offset{}, map[place]*wanted{}, 0
	for _, w := range all {
		if offsets[w.topic] == nil {
			offsets[w.topic] = map[int32]kgo.Offset{}
		}
		offsets[w.topic][w.partition] = kgo.NewOffset().At(w.next)
		by[place{w.topic, w.partition}] = w
		if !w.done() {
			left++
		}
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.ConsumePartitions(offsets), kgo.FetchMaxWait(100*time.Millisecond), kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	if err != nil {
		return err
	}
	defer client.Close()
	last := time.Now()
	for left > 0 && time.Since(last) < stall {
		waiting, cancel := context.WithTimeout(context.Background(), time.Second)
		fetches := client.PollFetches(waiting)
		cancel()
		for _, failed := range fetches.Errors() {
			if failed.Err != context.DeadlineExceeded {
				fmt.Fprintf(os.Stderr, "clients: %s-%d: %v\n", failed.Topic, failed.Partition, failed.Err)
			}
		}
		fetches.EachRecord(func(r *kgo.Record) {
			last = time.Now()
			w := by[place{r.Topic, r.Partition}]
			was := w.done()
			each := record{timestamp: r.Timestamp.UnixMilli(), key: r.Key, value: r.Value}
			for _, h := range r.Headers {
				each.headers = append(each.headers, header{h.Key, h.Value})
			}
			w.add(r.Offset, &each)
			if !was && w.done() {
				left--
			}
		})
	}
	return nil
}

func (franz) listOffsets(bootstrap string, questions []question) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap))
	if err != nil {
		return err
	}
	defer client.Close()
	for _, q := range questions {
		request, t, p := kmsg.NewPtrListOffsetsRequest(), kmsg.NewListOffsetsRequestTopic(), kmsg.NewListOffsetsRequestTopicPartition()
		request.ReplicaID = -1
		p.Partition, p.Timestamp = q.partition, q.timestamp
		t.Topic, t.Partitions = q.topic, append(t.Partitions, p)
		request.Topics = append(request.Topics, t)
		response, err := request.RequestWith(context.Background(), client)
		if err == nil {
			err = kerr.ErrorForCode(response.Topics[0].Partitions[0].ErrorCode)
		}
		if err != nil {
			answer("error", q.topic, q.partition, q.timestamp, err)
		} else {
			answer("ok", q.topic, q.partition, q.timestamp, response.Topics[0].Partitions[0].Offset)
		}
	}
	return nil
}
