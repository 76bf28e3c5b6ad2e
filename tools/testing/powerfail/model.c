// SPDX-License-Identifier: GPL-2.0
/*
 * What is in the persistence domain: a model of caches in front of pmem.
 *
 * A store is volatile.  CLWB, CLFLUSHOPT or CLFLUSH takes a copy of the line as
 * it is then; the copy is durable once the CPU that took it has executed a
 * fence.  A non-temporal store needs the fence only.  All this is per CPU: a
 * line stored by one CPU may be flushed and fenced by another, but a flush by
 * one CPU and a fence by another leave it volatile.
 *
 * A line is volatile when its live content differs from its durable content.
 * Stores therefore need not be seen at all, which also covers what no plugin
 * callback shows: device DMA.  They are watched only to say who did them.
 *
 * Behind a device that is flushed by request it is the host that has a cache, and what
 * CPUs flush only gets that far.  What is there when the host is asked is durable when it
 * answers.
 *
 * Where CPU caches are not lost with the power a store is durable when it is done.
 *
 * Caches also write back by themselves, at any time.  That is modelled when a
 * crash state is made: any subset of the volatile lines may have survived.
 *
 * Deviations.  Stricter than hardware: CLFLUSH is not ordered by itself, and
 * serialising instructions other than the fences do not count.  More lenient: of a
 * line that was stored to several times only the last content or the durable one may
 * survive, not what was there in between.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "model.h"

#define PAGE_BYTES 4096u
#define NAME_SIZE 64

static const char log_magic[8] = "PFLOG-1";

/* A line or part of one on its way: durable at the next fence of its CPU */
struct pending {
	uint64_t gpa;		/* of the line */
	uint64_t bytes;		/* bit n: byte n of the line is covered */
	uint64_t seq;
	uint8_t data[LINE_SIZE];
};

struct cpu {
	struct pending *pending;
	size_t nr, room;
};

/* On disk: header, then per point a struct log_point and its lines */
struct log_range {
	uint64_t gpa, size;
};

struct log_point {
	char name[NAME_SIZE];
	uint64_t nr_durable, nr_lost;
};

struct log_line {
	uint64_t gpa;
	uint8_t data[LINE_SIZE];
};

struct model {
	struct range range[MAX_RANGES];
	unsigned int nr_ranges;
	bool cache_survives;
	struct cpu cpu[MAX_CPUS];
	struct cpu host;	/* what it has been asked to flush */
	bool asked;		/* @host has not been answered */
	bool answered_early;	/* ... the answer came before model_request() */
	uint64_t seq;
	FILE *log;
	uint64_t nr_points;
	/* replay only */
	long *offset;		/* of each point in the log */
	uint64_t restored;	/* @durable is the state of this point, + 1 */
};

static void *map_zero(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED) {
		perror("power-fail model: mmap");
		exit(2);
	}
	return p;
}

static bool test_bit(const uint64_t *map, uint64_t bit)
{
	return map[bit / 64] >> (bit % 64) & 1;
}

static void set_bit(uint64_t *map, uint64_t bit)
{
	map[bit / 64] |= 1ull << (bit % 64);
}

static void clear_bit(uint64_t *map, uint64_t bit)
{
	map[bit / 64] &= ~(1ull << (bit % 64));
}

static uint64_t nr_lines(const struct range *r)
{
	return r->size >> LINE_SHIFT;
}

static uint64_t line_index(const struct range *r, uint64_t gpa)
{
	return (gpa - r->gpa) >> LINE_SHIFT;
}

struct model *model_new(void)
{
	return map_zero(sizeof(struct model));
}

/**
 * model_add_range - model a device
 * @m: the model
 * @gpa: guest physical address, in bytes
 * @size: bytes
 * @live: the memory itself, @size bytes; what it holds now counts as durable
 *
 * Return: NULL, or what is wrong with the range.
 */
