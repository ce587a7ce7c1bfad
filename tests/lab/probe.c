/*
 * Report what Linux on POWER sees of its CPU and KVM; also the init of L2
 *
 * Copyright (c) 2026 QEMU contributors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * As process 1 of L2, it reports, and then reads commands from its console, one
 * per line: "report", "reboot", "online N".  On a KVM host, it reports once,
 * including the machine and KVM.  With the argument "work", L2 also runs the
 * workers of work.c, and each report includes their results.
 *
 * A line of a report is "probe: KEY=VALUE"; the last is "probe: end".
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <linux/kvm.h>

#include "work.h"

#define CPUS "/proc/device-tree/cpus"
/* How long a plugged CPU may take to appear */
#define ONLINE_SECONDS 30

/* Linux 7.3, which the cross compiler's own headers may not know */
#define COMPAT_CAPS_IOCTL       _IO(KVMIO, 0xb8)

static bool working;

struct compat_caps {
    uint64_t size;
    uint64_t flags;
    uint64_t bits;
};

static void report_cpuinfo(bool host)
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
    if (host) {
        printf("probe: pvr=0x%08x\nprobe: machine=%s\n", pvr, machine);
    }
}

/* The boot CPU's node comes first: @0 before @8, @8 before @10 */
static bool comes_first(const char *name, const char *other)
{
    size_t length = strlen(name), most = strlen(other);

    return !most || length < most ||
           (length == most && strcmp(name, other) < 0);
}

static void report_cpu_version(void)
{
    DIR *cpus = opendir(CPUS);
    struct dirent *entry;
    char first[sizeof(entry->d_name)] = "";
    uint8_t v[4];

    while (cpus && (entry = readdir(cpus))) {
        char path[512];
        uint8_t own[4];
        FILE *f;

        snprintf(path, sizeof(path), CPUS "/%s/cpu-version", entry->d_name);
        f = fopen(path, "r");
        if (!f) {
            continue;
        }
        if (fread(own, 1, sizeof(own), f) == sizeof(own) &&
            comes_first(entry->d_name, first)) {
            snprintf(first, sizeof(first), "%s", entry->d_name);
            memcpy(v, own, sizeof(v));
        }
        fclose(f);
    }
    if (cpus) {
        closedir(cpus);
    }
    if (*first) {
        printf("probe: cpu_version=0x%02x%02x%02x%02x\n",
               v[0], v[1], v[2], v[3]);
    }
}

static void report_kvm(void)
{
    struct compat_caps caps = { .size = sizeof(caps) };
    int kvm = open("/dev/kvm", O_RDWR);
    int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0UL);

    if (vm < 0) {
        printf("probe: kvm=%s\n", strerror(errno));
    } else if (ioctl(vm, COMPAT_CAPS_IOCTL, &caps) == 0) {
        printf("probe: compat_caps=0x%016" PRIx64 "\n", caps.bits);
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

static void report_work(void)
{
    uint64_t rounds, wrong;
    int missing = work_check(&rounds, &wrong);

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
    report_cpuinfo(host);
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

static bool write_one(const char *path)
{
    int fd = open(path, O_WRONLY);
    bool done = fd >= 0 && write(fd, "1", 1) == 1;

    if (fd >= 0) {
        close(fd);
    }
    return done;
}

/*
 * The kernel adds a plugged CPU asynchronously, from a work queue, and this
 * program does not receive uevents: try until the CPU exists.
 */
static void online(const char *cpu)
{
    const struct timespec pause = { .tv_nsec = 100 * 1000 * 1000 };
    char path[320];
    int patience = ONLINE_SECONDS * 10;

    snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%s/online", cpu);
    while (!write_one(path)) {
        if (!patience--) {
            printf("probe: error=%s: %s\n", path, strerror(errno));
            return;
        }
        nanosleep(&pause, NULL);
    }
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

/* Process 1 of an initramfs starts with an empty file system */
static void become_init(void)
{
    static const char *const mounts[][2] = {
        { "proc", "/proc" }, { "sysfs", "/sys" }, { "devtmpfs", "/dev" },
    };
    struct termios tty;
    int console;

    for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
        mkdir(mounts[i][1], 0755);
        mount(mounts[i][0], mounts[i][1], mounts[i][0], 0, NULL);
    }
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
        working = work_start();
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
