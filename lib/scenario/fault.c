/* What a fault is called, whom it hits, and what a link is while it lasts. */
#include <stdio.h>
#include <string.h>

#include "scenario/scenario_impl.h"
#include "util/units.h"

static const char *const names[] = {"kill-socket",   "kill-server", "blackout",   "network-change",
                                    "link",          "detach",      "toxic",      "power-cut",
                                    "restore",       "disk-full",   "sync-fails", "clock-jump",
                                    "remove-member", "backup",      "corrupt",    "redis"};
_Static_assert(sizeof names / sizeof *names == FAULT_DO_COUNT, "each fault has its name");

const char *fault_name(enum fault_do what)
{
    return names[what];
}

bool fault_only_simulated(enum fault_do what)
{
    return what >= FAULT_POWER_CUT && what < FAULT_BACKUP && what != FAULT_RESTORE;
}

bool fault_by_name(enum fault_do *what, const char *name)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i]) == 0) {
            *what = (enum fault_do)i;
            return true;
        }
    }
    return false;
}

bool fault_hits(const struct scenario_fault *f, const struct scenario_population *p)
{
    return p->link[0] && (strcmp(f->target, "*") == 0 || strcmp(f->target, p->link) == 0);
}

void fault_describe(char *out, size_t size, const struct scenario_fault *f)
{
    char span[32], share[32] = "";
    bool again = f->what == FAULT_KILL_SERVER || f->what == FAULT_POWER_CUT || f->what == FAULT_SYNC_FAILS;
    uint64_t by = (uint64_t)(f->by < 0 ? -f->by : f->by);
    units_show_duration(span, again ? f->restart : f->what == FAULT_CLOCK_JUMP ? by : f->duration);
    if (f->share_ppm != 1000000)
        snprintf(share, sizeof share, "%.4g%% of ", f->share_ppm / 1e4);
    switch (f->what) {
    case FAULT_KILL_SERVER:
        snprintf(out, size, "kill-server%s%s with signal %d, %s%s", f->node ? " " : "",
                 f->node ? f->target : "", f->signal, f->restart ? "again after " : "for good",
                 f->restart ? span : "");
        break;
    case FAULT_BLACKOUT:
    case FAULT_DETACH:
        snprintf(out, size, "%s of %s%s for %s", names[f->what], share, f->target, span);
        break;
    case FAULT_TOXIC:
        snprintf(out, size, "toxic %s%s%s", f->set, f->duration ? " for " : "", f->duration ? span : "");
        break;
    case FAULT_LINK:
        snprintf(out, size, "link %s set to %s%s%s", f->target, f->set, f->duration ? " for " : "",
                 f->duration ? span : " until the load has ended");
        break;
    case FAULT_KILL_SOCKET:
    case FAULT_NETWORK_CHANGE:
        snprintf(out, size, "%s of %s%s%s", names[f->what], share, f->target,
                 f->mid_frame ? ", in the middle of a frame" : "");
        break;
    case FAULT_POWER_CUT:
    case FAULT_SYNC_FAILS:
        snprintf(out, size, "%s%s%s, again after %s", names[f->what], f->node ? " of " : "",
                 f->node ? f->target : "", span);
        break;
    case FAULT_RESTORE:
        snprintf(out, size, "the store is put back to %s%s%s%s",
                 f->duration ? "what it was before " : "its backup", f->duration ? span : "",
                 f->set[0] ? ", " : "", f->set);
        break;
    case FAULT_BACKUP:
        snprintf(out, size, "a backup is made");
        break;
    case FAULT_CORRUPT:
        snprintf(out, size, "the store is damaged (%s)", f->set);
        break;
    case FAULT_REDIS:
        snprintf(out, size, "redis: %s%s%s, for %s", f->set, f->node ? " from " : "",
                 f->node ? f->target : "", span);
        break;
    case FAULT_DISK_FULL:
        snprintf(out, size, "disk%s%s full for %s", f->node ? " of " : "", f->node ? f->target : "", span);
        break;
    case FAULT_CLOCK_JUMP:
        snprintf(out, size, "clock of the %s jumps %s by %s", f->target, f->by < 0 ? "back" : "ahead", span);
        break;
    case FAULT_REMOVE_MEMBER:
        snprintf(out, size, "somebody is removed from %schats of %s, back after %s", share, f->target, span);
        break;
    case FAULT_DO_COUNT:
        break;
    }
}

int scenario_link_profile(const struct scenario *s, const struct scenario_link *l, uint64_t active, char *out,
                          size_t size)
{
    size_t n = (size_t)snprintf(out, size, "%s", l->profile);
    for (uint32_t i = 0; i < s->faults_n && n < size; i++) {
        const struct scenario_fault *f = &s->faults[i];
        if (f->what == FAULT_LINK && active >> i & 1 &&
            (strcmp(f->target, "*") == 0 || strcmp(f->target, l->name) == 0))
            n += (size_t)snprintf(out + n, size - n, ",%s", f->set);
    }
    return n < size ? 0 : ERR_LIMIT;
}