const char *model_add_range(struct model *m, uint64_t gpa, uint64_t size,
			    uint8_t *live)
{
	struct range *r = &m->range[m->nr_ranges];

	if (m->nr_ranges == MAX_RANGES)
		return "too many pmem ranges";
	if (!size || (gpa | size) % PAGE_BYTES)
		return "pmem range is empty or not page aligned";
	for (unsigned int i = 0; i < m->nr_ranges; i++) {
		struct range *o = &m->range[i];

		if (gpa < o->gpa + o->size && o->gpa < gpa + size)
			return "pmem ranges overlap";
	}

	*r = (struct range) {
		.gpa = gpa, .size = size, .live = live,
		.durable = map_zero(size),
		.changed = map_zero(size / LINE_SIZE / 8),
		.lost = map_zero(size / LINE_SIZE / 8),
		.dirty = map_zero(size / LINE_SIZE / 8),
		.origin = map_zero(size / LINE_SIZE * sizeof(struct origin)),
	};
	m->nr_ranges++;

	/* A log starts from all zeroes, so what is there already is a change */
	for (uint64_t off = 0; off < size; off += LINE_SIZE) {
		static const uint8_t zero[LINE_SIZE];

		if (!memcmp(live + off, zero, LINE_SIZE))
			continue;
		memcpy(r->durable + off, live + off, LINE_SIZE);
		set_bit(r->changed, off >> LINE_SHIFT);
	}
	return NULL;
}

/* The range that holds @gpa, or NULL */
struct range *model_range(struct model *m, uint64_t gpa)
{
	for (unsigned int i = 0; i < m->nr_ranges; i++)
		if (gpa - m->range[i].gpa < m->range[i].size)
			return &m->range[i];
	return NULL;
}

/*
 * Finding out where a store comes from costs more than the store, and a line is
 * usually filled by eight of one instruction: only the first one needs it.
 */
bool model_wants_origin(struct model *m, uint64_t gpa, uint64_t pc)
{
	struct range *r = model_range(m, gpa);
	uint64_t line;

	if (!r)
		return false;
	line = line_index(r, gpa);
	return !test_bit(r->dirty, line) || r->origin[line].pc[0] != pc;
}

/* Has the line that holds @gpa been stored to since it last became durable? */
bool model_is_dirty(struct model *m, uint64_t gpa)
{
	struct range *r = model_range(m, gpa);

	return r && test_bit(r->dirty, line_index(r, gpa));
}

/* An ordinary store of @len bytes has been done; only @origin is noted */
void model_store(struct model *m, uint64_t gpa, size_t len,
		 const struct origin *origin)
{
	uint64_t end = gpa + len;

	for (gpa &= ~(uint64_t)(LINE_SIZE - 1); gpa < end; gpa += LINE_SIZE) {
		struct range *r = model_range(m, gpa);

		if (!r)
			continue;
		set_bit(r->dirty, line_index(r, gpa));
		r->origin[line_index(r, gpa)] = *origin;
	}
}

static struct pending *add_pending(struct model *m, struct cpu *c)
{
	if (c->nr == c->room) {
		c->room = c->room ? 2 * c->room : 1024;
		c->pending = realloc(c->pending, c->room * sizeof(*c->pending));
		if (!c->pending) {
			perror("power-fail model: realloc");
			exit(2);
		}
	}
	c->pending[c->nr].seq = ++m->seq;
	return &c->pending[c->nr++];
}

static void take_line(struct model *m, struct cpu *c, struct range *r,
		      uint64_t gpa, uint64_t bytes)
{
	struct pending *p = add_pending(m, c);

	p->gpa = gpa;
	p->bytes = bytes;
	memcpy(p->data, r->live + (gpa - r->gpa), LINE_SIZE);
}

/**
 * model_nt_store - a non-temporal store has been done
 * @m: the model
 * @cpu: the CPU that did it
 * @gpa: guest physical address, in bytes
 * @len: bytes
 *
 * Return: number of lines that wait for a fence of @cpu.
 */
size_t model_nt_store(struct model *m, unsigned int cpu, uint64_t gpa, size_t len)
{
	while (len) {
		uint64_t line = gpa & ~(uint64_t)(LINE_SIZE - 1);
		uint64_t off = gpa - line;
		size_t n = len < LINE_SIZE - off ? len : LINE_SIZE - off;
		uint64_t bytes = n == LINE_SIZE ? ~0ull : ((1ull << n) - 1) << off;
		struct range *r = model_range(m, gpa);

		if (r && !r->by_request)
			take_line(m, &m->cpu[cpu], r, line, bytes);
		gpa += n;
		len -= n;
	}
	return m->cpu[cpu].nr;
}

/**
 * model_flush - CLWB, CLFLUSHOPT or CLFLUSH
 * @m: the model
 * @cpu: the CPU that executes it
 * @gpa: any address in the line
 *
 * Return: number of lines that wait for a fence of @cpu.
 */
size_t model_flush(struct model *m, unsigned int cpu, uint64_t gpa)
{
	struct range *r = model_range(m, gpa);

	if (r && !r->by_request)
		take_line(m, &m->cpu[cpu], r, gpa & ~(uint64_t)(LINE_SIZE - 1), ~0ull);
	return m->cpu[cpu].nr;
}

