import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.EOFException;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.DigestOutputStream;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Kafka's own client, the same source compiled against 4.x and 2.x: Client COMMAND BOOTSTRAP JOB, see ../README.md. */
public final class Client {
    /** A reader gives up after this long without one record. */
    private static final long STALL_NANOS = 30_000_000_000L;

    private static String bootstrap;

    public static void main(String[] arguments) throws Exception {
        bootstrap = arguments[1];
        List<String[]> lines = new ArrayList<>();
        for (String line : Files.readAllLines(Path.of(arguments[2]))) {
            if (!line.isEmpty()) {
                lines.add(line.split("\t", -1));
            }
        }
        switch (arguments[0]) {
            case "create-topics" -> createTopics(lines);
            case "produce" -> {
                for (String[] line : lines) {
                    try {
                        answer("ok", line[0], produce(line));
                    } catch (Exception error) {
                        answer("error", line[0], error);
                    }
                }
            }
            case "consume" -> consume(lines);
            case "list-offsets" -> listOffsets(lines);
            default -> throw new IllegalArgumentException("unknown command " + arguments[0]);
        }
        System.out.flush();
        System.exit(0);
    }

    private static void answer(Object... columns) {
        StringBuilder line = new StringBuilder();
        for (Object column : columns) {
            line.append(line.length() == 0 ? "" : "\t").append(String.valueOf(column).replace('\t', ' ').replace('\n', ' '));
        }
        System.out.println(line);
    }

