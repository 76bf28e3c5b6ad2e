/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What every case needs: files with known content, mappings of them, and the
 * promise that bytes are durable.
 *
 * Content is a function of a seed and the file offset, so that a promise can be
 * checked after the crash without keeping the data: see pattern().
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PAGE 4096ul
#define PMD (512 * PAGE)

/* Set once per run */
extern const char *test_dir;	/* where the cases put their files */
extern const char *config_name;	/* e.g. "xfs-stripe" */

/* End the case: its verdict and why.  Never return. */
__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *fmt, ...);
__attribute__((noreturn, format(printf, 1, 2))) void skip(const char *fmt, ...);

/* Content.  Seed 0 is all zeroes. */
uint8_t pattern_byte(uint64_t seed, uint64_t pos);
void pattern(void *p, uint64_t pos, size_t len, uint64_t seed);

/**
 * struct file - an open test file
 * @fd: open for reading and writing
 * @name: relative to test_dir
 */
struct file {
	int fd;
	char name[64];
};

struct file create_file(const char *name, size_t size, uint64_t seed);
void *map_file(const struct file *f, off_t off, size_t len);
void *map_sync(const struct file *f, off_t off, size_t len);
void *map_aligned(const struct file *f, size_t len);
void write_at(const struct file *f, off_t off, size_t len, uint64_t seed);
bool is_pmd_mapped(const void *p);
void flush_lines(const void *p, size_t len);
void check(int ret, const char *what);

/**
 * point - a sync call has returned: a power failure may happen now
 *
 * promise - bytes that must be there after it, counted from the last point
 * @f: the file; of an unlinked file only the cache lines are checked
 * @off: first byte
 * @len: bytes
 * @seed: of the content
 * @base: how far the data was moved after it was stored, 0 if not
 *
 * A promise first asks the model which of the lines behind the bytes were
 * volatile at the point, and fails the case at once if there is one.  It is also
 * noted for the second boot, which mounts what the power failure left.
 */
void point(void);
void promise_moved(const struct file *f, off_t off, size_t len, uint64_t seed,
		   off_t base);
void promise(const struct file *f, off_t off, size_t len, uint64_t seed);

/* The same for content that is no pattern */
void promise_data(const struct file *f, off_t off, size_t len, const uint8_t *data);

/* What only the second boot can check */
void promise_later(const struct file *f, off_t off, size_t len, uint64_t seed);

/* For fuzz.c and race.c: begin a sequence, whose failure is reported if @verbose; report one */
void new_case(bool verbose);
void fuzz_result(uint64_t seed, const char *ops);
uint32_t random_from(uint64_t *rng, uint32_t limit);
void random_start(uint64_t seed);
uint32_t random_number(uint32_t limit);
size_t random_length(uint32_t few);
int fuzz(uint64_t seed, int count);
int race(uint64_t seed, int count);

/* For stress.c */
unsigned long stress(uint64_t seed, int seconds);

struct test_case {
	const char *name;
	void (*fn)(void);
};

/* Tables of cases, each with an empty one at its end, see cases.c */
extern const struct test_case *const families[];

#define for_each_case(c) \
	for (const struct test_case *const *family = families; *family; family++) \
		for (const struct test_case *c = *family; c->name; c++)

/* Whether the power-fail model is attached */
bool have_model(void);

#endif
