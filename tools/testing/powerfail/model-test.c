// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of the model that need no guest: decoder, rules, log and crash states.
 * Prints one line per test, exits 1 if one failed.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mark.h"
#include "model.h"
#include "symbols.h"
#include "x86-insn.h"

static int failed;

static void ok(bool good, const char *what)
{
	printf("case host/%s %s\n", what, good ? "PASS" : "FAIL");
	failed |= !good;
}

/* Encodings as the assembler makes them; checked against objdump */
static const struct {
	const char *name;
	enum x86_kind kind;
	uint8_t len, code[15];
} encodings[] = {
	{ "clwb (%rax)", X86_FLUSH, 4, { 0x66, 0x0f, 0xae, 0x30 } },
	{ "clwb (%r12)", X86_FLUSH, 6, { 0x66, 0x41, 0x0f, 0xae, 0x34, 0x24 } },
	{ "clflushopt (%rdi)", X86_FLUSH, 4, { 0x66, 0x0f, 0xae, 0x3f } },
	{ "clflush (%rdi)", X86_FLUSH, 3, { 0x0f, 0xae, 0x3f } },
	{ "ds clflush (%rdi), the kernel's alternative", X86_FLUSH, 4,
	  { 0x3e, 0x0f, 0xae, 0x3f } },
	{ "xsaveopt (%rdi)", X86_OTHER, 3, { 0x0f, 0xae, 0x37 } },
	{ "clrssbsy (%rdi)", X86_OTHER, 4, { 0xf3, 0x0f, 0xae, 0x37 } },
	{ "sfence", X86_FENCE, 3, { 0x0f, 0xae, 0xf8 } },
	{ "mfence", X86_FENCE, 3, { 0x0f, 0xae, 0xf0 } },
	{ "lfence", X86_OTHER, 3, { 0x0f, 0xae, 0xe8 } },
	{ "tpause %edi", X86_OTHER, 4, { 0x66, 0x0f, 0xae, 0xf7 } },
	{ "lock incl (%rax)", X86_FENCE, 3, { 0xf0, 0xff, 0x00 } },
	{ "xchg %eax, (%rbx)", X86_FENCE, 2, { 0x87, 0x03 } },
	{ "xchg %eax, %ebx", X86_OTHER, 2, { 0x87, 0xc3 } },
	{ "wbinvd", X86_WBINVD, 2, { 0x0f, 0x09 } },
	{ "movnti %rax, (%rdi)", X86_NT_STORE, 4, { 0x48, 0x0f, 0xc3, 0x07 } },
	{ "movntdq %xmm0, (%rdi)", X86_NT_STORE, 4, { 0x66, 0x0f, 0xe7, 0x07 } },
	{ "movntq %mm0, (%rdi)", X86_NT_STORE, 3, { 0x0f, 0xe7, 0x07 } },
	{ "movntps %xmm0, (%rdi)", X86_NT_STORE, 3, { 0x0f, 0x2b, 0x07 } },
	{ "movntpd %xmm0, (%rdi)", X86_NT_STORE, 4, { 0x66, 0x0f, 0x2b, 0x07 } },
	{ "maskmovdqu %xmm1, %xmm0", X86_NT_STORE, 4, { 0x66, 0x0f, 0xf7, 0xc1 } },
	{ "vmovntdq %ymm0, (%rdi)", X86_NT_STORE, 4, { 0xc5, 0xfd, 0xe7, 0x07 } },
	{ "vmovntps %ymm8, (%r9)", X86_NT_STORE, 5, { 0xc4, 0x41, 0x7c, 0x2b, 0x01 } },
	{ "vmovntdq %zmm0, (%rdi)", X86_NT_STORE, 6,
	  { 0x62, 0xf1, 0x7d, 0x48, 0xe7, 0x07 } },
	{ "vmovntpd %zmm16, (%r9)", X86_NT_STORE, 6,
	  { 0x62, 0xc1, 0xfd, 0x48, 0x2b, 0x01 } },
	{ "vpaddd %ymm0, %ymm0, %ymm0", X86_OTHER, 4, { 0xc5, 0xfd, 0xfe, 0xc0 } },
	{ "movdir64b (%rsi), %rdi", X86_NT_STORE, 5, { 0x66, 0x0f, 0x38, 0xf8, 0x3e } },
	{ "movdiri %rax, (%rdi)", X86_NT_STORE, 5, { 0x48, 0x0f, 0x38, 0xf9, 0x07 } },
	{ "mov %rax, (%rdi)", X86_OTHER, 3, { 0x48, 0x89, 0x07 } },
	{ "nopl 0x0(%rax,%rax,1)", X86_OTHER, 8, { 0x0f, 0x1f, 0x84 } },
	{ "nopw", X86_OTHER, 6, { 0x66, 0x0f, 0x1f, 0x44 } },
	{ "the mark", X86_MARK, 8, { 0x0f, 0x1f, 0x84, 0x00, MARK_MAGIC & 0xff,
	  MARK_MAGIC >> 8 & 0xff, MARK_MAGIC >> 16 & 0xff, MARK_MAGIC >> 24 } },
	{ "truncated clwb", X86_OTHER, 3, { 0x66, 0x0f, 0xae } },
	{ "truncated sib", X86_OTHER, 4, { 0x66, 0x0f, 0xae, 0x34 } },
	{ "prefixes only", X86_OTHER, 3, { 0x66, 0x66, 0x66 } },
};

