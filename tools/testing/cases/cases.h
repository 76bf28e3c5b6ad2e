/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files with cases share.
 *
 * A case is one function, without arguments, in the file of its family, and an entry in the
 * table at the end of that.  It makes its files, stores, syncs, marks the crash point and
 * states what must survive; guest.c does the rest.  If something that it needs is not there,
 * such as reflink or PMD entries, it calls skip() with the reason, or a function below does.
 * The name of a case that leaves something behind, and needs a guest of its own, begins with
 * alone_.
 */
#ifndef CASES_H
#define CASES_H

#include <pthread.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "guest.h"

#define CASE(fn) { #fn, fn }

/*
 * A case that passes on the base kernel, too, in each configuration that has what it needs.  It
 * guards against mistakes in the series, and cannot show that the series mends anything.  ci/test
 * compares this label with Documentation/results.
 */
#define GUARD(fn) CASE(fn)

#define OLD 1	/* seed of the content that files start with */
#define NEW 2	/* seed of the content under test */

/*
 * Sync a file.  The second one also marks the crash point: what was stored to the file before may
 * be promised after it.
 */
void sync_file(const struct file *f);
void sync_to_point(const struct file *f);

/*
 * A file of @pages pages with content OLD: with stores of NEW to all of it at @map, or durable,
 * and another file shares its blocks
 */
struct file dirty_file(const char *name, size_t pages, char **map);
struct file shared_file(const char *name, size_t pages);

/* A file of 4 MiB that is mapped by PMD entries; the second shares its blocks with @clone */
struct file pmd_file(char **p);
struct file shared_pmd_file(char **map, struct file *clone);

/* These skip the case if the file system cannot do it */
struct file clone_of(const struct file *src, const char *name);
void clone_range_or_skip(const struct file *src, off_t from, size_t len,
			 const struct file *dst, off_t to);
void dedupe_or_fail(const struct file *src, const struct file *dst, off_t off, size_t len);
void fallocate_or_skip(const struct file *f, int mode, off_t off, off_t len);
void punch_or_skip(const struct file *f, off_t off, off_t len);

/* Open a file that was closed; drop what nobody has open from memory */
void reopen(struct file *f);
void evict(void);

/* A buffer of which only @good bytes can be read, with content for offset @off */
char *short_buffer(off_t off, size_t good, uint64_t seed);

/* A pipe that holds a reference to the page at @p */
void pin_by_pipe(int fds[2], char *p);

/* A slow disk, readable with O_DIRECT, or skip; every byte is DISK_BYTE */
#define DISK_BYTE 0xd5
int open_disk(void);
void expect_disk_page(const struct file *f, const char *p, off_t off);

bool write_setting(const char *path, const char *value);
void wait_for(pid_t pid);
pthread_t start_thread(void *(*run)(void *arg), void *arg);

/* Store to @p and sync @f, again and again, while a thread faults pages in at @other */
void store_beside_faults(const struct file *f, char *p, char *other, size_t len);

/* A child stores to the page at @p all the time, and NEW to all of it after *@stop is set */
pid_t start_storing(char *p, volatile bool **stop);

/* Does a store of @byte end in SIGBUS?  The other two are to survive SIGBUS oneself. */
bool store_fails(char *p, char byte);
extern sigjmp_buf before_access;
void bus_error(int signal);

#endif
