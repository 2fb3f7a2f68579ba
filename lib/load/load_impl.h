/* Inside the room: what phones, populations and the whole look like. */
#ifndef LOAD_LOAD_IMPL_H
#define LOAD_LOAD_IMPL_H

#include "core/client.h"
#include "load/copies.h"
#include "load/diary.h"
#include "load/ledger.h"
#include "load/load.h"
#include "load/script.h"
#include "load/texts.h"
#include "load/timers.h"
#include "util/map.h"

#define SWEEP_NS         (100 * NS_PER_MS)
#define CONNECTS_MAX     200u /* new connections at once while all connect */
#define FAULT_STREAM     (3u << 20)
#define REFUSED_NS       (5 * NS_PER_S) /* nobody listens there */
#define CREATES_MAX      100u           /* chats being made at once */
#define CREATE_RETRY_NS  (5 * NS_PER_S)
#define STALE_ANSWER_NS  NS_PER_S        /* a refusal from before the chat was made may come so late */
#define UNACKED_NS       (10 * NS_PER_S) /* as TCP_USER_TIMEOUT would */
#define QUIET_NS         (3 * NS_PER_S)  /* a legacy population is drained when nothing came for so long */
#define LINGER_NS        (300 * NS_PER_MS)
#define RECEIPTS_NS      (15 * NS_PER_S) /* so long a drain waits for receipts */
#define STALL_NS         NS_PER_S
#define UNTICKED_MAX     64u  /* ticks a person waits for; of more, the oldest is forgotten and counted */
#define ROUND_MAX        2000 /* timers fired in one tick, then sockets get their turn */
#define OUTBOX_MAX       256u
#define OUTBOX_BYTES_MAX (4u << 20)

struct load_chat {
    uint32_t first, members; /* places in load.members */
    bool asked, done;        /* done: it exists, as far as we know */
    bool counted;            /* its receipts come as counts */
    uint64_t asked_ns;
};

/* A phone's part in a chat. */
struct membership {
    uint32_t chat, place;
    uint64_t top, epoch; /* highest seq surfaced since the chat was made, and its epoch */
    struct copy_list copies;
    /* read by the person, and when; said to the server, since the storage was lost and ever */
    uint64_t read, read_ns, read_said, read_max;
};

/* Something a person said that has no tick yet: they may press "send again". */
struct press {
    struct press *next;
    struct timer timer;
    struct load_phone *phone;
    struct id id;
    uint64_t chat, intent, end_offset; /* legacy: it is ticked when TCP has acknowledged up to here */
    uint32_t body_len;
    bool asked; /* by the app: send again? */
    char body[];
};

struct load_phone {
    struct load *load;
    struct client client;
    struct rng rng;
    struct load_socket *sock;
    struct trace_lane lane; /* conn 0: no handshake yet */
    struct timer wake, habit, network, kill, lost;
    struct membership *chats;
    struct press *waiting;   /* presses whose time runs */
    struct press *unticked;  /* legacy: written, not acknowledged by TCP */
    struct map *shown;       /* ids shown since the storage was lost; NULL: it never was */
    struct timer type, back; /* back: a second after it is ready */
    struct timer reads;
    uint64_t typing_chat, typing_since_ns, typing_until_ns, key_ns,
        said_ns;                                       /* key: the last one; chat 0: it never typed */
    uint64_t acked;                                    /* last sample of what TCP has acknowledged */
    uint64_t acked_seen, acked_ns;                     /* when it last moved */
    uint32_t chats_n, unticked_n, awake_place, forged; /* forged: in the offer that is unanswered */
    uint16_t population;
    uint8_t address;
    struct watched *watched; /* watch.c */
    uint32_t watched_n;
    uint64_t there_ns;                                   /* since when it is there, or not */
    bool there;                                          /* connected, with its person before it */
    bool background, offline, cut_next, was_ready, held; /* held: frozen by the script */
    uint8_t lost_reason;
};

struct fault_timer {
    struct timer timer;
    struct load *load;
    uint32_t number;
};

