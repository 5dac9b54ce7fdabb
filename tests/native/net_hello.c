/* A one-thread "hello world" on the connection API, without an interpreter: what the C core
 * alone costs per request. Usage: net_hello [PORT [ACCESS_LOG_FILE]]; prints the port; ends on
 * SIGTERM. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/exchange.h"
#include "proto/h1_scan.h"

static struct pp_loop *main_loop;
static volatile sig_atomic_t stop;

static void on_signal(int sig)
{
    (void)sig;
    stop = 1;
    pp_loop_wake(main_loop);
}

static void answer(struct pp_exchange *ex)
{
    static const struct pp_out_field fields[] = {{.name = (const uint8_t *)"content-type",
                                                  .name_len = 12,
                                                  .value = (const uint8_t *)"text/plain",
                                                  .value_len = 10}};
    static const uint8_t body[] = "Hello, world!";
    struct pp_response r = {.status = 200,
                            .fields = fields,
                            .field_count = 1,
                            .complete = true,
                            .body_bytes = sizeof body - 1};
    if (pp_exchange_respond(ex, &r, body, 0, NULL, NULL) != PP_OK) {
        pp_exchange_fail(ex, 500);
    }
    pp_exchange_finish(ex);
}

static int listen_on(unsigned port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t len = sizeof addr;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0 || listen(fd, 2048) < 0 ||
        getsockname(fd, (struct sockaddr *)&addr, &len) < 0) {
        perror("net_hello: listen");
        exit(1);
    }
    printf("%u\n", ntohs(addr.sin_port));
    (void)fflush(stdout);
    return fd;
}

int main(int argc, char **argv)
{
    struct pp_settings settings = {
        .http = {.request_line_bytes = 8192, .head_bytes = 32768, .field_count = 100},
        .limit_pipeline = 64,
        .keep_alive_ms = 75000,
        .request_header_ms = 10000,
        .body_idle_ms = 30000,
        .write_ms = 30000,
        .server_header = true,
        .date_header = true,
        .access_log_fd = -1,
        .access_log_prefix = "INFO:     ",
    };
    if (argc > 2) {
        settings.access_log_fd = open(argv[2], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    }
    pp_h1_scan_init();
    main_loop = pp_loop_new(&settings);
    if (main_loop == NULL) {
        perror("net_hello: loop");
        return 1;
    }
    int fd = listen_on(argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 0);
    if (pp_loop_listen(main_loop, fd, PP_LISTEN_ALONE, 0) != PP_OK) {
        perror("net_hello: epoll");
        return 1;
    }
    (void)signal(SIGTERM, on_signal);
    (void)signal(SIGINT, on_signal);
    while (!stop) {
        struct pp_exchange *ex;
        unsigned events;
        if (pp_loop_turn(main_loop, -1) < 0) {
            perror("net_hello: turn");
            return 1;
        }
        while ((ex = pp_loop_take_event(main_loop, &events)) != NULL) {
            if (events & PP_EV_REQUEST) {
                answer(ex);
            } else if (events & PP_EV_CLOSED) {
                pp_exchange_finish(ex);
            }
        }
        while (pp_loop_take_released(main_loop) != NULL) {}
    }
    pp_loop_free(main_loop);
    (void)close(fd);
    return 0;
}
