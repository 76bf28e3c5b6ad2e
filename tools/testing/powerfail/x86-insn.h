/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Recognise the x86-64 instructions that decide when a store is durable.
 */
#ifndef X86_INSN_H
#define X86_INSN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum x86_kind {
	X86_OTHER,
	X86_FLUSH,	/* CLWB, CLFLUSHOPT, CLFLUSH: write one line back */
	X86_FENCE,	/* SFENCE, MFENCE, LOCKed or memory XCHG instruction */
	X86_NT_STORE,	/* store that bypasses the cache */
	X86_WBINVD,	/* WBINVD, WBNOINVD: write all lines back */
	X86_MARK,	/* the guest talks to the model: see mark.h */
};

/* Registers in the order the instruction encoding numbers them */
enum x86_reg {
	X86_RAX, X86_RCX, X86_RDX, X86_RBX, X86_RSP, X86_RBP, X86_RSI, X86_RDI,
	X86_R8, X86_R15 = 15,
	X86_RIP, X86_FS_BASE, X86_GS_BASE, X86_CR3, X86_CR4,
	X86_NR_REGS,
	X86_NO_REG = -1,
};

/**
 * struct x86_mem - memory operand, as encoded
 * @base: register, X86_RIP (already folded into @disp) or X86_NO_REG
 * @index: register or X86_NO_REG
 * @segment: X86_FS_BASE, X86_GS_BASE or X86_NO_REG
 * @scale: shift of the index register
 * @addr32: the effective address is cut to 32 bits
 * @disp: displacement in bytes
 */
struct x86_mem {
	int8_t base, index, segment;
	uint8_t scale;
	uint8_t addr32;
	int64_t disp;
};

enum x86_kind x86_classify(const uint8_t *insn, size_t len, uint64_t pc,
			   struct x86_mem *mem);
bool x86_is_stack_store(const uint8_t *insn, size_t len);

#endif
