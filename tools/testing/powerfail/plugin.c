// SPDX-License-Identifier: GPL-2.0
/*
 * Power-fail model: the QEMU side.
 *
 * A TCG plugin that shows the model (model.c) what the guest's CPUs execute and
 * answers the guest's marks (mark.h).  README has the arguments and an example.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mark.h"
#include "model.h"
#include "qemu-api.h"
#include "symbols.h"
#include "x86-insn.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

/* QEMU's i440fx and q35 put memory above this elsewhere, see pc_memory_init() */
#define MAX_RAM (2ull << 30)

#define PTE_PRESENT 0x1ull
#define PTE_LARGE 0x80ull
#define PTE_ADDR 0x000ffffffffff000ull
#define CR4_LA57 (1ull << 12)

static struct model *model;
static uint8_t *ram;
static uint64_t ram_size;
static FILE *report;
static bool replay;
static bool virtio_pmem;	/* there is one, see notify_host() */
static uint64_t answer_pc;	/* where the guest learns that it has been flushed, or 0 */
static bool tracing;	/* note who stores, for which vmlinux= is needed */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Per vCPU: lines that wait for a fence.  While 0, fences cost nothing. */
static qemu_plugin_u64 waiting;
static struct qemu_plugin_register *reg_handle[X86_NR_REGS];

/* The operands of each CLWB and friends in translated code; never freed */
struct flush_site {
	struct x86_mem mem;
};

