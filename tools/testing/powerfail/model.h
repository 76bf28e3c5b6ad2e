/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What is in the persistence domain: a model of caches in front of pmem.
 *
 * Nothing in here knows about QEMU, so that it can be tested on its own.
 */
#ifndef MODEL_H
#define MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define LINE_SHIFT 6
#define LINE_SIZE (1u << LINE_SHIFT)
#define MAX_RANGES 8
#define MAX_CPUS 64
#define ORIGIN_DEPTH 4

/* Code addresses that led to a store, innermost first, 0-terminated if shorter */
struct origin {
	uint64_t pc[ORIGIN_DEPTH];
};

/**
 * struct range - one modelled device
 * @gpa: guest physical address of its first byte, page aligned
 * @size: bytes, a multiple of the page size
 * @live: what CPUs and devices see; shared with the guest
 * @durable: what a power failure would leave
 * @by_request: it is the host that has to flush, when asked to (virtio-pmem): flushes
 *	and fences of CPUs are not needed there, and do not help
 * @changed: bitmap of lines whose durable content changed since the last point
 * @lost: bitmap of lines that were volatile at the last point
 * @dirty: bitmap of lines stored to since they last became durable
 * @origin: last store to each line whose @dirty bit is set
 */
struct range {
	uint64_t gpa, size;
	uint8_t *live;
	uint8_t *durable;
	bool by_request;
	uint64_t *changed;
	uint64_t *lost;
	uint64_t *dirty;
	struct origin *origin;
};

struct model;

struct model *model_new(void);
const char *model_add_range(struct model *m, uint64_t gpa, uint64_t size,
			    uint8_t *live);
struct range *model_range(struct model *m, uint64_t gpa);

bool model_wants_origin(struct model *m, uint64_t gpa, uint64_t pc);
bool model_is_dirty(struct model *m, uint64_t gpa);
void model_store(struct model *m, uint64_t gpa, size_t len,
		 const struct origin *origin);
size_t model_nt_store(struct model *m, unsigned int cpu, uint64_t gpa, size_t len);
size_t model_flush(struct model *m, unsigned int cpu, uint64_t gpa);
void model_fence(struct model *m, unsigned int cpu);
void model_wbinvd(struct model *m);
void model_request(struct model *m);
void model_answer(struct model *m);
void model_settle(struct model *m);
void model_cache_is_lost(struct model *m, bool lost);

const char *model_record(struct model *m, const char *path);
uint64_t model_point(struct model *m, const char *name, uint64_t *lines);
uint64_t model_nr_points(const struct model *m);
bool model_line_lost(const struct range *r, uint64_t gpa);
const struct origin *model_origin(const struct range *r, uint64_t gpa);
typedef void (*model_lost_fn)(void *arg, const struct range *r, uint64_t gpa);
void model_for_each_lost(struct model *m, model_lost_fn fn, void *arg);

const char *model_replay(struct model *m, const char *path);
const char *model_restore(struct model *m, uint64_t point, uint64_t seed,
			  char *name, size_t name_size, uint64_t *lines);

#endif
