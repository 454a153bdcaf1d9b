/* Copyright (c) 2026 nasops.encryption contributors
 * GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Preloaded into a program, it shows it emulated drives. $OPAL_EMULATOR is the folder of the emulator:
 *   root/    a tree; what is there below /sys, /dev and /proc is seen instead of the host's own, and so are the locks
 *            and notes of this collection in /run, which is /var/run, too. What it installs for the boot is written
 *            there: never to /etc of the host
 *   socket   where the commands go that are sent to a device node of that tree
 * A device node that is opened is a connection to the socket, so every open is a client of its own.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/nvme_ioctl.h>
#include <scsi/sg.h>

enum { OPEN = 1, NVME = 2, SG = 3, OTHER = 4, READ = 5, SIZE = 6, MOST = 1024 };

struct request {
    uint32_t kind, head, data;
};
struct answer {
    int32_t result;
    uint32_t status, sense, data;
};

/* Descriptors that are connections to a drive. */
static char drives[MOST];

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OWN "/run/nasops.encryption."

/* A folder, or what is in it. */
static int is_below(const char *path, const char *folder)
{
    size_t length = strlen(folder);

    return !strncmp(path, folder, length) && (!path[length] || path[length] == '/');
}

/* A lock or a note of this collection, in either spelling, and where it puts what a host starts. */
static int is_own(const char *path)
{
    return !strncmp(path, OWN, sizeof OWN - 1) || !strncmp(path, "/var" OWN, sizeof "/var" OWN - 1)
        || is_below(path, "/etc/zfs") || is_below(path, "/etc/systemd/system") || is_below(path, "/run/systemd/system");
}

/* The same path in the tree of the emulator, if it is there; otherwise as it was. */
static const char *redirected(const char *path, char *room)
{
    const char *folder = getenv("OPAL_EMULATOR");
    static int (*real)(const char *, int);

    if (!folder || !path)
        return path;
    if (strncmp(path, "/sys/", 5) && strncmp(path, "/dev/", 5) && strcmp(path, "/dev") && strcmp(path, "/sys")
        && !is_own(path) && strcmp(path, "/proc/swaps") && strcmp(path, "/proc/self/mountinfo") && strcmp(path, "/proc/cmdline"))
        return path;
    if (snprintf(room, PATH_MAX, "%s/root%s", folder, path) >= PATH_MAX)
        return path;
    if (!real)
        real = NEXT(access);
    if (real(room, F_OK) == 0)
        return room;
    /* A link whose target is gone, and nodes of drives that were pulled: not the host's own of the same name. */
    char link[4];
    static ssize_t (*read_link)(const char *, char *, size_t);
    if (!read_link)
        read_link = NEXT(readlink);
    if (read_link(room, link, sizeof link) >= 0)
        return room;
    if (!strncmp(path, "/dev/sd", 7) || !strncmp(path, "/dev/nvme", 9) || !strncmp(path, "/dev/disk/", 10)
        || is_own(path) || !strncmp(path, "/sys/class/", 11) || !strncmp(path, "/sys/module/libata", 18))
        return room;
    return path;
}

static int transfer(int fd, int out, void *data, size_t length)
{
    char *at = data;

    while (length) {
        ssize_t done = out ? send(fd, at, length, MSG_NOSIGNAL) : recv(fd, at, length, 0);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            errno = ENODEV;
            return -1;
        }
        at += done;
        length -= done;
    }
    return 0;
}

static int ask(int fd, uint32_t kind, void *head, uint32_t head_length, void *data, uint32_t length,
               struct answer *answer)
{
    struct request request = {kind, head_length, length};

    if (transfer(fd, 1, &request, sizeof request) || transfer(fd, 1, head, head_length)
        || transfer(fd, 1, data, length) || transfer(fd, 0, answer, sizeof *answer))
        return -1;
    if (answer->result < 0) {
        errno = -answer->result;
        return -1;
    }
    return 0;
}

/* What a drive sends, as much as there is room for. */
static int fetch(int fd, uint32_t length, void *room, uint32_t size)
{
    char rest[512];
    uint32_t fits = length < size ? length : size;

    if (transfer(fd, 0, room, fits))
        return -1;
    for (length -= fits; length; length -= fits) {
        fits = length < sizeof rest ? length : sizeof rest;
        if (transfer(fd, 0, rest, fits))
            return -1;
    }
    return 0;
}

