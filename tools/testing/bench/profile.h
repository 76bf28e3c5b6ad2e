/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How the benchmark tells profile.so what to count: by NOPs with a displacement that
 * nobody else uses.  They cost an instruction each, and nothing is needed that they
 * could disturb.
 */
#ifndef PROFILE_H
#define PROFILE_H

#define PROFILE_NOP "\x0f\x1f\x80"		/* nopl disp32(%rax) */
#define PROFILE_START 0x464f5201		/* count from now on */
#define PROFILE_STOP 0x464f5202
#define PROFILE_RESULT 0x464f5203		/* what was counted belongs to this result */

#if defined(__x86_64__)
#define profile_mark(mark) __asm__ volatile("nopl %c0(%%rax)" : : "i" (mark) : "memory")
#else
#define profile_mark(mark) do { } while (0)
#endif

#endif