static void test_decoder(void)
{
	/* clwb %gs:-0x40(%r13,%r9,4) */
	static const uint8_t sib[] = { 0x65, 0x66, 0x43, 0x0f, 0xae, 0x74, 0x8d, 0xc0 };
	/* clwb 0x100(%rip) */
	static const uint8_t rip[] = { 0x66, 0x0f, 0xae, 0x35, 0x00, 0x01, 0x00, 0x00 };
	/* clwb 0x12345678 */
	static const uint8_t abs[] = { 0x66, 0x0f, 0xae, 0x34, 0x25, 0x78, 0x56, 0x34, 0x12 };
	struct x86_mem m;
	bool good = true;

	for (unsigned int i = 0; i < sizeof(encodings) / sizeof(encodings[0]); i++) {
		enum x86_kind k = x86_classify(encodings[i].code, encodings[i].len, 0, &m);

		if (k != encodings[i].kind) {
			printf("# %s: kind %d\n", encodings[i].name, k);
			good = false;
		}
	}
	ok(good, "decoder_kinds");

	ok(x86_classify(sib, sizeof(sib), 0, &m) == X86_FLUSH && m.base == 13 &&
	   m.index == 9 && m.scale == 2 && m.disp == -0x40 &&
	   m.segment == X86_GS_BASE, "decoder_sib");
	ok(x86_classify(rip, sizeof(rip), 0x1000, &m) == X86_FLUSH &&
	   m.base == X86_RIP && m.disp == 0x1000 + 8 + 0x100, "decoder_rip");
	ok(x86_classify(abs, sizeof(abs), 0, &m) == X86_FLUSH &&
	   m.base == X86_NO_REG && m.index == X86_NO_REG && m.disp == 0x12345678,
	   "decoder_absolute");
}

#define GPA 0x10000
#define SIZE 0x4000

static uint8_t live[SIZE];

static struct model *fresh(void)
{
	struct model *m = model_new();

	memset(live, 0, sizeof(live));
	assert(!model_add_range(m, GPA, SIZE, live));
	return m;
}

static uint64_t lost(struct model *m)
{
	uint64_t n;

	model_point(m, "p", &n);
	return n;
}

