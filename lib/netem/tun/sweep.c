#include "netem/tun/sweep_impl.h"

#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS_MAX 100 /* a fork bomb could outrun this; 100 rounds are a second */

static bool lives_in(pid_t pid, const struct stat *ns, int n)
{
    char path[64];
    struct stat st;
    snprintf(path, sizeof path, "/proc/%d/ns/net", (int)pid);
    if (stat(path, &st) < 0)
        return false;
    for (int i = 0; i < n; i++)
        if (st.st_ino == ns[i].st_ino && st.st_dev == ns[i].st_dev)
            return true;
    return false;
}

static int sweep_once(const struct stat *ns, int n, pid_t spare)
{
    DIR *d = opendir("/proc");
    int killed = 0;
    if (!d)
        return 0;
    for (struct dirent *e; (e = readdir(d));) {
        pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
        if (pid <= 1 || pid == getpid() || pid == spare || !lives_in(pid, ns, n))
            continue;
        killed += kill(pid, SIGKILL) == 0;
    }
    closedir(d);
    return killed;
}

void sweep_namespaces(const int *ns_fd, int n, pid_t spare)
{
    struct stat ns[2];
    if (n > 2)
        n = 2;
    for (int i = 0; i < n; i++)
        if (fstat(ns_fd[i], &ns[i]) < 0)
            return;
    /* a process that is dying has left its namespace already or is seen once more */
    for (int round = 0; round < ROUNDS_MAX && sweep_once(ns, n, spare); round++)
        nanosleep(&(struct timespec){0, 10000000}, NULL);
}
