/* End-to-end latency through librdkafka: from the call of rd_kafka_produce to the moment at which a consumer has the message.
 *
 *   rdkafka_latency BOOTSTRAP TOPIC MESSAGE_SIZE RATE WARM_UP_MESSAGES MESSAGES [produce:KEY=VALUE | consume:KEY=VALUE]...
 *
 * Sends RATE messages a second to partition 0 of an empty topic, at times set beforehand, whatever the broker does meanwhile
 * (the call never waits for it, and a sender that was held up sends what is due at once); producer and consumer are two
 * clients of one process, so that one clock serves both. Prints "ready" after the warm-up messages, waits for a line on stdin,
 * and prints one JSON line: percentiles in milliseconds of all messages after the warm-up, and how late the sender was.
 */
#include "rdkafka_client.h"

#include <pthread.h>
#include <sys/prctl.h>

/* A consumer that hears nothing for so long has been forgotten by its broker. */
#define SILENCE_LIMIT_MS 30000
#define CONSUME_BATCH 1000
/* When the sender is due within less, it sends: a sleep that short would only be a late one. */
#define SHORTEST_SLEEP_NS 20000

static int64_t *latencies; /* of message i, in nanoseconds */
static size_t message_size;

struct reader {
    rd_kafka_queue_t *queue;
    int64_t from, to; /* offsets, the end exclusive */
};

static void note(rd_kafka_message_t *message, int64_t expected, int64_t now) {
    int64_t sent;
    if (message->err)
        die("consume: %s", rd_kafka_message_errstr(message));
    if (message->offset != expected || message->len != message_size)
        die("offset %" PRId64 " of %zu bytes, expected %" PRId64 " of %zu", message->offset, message->len, expected,
            message_size);
    memcpy(&sent, message->payload, sizeof sent);
    latencies[expected] = now - sent;
    rd_kafka_message_destroy(message);
}

/* Waits for one message and takes what has come with it: a batch call that waits would wait until it is full. */
static void *read_all(void *opaque) {
    static rd_kafka_message_t *batch[CONSUME_BATCH];
    struct reader *reader = opaque;
    int64_t next = reader->from;
    while (next < reader->to) {
        rd_kafka_message_t *message = rd_kafka_consume_queue(reader->queue, SILENCE_LIMIT_MS);
        if (!message)
            die("no message for %d ms, after %" PRId64 " of %" PRId64, SILENCE_LIMIT_MS, next, reader->to);
        note(message, next++, nanoseconds_of(CLOCK_MONOTONIC));
        ssize_t received = next < reader->to ? rd_kafka_consume_batch_queue(reader->queue, 0, batch, CONSUME_BATCH) : 0;
        for (ssize_t i = 0; i < received; i++)
            note(batch[i], next++, nanoseconds_of(CLOCK_MONOTONIC));
    }
    return NULL;
}

/* Sends messages at their times and returns by how many nanoseconds the latest was late. */
static int64_t send_all(rd_kafka_t *client, rd_kafka_topic_t *topic, char *value, double rate, int64_t messages) {
    int64_t began = nanoseconds_of(CLOCK_MONOTONIC), latest = 0;
    for (int64_t i = 0; i < messages; i++) {
        int64_t due = began + (int64_t)((double)i * 1e9 / rate);
        int64_t now = nanoseconds_of(CLOCK_MONOTONIC);
        if (due - now > SHORTEST_SLEEP_NS) {
            struct timespec until = {due / 1000000000, due % 1000000000};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
            now = nanoseconds_of(CLOCK_MONOTONIC);
        }
        if (now - due > latest)
            latest = now - due;
        memcpy(value, &now, sizeof now);
        while (rd_kafka_produce(topic, 0, RD_KAFKA_MSG_F_COPY, value, message_size, NULL, 0, NULL) != 0) {
            if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL)
                die("produce: %s", rd_kafka_err2str(rd_kafka_last_error()));
            rd_kafka_poll(client, 1); /* the time that this takes is a part of the message's latency */
        }
        if (i % 10000 == 0)
            rd_kafka_poll(client, 0);
    }
    return latest;
}

static int64_t run(rd_kafka_t *producer, rd_kafka_topic_t *topic, char *value, double rate, struct reader *reader) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, read_all, reader) != 0)
        die("no thread");
    int64_t latest = send_all(producer, topic, value, rate, reader->to - reader->from);
    pthread_join(thread, NULL);
    return latest;
}

