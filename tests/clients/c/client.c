/* librdkafka from C: `client COMMAND BOOTSTRAP JOB`, see ../README.md.
 *
 * Reads with the legacy simple consumer, the one API of the library that needs no group at all. */
#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_COLUMNS 8
#define STALL_MS 30000

static char *bootstrap;

static void die(const char *what) {
    fprintf(stderr, "client: %s\n", what);
    exit(1);
}

static void *must_alloc(size_t size) {
    void *p = calloc(1, size ? size : 1);
    if (!p) die("out of memory");
    return p;
}

static rd_kafka_conf_t *configure(const char *const *pairs) {
    char error[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (rd_kafka_conf_set(conf, "bootstrap.servers", bootstrap, error, sizeof error)) die(error);
    for (; *pairs; pairs += 2)
        if (rd_kafka_conf_set(conf, pairs[0], pairs[1], error, sizeof error)) die(error);
    return conf;
}

static rd_kafka_t *client_new(rd_kafka_type_t type, rd_kafka_conf_t *conf) {
    char error[256];
    rd_kafka_t *rk = rd_kafka_new(type, conf, error, sizeof error);
    if (!rk) die(error);
    return rk;
}

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Splits a job line at tabs, in place; returns the number of columns. */
static int columns_of(char *line, char **columns) {
    int count = 0;
    line[strcspn(line, "\n")] = 0;
    for (char *p = line; p && count < MAX_COLUMNS;) {
        columns[count++] = p;
        p = strchr(p, '\t');
        if (p) *p++ = 0;
    }
    return count;
}

/* ---- create-topics ------------------------------------------------------------------------------- */

static void create_topics(FILE *job) {
    enum { MAX_TOPICS = 256 };
    rd_kafka_NewTopic_t *topics[MAX_TOPICS];
    size_t count = 0;
    char line[4096], error[512], *column[MAX_COLUMNS];
    while (count < MAX_TOPICS && fgets(line, sizeof line, job)) {
        if (columns_of(line, column) < 3) die("create-topics: three columns");
        topics[count] = rd_kafka_NewTopic_new(column[0], atoi(column[1]), 1, error, sizeof error);
        if (!topics[count]) die(error);
        char *rest, *value;
        for (char *pair = strtok_r(column[2], ",", &rest); pair; pair = strtok_r(NULL, ",", &rest)) {
            if (!(value = strchr(pair, '='))) die("config without =");
            *value++ = 0;
            rd_kafka_NewTopic_set_config(topics[count], pair, value);
        }
        count++;
    }
    static const char *const none[] = {NULL};
    rd_kafka_t *rk = client_new(RD_KAFKA_PRODUCER, configure(none));
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_CREATETOPICS);
    rd_kafka_AdminOptions_set_operation_timeout(options, 30000, error, sizeof error);
    rd_kafka_CreateTopics(rk, topics, count, options, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, 60000);
    if (!event) die("no answer to CreateTopics");
    if (rd_kafka_event_error(event)) die(rd_kafka_event_error_string(event));
    size_t results;
    const rd_kafka_topic_result_t **result =
        rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &results);
    for (size_t i = 0; i < results; i++) {
        if (rd_kafka_topic_result_error(result[i]))
            printf("error\t%s\t%s\n", rd_kafka_topic_result_name(result[i]), rd_kafka_topic_result_error_string(result[i]));
        else
            printf("ok\t%s\n", rd_kafka_topic_result_name(result[i]));
    }
    rd_kafka_event_destroy(event);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_NewTopic_destroy_array(topics, count);
    rd_kafka_queue_destroy(queue);
    rd_kafka_destroy(rk);
}

/* ---- produce ------------------------------------------------------------------------------------- */

struct bytes {
    unsigned char *data, *position, *end;
};

static int64_t take_int(struct bytes *from, int size) {
    uint64_t value = 0;
    if (from->end - from->position < size) die("records file ends inside a number");
    for (int i = 0; i < size; i++) value = value << 8 | *from->position++;
    return size == 4 ? (int32_t)value : (int64_t)value;
}