    private static Properties settings(Object... pairs) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        for (int i = 0; i < pairs.length; i += 2) {
            settings.put(pairs[i], String.valueOf(pairs[i + 1]));
        }
        return settings;
    }

    private static void createTopics(List<String[]> lines) {
        try (Admin admin = Admin.create(settings())) {
            List<NewTopic> topics = new ArrayList<>();
            for (String[] line : lines) {
                Map<String, String> config = new HashMap<>();
                for (String pair : line[2].split(",")) {
                    if (!pair.isEmpty()) {
                        config.put(pair.substring(0, pair.indexOf('=')), pair.substring(pair.indexOf('=') + 1));
                    }
                }
                topics.add(new NewTopic(line[0], Integer.parseInt(line[1]), (short) 1).configs(config));
            }
            admin.createTopics(topics).values().forEach((topic, created) -> {
                try {
                    created.get();
                    answer("ok", topic);
                } catch (Exception error) {
                    answer("error", topic, error);
                }
            });
        }
    }

    private static byte[] readBytes(DataInputStream in) throws IOException {
        int size = in.readInt();
        return size < 0 ? null : in.readNBytes(size);
    }

    private static int produce(String[] line) throws Exception {
        boolean idempotent = line[2].equals("1");
        boolean small = Integer.parseInt(line[3]) > 0;
        Properties settings = settings(
            "compression.type", line[1],
            "enable.idempotence", idempotent,
            "acks", "all",
            // The library counts a batch's bytes, not its records.
            "batch.size", small ? 4096 : 16 << 20,
            // flush() ends it.
            "linger.ms", small ? 0 : 60_000,
            "buffer.memory", 256 << 20,
            "max.request.size", 16 << 20,
            "delivery.timeout.ms", 120_000);
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
                DataInputStream in = new DataInputStream(new BufferedInputStream(new FileInputStream(line[5])))) {
            while (true) {
                int partition;
                try {
                    partition = in.readInt();
                } catch (EOFException end) {
                    break;
                }
                long timestamp = in.readLong();
                byte[] key = readBytes(in);
                byte[] value = readBytes(in);
                List<Header> headers = new ArrayList<>();
                for (int left = in.readInt(); left > 0; left--) {
                    String name = new String(readBytes(in), StandardCharsets.UTF_8);
                    headers.add(new RecordHeader(name, readBytes(in)));
                }
                sent.add(producer.send(new ProducerRecord<>(line[0], partition, timestamp, key, value, headers)));
            }
            producer.flush();
            for (Future<RecordMetadata> each : sent) {
                each.get();
            }
        }
        return sent.size();
    }

    /** A range of one partition, and the digest of what was read of it. */
    private static final class Wanted {
        final String topic;
        final int partition;
        final long end;
        final boolean withTimestamps;
        final MessageDigest hash = MessageDigest.getInstance("SHA-256");
        final DataOutputStream out;
        long next;
        int count;

        Wanted(String[] line) throws Exception {
            topic = line[0];
            partition = Integer.parseInt(line[1]);
            next = Long.parseLong(line[2]);
            end = Long.parseLong(line[3]);
            withTimestamps = line[4].equals("1");
            OutputStream dump = line[5].equals("-") ? OutputStream.nullOutputStream() : new FileOutputStream(line[5]);
            out = new DataOutputStream(new BufferedOutputStream(new DigestOutputStream(dump, hash), 1 << 16));
        }

        boolean done() {
            return next >= end;
        }

        /** Takes the next record; anything past the end is ignored, a wrong offset shows in the digest. */
        void add(ConsumerRecord<byte[], byte[]> record) throws IOException {
            if (done()) {
                return;
            }
            out.writeLong(record.offset());
            out.writeLong(withTimestamps ? record.timestamp() : -1);
            put(record.key());
            put(record.value());
            Header[] headers = record.headers().toArray();
            out.writeInt(headers.length);
            for (Header header : headers) {
                put(header.key().getBytes(StandardCharsets.UTF_8));
                put(header.value());
            }
            count++;
            next = record.offset() + 1;
        }

        private void put(byte[] data) throws IOException {
            out.writeInt(data == null ? -1 : data.length);
            if (data != null) {
                out.write(data);
            }
        }

        void answer() throws IOException {
            out.close();
            if (!done()) {
                Client.answer("error", topic, partition, "stopped at offset " + next + " of " + end);
                return;
            }
            StringBuilder sum = new StringBuilder();
            for (byte each : hash.digest()) {
                sum.append(String.format("%02x", each));
            }
            Client.answer("ok", topic, partition, count, sum);
        }
    }

    private static KafkaConsumer<byte[], byte[]> consumer() {
        // No group.id: positions are only ours.
        Properties settings = settings(
            "enable.auto.commit", false, "auto.offset.reset", "none", "fetch.max.wait.ms", 100, "max.poll.records", 5000);
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static void consume(List<String[]> lines) throws Exception {
        Map<TopicPartition, Wanted> all = new LinkedHashMap<>();
        for (String[] line : lines) {
            all.put(new TopicPartition(line[0], Integer.parseInt(line[1])), new Wanted(line));
        }
        try (KafkaConsumer<byte[], byte[]> consumer = consumer()) {
            consumer.assign(all.keySet());
            all.forEach((partition, wanted) -> consumer.seek(partition, wanted.next));
            long left = all.values().stream().filter(wanted -> !wanted.done()).count();
            long last = System.nanoTime();
            while (left > 0 && System.nanoTime() - last < STALL_NANOS) {
                ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(200));
                for (TopicPartition partition : records.partitions()) {
                    Wanted wanted = all.get(partition);
                    boolean was = wanted.done();
                    for (ConsumerRecord<byte[], byte[]> record : records.records(partition)) {
                        wanted.add(record);
                    }
                    last = System.nanoTime();
                    left -= !was && wanted.done() ? 1 : 0;
                }
            }
        }
        for (Wanted wanted : all.values()) {
            wanted.answer();
        }
    }

    private static void listOffsets(List<String[]> lines) {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer()) {
            for (String[] line : lines) {
                TopicPartition partition = new TopicPartition(line[0], Integer.parseInt(line[1]));
                long timestamp = Long.parseLong(line[2]);
                try {
                    long offset;
                    if (timestamp == -2) {
                        offset = consumer.beginningOffsets(List.of(partition)).get(partition);
                    } else if (timestamp == -1) {
                        offset = consumer.endOffsets(List.of(partition)).get(partition);
                    } else {
                        OffsetAndTimestamp found = consumer.offsetsForTimes(Map.of(partition, timestamp)).get(partition);
                        offset = found == null ? -1 : found.offset();
                    }
                    answer("ok", line[0], line[1], line[2], offset);
                } catch (Exception error) {
                    answer("error", line[0], line[1], line[2], error);
                }
            }
        }
    }
}
