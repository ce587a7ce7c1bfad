/*
 * Report what Linux on POWER sees of its CPU and KVM; also the init of L2
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * As process 1 of L2, it reports, and then reads commands from its console, one
 * per line: "report", "reboot", "online N".  On a KVM host, it reports once,
 * including KVM.
 *
 * With the argument "work", processes in L2 notice lost pages and lost
 * interrupts, and each report includes their results.  Each worker owns some
 * memory and remembers what it wrote where.  In a round it checks a few blocks
 * and rewrites them, sleeps, so that it needs a timer interrupt, and wakes its
 * neighbor, which may be on another CPU.
 *
 * A line of a report is "probe: KEY=VALUE"; the last is "probe: end".
 */

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/utsname.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <linux/kvm.h>

#define CPU_VERSION "/proc/device-tree/cpus/*/cpu-version"
/* How long a plugged CPU may take to appear */
#define ONLINE_SECONDS 30

/* Linux 7.3, which the cross compiler's own headers may not know */
#define COMPAT_CAPS_IOCTL       _IO(KVMIO, 0xb8)

#define WORKERS         4
#define BLOCK_WORDS     512
#define BLOCKS          512
#define BLOCKS_A_ROUND  32
#define ROUND_PAUSE_NS  1000000
/* A worker that has not answered by then never will */
#define PATIENCE_MS     60000

typedef struct Answer {
    unsigned question;
    uint64_t rounds;
    uint64_t wrong;
} Answer;

typedef struct Worker {
    unsigned number;
    Answer so_far;
    uint32_t stamps[BLOCKS];
    uint64_t blocks[BLOCKS][BLOCK_WORDS];
} Worker;

/* Shared by all processes: the number of the last question */
static unsigned *question;
static int answers[2];
/* The worker of this number reads from it, its neighbor writes */
static int wakeups[WORKERS][2];

static bool working;

static void report_cpuinfo(void)
{
    char line[256], cpu[256] = "", machine[256] = "";
    unsigned int family, version, pvr = 0;
    int online = 0;
    FILE *f = fopen("/proc/cpuinfo", "r");

    while (f && fgets(line, sizeof(line), f)) {
        char value[256];

        if (sscanf(line, "cpu : %255[^,\n]", value) == 1 && ++online == 1) {
            snprintf(cpu, sizeof(cpu), "%s", value);
        }
        if (sscanf(line, "revision : %*[^(](pvr %x %x)",
                   &family, &version) == 2) {
            pvr = family << 16 | version;
        }
        sscanf(line, "machine : %255[^\n]", machine);
    }
    if (f) {
        fclose(f);
    }
    printf("probe: cpu=%s\nprobe: cpus=%d\n", cpu, online);
    printf("probe: pvr=0x%08x\nprobe: machine=%s\n", pvr, machine);
}

static void report_cpu_version(void)
{
    glob_t nodes;
    uint8_t v[4];
    FILE *f = NULL;

    /* Nodes are sorted, so this is CPU 0 of a guest; those of a host agree */
    if (glob(CPU_VERSION, 0, NULL, &nodes) == 0) {
        f = fopen(nodes.gl_pathv[0], "r");
        globfree(&nodes);
    }
    if (f) {
        if (fread(v, sizeof(v), 1, f) == 1) {
            printf("probe: cpu_version=0x%02x%02x%02x%02x\n",
                   v[0], v[1], v[2], v[3]);
        }
        fclose(f);
    }
}

static void report_kvm(void)
{
    /* size, flags, bits */
    uint64_t caps[3] = { sizeof(caps) };
    int kvm = open("/dev/kvm", O_RDWR);
    int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0UL);

    if (vm < 0) {
        printf("probe: kvm=%s\n", strerror(errno));
    } else if (ioctl(vm, COMPAT_CAPS_IOCTL, caps) == 0) {
        printf("probe: compat_caps=0x%016" PRIx64 "\n", caps[2]);
    } else {
        printf("probe: compat_caps_error=%s\n", strerror(errno));
    }
    if (vm >= 0) {
        /* QEMU tells the two kinds apart in the same way */
        bool pr = ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_PPC_GET_PVINFO) > 0;
        bool nests = ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_PPC_NESTED_HV) > 0;

        printf("probe: kvm_type=%s\nprobe: nests=%d\n",
               pr ? "PR" : "HV", nests);
        close(vm);
    }
    if (kvm >= 0) {
        close(kvm);
    }
}

