/* One load of messages through librdkafka: produce as fast as it takes them, or consume from offset 0.
 *
 *   rdkafka_load produce BOOTSTRAP TOPIC MESSAGE_SIZE WARM_UP_MESSAGES MESSAGES [KEY=VALUE]...
 *   rdkafka_load consume BOOTSTRAP TOPIC MESSAGE_SIZE 0 MESSAGES [KEY=VALUE]...      partition 0
 *   rdkafka_load follow BOOTSTRAP TOPIC MESSAGE_SIZE 0 MESSAGES [KEY=VALUE]...       its clock starts with the first message
 *   rdkafka_load version
 *
 * Connects (and produces the warm-up messages, so that its own memory has been touched), prints "ready", waits for a
 * line on stdin so that the caller can read the broker's CPU, works, prints one JSON line. KEY=VALUE are librdkafka's settings.
 * Messages go round all partitions of the topic. No callback and no allocation of ours per message: what is measured is
 * librdkafka and the broker. Errors end it with 1.
 */
#include "rdkafka_client.h"

#define CONSUME_BATCH 1000
/* A consumer that hears nothing for so long has been forgotten by its broker. */
#define SILENCE_LIMIT_MS 30000
/* Messages are pieces of a text of this size: twice a batch's, so that a compressor finds none of them again in one. */
#define TEXT_BYTES (2 * 1024 * 1024)

struct clocks {
    int64_t wall, cpu;
};

static struct clocks read_clocks(void) {
    return (struct clocks){nanoseconds_of(CLOCK_MONOTONIC), nanoseconds_of(CLOCK_PROCESS_CPUTIME_ID)};
}

static void produce_all(rd_kafka_t *client, rd_kafka_topic_t *topic, int32_t partitions, char *text, size_t size,
                        int64_t messages) {
    size_t at = 0;
    for (int64_t i = 0; i < messages; i++) {
        if (rd_kafka_produce(topic, (int32_t)(i % partitions), RD_KAFKA_MSG_F_COPY | RD_KAFKA_MSG_F_BLOCK, text + at, size, NULL,
                             0, NULL) != 0)
            die("produce: %s", rd_kafka_err2str(rd_kafka_last_error()));
        at += size + 1; /* so that no two neighbours begin alike */
        if (at + size > TEXT_BYTES)
            at = (size_t)i % 61;
        if (i % 100000 == 0)
            rd_kafka_poll(client, 0);
    }
    rd_kafka_resp_err_t error = rd_kafka_flush(client, 120000);
    if (error)
        die("flush: %s", rd_kafka_err2str(error));
}

/* Returns the clocks at the first message. */
static struct clocks consume_all(rd_kafka_queue_t *queue, size_t size, int64_t messages) {
    static rd_kafka_message_t *batch[CONSUME_BATCH];
    struct clocks first = {0, 0};
    int64_t next = 0;
    while (next < messages) {
        /* It waits until a batch is full, so never ask for more than there will be; the first is asked for alone. */
        size_t wanted = messages - next < CONSUME_BATCH ? (size_t)(messages - next) : CONSUME_BATCH;
        ssize_t received = rd_kafka_consume_batch_queue(queue, SILENCE_LIMIT_MS, batch, next == 0 ? 1 : wanted);
        if (received <= 0)
            die("no message for %d ms, after %" PRId64 " of %" PRId64, SILENCE_LIMIT_MS, next, messages);
        if (next == 0)
            first = read_clocks();
        for (ssize_t i = 0; i < received; i++) {
            if (batch[i]->err)
                die("consume: %s", rd_kafka_message_errstr(batch[i]));
            if (batch[i]->offset != next || batch[i]->len != size)
                die("offset %" PRId64 " of %zu bytes, expected %" PRId64 " of %zu", batch[i]->offset, batch[i]->len,
                    next, size);
            next++;
            rd_kafka_message_destroy(batch[i]);
        }
    }
    return first;
}

int main(int count, char **arguments) {
    if (count == 2 && strcmp(arguments[1], "version") == 0) {
        puts(rd_kafka_version_str());
        return 0;
    }
    if (count < 7)
        die("usage: rdkafka_load produce|consume|follow BOOTSTRAP TOPIC MESSAGE_SIZE WARM_UP_MESSAGES MESSAGES [KEY=VALUE]...");
    int produces = strcmp(arguments[1], "produce") == 0;
    int follows = strcmp(arguments[1], "follow") == 0;
    size_t size = (size_t)strtoull(arguments[4], NULL, 10);
    int64_t warm_up_messages = strtoll(arguments[5], NULL, 10);
    int64_t messages = strtoll(arguments[6], NULL, 10);
    if (size < 1 || size > TEXT_BYTES / 2 || messages < 1)
        die("messages of 1 to %d bytes, at least one", TEXT_BYTES / 2);

    rd_kafka_t *client =
        new_client(produces ? RD_KAFKA_PRODUCER : RD_KAFKA_CONSUMER, arguments[2], count - 7, arguments + 7);
    int32_t partitions;
    rd_kafka_topic_t *topic = open_topic(client, arguments[3], &partitions);

    struct clocks began;
    if (produces) {
        char *text = allocate(TEXT_BYTES);
        fill_with_text(text, TEXT_BYTES);
        produce_all(client, topic, partitions, text, size, warm_up_messages);
        await_go();
        began = read_clocks();
        produce_all(client, topic, partitions, text, size, messages);
        free(text);
    } else {
        rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
        await_go();
        began = read_clocks();
        if (rd_kafka_consume_start_queue(topic, 0, 0, queue) != 0)
            die("consume: %s", rd_kafka_err2str(rd_kafka_last_error()));
        struct clocks first = consume_all(queue, size, messages);
        if (follows)
            began = first;
    }
    struct clocks ended = read_clocks();
    printf("{\"seconds\":%.6f,\"cpu_seconds\":%.6f}\n", (double)(ended.wall - began.wall) / 1e9,
           (double)(ended.cpu - began.cpu) / 1e9);
    fflush(stdout);
    /* Taking the client apart is nobody's figure, and a full fetch queue takes its time. */
    _Exit(0);
}
