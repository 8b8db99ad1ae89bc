/* What the librdkafka programs of the bench share: an error ends the program with its words, settings come from the command
 * line, and the caller is told when to read the broker's CPU. Included once by each program. */
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A broker that has created a topic is given so long to lead it. */
#define TOPIC_LIMIT_NS 10000000000

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static int64_t nanoseconds_of(clockid_t clock) {
    struct timespec now;
    if (clock_gettime(clock, &now) != 0)
        die("clock_gettime failed");
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void *allocate(size_t size) {
    void *memory = malloc(size);
    if (!memory)
        die("no memory for %zu bytes", size);
    return memory;
}

static void set(rd_kafka_conf_t *conf, const char *key, const char *value) {
    char error[512];
    if (rd_kafka_conf_set(conf, key, value, error, sizeof error) != RD_KAFKA_CONF_OK)
        die("%s=%s: %s", key, value, error);
}

/* KEY=VALUE arguments are librdkafka's settings, as its CONFIGURATION.md names them. */
static void set_all(rd_kafka_conf_t *conf, int count, char **settings) {
    for (int i = 0; i < count; i++) {
        char *equals = strchr(settings[i], '=');
        if (!equals)
            die("%s is no KEY=VALUE", settings[i]);
        *equals = 0;
        set(conf, settings[i], equals + 1);
        *equals = '=';
    }
}

/* Called for failures only (delivery.report.only.error). */
static void on_delivery_failure(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque) {
    (void)client;
    (void)opaque;
    die("a message was not delivered: %s", rd_kafka_err2str(message->err));
}

static rd_kafka_t *new_client(rd_kafka_type_t type, const char *bootstrap, int count, char **settings) {
    char error[512];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "bootstrap.servers", bootstrap);
    if (type == RD_KAFKA_PRODUCER) {
        set(conf, "delivery.report.only.error", "true");
        rd_kafka_conf_set_dr_msg_cb(conf, on_delivery_failure);
    }
    set_all(conf, count, settings);
    rd_kafka_t *client = rd_kafka_new(type, conf, error, sizeof error);
    if (!client)
        die("no client: %s", error);
    return client;
}

/* Whether the broker leads every partition of a topic; their number in `partitions`. */
static int is_led(const struct rd_kafka_metadata_topic *topic, int32_t *partitions) {
    *partitions = topic->partition_cnt;
    for (int i = 0; i < topic->partition_cnt; i++)
        if (topic->partitions[i].err || topic->partitions[i].leader < 0)
            return 0;
    return !topic->err && topic->partition_cnt > 0;
}

/* A handle of a topic that may have been created a moment ago, when all of its partitions have their leader. */
static rd_kafka_topic_t *open_topic(rd_kafka_t *client, const char *name, int32_t *partitions) {
    rd_kafka_topic_t *topic = rd_kafka_topic_new(client, name, NULL);
    int64_t deadline = nanoseconds_of(CLOCK_MONOTONIC) + TOPIC_LIMIT_NS;
    for (;;) {
        const struct rd_kafka_metadata *metadata;
        rd_kafka_resp_err_t error = rd_kafka_metadata(client, 0, topic, &metadata, 10000);
        if (error)
            die("no metadata: %s", rd_kafka_err2str(error));
        int led = metadata->topic_cnt == 1 && is_led(&metadata->topics[0], partitions);
        rd_kafka_metadata_destroy(metadata);
        if (led)
            return topic;
        if (nanoseconds_of(CLOCK_MONOTONIC) > deadline)
            die("topic %s has no leader", name);
        struct timespec pause = {0, 10000000};
        nanosleep(&pause, NULL);
    }
}

/* Says that all is set up, and waits until the caller has read the broker's CPU. */
static void await_go(void) {
    char line[16];
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        die("nobody said go");
}

/* Prints words that resemble a log's JSON into `text`: values a compressor finds about a third of. */
static void fill_with_text(char *text, size_t size) {
    static const char *const words[] = {
        "{\"time\":", "\"level\":\"info\",", "\"service\":\"checkout\",", "\"user\":", "\"order\":", "\"amount\":",
        "\"currency\":\"EUR\",", "\"state\":\"paid\"}", "\"state\":\"open\"}", "\"path\":\"/v1/orders\",",
    };
    uint64_t random = 88172645463325252u;
    size_t at = 0;
    while (at < size) {
        char number[32];
        random ^= random << 13, random ^= random >> 7, random ^= random << 17; /* xorshift: the same text each time */
        int length = snprintf(number, sizeof number, "%" PRIu64 ",", random % 100000000);
        const char *word = words[(random >> 40) % (sizeof words / sizeof *words)];
        for (size_t i = 0; word[i] && at < size; i++)
            text[at++] = word[i];
        for (int i = 0; i < length && at < size; i++)
            text[at++] = number[i];
    }
}