struct population {
    struct load *load;
    const struct load_population *cfg;
    struct client_config client;
    struct texts texts;
    struct rng rng;
    struct timer arrival;
    uint32_t first, n; /* phones */
    uint32_t *awake;   /* phones in the foreground */
    uint32_t awake_n;
    uint64_t surfaced_ns;          /* last time anything did */
    uint64_t nobody_awake;         /* arrivals without anybody to type */
    struct hist typing_stale_us;   /* of those shown: since the typist's last key, when it was over */
    struct hist presence_stale_us; /* what was shown of somebody, and was not so */
    uint64_t presence_shown;
    struct hist receipt_us; /* from a person's reading to its being shown to another */
    uint64_t receipts_shown, receipts_counted, receipts_false; /* false: more than was read */
    uint64_t typing_shown, typing_back, typing_missed; /* back: typed on when somebody came back; missed: and
                                                          was not shown to them within a second */
};

enum load_phase { PHASE_IDLE, PHASE_SETUP, PHASE_LOAD, PHASE_DRAIN, PHASE_END };

struct load {
    struct load_config cfg;
    struct load_population populations_cfg[LOAD_POPULATIONS_MAX];
    struct load_fault faults_cfg[LOAD_FAULTS_MAX];
    struct fault_timer fault_timers[LOAD_FAULTS_MAX];
    struct population populations[LOAD_POPULATIONS_MAX];
    struct load_phone *phones;
    uint32_t phones_n;
    struct load_chat *chats;
    uint32_t chats_n;
    uint32_t *members;
    struct membership *memberships;
    uint32_t owed[LOAD_POPULATIONS_MAX]; /* of the message in hand */
    struct ledger ledger;
    struct diary *diary;
    struct copies copies;
    struct load_recovery recovery;
    struct timers timers;
    struct timer sweep, turn; /* turn: the load or the drain ends */
    struct timer script;
    uint32_t next_step;
    const struct load_step *acting;
    struct map said; /* intent -> the id it goes by */
    struct client_pool pool;
    struct client_io io;
    struct claim claims[PROTO_CLAIMS_MAX];
    struct proto_scratch scratch;
    struct buf out, token;
    char body[PROTO_BODY_MAX]; /* what is being said */
    size_t body_len;
    enum load_phase phase;
    uint64_t setup_ns, t0_ns, drain_ns, settled_ns;
    uint32_t start_next, ready_n, chats_done, creating;
    uint32_t conns; /* connection numbers given out */
    uint64_t intents, outboxes, connects, kills, network_changes, storage_losses, shown_unsent, undecodable;
    uint64_t chats_remade, ticks_unwatched;
    /* what the step in progress is about */
    uint64_t intended_ns, intent;
    const struct press *pressed;
    struct hist stall_us;
    uint64_t stalls, sweep_count;
    bool drained, interrupted, rude_ends_told;
    bool refused; /* the last connection that ended had been refused */
    int result;
    struct err_ctx why;
    struct err_ctx last_trouble; /* why the last connection failed, for the sentence of a setup that fails */
};

static inline struct now load_now(struct load *l)
{
    l->io.now = l->cfg.world.now(l->cfg.world.arg);
    return l->io.now;
}
static inline const struct load_habits *habits_of(const struct load_phone *p)
{
    return &p->load->populations_cfg[p->population].habits;
}
static inline bool client_has_outbox(const struct client *c)
{
    return (c->config->features & CLIENT_RETRY) != 0;
}
static inline uint64_t chat_number(const struct load *l, uint32_t chat)
{
    return l->cfg.script ? l->cfg.script->chat[chat].number : l->cfg.first_chat + chat;
}
/* script.c */
uint32_t script_chat(const struct load_script *s, uint64_t number);
int script_build(struct load *l, struct err_ctx *ctx);
void script_begin(struct load *l);
/* The step in progress goes by this id. */
void script_named(struct load *l, const struct id *here);

