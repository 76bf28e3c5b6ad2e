/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The part of QEMU's TCG plugin interface that the model uses.
 *
 * No Debian package ships qemu-plugin.h, so the functions are declared here.
 * They are those of interface version 4 (QEMU 9.2 to 10.0): the first one with
 * both register and store-value access.  QEMU refuses to load a plugin whose
 * version it does not implement.
 */
#ifndef QEMU_API_H
#define QEMU_API_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QEMU_PLUGIN_VERSION 4

typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;

struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_hwaddr;
struct qemu_plugin_scoreboard;
struct qemu_plugin_register;

typedef struct {
	const char *target_name;
	struct {
		int min;
		int cur;
	} version;
	bool system_emulation;
	union {
		struct {
			int smp_vcpus;
			int max_vcpus;
		} system;
	};
} qemu_info_t;

typedef struct {
	struct qemu_plugin_scoreboard *score;
	size_t offset;
} qemu_plugin_u64;

typedef struct {
	struct qemu_plugin_register *handle;
	const char *name;
	const char *feature;
} qemu_plugin_reg_descriptor;

enum { QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_CB_R_REGS };
enum { QEMU_PLUGIN_MEM_R = 1, QEMU_PLUGIN_MEM_W };
enum { QEMU_PLUGIN_COND_NEVER, QEMU_PLUGIN_COND_ALWAYS, QEMU_PLUGIN_COND_EQ,
       QEMU_PLUGIN_COND_NE };

typedef void (*qemu_plugin_tb_cb)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*qemu_plugin_insn_cb)(unsigned int vcpu, void *udata);
typedef void (*qemu_plugin_mem_cb)(unsigned int vcpu, qemu_plugin_meminfo_t,
				   uint64_t vaddr, void *udata);

void qemu_plugin_register_vcpu_init_cb(qemu_plugin_id_t,
		void (*)(qemu_plugin_id_t, unsigned int vcpu));
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, qemu_plugin_tb_cb);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, qemu_plugin_insn_cb, int,
					  void *);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *,
		qemu_plugin_insn_cb, int flags, void *udata);
void qemu_plugin_register_vcpu_insn_exec_cond_cb(struct qemu_plugin_insn *,
		qemu_plugin_insn_cb, int flags, int cond, qemu_plugin_u64 entry,
		uint64_t imm, void *udata);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *,
		qemu_plugin_mem_cb, int flags, int rw, void *udata);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t,
		void (*)(qemu_plugin_id_t, void *), void *udata);

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *,
						 size_t idx);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);

unsigned int qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t);
struct qemu_plugin_hwaddr *qemu_plugin_get_hwaddr(qemu_plugin_meminfo_t,
						  uint64_t vaddr);
bool qemu_plugin_hwaddr_is_io(const struct qemu_plugin_hwaddr *);
uint64_t qemu_plugin_hwaddr_phys_addr(const struct qemu_plugin_hwaddr *);
const char *qemu_plugin_hwaddr_device_name(const struct qemu_plugin_hwaddr *);

GArray *qemu_plugin_get_registers(void);
int qemu_plugin_read_register(struct qemu_plugin_register *, GByteArray *);

struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t);
void qemu_plugin_u64_set(qemu_plugin_u64, unsigned int vcpu, uint64_t);

#endif
