/* Counters that more than one thread may touch, and the news of a fork. */
#ifndef PICOWS_THREADS_H
#define PICOWS_THREADS_H

#include <stddef.h>

#if defined(_MSC_VER)
#include <intrin.h>
static inline void ws_atomic_add(volatile long *counter, long amount) { _InterlockedExchangeAdd(counter, amount); }
static inline long ws_atomic_load(volatile long *counter) { return _InterlockedExchangeAdd(counter, 0); }
#define ws_read_field(field) (*(void *volatile *)&(field))
#define ws_write_field(field, value) _InterlockedExchangePointer((void *volatile *)&(field), (value))
#else
/* A view may be released in another thread than the one that reads the connection, on free-threaded builds at the
 * same time. */
static inline void ws_atomic_add(volatile long *counter, long amount) { __atomic_add_fetch(counter, amount, __ATOMIC_ACQ_REL); }
static inline long ws_atomic_load(volatile long *counter) { return __atomic_load_n(counter, __ATOMIC_ACQUIRE); }
/* A pointer that one thread writes and any may read: whoever finds it finds what was written before it, too. */
#define ws_read_field(field) ((void *)__atomic_load_n(&(field), __ATOMIC_ACQUIRE))
#define ws_write_field(field, value) __atomic_store_n(&(field), (value), __ATOMIC_RELEASE)
#endif

#if defined(_WIN32)
static inline void ws_watch_forks(void) {}
static inline unsigned ws_fork_count(void) { return 0; }
#else
#include <pthread.h>
/* Written in the child of a fork only, where one thread exists. */
static volatile unsigned ws_forks;
static void ws_count_fork(void) { ws_forks++; }
static inline void ws_watch_forks(void) { pthread_atfork(NULL, NULL, ws_count_fork); }
static inline unsigned ws_fork_count(void) { return ws_forks; }
#endif

#endif
