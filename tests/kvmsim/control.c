/*
 * The control socket: one command per line, one answer per line.
 *
 * Commands set the answers of the simulated kernel, make the guest do
 * something, and query the state of KVM.  An answer ends with "ok" or "no"; a
 * line that begins with "event" is not an answer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "kvmsim.h"

#define MAX_WORDS 16

static FILE *in, *out;
static bool started;

void control_event(const char *format, ...)
{
    va_list ap;

    fputs("event ", out);
    va_start(ap, format);
    vfprintf(out, format, ap);
    va_end(ap);
    fputc('\n', out);
    fflush(out);
}

static uint64_t number(const char *word)
{
    return strtoull(word, NULL, 0);
}

/*
 * A command prints the words of its answer, if it has any, and returns NULL; or
 * it prints nothing, and returns the reason.
 */
typedef const char *Command(char **words);

static const char *do_go(char **words)
{
    started = true;
    return NULL;
}

static const char *do_trace(char **words)
{
    return sim_trace_to(words[0]) ? NULL : strerror(errno);
}

static const char *do_pr(char **words)
{
    kernel.pr = number(words[0]);
    return NULL;
}

static const char *do_extension(char **words)
{
    return vm_set_extension(number(words[0]), number(words[1]))
           ? NULL : "no such extension";
}

static const char *do_caps(char **words)
{
    kernel.caps.bits = number(words[0]);
    return NULL;
}

/* caps-error ERRNO TIMES SIZE-WRITTEN-BACK */
static const char *do_caps_error(char **words)
{
    kernel.caps.error = number(words[0]);
    kernel.caps.times = number(words[1]);
    kernel.caps.size_back = number(words[2]);
    return NULL;
}

/* refuse VCPU VALUE ERRNO POISON */
static const char *do_refuse(char **words)
{
    if (kernel.refusals == COUNT(kernel.refusal)) {
        return "too many refusals";
    }
    kernel.refusal[kernel.refusals++] = (Refusal) {
        .vcpu = number(words[0]), .value = number(words[1]),
        .error = number(words[2]), .poison = number(words[3])
    };
    return NULL;
}

static const char *do_accept(char **words)
{
    kernel.refusals = 0;
    return NULL;
}

/* poke ADDRESS HEX: guest memory; what is beyond the end of RAM is dropped */
static const char *do_poke(char **words)
{
    size_t len = strlen(words[1]) / 2;
    char pair[3] = "";

    /* the bytes take the place of their digits */
    for (size_t i = 0; i < len; i++) {
        memcpy(pair, words[1] + 2 * i, 2);
        words[1][i] = strtoul(pair, NULL, 16);
    }
    vm_copy(number(words[0]), words[1], len, true);
    return NULL;
}

/* peek ADDRESS: a word of guest memory, which is big-endian */
static const char *do_peek(char **words)
{
    int32_t word;

    if (vm_copy(number(words[0]), &word, sizeof(word), false) < sizeof(word)) {
        return "not in RAM";
    }
    fprintf(out, "%d ", (int32_t)be32toh(word));
    return NULL;
}

/* hypercall NR [ARG...]: vCPU 0 makes it when it next runs */
static const char *do_hypercall(char **words)
{
    uint64_t ring = 1;

    memset(guest.args, 0, sizeof(guest.args));
    guest.nr = number(words[0]);
    for (size_t i = 0; i < 9 && words[1 + i]; i++) {
        guest.args[i] = number(words[1 + i]);
    }
    guest.sequence++;
    guest.call = PENDING;
    if (write(guest.doorbell, &ring, sizeof(ring)) < 0) {
        return "the doorbell does not work";
    }
    fprintf(out, "%u ", guest.sequence);
    return NULL;
}

/* What the last hypercall returned, even if the guest has not run since */
static const char *do_result(char **words)
{
    if (!vcpus || guest.call < CALLED) {
        return "the guest has made no hypercall";
    }
    fprintf(out, "%ld ", (long)vcpus->run->papr_hcall.ret);
    return NULL;
}