/* Null is a NULL pointer; an empty one points into the file. */
static unsigned char *take_bytes(struct bytes *from, size_t *size) {
    int64_t length = take_int(from, 4);
    *size = 0;
    if (length < 0) return NULL;
    if (from->end - from->position < length) die("records file ends inside a field");
    unsigned char *data = from->position;
    from->position += length;
    *size = (size_t)length;
    return data;
}

static struct bytes read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    struct bytes bytes = {.data = must_alloc(size)};
    if (fread(bytes.data, 1, size, file) != size) die(path);
    fclose(file);
    bytes.position = bytes.data;
    bytes.end = bytes.data + size;
    return bytes;
}

struct delivery {
    long acknowledged;
    char failure[256];
};

static void delivered(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque) {
    struct delivery *delivery = opaque;
    (void)rk;
    if (!message->err)
        delivery->acknowledged++;
    else if (!delivery->failure[0])
        snprintf(delivery->failure, sizeof delivery->failure, "%s", rd_kafka_err2str(message->err));
}

static void produce(const char *topic, const char *codec, int idempotent, int batch_records, const char *path) {
    char most[16];
    snprintf(most, sizeof most, "%d", batch_records ? batch_records : 1000000);
    const char *const pairs[] = {
        "compression.codec", codec, "enable.idempotence", idempotent ? "true" : "false", "acks", "all",
        "batch.num.messages", most, "batch.size", "16777216", "message.max.bytes", "16777216",
        "linger.ms", batch_records ? "5" : "60000" /* flush ends it */, "message.timeout.ms", "120000", NULL,
    };
    struct delivery delivery = {0};
    rd_kafka_conf_t *conf = configure(pairs);
    rd_kafka_conf_set_opaque(conf, &delivery);
    rd_kafka_conf_set_dr_msg_cb(conf, delivered);
    rd_kafka_t *rk = client_new(RD_KAFKA_PRODUCER, conf);
    /* Records produced before the library knows the topic are queued apart and moved over in pieces. */
    rd_kafka_topic_t *known = rd_kafka_topic_new(rk, topic, NULL);
    const rd_kafka_metadata_t *metadata;
    if (!rd_kafka_metadata(rk, 0, known, &metadata, 30000)) rd_kafka_metadata_destroy(metadata);
    struct bytes file = read_file(path);
    while (file.position < file.end) {
        int32_t partition = (int32_t)take_int(&file, 4);
        int64_t timestamp = take_int(&file, 8);
        size_t key_size, value_size;
        unsigned char *key = take_bytes(&file, &key_size), *value = take_bytes(&file, &value_size);
        rd_kafka_headers_t *headers = NULL;
        int32_t header_count = (int32_t)take_int(&file, 4);
        if (header_count > 0) headers = rd_kafka_headers_new((size_t)header_count);
        for (int32_t i = 0; i < header_count; i++) {
            size_t name_size, header_size;
            char *name = (char *)take_bytes(&file, &name_size);
            unsigned char *header = take_bytes(&file, &header_size);
            rd_kafka_header_add(headers, name, (ssize_t)name_size, header, (ssize_t)header_size);
        }
        rd_kafka_resp_err_t error;
        for (;;) {
            error = headers
                ? rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_TIMESTAMP(timestamp),
                                    RD_KAFKA_V_KEY(key, key_size), RD_KAFKA_V_VALUE(value, value_size),
                                    RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_END)
                : rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_TIMESTAMP(timestamp),
                                    RD_KAFKA_V_KEY(key, key_size), RD_KAFKA_V_VALUE(value, value_size),
                                    RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
            if (error != RD_KAFKA_RESP_ERR__QUEUE_FULL) break;
            rd_kafka_poll(rk, 100);
        }
        if (error && !delivery.failure[0]) snprintf(delivery.failure, sizeof delivery.failure, "%s", rd_kafka_err2str(error));
        if (error && headers) rd_kafka_headers_destroy(headers);
    }
    rd_kafka_flush(rk, 60000);
    if (delivery.failure[0])
        printf("error\t%s\t%s\n", topic, delivery.failure);
    else
        printf("ok\t%s\t%ld\n", topic, delivery.acknowledged);
    fflush(stdout);
    rd_kafka_topic_destroy(known);
    rd_kafka_destroy(rk);
    free(file.data);
}

