// SPDX-License-Identifier: GPL-2.0
/*
 * Recognise the x86-64 instructions that decide when a store is durable.
 *
 * Only 64-bit mode is decoded: a guest that touches persistent memory before it
 * has entered long mode is not expected.  Lengths of other instructions do not
 * matter, QEMU cuts the code into instructions.
 */
#include <stdbool.h>
#include <string.h>

#include "mark.h"
#include "x86-insn.h"

#define MOD(modrm) ((modrm) >> 6)
#define REG(modrm) (((modrm) >> 3) & 7)
#define RM(modrm)  ((modrm) & 7)

struct prefixes {
	bool opsize, addrsize, rep, repne, lock;
	uint8_t rex;
	int8_t segment;
};

/* Read a little-endian signed displacement of @n bytes */
static int64_t get_disp(const uint8_t *p, int n)
{
	int8_t d8;
	int32_t d32;

	if (n == 1) {
		memcpy(&d8, p, 1);
		return d8;
	}
	memcpy(&d32, p, 4);
	return d32;
}

/* Decode the memory operand whose ModRM byte is *@p; false if it runs past @end */
static bool decode_mem(const uint8_t *p, const uint8_t *end, uint64_t next_pc,
		       const struct prefixes *pre, struct x86_mem *mem)
{
	uint8_t modrm = *p++;
	int rex_b = (pre->rex & 1) << 3, rex_x = (pre->rex & 2) << 2;
	int mod = MOD(modrm), disp_len;

	*mem = (struct x86_mem) {
		.base = X86_NO_REG, .index = X86_NO_REG,
		.segment = pre->segment, .addr32 = pre->addrsize,
	};

	disp_len = mod == 1 ? 1 : mod == 2 ? 4 : 0;
	if (RM(modrm) == 4) {
		uint8_t sib;

		if (p >= end)
			return false;
		sib = *p++;
		mem->scale = sib >> 6;
		if ((REG(sib) | rex_x) != X86_RSP)
			mem->index = REG(sib) | rex_x;
		if (RM(sib) == 5 && mod == 0)
			disp_len = 4;
		else
			mem->base = RM(sib) | rex_b;
	} else if (RM(modrm) == 5 && mod == 0) {
		disp_len = 4;
		mem->base = X86_RIP;
	} else {
		mem->base = RM(modrm) | rex_b;
	}

	if (p + disp_len > end)
		return false;
	if (disp_len)
		mem->disp = get_disp(p, disp_len);
	if (mem->base == X86_RIP)
		mem->disp += next_pc;
	return true;
}

/* VEX and EVEX forms: only MOVNTPS/PD (2B) and MOVNTDQ (E7) of map 0F matter */
static enum x86_kind classify_vex(const uint8_t *p, const uint8_t *end)
{
	size_t payload = *p == 0xc5 ? 1 : *p == 0xc4 ? 2 : 3;
	uint8_t map, opcode;

	if (p + payload + 2 >= end)
		return X86_OTHER;
	map = *p == 0xc5 ? 1 : *p == 0xc4 ? p[1] & 0x1f : p[1] & 7;
	opcode = p[payload + 1];
	if (map != 1)
		return X86_OTHER;
	if ((opcode == 0x2b || opcode == 0xe7) && MOD(p[payload + 2]) != 3)
		return X86_NT_STORE;
	if (opcode == 0xf7)	/* VMASKMOVDQU */
		return X86_NT_STORE;
	return X86_OTHER;
}

static enum x86_kind classify_0f38(const uint8_t *p, const uint8_t *end,
				   const struct prefixes *pre)
{
	if (p + 1 >= end || MOD(p[1]) == 3)
		return X86_OTHER;
	if (p[0] == 0xf8 && pre->opsize && !pre->rep && !pre->repne)
		return X86_NT_STORE;	/* MOVDIR64B */
	if (p[0] == 0xf9 && !pre->opsize && !pre->rep && !pre->repne)
		return X86_NT_STORE;	/* MOVDIRI */
	return X86_OTHER;
}

static enum x86_kind classify_0f(const uint8_t *p, const uint8_t *end,
				 uint64_t next_pc, const struct prefixes *pre,
				 struct x86_mem *mem)
{
	uint8_t opcode = p[0], modrm;
	bool plain = !pre->opsize && !pre->rep && !pre->repne;

	if (opcode == 0x09)
		return X86_WBINVD;
	if (p + 1 >= end)
		return X86_OTHER;
	modrm = p[1];