/*
 * The bytes of @p are durable now.  A copy of the same bytes that another CPU
 * took earlier and has not fenced yet is older than they are: it must not undo
 * them when that CPU fences.
 */
static void make_durable(struct model *m, const struct cpu *taker, const struct pending *p)
{
	struct range *r = model_range(m, p->gpa);
	uint8_t *durable = r->durable + (p->gpa - r->gpa);
	uint64_t line = line_index(r, p->gpa);

	/* A flush of a clean line, perhaps of all of a device, need not be logged */
	for (unsigned int i = 0; i < LINE_SIZE; i++) {
		if (!(p->bytes >> i & 1) || durable[i] == p->data[i])
			continue;
		durable[i] = p->data[i];
		set_bit(r->changed, line);
	}
	if (!memcmp(durable, r->live + (p->gpa - r->gpa), LINE_SIZE))
		clear_bit(r->dirty, line);

	for (unsigned int i = 0; i < MAX_CPUS; i++) {
		struct cpu *c = &m->cpu[i];

		if (c == taker)
			continue;
		for (size_t n = 0; n < c->nr; n++)
			if (c->pending[n].gpa == p->gpa &&
			    c->pending[n].seq < p->seq)
				c->pending[n].bytes &= ~p->bytes;
	}
}

/* SFENCE, MFENCE, LOCKed or memory XCHG instruction on @cpu */
void model_fence(struct model *m, unsigned int cpu)
{
	struct cpu *c = &m->cpu[cpu];

	for (size_t i = 0; i < c->nr; i++)
		make_durable(m, c, &c->pending[i]);
	c->nr = 0;
}

/* What is in @r is durable now */
static void settle_range(struct range *r)
{
	for (uint64_t page = 0; page < r->size; page += PAGE_BYTES) {
		if (!memcmp(r->durable + page, r->live + page, PAGE_BYTES))
			continue;
		for (uint64_t o = page; o < page + PAGE_BYTES; o += LINE_SIZE) {
			if (!memcmp(r->durable + o, r->live + o, LINE_SIZE))
				continue;
			memcpy(r->durable + o, r->live + o, LINE_SIZE);
			set_bit(r->changed, o >> LINE_SHIFT);
		}
	}
	memset(r->dirty, 0, nr_lines(r) / 8);
}

/* WBINVD, WBNOINVD: all that is in any CPU cache, and all that is on its way */
void model_wbinvd(struct model *m)
{
	for (unsigned int i = 0; i < MAX_CPUS; i++)
		m->cpu[i].nr = 0;
	for (unsigned int i = 0; i < m->nr_ranges; i++)
		if (!m->range[i].by_request)
			settle_range(&m->range[i]);
}

/*
 * The host is asked to flush.  QEMU may be told that the guest has done so when the host is
 * through with it, and the guest has handled the answer on another CPU.
 */
void model_request(struct model *m)
{
	for (unsigned int i = 0; i < m->nr_ranges; i++) {
		struct range *r = &m->range[i];

		for (uint64_t o = 0; r->by_request && o < r->size; o += LINE_SIZE)
			if (memcmp(r->durable + o, r->live + o, LINE_SIZE))
				take_line(m, &m->host, r, r->gpa + o, ~0ull);
	}
	m->asked = true;
	if (m->answered_early)
		model_answer(m);
}

/*
 * The host has answered: all that it was asked for is durable.  The guest has one request at
 * a time (virtio_pmem_flush() holds a mutex).
 */
void model_answer(struct model *m)
{
	for (size_t i = 0; i < m->host.nr; i++)
		make_durable(m, &m->host, &m->host.pending[i]);
	m->host.nr = 0;
	m->answered_early = !m->asked;
	m->asked = false;
}

/* All caches write everything back, as they may at any time */
void model_settle(struct model *m)
{
	model_wbinvd(m);
	m->host.nr = 0;
	for (unsigned int i = 0; i < m->nr_ranges; i++)
		if (m->range[i].by_request)
			settle_range(&m->range[i]);
}

/* From now on, are CPU caches lost with the power?  They are at first. */
void model_cache_is_lost(struct model *m, bool lost)
{
	if (m->cache_survives)
		model_wbinvd(m);
	m->cache_survives = !lost;
}

/**
 * model_record - keep the durable state of each point in a log
 * @m: the model, with all its ranges
 * @path: file to write
 *
 * Return: NULL, or what went wrong.
 */
