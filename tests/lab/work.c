/*
 * Work for a guest, which notices lost pages and lost interrupts
 *
 * Each worker owns some memory and remembers what it wrote where.  In a round
 * it checks a few blocks and rewrites them, sleeps, so that it needs a timer
 * interrupt, and wakes its neighbor, which may be on another CPU.
 *
 * Copyright (c) 2026 QEMU contributors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "work.h"

#define WORKERS         4
#define BLOCK_WORDS     512
#define BLOCKS          512
#define BLOCKS_A_ROUND  32
#define ROUND_PAUSE_NS  1000000
/* A worker that has not answered by then never will */
#define PATIENCE_MS     60000

typedef struct Worker {
    unsigned number;
    uint64_t rounds;
    uint64_t wrong;
    uint32_t stamps[BLOCKS];
    uint64_t blocks[BLOCKS][BLOCK_WORDS];
} Worker;

typedef struct Answer {
    unsigned question;
    uint64_t rounds;
    uint64_t wrong;
} Answer;

/* Shared by all processes: the number of the last question */
static unsigned *question;
static int answers[2];
/* The worker of this number reads from it, its neighbor writes */
static int wakeups[WORKERS][2];

static uint64_t expected(const Worker *w, unsigned block, unsigned word)
{
    uint64_t place = (uint64_t)w->number << 24 | block << 12 | word;

    return (place << 32 | w->stamps[block]) * 0x9e3779b97f4a7c15;
}

static void check_block(Worker *w, unsigned block)
{
    for (unsigned i = 0; i < BLOCK_WORDS; i++) {
        if (w->blocks[block][i] != expected(w, block, i)) {
            w->wrong++;
            return;
        }
    }
}

static void write_block(Worker *w, unsigned block)
{
    w->stamps[block]++;
    for (unsigned i = 0; i < BLOCK_WORDS; i++) {
        w->blocks[block][i] = expected(w, block, i);
    }
}

static void do_round(Worker *w)
{
    for (unsigned i = 0; i < BLOCKS_A_ROUND; i++) {
        unsigned block = rand() % BLOCKS;

        check_block(w, block);
        write_block(w, block);
    }
    w->rounds++;
}

static bool answer(Worker *w, unsigned asked)
{
    Answer a = { .question = asked, .rounds = w->rounds };

    for (unsigned block = 0; block < BLOCKS; block++) {
        check_block(w, block);
    }
    a.wrong = w->wrong;
    return write(answers[1], &a, sizeof(a)) == sizeof(a);
}

static void work(Worker *w)
{
    const struct timespec pause = { .tv_nsec = ROUND_PAUSE_NS };
    int next = wakeups[(w->number + 1) % WORKERS][1];
    unsigned answered = 0;
    char token = 0;

    srand(w->number);
    for (unsigned block = 0; block < BLOCKS; block++) {
        write_block(w, block);
    }
    while (write(next, &token, 1) == 1 &&
           read(wakeups[w->number][0], &token, 1) == 1) {
        unsigned asked = __atomic_load_n(question, __ATOMIC_ACQUIRE);

        do_round(w);
        nanosleep(&pause, NULL);
        if (asked != answered) {
            answered = asked;
            if (!answer(w, asked)) {
                break;
            }
        }
    }
    _exit(1);
}

bool work_start(void)
{
    question = mmap(NULL, sizeof(*question), PROT_READ | PROT_WRITE,
                    /* cppcheck-suppress invalidFunctionArg ; wants a file */
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (question == MAP_FAILED || pipe(answers) < 0) {
        return false;
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        if (pipe(wakeups[i]) < 0) {
            return false;
        }
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        pid_t child = fork();

        if (child < 0) {
            return false;
        }
        if (child == 0) {
            Worker *w = calloc(1, sizeof(*w));

            if (w) {
                w->number = i;
                work(w);
            }
            _exit(1);
        }
    }
    return true;
}

int work_check(uint64_t *rounds, uint64_t *wrong)
{
    struct pollfd ready = { .fd = answers[0], .events = POLLIN };
    unsigned asked = __atomic_add_fetch(question, 1, __ATOMIC_ACQ_REL);
    int missing = WORKERS;

    *rounds = *wrong = 0;
    while (missing && poll(&ready, 1, PATIENCE_MS) == 1) {
        Answer a;

        if (read(answers[0], &a, sizeof(a)) != sizeof(a)) {
            break;
        }
        /* an earlier question may have been given up */
        if (a.question == asked) {
            missing--;
            *rounds += a.rounds;
            *wrong += a.wrong;
        }
    }
    return missing;
}
