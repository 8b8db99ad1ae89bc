/* One load of messages through librdkafka: produce as fast as it takes them, or consume from offset 0.
 *
 *   rdkafka_load produce BOOTSTRAP TOPIC MESSAGE_SIZE WARM_UP_MESSAGES MESSAGES
 *   rdkafka_load consume BOOTSTRAP TOPIC MESSAGE_SIZE 0 MESSAGES
 *
 * Connects (and produces the warm-up messages, so that its own memory has been touched), prints "ready", waits for a
 * line on stdin so that the caller can read the broker's CPU, works, prints one JSON line. Topics have one partition.
 * No callback and no allocation of ours per message: what is measured is librdkafka and the broker. Errors end it with 1.
 */
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CONSUME_BATCH 1000
/* A consumer that hears nothing for so long has been forgotten by its broker. */
#define SILENCE_LIMIT_MS 30000

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("rdkafka_load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static double seconds_of(clockid_t clock) {
    struct timespec now;
    if (clock_gettime(clock, &now) != 0)
        die("clock_gettime failed");
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void set(rd_kafka_conf_t *conf, const char *key, const char *value) {
    char error[512];
    if (rd_kafka_conf_set(conf, key, value, error, sizeof error) != RD_KAFKA_CONF_OK)
        die("%s=%s: %s", key, value, error);
}

/* Called for failures only (delivery.report.only.error). */
static void on_delivery_failure(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque) {
    (void)client;
    (void)opaque;
    die("a message was not delivered: %s", rd_kafka_err2str(message->err));
}

static rd_kafka_t *new_client(rd_kafka_type_t type, rd_kafka_conf_t *conf) {
    char error[512];
    rd_kafka_t *client = rd_kafka_new(type, conf, error, sizeof error);
    if (!client)
        die("no client: %s", error);
    return client;
}

static void await_topic(rd_kafka_t *client, rd_kafka_topic_t *topic) {
    const struct rd_kafka_metadata *metadata;
    rd_kafka_resp_err_t error = rd_kafka_metadata(client, 0, topic, &metadata, 10000);
    if (error)
        die("no metadata: %s", rd_kafka_err2str(error));
    if (metadata->topic_cnt != 1 || metadata->topics[0].err || metadata->topics[0].partition_cnt < 1)
        die("no such topic");
    rd_kafka_metadata_destroy(metadata);
}

static void await_go(void) {
    char line[16];
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        die("nobody said go");
}

static void produce_all(rd_kafka_t *client, rd_kafka_topic_t *topic, char *value, size_t size, int64_t messages) {
    for (int64_t i = 0; i < messages; i++) {
        memcpy(value, &i, sizeof i < size ? sizeof i : size);
        if (rd_kafka_produce(topic, 0, RD_KAFKA_MSG_F_COPY | RD_KAFKA_MSG_F_BLOCK, value, size, NULL, 0, NULL) != 0)
            die("produce: %s", rd_kafka_err2str(rd_kafka_last_error()));
        if (i % 100000 == 0)
            rd_kafka_poll(client, 0);
    }
    rd_kafka_resp_err_t error = rd_kafka_flush(client, 120000);
    if (error)
        die("flush: %s", rd_kafka_err2str(error));
}

static void consume_all(rd_kafka_queue_t *queue, size_t size, int64_t messages) {
    static rd_kafka_message_t *batch[CONSUME_BATCH];
    int64_t next = 0;
    while (next < messages) {
        /* It waits until a batch is full, so never ask for more than there will be. */
        size_t wanted = messages - next < CONSUME_BATCH ? (size_t)(messages - next) : CONSUME_BATCH;
        ssize_t received = rd_kafka_consume_batch_queue(queue, SILENCE_LIMIT_MS, batch, wanted);
        if (received <= 0)
            die("no message for %d ms, after %" PRId64 " of %" PRId64, SILENCE_LIMIT_MS, next, messages);
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
}

int main(int count, char **arguments) {
    if (count != 7)
        die("usage: rdkafka_load produce|consume BOOTSTRAP TOPIC MESSAGE_SIZE WARM_UP_MESSAGES MESSAGES");
    int produces = strcmp(arguments[1], "produce") == 0;
    size_t size = (size_t)strtoull(arguments[4], NULL, 10);
    int64_t warm_up_messages = strtoll(arguments[5], NULL, 10);
    int64_t messages = strtoll(arguments[6], NULL, 10);

    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "bootstrap.servers", arguments[2]);
    if (produces) {
        set(conf, "acks", "all");
        set(conf, "linger.ms", "5");
        set(conf, "delivery.report.only.error", "true");
        rd_kafka_conf_set_dr_msg_cb(conf, on_delivery_failure);
    }
    rd_kafka_t *client = new_client(produces ? RD_KAFKA_PRODUCER : RD_KAFKA_CONSUMER, conf);
    rd_kafka_topic_t *topic = rd_kafka_topic_new(client, arguments[3], NULL);
    await_topic(client, topic);

    double started, cpu_started;
    if (produces) {
        char *value = malloc(size);
        if (!value)
            die("no memory");
        /* Not one repeated byte, though librdkafka is asked for no compression. */
        for (size_t i = 0; i < size; i++)
            value[i] = (char)(i * 31 + i / 251);
        produce_all(client, topic, value, size, warm_up_messages);
        await_go();
        started = seconds_of(CLOCK_MONOTONIC);
        cpu_started = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
        produce_all(client, topic, value, size, messages);
        free(value);
    } else {
        rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
        await_go();
        started = seconds_of(CLOCK_MONOTONIC);
        cpu_started = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
        if (rd_kafka_consume_start_queue(topic, 0, 0, queue) != 0)
            die("consume: %s", rd_kafka_err2str(rd_kafka_last_error()));
        consume_all(queue, size, messages);
    }
    double elapsed = seconds_of(CLOCK_MONOTONIC) - started;
    double cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID) - cpu_started;
    printf("{\"seconds\":%.6f,\"cpu_seconds\":%.6f,\"librdkafka\":\"%s\"}\n", elapsed, cpu, rd_kafka_version_str());
    fflush(stdout);
    /* Taking the client apart is nobody's figure, and a full fetch queue takes its time. */
    _Exit(0);
}