/* ---- consume ------------------------------------------------------------------------------------- */

struct wanted {
    char *topic;
    int32_t partition;
    int64_t next, end;
    long count;
    int with_timestamps;
    rd_kafka_topic_t *handle;
    EVP_MD_CTX *hash;
    FILE *dump;
};

static void put(struct wanted *wanted, const void *data, size_t size) {
    EVP_DigestUpdate(wanted->hash, data, size);
    if (wanted->dump) fwrite(data, 1, size, wanted->dump);
}

static void put_int(struct wanted *wanted, int64_t value, int size) {
    unsigned char data[8];
    for (int i = 0; i < size; i++) data[i] = (unsigned char)((uint64_t)value >> 8 * (size - 1 - i));
    put(wanted, data, (size_t)size);
}

static void put_bytes(struct wanted *wanted, const void *data, size_t size) {
    put_int(wanted, data ? (int64_t)size : -1, 4);
    if (data) put(wanted, data, size);
}

static void add(struct wanted *wanted, rd_kafka_message_t *message) {
    if (wanted->next >= wanted->end) return;
    put_int(wanted, message->offset, 8);
    put_int(wanted, wanted->with_timestamps ? rd_kafka_message_timestamp(message, NULL) : -1, 8);
    put_bytes(wanted, message->key, message->key_len);
    put_bytes(wanted, message->payload, message->len);
    rd_kafka_headers_t *headers;
    if (rd_kafka_message_headers(message, &headers)) {
        put_int(wanted, 0, 4);
    } else {
        put_int(wanted, (int64_t)rd_kafka_header_cnt(headers), 4);
        const char *name;
        const void *value;
        size_t size;
        for (size_t i = 0; !rd_kafka_header_get_all(headers, i, &name, &value, &size); i++) {
            put_bytes(wanted, name, strlen(name));
            put_bytes(wanted, value, size);
        }
    }
    wanted->count++;
    wanted->next = message->offset + 1;
}

static int by_handle(const void *a, const void *b) {
    const struct wanted *x = a, *y = b;
    if (x->handle != y->handle) return (uintptr_t)x->handle < (uintptr_t)y->handle ? -1 : 1;
    return x->partition < y->partition ? -1 : x->partition > y->partition;
}

static void consume(FILE *job) {
    const char *const pairs[] = {"check.crcs", "true", "fetch.wait.max.ms", "100", "auto.offset.reset", "error", NULL};
    rd_kafka_t *rk = client_new(RD_KAFKA_CONSUMER, configure(pairs));
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    size_t count = 0, room = 64;
    struct wanted *all = must_alloc(room * sizeof *all);
    char line[4096], *column[MAX_COLUMNS];
    while (fgets(line, sizeof line, job)) {
        if (columns_of(line, column) < 6) die("consume: six columns");
        if (count == room && !(all = realloc(all, (room *= 2) * sizeof *all))) die("out of memory");
        struct wanted *wanted = &all[count++];
        *wanted = (struct wanted){
            .topic = strdup(column[0]), .partition = atoi(column[1]), .next = atoll(column[2]), .end = atoll(column[3]),
            .with_timestamps = column[4][0] == '1', .hash = EVP_MD_CTX_new(),
        };
        EVP_DigestInit_ex(wanted->hash, EVP_sha256(), NULL);
        if (strcmp(column[5], "-") && !(wanted->dump = fopen(column[5], "wb"))) die(column[5]);
        wanted->handle = rd_kafka_topic_new(rk, wanted->topic, NULL); /* one handle a topic, counted by the library */
    }
    /* Messages carry the handle: sorted, each is found by bisection. */
    qsort(all, count, sizeof *all, by_handle);
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        if (all[i].next >= all[i].end) continue;
        if (rd_kafka_consume_start_queue(all[i].handle, all[i].partition, all[i].next, queue)) die(rd_kafka_err2str(rd_kafka_last_error()));
        left++;
    }
    int64_t last = now_ms();
    enum { AT_ONCE = 5000 };
    static rd_kafka_message_t *messages[AT_ONCE];
    while (left && now_ms() - last < STALL_MS) {
        ssize_t found = rd_kafka_consume_batch_queue(queue, 200, messages, AT_ONCE);
        for (ssize_t i = 0; i < found; i++) {
            rd_kafka_message_t *message = messages[i];
            if (message->err) {
                if (message->err != RD_KAFKA_RESP_ERR__PARTITION_EOF) fprintf(stderr, "client: %s\n", rd_kafka_message_errstr(message));
            } else {
                struct wanted key = {.handle = message->rkt, .partition = message->partition};
                struct wanted *wanted = bsearch(&key, all, count, sizeof *all, by_handle);
                if (!wanted) die("a message of a partition that was not asked for");
                last = now_ms();
                int was_done = wanted->next >= wanted->end;
                add(wanted, message);
                if (!was_done && wanted->next >= wanted->end) left--;
            }
            rd_kafka_message_destroy(message);
        }
    }
    for (size_t i = 0; i < count; i++) {
        struct wanted *wanted = &all[i];
        unsigned char sum[EVP_MAX_MD_SIZE];
        unsigned size;
        if (wanted->dump) fclose(wanted->dump);
        if (wanted->next < wanted->end) {
            printf("error\t%s\t%d\tstopped at offset %lld of %lld\n", wanted->topic, wanted->partition, (long long)wanted->next, (long long)wanted->end);
            continue;
        }
        EVP_DigestFinal_ex(wanted->hash, sum, &size);
        printf("ok\t%s\t%d\t%ld\t", wanted->topic, wanted->partition, wanted->count);
        for (unsigned j = 0; j < size; j++) printf("%02x", sum[j]);
        printf("\n");
    }
    fflush(stdout);
    /* The process ends here: stopping each partition and the client would only take time. */
    _Exit(0);
}

