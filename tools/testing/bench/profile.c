// SPDX-License-Identifier: GPL-2.0
/*
 * Where the instructions go: a TCG plugin that counts those of the guest by address,
 * between the marks that bench.c makes.
 *
 *	-plugin profile.so,out=FILE
 *
 * FILE gets, for each result of the benchmark and in the same order, a line "result" and
 * then one "ADDRESS COUNT" for each block of code that was executed, and "irqs-off COUNT
 * ADDRESS", the longest run of instructions from a cli at that address to the next sti or
 * return to user space.
 * profile.awk makes a table by function of it.
 *
 * A block is counted as a whole; that it may end early, by a fault, is neglected.  Code
 * that runs with interrupts off because of an exception is not seen.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../powerfail/qemu-api.h"
#include "profile.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

/* A translated block; may be translated more than once.  Never freed, as QEMU's own. */
struct block {
	struct block *next;
	uint64_t pc, insns, count;
};

static struct block *blocks;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool counting;
static FILE *out;

/* Instructions so far; where and when interrupts were turned off; the longest such time */
static uint64_t total, off_pc, off_since, longest, longest_pc;

static void count_block(unsigned int vcpu, void *udata)
{
	struct block *b = udata;

	(void)vcpu;
	/* With -icount QEMU runs one vCPU at a time */
	total += b->insns;
	if (counting)
		b->count += b->insns;
}

static void irqs_off(unsigned int vcpu, void *pc)
{
	(void)vcpu;
	if (off_pc)
		return;
	off_pc = (uintptr_t)pc;
	off_since = total;
}

static void irqs_on(unsigned int vcpu, void *udata)
{
	(void)vcpu;
	(void)udata;
	if (counting && off_pc && total - off_since > longest) {
		longest = total - off_since;
		longest_pc = off_pc;
	}
	off_pc = 0;
}

static void do_mark(unsigned int vcpu, void *udata)
{
	(void)vcpu;
	switch ((uintptr_t)udata) {
	case PROFILE_START:
		counting = true;
		break;
	case PROFILE_STOP:
		counting = false;
		break;
	case PROFILE_RESULT:
		counting = false;
		fprintf(out, "result\n");
		pthread_mutex_lock(&lock);
		for (struct block *b = blocks; b; b = b->next) {
			if (b->count)
				fprintf(out, "%016" PRIx64 " %" PRIu64 "\n", b->pc, b->count);
			b->count = 0;
		}
		pthread_mutex_unlock(&lock);
		if (longest)
			fprintf(out, "irqs-off %" PRIu64 " %016" PRIx64 "\n", longest, longest_pc);
		longest = 0;
		fflush(out);
	}
}

static void translate_block(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	struct block *b = calloc(1, sizeof(*b));

	(void)id;
	if (!b)
		abort();
	b->insns = qemu_plugin_tb_n_insns(tb);
	b->pc = qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, 0));
	pthread_mutex_lock(&lock);
	b->next = blocks;
	blocks = b;
	pthread_mutex_unlock(&lock);
	qemu_plugin_register_vcpu_tb_exec_cb(tb, count_block, QEMU_PLUGIN_CB_NO_REGS, b);

	for (size_t i = 0; i < b->insns; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint64_t pc = qemu_plugin_insn_vaddr(insn);
		uint8_t code[8];
		uint32_t magic;

		memset(code, 0, sizeof(code));
		qemu_plugin_insn_data(insn, code, sizeof(code));
		if (code[0] == 0xfa)	/* cli */
			qemu_plugin_register_vcpu_insn_exec_cb(insn, irqs_off,
							       QEMU_PLUGIN_CB_NO_REGS,
							       (void *)(uintptr_t)pc);
		else if (code[0] == 0xfb ||	/* sti, sysretq, iretq */
			 !memcmp(code, "\x48\x0f\x07", 3) || !memcmp(code, "\x48\xcf", 2))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, irqs_on,
							       QEMU_PLUGIN_CB_NO_REGS, NULL);
		if (qemu_plugin_insn_data(insn, code, sizeof(code)) < 7 ||
		    memcmp(code, PROFILE_NOP, 3))
			continue;
		memcpy(&magic, code + 3, sizeof(magic));
		if (magic >= PROFILE_START && magic <= PROFILE_RESULT)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, do_mark,
							       QEMU_PLUGIN_CB_NO_REGS,
							       (void *)(uintptr_t)magic);
	}
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info,
			       int argc, char **argv)
{
	(void)info;
	if (argc != 1 || strncmp(argv[0], "out=", 4) || !(out = fopen(argv[0] + 4, "w"))) {
		fprintf(stderr, "profile: out=FILE is needed\n");
		return 1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, translate_block);
	return 0;
}
