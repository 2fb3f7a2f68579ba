/* The client's side of chat.v1: one device of one user, as a pure step function.
 *
 * client_step(client, event, io) -> effects. It reads no clock, no random source, no socket and no file: the
 * time and a generator come in with struct client_io, effects go out through its emit. The same code drives
 * real sockets (chat-loadgen) and simulated ones, ten million at a time: struct client is at most 384 bytes,
 * a chat 88, an outbox entry 64 and its body; chats come from a pool that many clients share.
 *
 * The rules (design.md section 5), with what each feature bit turns on:
 *  - RETRY: sends wait in an outbox and go out again, under the same id, after 3 s, then with exponential
 * backoff and full jitter up to 30 s, until accepted or given up; on reconnect the outbox is flushed in
 * order. A refusal ends a message, unless its code says "later" or that there is no such chat (yet). A
 * connection on which a hello, send or sync stays unanswered and nothing else is heard for 10 s is taken as
 * dead.
 *  - ACK: cumulative acknowledgements, 100 to 200 ms after what they acknowledge; while messages keep coming
 *    the wait doubles, up to 0.8 to 1.6 s: in a group of 1,000 they cost the server more than their worth.
 * What the person has read goes with them. What was said of either on a connection that broke is said again
 * on the next.
 *  - RESYNC: hello carries cursors; holes are asked for with sync; coming to the foreground asks for what was
 * missed.
 *  - ACK or RESYNC: a chat is surfaced by rising seq, each once. Without RESYNC a hole is passed over.
 *  - none (legacy): fire and forget. A message said without a connection is gone; whatever arrives is
 * surfaced as it comes; the socket is believed until it errors (the owner reports CLIENT_UNACKED, as
 * TCP_USER_TIMEOUT would).
 *
 * "Surface once" needs no set of ids. Inside an epoch a seq at or below the cursor was surfaced; when a
 * chat's epoch changes, the place where the old one stood is kept, so that an entry that comes back to its
 * own seq is recognised. Ahead of the cursor, only own messages are remembered (64 bits); foreign ones are
 * asked for again in order.
 *
 * After a restore of the server's store (core/recover.h) the client is asked for copies of what it was sent,
 * and offers those that its owner keeps (client_io.copy), with their tags, removals first, one offer at a
 * time. A log entry `recovered {ranges}` makes it sync what it never had: only that comes later than higher
 * seqs. With copies at hand "was it shown?" is asked of them by seq, and by id once a chat has changed its
 * epoch: what was shown before the restore and was sent again after it is shown once.
 *
 * Must not know: transports, loops, traces, files. */
#ifndef CORE_CLIENT_H
#define CORE_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/outbox.h"
#include "proto/proto.h"
#include "trace/trace.h"
#include "util/clock.h"
#include "util/err.h"
#include "util/id.h"
#include "util/rng.h"

enum client_feature {
    CLIENT_LEGACY = 0,
    CLIENT_RETRY = 1,
    CLIENT_ACK = 2,
    CLIENT_RESYNC = 4,
    CLIENT_RELIABLE = 7,
};

/* "reliable", "legacy", or "legacy+retry+ack+resync" with any subset. ERR_INVALID names the word that is
 * none. */
int client_features_parse(uint8_t *features, const char *text, struct err_ctx *ctx);

#define CLIENT_RETRY_FIRST_NS    (3 * NS_PER_S)
#define CLIENT_RETRY_MAX_NS      (30 * NS_PER_S)
#define CLIENT_RECONNECT_BASE_NS (200 * NS_PER_MS)
#define CLIENT_RECONNECT_MAX_NS  (10 * NS_PER_S)
#define CLIENT_ANSWER_NS         (10 * NS_PER_S) /* silence after which a connection is dead */
#define CLIENT_STABLE_NS         (5 * NS_PER_S)  /* a connection that lived so long resets the backoff */
#define CLIENT_ACK_NS            (100 * NS_PER_MS)
#define CLIENT_ACK_DOUBLINGS     3u                /* of that wait, while messages keep coming */
#define CLIENT_HOLE_OWN_NS       (500 * NS_PER_MS) /* patience with a hole that only an own message shows */
#define CLIENT_CATCH_UP_NS       (2 * NS_PER_S)    /* patience with a server that said more exists */
#define CLIENT_SYNC_RETRY_NS     (3 * NS_PER_S)
#define CLIENT_SINCE_MARGIN_US   (10 * 1000000ull)
#define CLIENT_SYNC_PAGE         200u