/* ---- list-offsets -------------------------------------------------------------------------------- */

static void list_offsets(FILE *job) {
    static const char *const none[] = {NULL};
    rd_kafka_t *rk = client_new(RD_KAFKA_CONSUMER, configure(none));
    char line[4096], *column[MAX_COLUMNS];
    while (fgets(line, sizeof line, job)) {
        if (columns_of(line, column) < 3) die("list-offsets: three columns");
        int32_t partition = atoi(column[1]);
        int64_t timestamp = atoll(column[2]), offset = 0;
        rd_kafka_resp_err_t error;
        if (timestamp < 0) {
            int64_t low, high;
            error = rd_kafka_query_watermark_offsets(rk, column[0], partition, &low, &high, 30000);
            if (!error) offset = timestamp == -2 ? low : high;
        } else {
            rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
            rd_kafka_topic_partition_t *element = rd_kafka_topic_partition_list_add(list, column[0], partition);
            element->offset = timestamp;
            error = rd_kafka_offsets_for_times(rk, list, 30000);
            if (!error) error = list->elems[0].err;
            offset = list->elems[0].offset;
            rd_kafka_topic_partition_list_destroy(list);
        }
        if (error)
            printf("error\t%s\t%s\t%s\t%s\n", column[0], column[1], column[2], rd_kafka_err2str(error));
        else
            printf("ok\t%s\t%s\t%s\t%lld\n", column[0], column[1], column[2], (long long)offset);
    }
    rd_kafka_destroy(rk);
}

int main(int argc, char **argv) {
    if (argc != 4) die("usage: client create-topics|produce|consume|list-offsets BOOTSTRAP JOB");
    bootstrap = argv[2];
    FILE *job = fopen(argv[3], "r");
    if (!job) die(strerror(errno));
    if (!strcmp(argv[1], "create-topics")) {
        create_topics(job);
    } else if (!strcmp(argv[1], "produce")) {
        char line[4096], *column[MAX_COLUMNS];
        while (fgets(line, sizeof line, job)) {
            if (columns_of(line, column) < 6) die("produce: six columns");
            produce(column[0], column[1], column[2][0] == '1', atoi(column[3]), column[5]);
        }
    } else if (!strcmp(argv[1], "consume")) {
        consume(job);
    } else if (!strcmp(argv[1], "list-offsets")) {
        list_offsets(job);
    } else {
        die("unknown command");
    }
    return 0;
}