/* Place of a chat, or >= chats_n. */
static inline uint64_t chat_place(const struct load *l, uint64_t number)
{
    return l->cfg.script ? script_chat(l->cfg.script, number) : number - l->cfg.first_chat;
}

/* build.c */
int build_all(struct load *l, struct err_ctx *ctx);
void build_release(struct load *l);
uint32_t phone_address(const struct load_phone *p);

/* phone.c */
void phone_step(struct load_phone *p, const struct client_event *e);
void phone_simple(struct load_phone *p, enum client_event_type type);
void phone_trace(struct load_phone *p, bool lane, struct trace_event e);
/* The socket is gone already; what TCP had not acknowledged will never be ticked. */
void phone_socket_over(struct load_phone *p, enum reason reason, uint64_t code);
/* Its socket is gone or of no use: end lane, free what is still there, tell the client. */
void phone_drop(struct load_phone *p, enum reason reason);
void phone_send_raw(struct load_phone *p, const struct msg *m);
void phone_emit(void *arg, struct client *c, const struct client_effect *e);
void phone_sample_acked(struct load_phone *p);
struct membership *phone_membership(struct load_phone *p, uint64_t chat); /* NULL: not one of its chats */

/* keep.c: copies, and what people do about what the server has lost */
void keep_init(struct load *l);
void keep_release(struct load *l);
void keep_copy(struct load_phone *p, const struct msg *m);
void keep_accepted(struct load_phone *p, const struct client_effect *e);
void keep_forget(struct load_phone *p);
/* An offer is about to go out: some of its entries get forged company. `room`: PROTO_ENTRIES_MAX. */
void keep_forge(struct load_phone *p, struct msg *m, struct msg_entry *room);
void keep_effect(struct load_phone *p, const struct client_effect *e);

/* habits.c */
void habits_start(struct load_phone *p);
void habits_stop(struct load_phone *p);
void habit_kill(struct load_phone *p, bool mid_frame);
void habit_network_change(struct load_phone *p);
void habit_leave(struct load_phone *p, enum reason reason);
void habit_return(struct load_phone *p);
void habit_init(struct load_phone *p);
void press_later(struct load_phone *p, const struct id *id, uint64_t chat, uint64_t intent,
                 struct slice body);
void press_untick(struct load_phone *p, const struct id *id, uint64_t chat, uint64_t intent,
                  struct slice body, uint64_t end_offset);
/* What TCP has acknowledged is ticked; `broken`: the rest will never be. */
void press_tick(struct load_phone *p, bool broken);
void press_clear(struct load_phone *p);

/* typing.c: people who type, and what others are shown of it */
void typing_habit_init(struct load_phone *p);
void typing_habit_start(struct load_phone *p);
void typing_habit_stop(struct load_phone *p);
void typing_effect(struct load_phone *p, const struct client_effect *e);
void typing_on_ready(struct load_phone *p);

/* watch.c: what phones show of who is there, and whether it is so */
void watch_start(struct load_phone *p);
void watch_stop(struct load_phone *p);
void watch_release(struct load_phone *p);
void watch_truth(struct load_phone *p); /* after whatever may have changed it */
void watch_effect(struct load_phone *p, const struct client_effect *e);
/* reading.c: people who read, and are shown who has */
void reading_init(struct load_phone *p);
void reading_start(struct load_phone *p);
void reading_stop(struct load_phone *p);
void reading_shown(struct load_phone *p); /* there is something to read */
void reading_forgot(struct load_phone *p);
void reading_said(struct load_phone *p, uint64_t chat, uint64_t seq);
void reading_effect(struct load_phone *p, const struct client_effect *e);
/* Receipts that this population's phones don't show, of what others said they read. */
uint64_t reading_missing(struct load *l, uint32_t population);

/* load.c */
void load_fail(struct load *l, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void load_on_ready(struct load_phone *p);
void load_on_create_answer(struct load *l, const struct msg *m);
/* An answer to a send may say that the server has lost the chat: it is made again. */
void load_on_refused_send(struct load *l, const struct msg *m);

#endif