static void test_rules(void)
{
	struct model *m = fresh();
	struct range *r = model_range(m, GPA);

	live[100] = 1;
	ok(lost(m) == 1, "store_is_lost");
	model_flush(m, 0, GPA + 100);
	ok(lost(m) == 1, "flush_without_fence_is_lost");
	model_fence(m, 1);
	ok(lost(m) == 1, "fence_of_other_cpu_does_not_help");
	model_fence(m, 0);
	ok(lost(m) == 0, "flush_and_fence_is_durable");

	live[100] = 2;
	model_flush(m, 0, GPA + 100);
	live[101] = 3;
	model_fence(m, 0);
	ok(lost(m) == 1 && r->durable[100] == 2 && r->durable[101] == 0,
	   "flush_takes_the_line_as_it_is");

	/* An old flush of CPU 1 must not undo a newer one of CPU 0 */
	m = fresh();
	r = model_range(m, GPA);
	live[0] = 1;
	model_flush(m, 1, GPA);
	live[0] = 2;
	model_flush(m, 0, GPA);
	model_fence(m, 0);
	model_fence(m, 1);
	ok(r->durable[0] == 2 && lost(m) == 0, "late_fence_of_old_flush");

	/* ... but the bytes that only it has still count */
	m = fresh();
	r = model_range(m, GPA);
	live[8] = 1;
	model_flush(m, 1, GPA);
	live[0] = 2;
	model_nt_store(m, 0, GPA, 8);
	model_fence(m, 0);
	model_fence(m, 1);
	ok(r->durable[0] == 2 && r->durable[8] == 1 && lost(m) == 0,
	   "late_fence_of_old_flush_other_bytes");

	m = fresh();
	memset(live + 60, 7, 8);
	model_nt_store(m, 0, GPA + 60, 8);
	ok(lost(m) == 2, "nt_store_without_fence_is_lost");
	model_fence(m, 0);
	ok(lost(m) == 0, "nt_store_across_lines");

	m = fresh();
	memset(live, 9, SIZE);
	model_wbinvd(m);
	ok(lost(m) == 0, "wbinvd");

	m = fresh();
	r = model_range(m, GPA);
	model_cache_is_lost(m, false);
	live[0] = 1;
	ok(lost(m) == 0, "cache_survives");
	live[0] = 2;
	model_cache_is_lost(m, true);
	live[64] = 3;
	ok(lost(m) == 1 && r->durable[0] == 2 && r->durable[64] == 0, "cache_is_lost_again");

	m = fresh();
	r = model_range(m, GPA);
	r->by_request = true;
	live[0] = 1;
	ok(!model_flush(m, 0, GPA) && !model_nt_store(m, 0, GPA, 8), "host_cache_no_flush");
	model_fence(m, 0);
	model_wbinvd(m);
	ok(lost(m) == 1, "host_cache_is_lost");
	model_cache_is_lost(m, false);
	ok(lost(m) == 1, "host_cache_is_lost_if_that_of_cpus_survives");
	model_request(m);
	ok(lost(m) == 1 && r->durable[0] == 0, "request_without_answer_is_lost");
	model_answer(m);
	ok(lost(m) == 0, "request_and_answer");
	live[0] = 2;
	ok(lost(m) == 1 && r->durable[0] == 1, "store_after_request_is_lost");
	model_answer(m);
	ok(lost(m) == 1 && r->durable[0] == 1, "answer_without_request");
	model_request(m);
	ok(lost(m) == 0, "answer_seen_before_its_request");
	live[0] = 2;
	model_request(m);
	live[0] = 3;
	model_answer(m);
	ok(lost(m) == 1 && r->durable[0] == 2, "store_between_request_and_answer_is_lost");
	model_settle(m);
	ok(lost(m) == 0, "settle");

	m = fresh();
	live[0] = 1;
	model_request(m);
	ok(lost(m) == 1, "request_to_other_device_does_not_help");

	m = fresh();
	ok(model_add_range(m, GPA + SIZE - 4096, 8192, live) &&
	   model_add_range(m, GPA + 4 * SIZE, 100, live) &&
	   model_add_range(m, GPA + 4 * SIZE, 0, live) &&
	   !model_add_range(m, GPA + SIZE, SIZE, live), "bad_ranges");
}

static void test_log(const char *path)
{
	static uint8_t random_half[SIZE];
	struct model *m = fresh();
	uint64_t n, kept = 0;
	char name[64];

	assert(!model_record(m, path));
	for (int i = 0; i < SIZE; i += 64)
		live[i] = 1;
	model_wbinvd(m);
	model_point(m, "first", &n);
	for (int i = 0; i < SIZE; i += 64)
		live[i] = 2;
	model_flush(m, 0, GPA);
	model_fence(m, 0);
	model_point(m, "second", &n);
	ok(n == SIZE / 64 - 1, "log_counts_lines");

	m = fresh();
	ok(!model_replay(m, path) && model_nr_points(m) == 2, "log_points");
	ok(!model_restore(m, 1, 0, name, sizeof(name), &n) && !strcmp(name, "second") &&
	   live[0] == 2 && live[64] == 1 && n == SIZE / 64 - 1, "strict_state");
	ok(!model_restore(m, 1, 5, name, sizeof(name), &n) && live[0] == 2, "random_state");
	memcpy(random_half, live, SIZE);
	for (int i = 64; i < SIZE; i += 64)
		kept += live[i] == 2;
	ok(kept > SIZE / 64 / 4 && kept < SIZE / 64 * 3 / 4, "random_state_keeps_half");
	ok(!model_restore(m, 0, 5, name, sizeof(name), &n) && live[0] == 1, "go_back");
	ok(!model_restore(m, 1, 5, name, sizeof(name), &n) &&
	   !memcmp(random_half, live, SIZE), "same_seed_same_state");
	ok(!model_restore(m, 1, 6, name, sizeof(name), &n) &&
	   memcmp(random_half, live, SIZE), "other_seed_other_state");
	ok(model_restore(m, 2, 0, name, sizeof(name), &n), "no_such_point");

	m = fresh();
	assert(!truncate(path, 500));
	ok(model_replay(m, path), "log_cut_off");
	m = fresh();
	ok(model_replay(m, "/dev/null"), "log_empty");
	unlink(path);
}

int main(int argc, char **argv)
{
	char path[] = "/tmp/model-test.XXXXXX", text[64];
	const char *err;

	if (argc == 2) {	/* a vmlinux to try the symbols on */
		err = symbols_load(argv[1]);
		ok(!err, "symbols_load");
		symbols_format(0x401000, text, sizeof(text));
		ok(!strcmp(text, "user 0x401000"), "symbols_user");
	}
	ok(symbols_load("/dev/null") && symbols_load("/nonexistent") &&
	   symbols_load("/bin/sh"), "symbols_refuse_bad_files");
	test_decoder();
	test_rules();
	assert(mkstemp(path) >= 0);
	test_log(path);
	return failed;
}