#define CLIENT_TYPING_NS       (10 * NS_PER_S)  /* "typing" is never shown longer after it was heard */
#define CLIENT_TYPING_EVERY_NS (3 * NS_PER_S)   /* who types says so again */
#define CLIENT_AWAY_NS         (300 * NS_PER_S) /* without input: beat {away} */
#define CLIENT_TYPISTS_MAX     8u               /* shown at a time, all chats together; more are not shown */
#define CLIENT_WATCH_MAX       256u             /* users whose presence is asked for */
#define CLIENT_RECEIPT_CHATS   8u               /* chats whose receipts are asked for: those on the screen */
#define CLIENT_RECEIPTS_MAX    256u             /* (chat, user) shown; of more, nothing is shown */

/* What is done about messages that the server has lost and this device has. */
enum client_on_gap {
    ON_GAP_OFFER,   /* they are offered: they return to their places */
    ON_GAP_DISCARD, /* they are dropped, own ones too, and what waits in the outbox since before the loss */
    ON_GAP_ASK,     /* the person is asked "send again?" for each own one */
    ON_GAP_KEEP,    /* own ones stay, marked "may not have been sent" */
};
/* "" is "offer". */
int client_on_gap_parse(uint8_t *on_gap, const char *text, struct err_ctx *ctx);

/* Shared by all clients of one kind; must outlive them. */
struct client_config {
    uint8_t features;
    uint8_t on_gap; /* enum client_on_gap */
    enum net net;
    uint32_t retries;          /* transmissions after which the person is told "not sent yet" */
    uint64_t resync_window_ns; /* how far back `sync {since}` reaches */
    uint32_t outbox_max;       /* entries; beyond it a message is given up (OUTBOX_FULL) */
    uint32_t outbox_bytes_max; /* bodies */
};

/* Chats of many clients, in slabs. At most `max`; messages of a chat past it are surfaced without memory of
 * them. */
struct client_pool {
    struct client_chat *free;
    struct client_slab *slabs;
    uint32_t used, max;
};
void client_pool_init(struct client_pool *p, uint32_t chats_max);
void client_pool_release(struct client_pool *p);

struct client_chat;
struct client_presence;
struct client_receipts;

enum client_state {
    CLIENT_OFF,     /* not started */
    CLIENT_WAITING, /* no connection; one follows at reconnect_ns, or when the network or the person is back
                     */
    CLIENT_CONNECTING, /* CONNECT was emitted */
    CLIENT_GREETING,   /* hello is out */
    CLIENT_READY,      /* welcome was read */
    CLIENT_TERMINAL,   /* the server said: not again */
};