static int connect_drive(const char *path, int flags)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char name[PATH_MAX];
    struct answer answer;
    int fd, fault;

    if (!realpath(path, name))
        return -1;
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", getenv("OPAL_EMULATOR"));
    fd = socket(AF_UNIX, SOCK_STREAM | (flags & O_CLOEXEC ? SOCK_CLOEXEC : 0), 0);
    if (fd < 0)
        return -1;
    if (fd >= MOST || connect(fd, (struct sockaddr *)&address, sizeof address)
        || ask(fd, OPEN, name, strlen(name), &flags, sizeof flags, &answer)) {
        fault = fd >= MOST ? EMFILE : errno;
        NEXT(close)(fd);
        errno = fault;
        return -1;
    }
    drives[fd] = 1;
    return fd;
}

/* Opens it, unless the path is none of the emulator's device nodes: then -2. */
static int try_drive(const char *path, const char *there, int flags)
{
    struct stat status;

    if (there == path || strncmp(path, "/dev/", 5))
        return -2;
    if (NEXT(stat)(there, &status) == 0 && !S_ISREG(status.st_mode))
        return -2;
    return connect_drive(there, flags);
}

#define OPENING(name)                                                   \
    int name(const char *path, int flags, ...)                          \
    {                                                                   \
        static int (*real)(const char *, int, ...);                     \
        char room[PATH_MAX];                                            \
        const char *there = redirected(path, room);                     \
        mode_t mode = 0;                                                \
        va_list rest;                                                   \
        va_start(rest, flags);                                          \
        if (flags & (O_CREAT | __O_TMPFILE))                            \
            mode = va_arg(rest, mode_t);                                \
        va_end(rest);                                                   \
        int fd = try_drive(path, there, flags);                         \
        if (fd != -2)                                                   \
            return fd;                                                  \
        if (!real)                                                      \
            real = NEXT(name);                                          \
        return real(there, flags, mode);                                \
    }
OPENING(open)
OPENING(open64)

int close(int fd)
{
    static int (*real)(int);

    if (!real)
        real = NEXT(close);
    if (fd >= 0 && fd < MOST)
        drives[fd] = 0;
    return real(fd);
}

static int nvme(int fd, struct nvme_passthru_cmd *command)
{
    void *data = (void *)(uintptr_t)command->addr;
    int out = (command->opcode & 3) == 1, in = (command->opcode & 3) == 2;
    struct answer answer;

    if (ask(fd, NVME, command, sizeof *command, data, out ? command->data_len : 0, &answer)
        || fetch(fd, answer.data, data, in ? command->data_len : 0))
        return -1;
    return answer.status;
}

static int sg(int fd, struct sg_io_hdr *command)
{
    int out = command->dxfer_direction == SG_DXFER_TO_DEV, in = command->dxfer_direction == SG_DXFER_FROM_DEV;
    struct answer answer;

    if (ask(fd, SG, command->cmdp, command->cmd_len, command->dxferp, out ? command->dxfer_len : 0, &answer)
        || fetch(fd, answer.sense, command->sbp, command->mx_sb_len)
        || fetch(fd, answer.data, command->dxferp, in ? command->dxfer_len : 0))
        return -1;
    command->status = answer.status;
    command->masked_status = answer.status >> 1;
    command->sb_len_wr = answer.sense < command->mx_sb_len ? answer.sense : command->mx_sb_len;
    command->driver_status = answer.sense ? 8 : 0;
    command->host_status = 0;
    command->resid = in ? (int)command->dxfer_len - (int)answer.data : 0;
    command->info = answer.status ? SG_INFO_CHECK : 0;
    return 0;
}

int ioctl(int fd, unsigned long request, ...)
{
    static int (*real)(int, unsigned long, ...);
    struct answer answer;
    uint32_t number = request;
    void *argument;
    va_list rest;

    va_start(rest, request);
    argument = va_arg(rest, void *);
    va_end(rest);
    if (fd < 0 || fd >= MOST || !drives[fd]) {
        if (!real)
            real = NEXT(ioctl);
        return real(fd, request, argument);
    }
    if (request == NVME_IOCTL_ADMIN_CMD)
        return nvme(fd, argument);
    if (request == SG_IO)
        return sg(fd, argument);
    return ask(fd, OTHER, &number, sizeof number, NULL, 0, &answer);
}

