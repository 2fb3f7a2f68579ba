/* The store's two threads: one commits (and keeps KEYS/mark), one reads. Jobs go in from the event loop, come
 * back through `wake`, which is called on either thread and must only ring a bell; the loop then takes what
 * is done.
 *
 * One commit is in flight at a time (the node sees to that); reads are executed in the order in which they
 * were asked. */
#ifndef RUN_STORE_THREADS_H
#define RUN_STORE_THREADS_H

#include "core/io.h"
#include "util/hist.h"

struct store_threads;

int store_threads_start(struct store_threads **out, struct store *s, void (*wake)(void *arg), void *arg,
                        struct err_ctx *ctx);
void store_threads_commit(struct store_threads *t, struct commit_job *job);
/* One more node on the same store, with jobs and a bell of its own; before it has any job under way. One
 * batch is written at a time: nodes take turns. */
#define STORE_NODES_MAX 64u
int store_threads_join(struct store_threads **out, struct store_threads *first, void (*wake)(void *arg),
                       void *arg, struct err_ctx *ctx);
/* ERR_NOMEM leaves the job the caller's. */
int store_threads_read(struct store_threads *t, struct read_job *job);
/* The next finished job, or NULL. On the loop's thread. */
struct commit_job *store_threads_committed(struct store_threads *t);
struct read_job *store_threads_read_done(struct store_threads *t);
/* Durations of commits in microseconds, fsync included. */
void store_threads_hist(struct store_threads *t, struct hist *commit_us);
/* Finishes what is queued and joins both threads; unread results are freed. Of all nodes at once. */
void store_threads_stop(struct store_threads *any);

#endif
