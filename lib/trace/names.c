#include "trace/join.h"

#include <ctype.h>
#include <pthread.h>
#include <strings.h>

static const char *const hop_upper[HOP_COUNT] = {
#define HOP(name, text, side, arg) [HOP_##name] = #name,
#include "trace/events.def"
#undef HOP
};
static const char *const hop_texts[HOP_COUNT] = {
#define HOP(name, text, side, arg) [HOP_##name] = text,
#include "trace/events.def"
#undef HOP
};
static const char *const reason_texts[REASON_COUNT] = {
#define REASON(name, text) [REASON_##name] = text,
#include "trace/reasons.def"
#undef REASON
};
static const char *const net_names[NET_COUNT] = {
#define NET(name, text) [NET_##name] = text,
#include "trace/nets.def"
#undef NET
};

static char hop_lower[HOP_COUNT][32];
static pthread_once_t lowered = PTHREAD_ONCE_INIT;

static void lower_all(void)
{
    for (int h = 0; h < HOP_COUNT; h++)
        for (size_t i = 0; hop_upper[h][i] && i < sizeof hop_lower[h] - 1; i++)
            hop_lower[h][i] = (char)tolower((unsigned char)hop_upper[h][i]);
}

const char *hop_name(int hop)
{
    pthread_once(&lowered, lower_all);
    return hop >= 0 && hop < HOP_COUNT ? hop_lower[hop] : "unknown";
}

const char *hop_text(int hop)
{
    return hop >= 0 && hop < HOP_COUNT ? hop_texts[hop] : "unknown";
}

const char *reason_text(int reason)
{
    return reason >= 0 && reason < REASON_COUNT ? reason_texts[reason] : "unknown";
}

const char *net_name(int net)
{
    return net >= 0 && net < NET_COUNT ? net_names[net] : net_names[NET_UNKNOWN];
}

enum net net_parse(const char *s)
{
    for (int i = 0; s && i < NET_COUNT; i++)
        if (strcasecmp(s, net_names[i]) == 0)
            return (enum net)i;
    return NET_UNKNOWN;
}

#define V(name, json, text) [VERDICT_##name] = json,
static const char *const verdict_names[VERDICT_COUNT] = {
#include "trace/verdicts.def"
};
#undef V
#define V(name, json, text) [VERDICT_##name] = text,
static const char *const verdict_texts[VERDICT_COUNT] = {
#include "trace/verdicts.def"
};
#undef V

const char *verdict_name(int v)
{
    return v >= 0 && v < VERDICT_COUNT ? verdict_names[v] : "unknown";
}

const char *verdict_text(int v)
{
    return v >= 0 && v < VERDICT_COUNT ? verdict_texts[v] : "unknown";
}
