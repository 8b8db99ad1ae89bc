package main

import (
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// saramaClient is sarama, at the protocol version it takes when nothing is said.
type saramaClient struct{}

func addresses(bootstrap string) []string { return strings.Split(bootstrap, ",") }

func (saramaClient) createTopics(bootstrap string, topics []topic) error {
	admin, err := sarama.NewClusterAdmin(addresses(bootstrap), sarama.NewConfig())
	if err != nil {
		return err
	}
	defer admin.Close()
	for _, t := range topics {
		detail := &sarama.TopicDetail{NumPartitions: int32(t.partitions), ReplicationFactor: 1, ConfigEntries: map[string]*string{}}
		for key, value := range t.config {
			detail.ConfigEntries[key] = &value
		}
		if err := admin.CreateTopic(t.name, detail, false); err != nil {
			answer("error", t.name, err)
		} else {
			answer("ok", t.name)
		}
	}
	return nil
}

// encoder keeps null apart from empty.
func encoder(data []byte) sarama.Encoder {
	if data == nil {
		return nil
	}
	return sarama.ByteEncoder(data)
}

func (saramaClient) produce(bootstrap string, p production) (int, error) {
	config := sarama.NewConfig()
	config.Producer.Compression = map[string]sarama.CompressionCodec{
		"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
		"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
	}[p.codec]
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Return.Successes = true
	config.Producer.MaxMessageBytes = 16 << 20
	config.Producer.Flush.Messages, config.Producer.Flush.Frequency = len(p.records), 3*time.Second
	if p.batchRecords > 0 {
		config.Producer.Flush.Messages, config.Producer.Flush.MaxMessages = p.batchRecords, p.batchRecords
		config.Producer.Flush.Frequency = 5 * time.Millisecond
	}
	if p.idempotent {
		config.Producer.Idempotent = true
		config.Net.MaxOpenRequests = 1
	}
	producer, err := sarama.NewSyncProducer(addresses(bootstrap), config)
	if err != nil {
		return 0, err
	}
	defer producer.Close()
	var messages []*sarama.ProducerMessage
	for _, r := range p.records {
		message := &sarama.ProducerMessage{Topic: p.topic, Partition: r.partition, Timestamp: time.UnixMilli(r.timestamp), Key: encoder(r.key), Value: encoder(r.value)}
		for _, h := range r.headers {
			message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(h.name), Value: h.value})
		}
		messages = append(messages, message)
	}
	if err := producer.SendMessages(messages); err != nil {
		if failed, ok := err.(sarama.ProducerErrors); ok && len(failed) > 0 {
			return 0, failed[0].Err
		}
		return 0, err
	}
	return len(messages), nil
}

func (saramaClient) consume(bootstrap string, all []*wanted) error {
	config := sarama.NewConfig()
	config.Consumer.MaxWaitTime = 100 * time.Millisecond
	consumer, err := sarama.NewConsumer(addresses(bootstrap), config)
	if err != nil {
		return err
	}
	var readers sync.WaitGroup
	for _, w := range all {
		if w.done() {
			continue
		}
		partition, err := consumer.ConsumePartition(w.topic, w.partition, w.next)
		if err != nil {
			return err
		}
		readers.Add(1)
		go func() {
			defer readers.Done()
			defer partition.AsyncClose()
			idle := time.NewTimer(stall)
			for !w.done() {
				select {
				case message, open := <-partition.Messages():
					if !open {
						return
					}
					idle.Reset(stall)
					each := record{timestamp: message.Timestamp.UnixMilli(), key: message.Key, value: message.Value}
					for _, h := range message.Headers {
						each.headers = append(each.headers, header{string(h.Key), h.Value})
					}
					w.add(message.Offset, &each)
				case <-idle.C:
					return
				}
			}
		}()
	}
	readers.Wait()
	return nil
}

func (saramaClient) listOffsets(bootstrap string, questions []question) error {
	client, err := sarama.NewClient(addresses(bootstrap), sarama.NewConfig())
	if err != nil {
		return err
	}
	defer client.Close()
	for _, q := range questions {
		offset, err := client.GetOffset(q.topic, q.partition, q.timestamp)
		if err != nil {
			answer("error", q.topic, q.partition, q.timestamp, err)
		} else {
			answer("ok", q.topic, q.partition, q.timestamp, offset)
		}
	}
	return nil
}
