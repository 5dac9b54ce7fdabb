/* Bodies that stay in the socket until the application has room for them (pp_exchange_take). */
#include "net_rig.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define GET_HELLO "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"

static void start(struct rig *rig)
{
    struct pp_settings s = rig_settings();
    rig_start(rig, &s);
    pp_loop_take_bodies(rig->loop);
}

/* A POST of `size` bytes with `after` behind it, in malloc'd memory. */
static char *post(const char *path, size_t size, const char *after, size_t *len)
{
    char *text = malloc(size + strlen(after) + 200);
    CHECK(text != NULL);
    size_t n = rig_put(text, 200, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n",
                       path, size);
    for (size_t i = 0; i < size; i++) {
        text[n++] = (char)(i * 7 + i / 251);
    }
    memcpy(text + n, after, strlen(after));
    *len = n + strlen(after);
    return text;
}

/* A connection that has sent such a POST, but for its last `less` bytes, to a loop that has seen
 * it. */
static int upload(struct rig *rig, const char *path, size_t size, size_t less)
{
    size_t len;
    char *text = post(path, size, "", &len);
    int fd = rig_connect(rig);
    rig_write(rig, fd, text, len - less);
    free(text);
    rig_settle(rig);
    return fd;
}

static uint64_t sum_of(const char *data, size_t size)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < size; i++) {
        sum = sum * 31 + (uint8_t)data[i];
    }
    return sum;
}

/* Whatever its length, and however it comes, a body is whole, and the next request begins behind.
 */
TEST(net_take_any_length_in_any_pieces)
{
    static const size_t sizes[] = {16383, 16384,  16500,  65536,  98303,  98304,
                                   98305, 131072, 150000, 262144, 1000000};
    static const size_t pieces[] = {100, 4000, 16384, 70000, 2000000};
    struct rig rig;
    start(&rig);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t j = 0; j < sizeof pieces / sizeof *pieces; j++) {
            size_t len;
            char *text = post("/count", sizes[i], GET_HELLO, &len), want[80];
            char *body = strstr(text, "\r\n\r\n") + 4;
            (void)rig_put(want, sizeof want, "\r\n\r\n%zu %llx", sizes[i],
                          (unsigned long long)sum_of(body, sizes[i]));
            int fd = rig_connect(&rig);
            uint64_t taken = rig.bytes_taken;
            for (size_t at = 0; at < len; at += pieces[j]) {
                rig_write(&rig, fd, text + at, len - at < pieces[j] ? len - at : pieces[j]);
            }
            rig_expect(&rig, fd, "", "HTTP/1.1 200", want);
            rig_expect(&rig, fd, GET_HELLO, "HTTP/1.1 200", "Hello");
            CHECK((rig.bytes_taken > taken) == (sizes[i] >= PP_BODY_TAKE_MIN));
            free(text);
            (void)close(fd);
            rig_settle(&rig);
        }
    }
    rig_stop(&rig);
}

/* Nothing is received for an application that does not ask. */
TEST(net_take_leaves_the_rest_in_the_socket)
{
    struct rig rig;
    start(&rig);
    rig.hold_body = true;
    int fd = upload(&rig, "/count", 100000, 0);
    CHECK(pp_loop_counters(rig.loop)->bytes_in <= PP_BLOCK_BYTES);
    rig.hold_body = false;
    pp_exchange_want(rig.requests->ex);
    rig_expect(&rig, fd, "", "HTTP/1.1 200", "\r\n\r\n100000 ");
    (void)close(fd);
    rig_stop(&rig);
}

/* A body of a block's size that is there but not asked for does not cost the connection. */
TEST(net_take_unread_body_is_dropped)
{
    struct rig rig;
    start(&rig);
    int fd = upload(&rig, "/hold", 60000, 0);
    rig_answer(&rig, rig_held(&rig, "/hold"), "not read");
    rig_expect(&rig, fd, "", "HTTP/1.1 200", "not read");
    rig_expect(&rig, fd, GET_HELLO, "HTTP/1.1 200", "Hello");
    CHECK_EQ(rig.bytes_taken, 0);
    (void)close(fd);
    rig_stop(&rig);
}

TEST(net_take_unread_long_body_ends_the_connection)
{
    struct rig rig;
    start(&rig);
    char answer[1000];
    int fd = upload(&rig, "/hold", 200000, 0);
    rig_answer(&rig, rig_held(&rig, "/hold"), "not read");
    bool ended = false;
    size_t n = rig_read(&rig, fd, answer, sizeof answer - 1, &ended);
    answer[n] = '\0';
    CHECK(ended && strstr(answer, "connection: close") != NULL &&
          strstr(answer, "not read") != NULL);
    (void)close(fd);
    rig_stop(&rig);
}

/* The peer goes in the middle: before anybody asks, and while the application waits. */
TEST(net_take_peer_gone)
{
    static const char *const paths[] = {"/hold", "/count"};
    for (size_t i = 0; i < 2; i++) {
        struct rig rig;
        start(&rig);
        int fd = upload(&rig, paths[i], 50000, 10);
        CHECK_EQ(rig.requests_seen, 1);
        (void)close(fd);
        rig_settle(&rig);
        CHECK_EQ(rig.closed_seen, 1);
        CHECK_EQ(pp_loop_connections(rig.loop), 0);
        rig_stop(&rig);
    }
}

/* A peer that has sent all and shuts its side still gets its answer. */
TEST(net_take_peer_shut)
{
    struct rig rig;
    start(&rig);
    rig.hold_body = true;
    int fd = upload(&rig, "/count", 40000, 0);
    CHECK(shutdown(fd, SHUT_WR) == 0);
    rig_settle(&rig);
    rig.hold_body = false;
    pp_exchange_want(rig.requests->ex);
    rig_expect(&rig, fd, "", "HTTP/1.1 200", "\r\n\r\n40000 ");
    (void)close(fd);
    rig_stop(&rig);
}

#ifdef PP_FAILURE_INJECTION
/* The deadline for more of a body runs while the application waits, and only then. */
TEST(net_take_idle_body)
{
    struct rig rig;
    struct pp_settings s = rig_settings();
    s.body_idle_ms = 1000;
    rig_start(&rig, &s);
    pp_loop_take_bodies(rig.loop);
    rig.hold_body = true;
    int fd = upload(&rig, "/count", 100000, 10);
    rig_clock(rig_now_ms + 5000);
    rig_settle(&rig);
    CHECK_EQ(rig.closed_seen, 0);
    rig.hold_body = false;
    pp_exchange_want(rig.requests->ex);
    rig_settle(&rig);
    rig_clock(rig_now_ms + 5000);
    rig_expect(&rig, fd, "", "HTTP/1.1 408", NULL);
    (void)close(fd);
    rig_stop(&rig);
}
#endif