static __attribute__((noreturn, format(printf, 1, 2))) void die(const char *fmt, ...)
{
	va_list ap;

	fputs("power-fail model: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(2);
}

static void find_registers(qemu_plugin_id_t id, unsigned int vcpu)
{
	static const char *const name[X86_NR_REGS] = {
		"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
		"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
		"rip", "fs_base", "gs_base", "cr3", "cr4",
	};
	GArray *regs;

	(void)id;
	if (vcpu >= MAX_CPUS)
		die("more than %d CPUs", MAX_CPUS);
	regs = qemu_plugin_get_registers();
	for (unsigned int i = 0; i < regs->len; i++) {
		qemu_plugin_reg_descriptor *d =
			&g_array_index(regs, qemu_plugin_reg_descriptor, i);

		for (unsigned int r = 0; r < X86_NR_REGS; r++)
			if (!strcmp(d->name, name[r]))
				reg_handle[r] = d->handle;
	}
	g_array_free(regs, true);
	for (unsigned int r = 0; r < X86_NR_REGS; r++)
		if (!reg_handle[r])
			die("this QEMU does not show register %s", name[r]);
}

/* Of the vCPU whose thread this is, before the current instruction */
static uint64_t get_reg(int reg)
{
	static __thread GByteArray *buf;
	uint64_t v = 0;

	if (!buf)
		buf = g_byte_array_new();
	g_byte_array_set_size(buf, 0);
	if (qemu_plugin_read_register(reg_handle[reg], buf) > 0)
		memcpy(&v, buf->data, buf->len < 8 ? buf->len : 8);
	return v;
}

/*
 * Translate a guest virtual address by the guest's own page tables.  That holds
 * for the direct map, wherever it is, as for user mappings.  False if unmapped.
 */
static bool translate(uint64_t va, uint64_t *gpa)
{
	int levels = get_reg(X86_CR4) & CR4_LA57 ? 5 : 4;
	uint64_t table = get_reg(X86_CR3) & PTE_ADDR;

	for (int level = levels; level >= 1; level--) {
		int shift = 12 + 9 * (level - 1);
		uint64_t slot = table + 8 * (va >> shift & 511), pte;

		if (slot > ram_size - 8)
			return false;
		pte = __atomic_load_n((uint64_t *)(ram + slot), __ATOMIC_RELAXED);
		if (!(pte & PTE_PRESENT))
			return false;
		if (level == 1 || (level <= 3 && (pte & PTE_LARGE))) {
			uint64_t mask = (1ull << shift) - 1;

			*gpa = (pte & PTE_ADDR & ~mask) | (va & mask);
			return true;
		}
		table = pte & PTE_ADDR;
	}
	return false;
}

/* Guest memory at @va; NULL if it is unmapped, no RAM or crosses a page */
static void *guest_ptr(uint64_t va, size_t size)
{
	uint64_t gpa;

	if ((va & 4095) + size > 4096 || !translate(va, &gpa) ||
	    gpa > ram_size - size)
		return NULL;
	return ram + gpa;
}

static uint64_t guest_u64(uint64_t va)
{
	uint64_t *p = guest_ptr(va, 8);

	return p ? *p : 0;
}

static bool is_copy_function(uint64_t pc)
{
	static const char *const leaf[] = {
		"mem", "__mem", "rep_", "copy_", "__copy_", "clear_", "sync_",
	};
	uint64_t off;
	const char *name = symbols_name(pc, &off);

	for (unsigned int i = 0; name && i < sizeof(leaf) / sizeof(leaf[0]); i++)
		if (!strncmp(name, leaf[i], strlen(leaf[i])))
			return true;
	return false;
}

/*
 * The call chain of a store in the kernel, by frame pointers.  The assembler
 * copy functions have no frame of their own: the return address is then on top
 * of the stack.
 */
static void find_origin(uint64_t pc, struct origin *o)
{
	unsigned int n = 0;
	uint64_t rbp, off;

	*o = (struct origin) {};
	o->pc[n++] = pc;
	if (!(pc >> 63))
		return;
	if (is_copy_function(pc)) {
		uint64_t ret = guest_u64(get_reg(X86_RSP));

		if (symbols_name(ret, &off))
			o->pc[n++] = ret;
	}
	rbp = get_reg(X86_RBP);
	while (n < ORIGIN_DEPTH && rbp >> 63) {
		uint64_t ret = guest_u64(rbp + 8), next = guest_u64(rbp);

		if (!symbols_name(ret, &off))
			break;
		o->pc[n++] = ret;
		if (next <= rbp)
			break;
		rbp = next;
	}
}

static void format_origin(const struct origin *o, char *buf, size_t size)
{
	size_t len = 0;

	if (!o) {
		snprintf(buf, size, "%s", tracing ? "device DMA" : "(not traced)");
		return;
	}
	for (unsigned int i = 0; i < ORIGIN_DEPTH && o->pc[i]; i++) {
		char one[96];

		symbols_format(o->pc[i], one, sizeof(one));
		len += snprintf(buf + len, len < size ? size - len : 0, "%s%s",
				i ? " < " : "", one);
		if (len >= size)
			return;
	}
}

/* Volatile lines, counted by who stored there */
struct tally {
	struct {
		const struct origin *origin;
		uint64_t lines;
	} by[16];
	uint64_t lines;
};

static void tally_line(struct tally *t, const struct origin *o)
{
	const unsigned int room = sizeof(t->by) / sizeof(t->by[0]);
	unsigned int i;

	t->lines++;
	for (i = 0; i < room && t->by[i].lines; i++)
		if (t->by[i].origin == o ||
		    (o && t->by[i].origin &&
		     !memcmp(o, t->by[i].origin, sizeof(*o))))
			break;
	if (i == room)
		return;		/* the total still counts it */
	t->by[i].origin = o;
	t->by[i].lines++;
}

static void format_tally(const struct tally *t, char *buf, size_t size)
{
	size_t len = 0;

	if (size)
		buf[0] = 0;
	for (unsigned int i = 0; i < 16 && t->by[i].lines && len < size; i++) {
		char who[400];

		format_origin(t->by[i].origin, who, sizeof(who));
		len += snprintf(buf + len, size - len, "%s%" PRIu64 " by %s",
				i ? "; " : "", t->by[i].lines, who);
	}
}

/* Collects the volatile lines of a point: runs of addresses, and a tally */
struct survey {
	struct tally tally;
	uint64_t start, end;
};

static void report_run(const struct survey *s)
{
	if (s->end)
		fprintf(report, "  volatile 0x%" PRIx64 "-0x%" PRIx64 " (%" PRIu64
			" lines)\n", s->start, s->end - 1,
			(s->end - s->start) / LINE_SIZE);
}

static void survey_line(void *arg, const struct range *r, uint64_t gpa)
{
	struct survey *s = arg;

	tally_line(&s->tally, model_origin(r, gpa));
	if (gpa != s->end) {
		report_run(s);
		s->start = gpa;
	}
	s->end = gpa + LINE_SIZE;
}

static void do_point(struct mark *m)
{
	struct survey s = {};
	char who[2048];

	m->text[sizeof(m->text) - 1] = 0;
	m->point = model_point(model, m->text, &m->lines);
	m->status = MARK_OK;
	if (!report)
		return;
	fprintf(report, "point %" PRIu64 " %s: %" PRIu64 " volatile lines\n",
		m->point, m->text, m->lines);
	model_for_each_lost(model, survey_line, &s);
	report_run(&s);
	format_tally(&s.tally, who, sizeof(who));
	if (s.tally.lines)
		fprintf(report, "  stored: %s\n", who);
	fflush(report);
}

static void do_check(struct mark *m)
{
	uint64_t end = m->addr + m->len, base = m->addr;
	struct tally t = {};
	bool all_pmem = true;

	m->lines = 0;
	m->status = MARK_NO_POINT;
	if (!model_nr_points(model))
		return;
	m->point = model_nr_points(model) - 1;
	for (uint64_t va = base & ~(uint64_t)(LINE_SIZE - 1); va < end; va += LINE_SIZE) {
		struct range *r;
		uint64_t gpa;

		r = translate(va, &gpa) ? model_range(model, gpa) : NULL;
		if (!r)
			all_pmem = false;
		if (!r || !model_line_lost(r, gpa))
			continue;
		if (!t.lines)
			m->first = va < base ? 0 : va - base;
		tally_line(&t, model_origin(r, gpa));
	}
	m->lines = t.lines;
	format_tally(&t, m->text, sizeof(m->text));
	m->status = all_pmem ? MARK_OK : MARK_NOT_PMEM;
}

static void do_mark(unsigned int vcpu, void *udata)
{
	struct mark *m;

	(void)vcpu;
	(void)udata;
	m = guest_ptr(get_reg(X86_RDI), sizeof(*m));
	if (!m)
		return;

	pthread_mutex_lock(&lock);
	switch (m->op) {
	case MARK_HELLO:
		m->status = MARK_OK;
		break;
	case MARK_SETTLE:
		model_settle(model);
		m->status = MARK_OK;
		break;
	case MARK_CACHE:
		model_cache_is_lost(model, m->len);
		m->status = MARK_OK;
		break;
	case MARK_POINT:
		if (replay)
			m->status = MARK_BAD_OP;
		else
			do_point(m);
		break;
	case MARK_CHECK:
		do_check(m);
		break;
	case MARK_RESTORE:
		m->status = MARK_BAD_OP;
		if (replay)
			m->status = model_restore(model, m->point, m->seed, m->text,
						  sizeof(m->text), &m->lines) ?
				MARK_NO_POINT : MARK_OK;
		break;
	default:
		m->status = MARK_BAD_OP;
	}
	pthread_mutex_unlock(&lock);
}

static void do_flush(unsigned int vcpu, void *udata)
{
	const struct x86_mem *mem = &((struct flush_site *)udata)->mem;
	uint64_t va = mem->disp, gpa;

	if (mem->base != X86_NO_REG && mem->base != X86_RIP)
		va += get_reg(mem->base);
	if (mem->index != X86_NO_REG)
		va += get_reg(mem->index) << mem->scale;
	if (mem->addr32)
		va = (uint32_t)va;
	if (mem->segment != X86_NO_REG)
		va += get_reg(mem->segment);
	if (!translate(va, &gpa))
		return;
	pthread_mutex_lock(&lock);
	qemu_plugin_u64_set(waiting, vcpu, model_flush(model, vcpu, gpa));
	pthread_mutex_unlock(&lock);
}

static void do_fence(unsigned int vcpu, void *udata)
{
	(void)udata;
	pthread_mutex_lock(&lock);
	model_fence(model, vcpu);
	qemu_plugin_u64_set(waiting, vcpu, 0);
	pthread_mutex_unlock(&lock);
}

static void do_wbinvd(unsigned int vcpu, void *udata)
{
	(void)vcpu;
	(void)udata;
	pthread_mutex_lock(&lock);
	model_wbinvd(model);
	pthread_mutex_unlock(&lock);
}

/* virtio-pmem has one queue: to notify the host of it is to ask for a flush */
static void notify_host(const struct qemu_plugin_hwaddr *hw)
{
	if (!virtio_pmem ||
	    strcmp(qemu_plugin_hwaddr_device_name(hw), "virtio-pci-notify-virtio-pmem"))
		return;
	pthread_mutex_lock(&lock);
	model_request(model);
	if (!answer_pc)
		model_answer(model);
	pthread_mutex_unlock(&lock);
}

static void do_answer(unsigned int vcpu, void *udata)
{
	(void)vcpu;
	(void)udata;
	pthread_mutex_lock(&lock);
	model_answer(model);
	pthread_mutex_unlock(&lock);
}

/* The guest physical address of a store that has been done; false if to a device */
static bool store_gpa(qemu_plugin_meminfo_t info, uint64_t va, uint64_t *gpa)
{
	struct qemu_plugin_hwaddr *hw = qemu_plugin_get_hwaddr(info, va);

	if (!hw)
		return false;
	if (qemu_plugin_hwaddr_is_io(hw)) {
		notify_host(hw);
		return false;
	}
	*gpa = qemu_plugin_hwaddr_phys_addr(hw);
	return true;
}

static void do_store(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t va,
		     void *udata)
{
	uint64_t pc = (uintptr_t)udata, gpa;
	struct origin o;

	(void)vcpu;
	if (!store_gpa(info, va, &gpa) || !model_range(model, gpa))
		return;
	if (!tracing)
		return;
	pthread_mutex_lock(&lock);
	if (model_wants_origin(model, gpa, pc)) {
		find_origin(pc, &o);
		model_store(model, gpa, 1u << qemu_plugin_mem_size_shift(info), &o);
	}
	pthread_mutex_unlock(&lock);
}

static void do_nt_store(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t va,
			void *udata)
{
	size_t len = 1u << qemu_plugin_mem_size_shift(info);
	uint64_t gpa;

	if (!store_gpa(info, va, &gpa))
		return;
	/* These bytes only need a fence: whoever made the rest dirty is to blame */
	if (tracing && !model_is_dirty(model, gpa))
		do_store(vcpu, info, va, udata);
	pthread_mutex_lock(&lock);
	while (len) {
		size_t n = 4096 - (va & 4095);

		if (n > len)
			n = len;
		qemu_plugin_u64_set(waiting, vcpu, model_nt_store(model, vcpu, gpa, n));
		va += n;
		len -= n;
		/* The next page of memory is another one of the device */
		if (len && !translate(va, &gpa))
			break;
	}
	pthread_mutex_unlock(&lock);
}

static void translate_block(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	(void)id;
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint64_t pc = qemu_plugin_insn_vaddr(insn);
		uint8_t code[16];
		size_t len = qemu_plugin_insn_data(insn, code, sizeof(code));
		struct x86_mem mem;
		struct flush_site *site;
		enum x86_kind kind = x86_classify(code, len, pc, &mem);

		if (kind == X86_MARK)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, do_mark,
					QEMU_PLUGIN_CB_R_REGS, NULL);
		if (replay)
			continue;
		if (answer_pc && pc == answer_pc)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, do_answer,
					QEMU_PLUGIN_CB_NO_REGS, NULL);

		switch (kind) {
		case X86_FLUSH:
			site = malloc(sizeof(*site));
			if (!site)
				die("out of memory");
			site->mem = mem;
			qemu_plugin_register_vcpu_insn_exec_cb(insn, do_flush,
					QEMU_PLUGIN_CB_R_REGS, site);
			break;
		case X86_WBINVD:
			qemu_plugin_register_vcpu_insn_exec_cb(insn, do_wbinvd,
					QEMU_PLUGIN_CB_NO_REGS, NULL);
			break;
		case X86_FENCE:
			qemu_plugin_register_vcpu_insn_exec_cond_cb(insn, do_fence,
					QEMU_PLUGIN_CB_NO_REGS,
					QEMU_PLUGIN_COND_NE, waiting, 0, NULL);
			break;
		default:
			break;
		}
		if (kind == X86_NT_STORE ||
		    ((tracing || virtio_pmem) && !x86_is_stack_store(code, len)))
			qemu_plugin_register_vcpu_mem_cb(insn,
				kind == X86_NT_STORE ? do_nt_store : do_store,
				QEMU_PLUGIN_CB_R_REGS, QEMU_PLUGIN_MEM_W,
				(void *)(uintptr_t)pc);
	}
}