/* The content of a drive. */
static ssize_t read_drive(int fd, void *room, size_t size, off_t offset)
{
    uint64_t place[2] = {offset, size};
    struct answer answer;

    if (ask(fd, READ, place, sizeof place, NULL, 0, &answer) || fetch(fd, answer.data, room, size))
        return -1;
    return answer.data;
}

#define READING(name)                                                   \
    ssize_t name(int fd, void *room, size_t size, off_t offset)         \
    {                                                                   \
        static ssize_t (*real)(int, void *, size_t, off_t);             \
        if (fd >= 0 && fd < MOST && drives[fd])                         \
            return read_drive(fd, room, size, offset);                  \
        if (!real)                                                      \
            real = dlsym(RTLD_NEXT, #name);                             \
        return real(fd, room, size, offset);                            \
    }
READING(pread)
READING(pread64)

/* Nobody seeks in a drive but to its end, to learn how large it is. */
static off_t size_drive(int fd, off_t offset, int whence)
{
    struct answer answer;
    uint64_t size;

    if (offset || whence != SEEK_END) {
        errno = ESPIPE;
        return -1;
    }
    if (ask(fd, SIZE, NULL, 0, NULL, 0, &answer) || fetch(fd, answer.data, &size, sizeof size))
        return -1;
    return size;
}

#define SEEKING(name)                                                   \
    off_t name(int fd, off_t offset, int whence)                        \
    {                                                                   \
        static off_t (*real)(int, off_t, int);                          \
        if (fd >= 0 && fd < MOST && drives[fd])                         \
            return size_drive(fd, offset, whence);                      \
        if (!real)                                                      \
            real = dlsym(RTLD_NEXT, #name);                             \
        return real(fd, offset, whence);                                \
    }
SEEKING(lseek)
SEEKING(lseek64)

/* Everything else that takes a path sees the tree. */
#define SEES(type, name, parameters, ...)                               \
    type name parameters                                                \
    {                                                                   \
        static type(*real) parameters;                                  \
        char room[PATH_MAX];                                            \
        if (!real)                                                      \
            real = dlsym(RTLD_NEXT, #name);                             \
        path = redirected(path, room);                                  \
        return real(__VA_ARGS__);                                       \
    }
struct stat64;
SEES(int, unlink, (const char *path), path)
SEES(int, mkdir, (const char *path, mode_t mode), path, mode)
SEES(int, chmod, (const char *path, mode_t mode), path, mode)
SEES(int, symlink, (const char *target, const char *path), target, path)
SEES(int, access, (const char *path, int mode), path, mode)
SEES(int, stat, (const char *path, struct stat *status), path, status)
SEES(int, stat64, (const char *path, struct stat64 *status), path, status)
SEES(int, lstat, (const char *path, struct stat *status), path, status)
SEES(int, lstat64, (const char *path, struct stat64 *status), path, status)
SEES(int, fstatat, (int folder, const char *path, struct stat *status, int flags), folder, path, status, flags)
SEES(int, fstatat64, (int folder, const char *path, struct stat64 *status, int flags), folder, path, status, flags)
SEES(int, __xstat, (int version, const char *path, struct stat *status), version, path, status)
SEES(int, __xstat64, (int version, const char *path, struct stat64 *status), version, path, status)
SEES(int, __lxstat, (int version, const char *path, struct stat *status), version, path, status)
SEES(int, __lxstat64, (int version, const char *path, struct stat64 *status), version, path, status)
SEES(ssize_t, readlink, (const char *path, char *room_, size_t size), path, room_, size)
SEES(ssize_t, readlinkat, (int folder, const char *path, char *room_, size_t size), folder, path, room_, size)
SEES(DIR *, opendir, (const char *path), path)
SEES(FILE *, fopen, (const char *path, const char *mode), path, mode)
SEES(FILE *, fopen64, (const char *path, const char *mode), path, mode)

int rename(const char *from, const char *to)
{
    static int (*real)(const char *, const char *);
    char rooms[2][PATH_MAX];

    if (!real)
        real = NEXT(rename);
    return real(redirected(from, rooms[0]), redirected(to, rooms[1]));
}