const char *model_record(struct model *m, const char *path)
{
	uint64_t nr = m->nr_ranges;

	m->log = fopen(path, "wb");
	if (!m->log)
		return strerror(errno);
	fwrite(log_magic, sizeof(log_magic), 1, m->log);
	fwrite(&nr, sizeof(nr), 1, m->log);
	for (unsigned int i = 0; i < nr; i++) {
		struct log_range lr = { m->range[i].gpa, m->range[i].size };

		fwrite(&lr, sizeof(lr), 1, m->log);
	}
	return NULL;
}

static void log_lines(struct model *m, const struct range *r,
		      const uint64_t *map, const uint8_t *data)
{
	for (uint64_t w = 0; w < nr_lines(r) / 64; w++) {
		for (uint64_t bits = map[w]; bits; bits &= bits - 1) {
			uint64_t line = w * 64 + __builtin_ctzll(bits);
			struct log_line ll = { r->gpa + line * LINE_SIZE, {} };

			memcpy(ll.data, data + line * LINE_SIZE, LINE_SIZE);
			fwrite(&ll, sizeof(ll), 1, m->log);
		}
	}
}

static uint64_t count_bits(const struct range *r, const uint64_t *map)
{
	uint64_t n = 0;

	for (uint64_t w = 0; w < nr_lines(r) / 64; w++)
		n += __builtin_popcountll(map[w]);
	return n;
}

static void find_lost(struct range *r)
{
	memset(r->lost, 0, nr_lines(r) / 8);
	for (uint64_t page = 0; page < r->size; page += PAGE_BYTES) {
		if (!memcmp(r->live + page, r->durable + page, PAGE_BYTES))
			continue;
		for (uint64_t o = page; o < page + PAGE_BYTES; o += LINE_SIZE)
			if (memcmp(r->live + o, r->durable + o, LINE_SIZE))
				set_bit(r->lost, o >> LINE_SHIFT);
	}
}

/**
 * model_point - a power failure could happen now
 * @m: the model
 * @name: name of the point, cut to 63 characters
 * @lines: filled with the number of volatile lines
 *
 * Return: the number of the point, counted from 0.
 */
uint64_t model_point(struct model *m, const char *name, uint64_t *lines)
{
	struct log_point lp = {};

	if (m->cache_survives)
		model_wbinvd(m);
	snprintf(lp.name, sizeof(lp.name), "%s", name);
	for (unsigned int i = 0; i < m->nr_ranges; i++) {
		struct range *r = &m->range[i];

		find_lost(r);
		lp.nr_lost += count_bits(r, r->lost);
		lp.nr_durable += count_bits(r, r->changed);
	}
	*lines = lp.nr_lost;

	if (m->log) {
		fwrite(&lp, sizeof(lp), 1, m->log);
		for (unsigned int i = 0; i < m->nr_ranges; i++)
			log_lines(m, &m->range[i], m->range[i].changed,
				  m->range[i].durable);
		for (unsigned int i = 0; i < m->nr_ranges; i++)
			log_lines(m, &m->range[i], m->range[i].lost,
				  m->range[i].live);
		if (fflush(m->log) || ferror(m->log)) {
			perror("power-fail model: log");
			exit(2);
		}
	}
	for (unsigned int i = 0; i < m->nr_ranges; i++)
		memset(m->range[i].changed, 0, nr_lines(&m->range[i]) / 8);
	return m->nr_points++;
}

uint64_t model_nr_points(const struct model *m)
{
	return m->nr_points;
}

/* Was the line that holds @gpa volatile at the last point? */
bool model_line_lost(const struct range *r, uint64_t gpa)
{
	return test_bit(r->lost, line_index(r, gpa));
}

/* Who stored there, or NULL: no store was seen, so it was a device */
const struct origin *model_origin(const struct range *r, uint64_t gpa)
{
	uint64_t line = line_index(r, gpa);

	return test_bit(r->dirty, line) ? &r->origin[line] : NULL;
}

/* Call @fn for each line that was volatile at the last point */
void model_for_each_lost(struct model *m, model_lost_fn fn, void *arg)
{
	for (unsigned int i = 0; i < m->nr_ranges; i++) {
		const struct range *r = &m->range[i];

		for (uint64_t w = 0; w < nr_lines(r) / 64; w++)
			for (uint64_t bits = r->lost[w]; bits; bits &= bits - 1)
				fn(arg, r, r->gpa + LINE_SIZE *
				   (w * 64 + __builtin_ctzll(bits)));
	}
}