	switch (opcode) {
	case 0x1f:
		if (modrm == 0x84 && p + 6 < end &&
		    (uint32_t)get_disp(p + 3, 4) == MARK_MAGIC)
			return X86_MARK;
		return X86_OTHER;
	case 0x38:
		return classify_0f38(p + 1, end, pre);
	case 0xae:
		if (MOD(modrm) == 3) {
			if (plain && REG(modrm) >= 6)
				return X86_FENCE;	/* MFENCE, SFENCE */
			return X86_OTHER;
		}
		if (pre->rep || pre->repne)
			return X86_OTHER;
		/* 66 /6 CLWB, 66 /7 CLFLUSHOPT, /7 CLFLUSH; /6 is XSAVEOPT */
		if (REG(modrm) == 7 || (REG(modrm) == 6 && pre->opsize))
			return decode_mem(p + 1, end, next_pc, pre, mem) ?
				X86_FLUSH : X86_OTHER;
		return X86_OTHER;
	case 0xc3:	/* MOVNTI */
		return plain && MOD(modrm) != 3 ? X86_NT_STORE : X86_OTHER;
	case 0x2b:	/* MOVNTPS, MOVNTPD; SSE4a adds MOVNTSS and MOVNTSD */
		return MOD(modrm) != 3 ? X86_NT_STORE : X86_OTHER;
	case 0xe7:	/* MOVNTQ, MOVNTDQ */
		return !pre->rep && !pre->repne && MOD(modrm) != 3 ?
			X86_NT_STORE : X86_OTHER;
	case 0xf7:	/* MASKMOVQ, MASKMOVDQU */
		return !pre->rep && !pre->repne && MOD(modrm) == 3 ?
			X86_NT_STORE : X86_OTHER;
	}
	return X86_OTHER;
}

/**
 * x86_classify - say what an instruction means to the cache model
 * @insn: instruction bytes
 * @len: number of bytes
 * @pc: address of the instruction, for RIP-relative operands
 * @mem: filled with the operand when the result is X86_FLUSH
 *
 * Return: the kind; anything malformed is X86_OTHER.
 */
enum x86_kind x86_classify(const uint8_t *insn, size_t len, uint64_t pc,
			   struct x86_mem *mem)
{
	const uint8_t *p = insn, *end = insn + len;
	struct prefixes pre = { .segment = X86_NO_REG };
	enum x86_kind kind = X86_OTHER;

	for (; p < end; p++) {
		if (*p == 0x66)
			pre.opsize = true;
		else if (*p == 0x67)
			pre.addrsize = true;
		else if (*p == 0xf3)
			pre.rep = true;
		else if (*p == 0xf2)
			pre.repne = true;
		else if (*p == 0xf0)
			pre.lock = true;
		else if (*p == 0x64)
			pre.segment = X86_FS_BASE;
		else if (*p == 0x65)
			pre.segment = X86_GS_BASE;
		else if (*p != 0x26 && *p != 0x2e && *p != 0x36 && *p != 0x3e)
			break;
	}
	if (p < end && (*p & 0xf0) == 0x40)
		pre.rex = *p++;
	if (p >= end)
		return X86_OTHER;

	/* A LOCKed instruction orders what came before it, whatever it does */
	if (pre.lock)
		return X86_FENCE;

	if (*p == 0x0f && p + 1 < end)
		kind = classify_0f(p + 1, end, pc + len, &pre, mem);
	else if (*p == 0xc4 || *p == 0xc5 || *p == 0x62)
		kind = classify_vex(p, end);
	else if ((*p == 0x86 || *p == 0x87) && p + 1 < end && MOD(p[1]) != 3)
		kind = X86_FENCE;	/* XCHG with memory locks implicitly */
	return kind;
}

/**
 * x86_is_stack_store - does an instruction obviously store to the stack?
 * @insn: instruction bytes
 * @len: number of bytes
 *
 * A third to a half of all stores do; no stack is in persistent memory.
 *
 * Return: true for PUSH, CALL and MOV to an address relative to RSP.
 */
bool x86_is_stack_store(const uint8_t *insn, size_t len)
{
	const uint8_t *p = insn, *end = insn + len;
	bool rex_b = false;

	while (p < end && (*p == 0x66 || *p == 0xf3 || *p == 0x2e))
		p++;
	if (p < end && (*p & 0xf0) == 0x40)
		rex_b = *p++ & 1;
	if (p >= end)
		return false;
	if ((*p & 0xf8) == 0x50 || *p == 0xe8 || *p == 0x68 || *p == 0x6a)
		return true;
	if (p + 1 >= end)
		return false;
	if (*p == 0xff && (REG(p[1]) == 2 || REG(p[1]) == 6))
		return true;
	return (*p == 0x88 || *p == 0x89 || *p == 0xc6 || *p == 0xc7) && !rex_b &&
		p + 2 < end && MOD(p[1]) != 3 && RM(p[1]) == 4 && RM(p[2]) == X86_RSP;
}
