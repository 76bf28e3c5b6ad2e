/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How a guest program talks to the power-fail model.
 *
 * The program executes an 8-byte NOP whose displacement is MARK_MAGIC, with the
 * address of a struct mark in RDI.  A NOP needs no privilege and no device,
 * costs nothing on a machine without the model and, unlike a write to an I/O
 * port, leaves no trace in the kernel under test: no system call, no fault, no
 * interrupt that could flush or fence on the program's behalf.
 */
#ifndef MARK_H
#define MARK_H

#include <stdint.h>

#define MARK_MAGIC 0x4c494146u	/* "FAIL" */

enum mark_op {
	MARK_HELLO = 1,	/* is the model there?  status says */
	MARK_SETTLE,	/* let the caches write everything back, as they may any time */
	MARK_CACHE,	/* are CPU caches lost with the power?  len: 1 yes, 0 no (eADR) */
	MARK_POINT,	/* crash point: keep the durable state as of now */
	MARK_CHECK,	/* which of [addr, addr + len) was lost at the last point? */
	MARK_RESTORE,	/* replay: make memory what point `point` left, by `seed` */
};

enum mark_status {
	MARK_NO_MODEL,	/* what the program puts there; the model overwrites it */
	MARK_OK,
	MARK_NOT_PMEM,	/* CHECK: part of the range is not modelled or not mapped; @lines
			 * has what was lost of the rest */
	MARK_NO_POINT,	/* CHECK before POINT, RESTORE of a point that is not there */
	MARK_BAD_OP,
};

/**
 * struct mark - one request, answered in place
 * @op: enum mark_op
 * @status: enum mark_status
 * @addr: CHECK: user virtual address; the pages must be mapped
 * @len: CHECK: bytes; CACHE: 0 or 1
 * @point: POINT and CHECK return the number of the last point; RESTORE takes one
 * @seed: RESTORE: 0 loses every volatile line, else a random half of them by seed
 * @lines: POINT, CHECK, RESTORE: number of volatile lines (of 64 bytes)
 * @first: CHECK: offset in bytes of the first volatile line from @addr
 * @text: POINT and RESTORE: name of the point; CHECK returns who stored there
 *
 * Aligned to its size so that it never crosses a page.
 */
struct mark {
	uint32_t op;
	uint32_t status;
	uint64_t addr;
	uint64_t len;
	uint64_t point;
	uint64_t seed;
	uint64_t lines;
	uint64_t first;
	char text[448];
	char pad[8];
} __attribute__((aligned(512)));

static inline void mark(struct mark *m)
{
#ifdef __x86_64__
	__asm__ volatile(".byte 0x0f, 0x1f, 0x84, 0x00\n\t.long %c1"
			 : : "D"(m), "i"(MARK_MAGIC) : "memory");
#else
	(void)m;
#endif
}

#endif