struct client {
    const struct client_config *config;
    uint64_t user;
    uint32_t device;
    uint8_t state, tries; /* tries: reconnects since the last stable connection */
    bool background, offline, rebuild, since_wanted, since_flying, no_return;
    uint8_t ack_doublings; /* of the wait before the next acknowledgement */
    bool no_sync : 1;      /* this server serves none: holes are passed over */
    bool reads_said : 1;   /* since the last beat: chats are not walked with each of them */
    uint16_t welcome_ms;   /* how long the welcome took: the offset may be so much more */
    uint16_t syncs;        /* chats with a sync in flight */
    uint16_t acked_at;     /* when acknowledgements went out last, in units of 2^24 ns (17 ms), modulo */
    uint32_t in_flight;    /* outbox entries sent and unanswered on this connection */
    /* deadlines, mono ns, 0: none; retry, sync and ack are lower bounds over entries and chats. They stand
     * before what a timer does not read: with millions of clients each cache line of a heartbeat counts. */
    uint64_t timer_ns, reconnect_ns, answer_ns, beat_ns, ack_ns, retry_ns, sync_ns;
    uint64_t beat_every_ns;
    struct client_presence *presence; /* NULL: nobody types, nobody is watched, no receipts are shown */
    uint64_t ready_ns;
    int64_t clock_offset_us;        /* server's clock minus ours, at least; from welcome */
    uint64_t epoch;                 /* the server's current one */
    uint64_t heard_us;              /* own wall clock of the last frame */
    uint64_t last_ts_us;            /* server's time of the last message */
    struct client_chat *chats;      /* the busiest tend to be first */
    struct client_recover *recover; /* asks and ranges that are open; NULL: none */
    struct outbox outbox;
};
_Static_assert(sizeof(struct client) <= 384, "ten million of them");

enum client_event_type {
    CLIENT_START,        /* connect for the first time */
    CLIENT_CONNECTED,    /* the handshake is done */
    CLIENT_DISCONNECTED, /* code, reason: the connection (or the attempt) is over */
    CLIENT_MESSAGE,      /* m */
    CLIENT_SUBMIT,       /* a person says `body` of `kind` in `chat`; `intent` numbers what they mean */
    CLIENT_PRESS,        /* a person presses "send again": id, and chat, intent, kind, body as said */
    CLIENT_GIVE_UP,      /* a person withdraws id */
    CLIENT_RESTORE,      /* at start: an entry of the durable outbox (id, chat, intent, kind, body) */
    CLIENT_TIMER,        /* the time of the last CLIENT_SET_TIMER has come (early or twice does no harm) */
    CLIENT_FOREGROUND,
    CLIENT_BACKGROUND, /* the app is about to be suspended: last words, no timers */
    CLIENT_OFFLINE,    /* the network is gone; the socket with it, if the owner says so by DISCONNECTED */
    CLIENT_ONLINE,
    CLIENT_STORAGE_LOST, /* cursors are gone (the outbox is not) */
    CLIENT_UNACKED,      /* TCP has had our bytes for too long without an acknowledgement */
    CLIENT_TYPE,         /* a person types in `chat`: at each key, or once a second */
    CLIENT_WATCH,        /* whose presence shall be known: users; at most CLIENT_WATCH_MAX */
    CLIENT_READ,         /* the person has read `chat` up to `seq`, which was surfaced */
    CLIENT_RECEIPTS,     /* `chat` is shown with its receipts, or (`on` false) no longer */
    CLIENT_STOP,         /* no reconnects any more */
};

struct client_event {
    enum client_event_type type;
    const struct msg *m;
    struct id id;
    struct id as; /* SUBMIT, PRESS: the id a new message gets (a run is re-enacted); zero: a fresh one */
    uint64_t chat, intent, seq;
    bool on;
    const uint64_t *users;
    uint32_t users_n;
    struct slice kind, body;
    int code;
    enum reason reason;
};

/* What the owner shall do or note. Pointers are good during emit only. The owner must not step the client
 * from inside emit; a send or connect that fails is reported later, as DISCONNECTED. Each maps to one hop of
 * the trace, by name. */