static uint64_t expected(const Worker *w, unsigned block, unsigned word)
{
    uint64_t place = (uint64_t)w->number << 24 | block << 12 | word;

    return (place << 32 | w->stamps[block]) * 0x9e3779b97f4a7c15;
}

static void check_block(Worker *w, unsigned block)
{
    for (unsigned i = 0; i < BLOCK_WORDS; i++) {
        if (w->blocks[block][i] != expected(w, block, i)) {
            w->so_far.wrong++;
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
    w->so_far.rounds++;
}

static bool answer(Worker *w, unsigned asked)
{
    for (unsigned block = 0; block < BLOCKS; block++) {
        check_block(w, block);
    }
    w->so_far.question = asked;
    return write(answers[1], &w->so_far, sizeof(Answer)) == sizeof(Answer);
}

static void work(Worker *w)
{
    const struct timespec pause = { .tv_nsec = ROUND_PAUSE_NS };
    int next = wakeups[(w->number + 1) % WORKERS][1];
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
        if (asked != w->so_far.question && !answer(w, asked)) {
            break;
        }
    }
    _exit(1);
}

/* Start the workers, which run until the guest ends */
static bool start_work(void)
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

/*
 * Make every worker check all of its memory.  One that does not answer has
 * crashed, or an interrupt was lost.
 */
static void report_work(void)
{
    struct pollfd ready = { .fd = answers[0], .events = POLLIN };
    unsigned asked = __atomic_add_fetch(question, 1, __ATOMIC_ACQ_REL);
    uint64_t rounds = 0, wrong = 0;
    int missing = WORKERS;
    Answer a;

    while (missing && poll(&ready, 1, PATIENCE_MS) == 1 &&
           read(answers[0], &a, sizeof(a)) == sizeof(a)) {
        /* an earlier question may have been given up */
        if (a.question == asked) {
            missing--;
            rounds += a.rounds;
            wrong += a.wrong;
        }
    }
    printf("probe: rounds=%" PRIu64 "\nprobe: wrong=%" PRIu64 "\n",
           rounds, wrong);
    if (missing) {
        printf("probe: error=%d workers in L2 have stopped\n", missing);
    }
}

static void report(bool host)
{
    struct utsname name;

    uname(&name);
    printf("probe: kernel=%s\n", name.release);
    report_cpuinfo();
    report_cpu_version();
    if (host) {
        report_kvm();
    }
    if (working) {
        report_work();
    }
    printf("probe: end\n");
    fflush(stdout);
}

/*
 * The kernel adds a plugged CPU asynchronously, from a work queue, and this
 * program does not receive uevents: try until the CPU exists.
 */
static void online(const char *cpu)
{
    const struct timespec pause = { .tv_nsec = 100 * 1000 * 1000 };
    char path[320];
    int fd;

    snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%s/online", cpu);
    for (int i = 0; i < ONLINE_SECONDS * 10; i++) {
        fd = open(path, O_WRONLY);
        if (fd >= 0 && write(fd, "1", 1) == 1) {
            close(fd);
            return;
        }
        if (fd >= 0) {
            close(fd);
        }
        nanosleep(&pause, NULL);
    }
    printf("probe: error=%s: %s\n", path, strerror(errno));
}

static void obey(char *order)
{
    order[strcspn(order, "\r\n")] = '\0';
    if (!strcmp(order, "report")) {
        report(false);
    } else if (!strcmp(order, "reboot")) {
        reboot(RB_AUTOBOOT);
    } else if (!strncmp(order, "online ", 7)) {
        online(order + 7);
        report(false);
    } else if (*order) {
        printf("probe: error=unknown order %s\nprobe: end\n", order);
    }
}

/* Process 1 of an initramfs starts without file systems, and may lack a console */
static void become_init(void)
{
    struct termios tty;
    int console;

    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    console = open("/dev/console", O_RDWR);
    for (int fd = 0; console >= 0 && fd < 3; fd++) {
        dup2(console, fd);
    }
    if (tcgetattr(0, &tty) == 0) {
        tty.c_lflag &= ~ECHO;
        tcsetattr(0, TCSANOW, &tty);
    }
}

int main(int argc, char **argv)
{
    bool init = getpid() == 1;
    char order[256];

    if (init) {
        become_init();
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 1 && !strcmp(argv[1], "work")) {
        working = start_work();
        if (!working) {
            printf("probe: error=cannot start workers: %s\n", strerror(errno));
        }
    }
    report(!init);
    if (!init) {
        return 0;
    }
    for (;;) {
        if (fgets(order, sizeof(order), stdin)) {
            obey(order);
        } else {
            clearerr(stdin);
            pause();
        }
    }
}