static bool read_exact(FILE *f, void *buf, size_t size)
{
	return fread(buf, size, 1, f) == 1;
}

/**
 * model_replay - open a log for model_restore()
 * @m: the model, with all its ranges
 * @path: file that model_record() made with the same ranges
 *
 * Return: NULL, or what is wrong with the log.
 */
const char *model_replay(struct model *m, const char *path)
{
	char magic[sizeof(log_magic)];
	struct log_point lp;
	uint64_t nr;
	long size;

	m->log = fopen(path, "rb");
	if (!m->log)
		return strerror(errno);
	if (!read_exact(m->log, magic, sizeof(magic)) ||
	    memcmp(magic, log_magic, sizeof(magic)) ||
	    !read_exact(m->log, &nr, sizeof(nr)))
		return "not a power-fail log";
	if (nr != m->nr_ranges)
		return "log was recorded with another number of pmem ranges";
	for (unsigned int i = 0; i < nr; i++) {
		struct log_range lr;

		if (!read_exact(m->log, &lr, sizeof(lr)))
			return "log is cut off";
		if (lr.gpa != m->range[i].gpa || lr.size != m->range[i].size)
			return "log was recorded with other pmem ranges";
	}

	size = ftell(m->log);
	fseek(m->log, 0, SEEK_END);
	nr = ftell(m->log);
	while ((uint64_t)size < nr) {
		fseek(m->log, size, SEEK_SET);
		if (!read_exact(m->log, &lp, sizeof(lp)))
			return "log is cut off";
		m->offset = realloc(m->offset, (m->nr_points + 1) * sizeof(long));
		m->offset[m->nr_points++] = size;
		size += sizeof(lp) + (lp.nr_durable + lp.nr_lost) *
			sizeof(struct log_line);
	}
	return (uint64_t)size == nr ? NULL : "log is cut off";
}

/* The finaliser of splitmix64: 64 well-mixed bits of each number */
static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

/**
 * model_restore - make live memory what a power failure at a point would leave
 * @m: a model after model_replay()
 * @point: which point
 * @seed: 0 loses every volatile line; any other number keeps the half of them
 *	that it selects
 * @name: filled with the name of the point
 * @name_size: room there
 * @lines: filled with the number of lines that were volatile
 *
 * Return: NULL, or what went wrong.
 */
const char *model_restore(struct model *m, uint64_t point, uint64_t seed,
			  char *name, size_t name_size, uint64_t *lines)
{
	struct log_point lp;
	struct log_line ll;
	struct range *r;

	if (point >= m->nr_points)
		return "no such point";
	if (m->restored > point + 1) {
		for (unsigned int i = 0; i < m->nr_ranges; i++)
			memset(m->range[i].durable, 0, m->range[i].size);
		m->restored = 0;
	}
	for (uint64_t n = m->restored; n <= point; n++) {
		fseek(m->log, m->offset[n], SEEK_SET);
		if (!read_exact(m->log, &lp, sizeof(lp)))
			return "log is cut off";
		while (lp.nr_durable--) {
			if (!read_exact(m->log, &ll, sizeof(ll)))
				return "log is cut off";
			r = model_range(m, ll.gpa);
			if (!r)
				return "log has a line outside the pmem ranges";
			memcpy(r->durable + (ll.gpa - r->gpa), ll.data, LINE_SIZE);
		}
	}
	m->restored = point + 1;

	for (unsigned int i = 0; i < m->nr_ranges; i++) {
		r = &m->range[i];
		for (uint64_t o = 0; o < r->size; o += PAGE_BYTES)
			if (memcmp(r->live + o, r->durable + o, PAGE_BYTES))
				memcpy(r->live + o, r->durable + o, PAGE_BYTES);
	}

	/* The durable lines of the point are followed by its volatile ones */
	fseek(m->log, m->offset[point], SEEK_SET);
	if (!read_exact(m->log, &lp, sizeof(lp)))
		return "log is cut off";
	fseek(m->log, lp.nr_durable * sizeof(ll), SEEK_CUR);
	snprintf(name, name_size, "%s", lp.name);
	*lines = lp.nr_lost;
	while (seed && lp.nr_lost--) {
		if (!read_exact(m->log, &ll, sizeof(ll)))
			return "log is cut off";
		r = model_range(m, ll.gpa);
		if (!r)
			return "log has a line outside the pmem ranges";
		if (mix(seed ^ mix(ll.gpa)) & 1)
			memcpy(r->live + (ll.gpa - r->gpa), ll.data, LINE_SIZE);
	}
	return NULL;
}