static int ascending(const void *left, const void *right) {
    int64_t l = *(const int64_t *)left, r = *(const int64_t *)right;
    return l < r ? -1 : l > r;
}

/* Of sorted values, the least that at least `share` of them do not exceed, in milliseconds. */
static double percentile(const int64_t *sorted, int64_t count, double share) {
    int64_t rank = (int64_t)((double)count * share);
    return (double)sorted[rank < count ? rank : count - 1] / 1e6;
}

int main(int count, char **arguments) {
    if (count < 7)
        die("usage: rdkafka_latency BOOTSTRAP TOPIC MESSAGE_SIZE RATE WARM_UP_MESSAGES MESSAGES [produce:KEY=VALUE | "
            "consume:KEY=VALUE]...");
    message_size = (size_t)strtoull(arguments[3], NULL, 10);
    double rate = strtod(arguments[4], NULL);
    int64_t warm_up_messages = strtoll(arguments[5], NULL, 10);
    int64_t messages = strtoll(arguments[6], NULL, 10);
    if (message_size < sizeof(int64_t) || rate <= 0 || messages < 1)
        die("messages of 8 bytes and more, at least one a second");

    int producer_settings = 0, consumer_settings = 0;
    char **for_producer = allocate(sizeof(char *) * (size_t)count);
    char **for_consumer = allocate(sizeof(char *) * (size_t)count);
    for (int i = 7; i < count; i++) {
        if (strncmp(arguments[i], "produce:", 8) == 0)
            for_producer[producer_settings++] = arguments[i] + 8;
        else if (strncmp(arguments[i], "consume:", 8) == 0)
            for_consumer[consumer_settings++] = arguments[i] + 8;
        else
            die("%s is neither produce:KEY=VALUE nor consume:KEY=VALUE", arguments[i]);
    }
    rd_kafka_t *producer = new_client(RD_KAFKA_PRODUCER, arguments[1], producer_settings, for_producer);
    rd_kafka_t *consumer = new_client(RD_KAFKA_CONSUMER, arguments[1], consumer_settings, for_consumer);
    int32_t partitions;
    rd_kafka_topic_t *into = open_topic(producer, arguments[2], &partitions);
    rd_kafka_topic_t *from = open_topic(consumer, arguments[2], &partitions);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(consumer);
    if (rd_kafka_consume_start_queue(from, 0, 0, queue) != 0)
        die("consume: %s", rd_kafka_err2str(rd_kafka_last_error()));

    int64_t all = warm_up_messages + messages;
    latencies = allocate(sizeof *latencies * (size_t)all);
    memset(latencies, 0, sizeof *latencies * (size_t)all); /* touched before, not while, they are used */
    char *value = allocate(message_size);
    fill_with_text(value, message_size);
    /* The default rounds a sleep up by 50 microseconds, a third of what is measured. */
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);

    struct reader warm_up = {queue, 0, warm_up_messages};
    run(producer, into, value, rate, &warm_up);
    await_go();
    int64_t began = nanoseconds_of(CLOCK_MONOTONIC), cpu_began = nanoseconds_of(CLOCK_PROCESS_CPUTIME_ID);
    struct reader measured = {queue, warm_up_messages, all};
    int64_t latest = run(producer, into, value, rate, &measured);
    int64_t ended = nanoseconds_of(CLOCK_MONOTONIC), cpu_ended = nanoseconds_of(CLOCK_PROCESS_CPUTIME_ID);

    int64_t *sorted = latencies + warm_up_messages;
    qsort(sorted, (size_t)messages, sizeof *sorted, ascending);
    printf("{\"seconds\":%.6f,\"cpu_seconds\":%.6f,\"p50_ms\":%.4f,\"p99_ms\":%.4f,\"p999_ms\":%.4f,\"max_ms\":%.4f,"
           "\"late_ms\":%.4f}\n",
           (double)(ended - began) / 1e9, (double)(cpu_ended - cpu_began) / 1e9, percentile(sorted, messages, 0.5),
           percentile(sorted, messages, 0.99), percentile(sorted, messages, 0.999),
           (double)sorted[messages - 1] / 1e6, (double)latest / 1e6);
    fflush(stdout);
    _Exit(0);
}