/* For each vCPU: ID:MODE:1 if it runs, 0 if not */
static const char *do_modes(char **words)
{
    for (Vcpu *vcpu = vcpus; vcpu; vcpu = vcpu->next) {
        fprintf(out, "%d:0x%08x:%d ", vcpu->id, vcpu->compat,
                vcpu_runnable(vcpu));
    }
    return NULL;
}

/* How many modes were refused since this was last asked */
static const char *do_refused(char **words)
{
    fprintf(out, "%lu ", kernel.refused);
    kernel.refused = 0;
    return NULL;
}

static const char *do_counts(char **words)
{
    sim_counts(out);
    return NULL;
}

static const struct {
    const char *name;
    int words;                  /* minimum that follows the name */
    Command *run;
} commands[] = {
    { "go", 0, do_go },
    { "trace", 1, do_trace },
    { "pr", 1, do_pr },
    { "extension", 2, do_extension },
    { "caps", 1, do_caps },
    { "caps-error", 3, do_caps_error },
    { "refuse", 4, do_refuse },
    { "accept", 0, do_accept },
    { "poke", 2, do_poke },
    { "peek", 1, do_peek },
    { "hypercall", 1, do_hypercall },
    { "result", 0, do_result },
    { "modes", 0, do_modes },
    { "refused", 0, do_refused },
    { "counts", 0, do_counts },
};

static const char *run_command(char *line)
{
    char *words[MAX_WORDS + 1] = { NULL };
    char *rest = NULL;
    int n = 0;

    for (char *word = strtok_r(line, " \n", &rest); word && n < MAX_WORDS;
         word = strtok_r(NULL, " \n", &rest)) {
        words[n++] = word;
    }
    for (size_t i = 0; n && i < COUNT(commands); i++) {
        if (!strcmp(commands[i].name, words[0])) {
            return n > commands[i].words ? commands[i].run(words + 1)
                                         : "too few words";
        }
    }
    return "no such command";
}

/* Read and run a command; return false if the runner closed the socket. */
static bool read_command(void)
{
    static char *line;
    static size_t size;
    const char *why;

    if (getline(&line, &size, in) < 0) {
        return false;
    }
    pthread_mutex_lock(&sim_lock);
    why = run_command(line);
    fprintf(out, why ? "%s no\n" : "ok\n", why);
    fflush(out);
    pthread_mutex_unlock(&sim_lock);
    return true;
}

static void *listen_forever(void *opaque)
{
    while (read_command()) {
    }
    return NULL;
}

void control_start(void)
{
    const char *fd = getenv("KVMSIM_FD");
    int copy;
    sigset_t all, old;
    pthread_t thread;

    if (started) {
        return;
    }
    guest.doorbell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    in = fd ? fdopen(atoi(fd), "re") : NULL;
    copy = fd ? dup(atoi(fd)) : -1;
    out = copy >= 0 ? fdopen(copy, "we") : NULL;
    if (!in || !out || guest.doorbell < 0) {
        fprintf(stderr, "kvmsim: cannot open the control socket in KVMSIM_FD: "
                "start QEMU with scripts/kvmsim\n");
        exit(EXIT_FAILURE);
    }
    /* exit() locks all streams, but the thread holds this one in getline() */
    __fsetlocking(in, FSETLOCKING_BYCALLER);
    while (!started) {
        if (!read_command()) {
            fprintf(stderr, "kvmsim: the control socket closed early\n");
            exit(EXIT_FAILURE);
        }
    }
    /* QEMU's signals are for QEMU's threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    if (pthread_create(&thread, NULL, listen_forever, NULL)) {
        fprintf(stderr, "kvmsim: cannot make a thread\n");
        exit(EXIT_FAILURE);
    }
    pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}