static void at_exit(qemu_plugin_id_t id, void *udata)
{
	(void)id;
	(void)udata;
	if (report)
		fclose(report);
}

static uint8_t *map_file(const char *what, const char *path, uint64_t *size)
{
	int fd = open(path, O_RDWR);
	struct stat st;
	void *p;

	if (fd < 0)
		die("%s %s: %s", what, path, strerror(errno));
	if (fstat(fd, &st) || !st.st_size)
		die("%s %s: empty", what, path);
	p = mmap(NULL, st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		die("%s %s: %s", what, path, strerror(errno));
	close(fd);
	*size = st.st_size;
	return p;
}

/*
 * pmem=GPA:SIZE, in guest RAM, pmem=GPA:SIZE:FILE, a device of its own, or
 * virtio-pmem=GPA:SIZE:FILE
 */
static void add_pmem(char *arg, bool by_request)
{
	char *end, *file = NULL;
	uint64_t gpa, size, file_size;
	const char *err;
	uint8_t *live;

	gpa = strtoull(arg, &end, 0);
	if (end == arg || *end != ':')
		die("pmem=%s: not GPA:SIZE[:FILE]", arg);
	size = strtoull(end + 1, &end, 0);
	if (*end == ':')
		file = end + 1;
	else if (*end)
		die("pmem=%s: not GPA:SIZE[:FILE]", arg);

	if (by_request && !file)
		die("virtio-pmem=%s: not GPA:SIZE:FILE", arg);
	if (file) {
		live = map_file("pmem image", file, &file_size);
		if (file_size != size)
			die("pmem image %s: %" PRIu64 " bytes, not %" PRIu64,
			    file, file_size, size);
	} else {
		if (size > ram_size || gpa > ram_size - size)
			die("pmem=%s: beyond the %" PRIu64 " bytes of guest RAM",
			    arg, ram_size);
		live = ram + gpa;
	}
	err = model_add_range(model, gpa, size, live);
	if (err)
		die("pmem=%s: %s", arg, err);
	model_range(model, gpa)->by_request = by_request;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info,
			       int argc, char **argv)
{
	const char *record_log = NULL, *replay_log = NULL, *err;
	char *pmem[MAX_RANGES], *virtio = NULL;
	unsigned int nr_pmem = 0;

	if (strcmp(info->target_name, "x86_64") || !info->system_emulation)
		die("only qemu-system-x86_64 is supported");
	for (int i = 0; i < argc; i++) {
		char *val = strchr(argv[i], '=');

		if (!val)
			die("argument '%s' has no value", argv[i]);
		*val++ = 0;
		if (!strcmp(argv[i], "ram")) {
			ram = map_file("guest RAM", val, &ram_size);
		} else if (!strcmp(argv[i], "pmem")) {
			if (nr_pmem == MAX_RANGES)
				die("more than %d pmem ranges", MAX_RANGES);
			pmem[nr_pmem++] = val;
		} else if (!strcmp(argv[i], "virtio-pmem")) {
			if (virtio)
				die("more than one virtio-pmem");
			virtio = val;
		} else if (!strcmp(argv[i], "vmlinux")) {
			err = symbols_load(val);
			if (err)
				die("vmlinux %s: %s", val, err);
			answer_pc = symbols_address("virtio_pmem_host_ack");
			tracing = true;
		} else if (!strcmp(argv[i], "record")) {
			record_log = val;
		} else if (!strcmp(argv[i], "replay")) {
			replay_log = val;
		} else if (!strcmp(argv[i], "report")) {
			report = fopen(val, "w");
			if (!report)
				die("report %s: %s", val, strerror(errno));
		} else {
			die("unknown argument '%s'", argv[i]);
		}
	}
	if (!ram || !nr_pmem)
		die("ram=FILE and pmem=GPA:SIZE are needed");
	if (ram_size > MAX_RAM)
		die("guest RAM: %" PRIu64 " bytes, at most %llu are supported",
		    ram_size, MAX_RAM);
	if (record_log && replay_log)
		die("record= and replay= exclude each other");

	model = model_new();
	for (unsigned int i = 0; i < nr_pmem; i++)
		add_pmem(pmem[i], false);
	if (virtio)
		add_pmem(virtio, true);
	virtio_pmem = virtio;
	replay = replay_log;
	err = replay ? model_replay(model, replay_log) :
	      record_log ? model_record(model, record_log) : NULL;
	if (err)
		die("log %s: %s", replay ? replay_log : record_log, err);

	waiting.score = qemu_plugin_scoreboard_new(sizeof(uint64_t));
	waiting.offset = 0;
	qemu_plugin_register_vcpu_init_cb(id, find_registers);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translate_block);
	qemu_plugin_register_atexit_cb(id, at_exit, NULL);
	return 0;
}