enum client_effect_type {
    CLIENT_DO_SEND, /* m goes out; for `hello` the owner adds the token; for `send`: attempt */
    CLIENT_DO_CONNECT,
    CLIENT_DO_CLOSE,    /* drop the connection (reason) without waiting; no DISCONNECTED shall follow */
    CLIENT_SET_TIMER,   /* at_ns; 0: none. Replaces the former one */
    CLIENT_SUBMITTED,   /* id, chat, intent, kind, body: with RETRY durable before anything else is done */
    CLIENT_RESENT,      /* the person sent again: id (legacy: a new one), intent */
    CLIENT_FORGET,      /* id leaves the durable outbox */
    CLIENT_ACCEPTED,    /* id, chat, epoch, seq, dup, kind, body; m: the server's word, with time and tag */
    CLIENT_RECEIVED,    /* m, before it is judged; reason RESYNC: dropped, it will be asked for in order */
    CLIENT_SURFACE,     /* m is shown */
    CLIENT_DUPLICATE,   /* m was shown before */
    CLIENT_GAP,         /* m: the server says what is missing, and the client goes on */
    CLIENT_SHOW_UNSENT, /* id is shown as "not sent yet", attempt */
    CLIENT_GAVE_UP,     /* id is over: reason, attempt. ID_TOO_OLD: the person is asked. NOT_CONNECTED without
                           an outbox: kind and body, as said */
    CLIENT_ENDED,       /* state is TERMINAL: code */
    CLIENT_COPY,        /* m: the entry of a chat this device made, to be kept like what is surfaced */
    CLIENT_NOTICE,      /* m, for the person */
    CLIENT_UNCONFIRMED, /* m: the server lacks these ranges of a chat (ask); what is held of them is marked */
    CLIENT_OFFERED,     /* m: what became of an offer */
    CLIENT_SEND_AGAIN,  /* ON_GAP_ASK: id, chat, kind, body of an own message that the server has lost; "yes"
                           is  CLIENT_PRESS */
    CLIENT_MARKED,      /* ON_GAP_KEEP: id, chat: "may not have been sent" */
    CLIENT_TYPING,      /* `user` is shown as typing in `chat`, until at_ns or a later refresh */
    CLIENT_TYPING_OVER, /* and no longer */
    CLIENT_PRESENCE,    /* m: what is known of somebody watched */
    CLIENT_PRESENCE_LOST, /* nothing is known of anybody until the connection is back */
    CLIENT_RECEIPT,       /* `chat` is shown as delivered to `user` up to `delivered`, read up to seq (dup: as
                             before) */
    CLIENT_COUNTS,        /* m: how many have got and read own messages in a large chat */
    CLIENT_DISCARDED,     /* ON_GAP_DISCARD: id, chat: no longer shown */
};

struct client_effect {
    enum client_effect_type type;
    const struct msg *m;
    struct id id;
    uint64_t chat, user, intent, epoch, seq, at_ns, delivered;
    struct slice kind, body;
    enum reason reason;
    int code;
    uint8_t attempt;
    bool dup;
};

struct client_io {
    struct now now;
    struct rng *rng;
    struct client_pool *pool;
    struct claim *claims; /* scratch for hello */
    uint32_t claims_max;  /* at most PROTO_CLAIMS_MAX; chats beyond it are left to the server's cursors */
    void (*emit)(void *arg, struct client *c, const struct client_effect *e);
    void *arg;
    /* When in each interval its heartbeats go, in parts of 2^32 of it by the monotonic clock; 0: at random.
     */
    uint32_t beat_share;
    /* The copies that the owner keeps of what was surfaced, accepted or made (kept over restarts, lost with
     * STORAGE_LOST); both NULL: it keeps none. copy: the first (or last) one with from <= seq <= to. held:
     * was this id ever shown here, or said? */
    bool (*copy)(void *arg, const struct client *c, uint64_t chat, uint64_t from, uint64_t to, bool last,
                 struct msg *out);
    bool (*held)(void *arg, const struct client *c, const struct id *id);
};

void client_init(struct client *c, const struct client_config *config, uint64_t user, uint32_t device);
void client_release(struct client *c, struct client_pool *pool);
void client_step(struct client *c, const struct client_event *e, const struct client_io *io);

/* The cursor of a chat, for tests and audits; false: the client knows nothing of it. */
bool client_cursor(const struct client *c, uint64_t chat, struct claim *out);

/* What is shown of this user's receipts there; false: nothing. */
bool client_receipt(const struct client *c, uint64_t chat, uint64_t user, uint64_t *delivered,
                    uint64_t *read);

/* Is this user shown as typing there? */
bool client_shows_typing(const struct client *c, uint64_t chat, uint64_t user);

#endif
