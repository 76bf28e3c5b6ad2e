// SPDX-License-Identifier: GPL-2.0
/* Names for kernel code addresses, from the symbol table of a vmlinux */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "symbols.h"

struct symbol {
	uint64_t addr;
	const char *name;
};

static struct symbol *table;
static size_t nr_symbols;

static int by_address(const void *a, const void *b)
{
	const struct symbol *x = a, *y = b;

	return x->addr < y->addr ? -1 : x->addr > y->addr;
}

static const char *read_symtab(const uint8_t *image, size_t size)
{
	const Elf64_Ehdr *eh = (const void *)image;
	const Elf64_Shdr *sh;

	if (size < sizeof(*eh) || memcmp(eh->e_ident, ELFMAG, SELFMAG) ||
	    eh->e_ident[EI_CLASS] != ELFCLASS64 || eh->e_machine != EM_X86_64)
		return "not an x86-64 ELF file";
	if (eh->e_shoff > size ||
	    eh->e_shnum > (size - eh->e_shoff) / sizeof(*sh))
		return "section headers are cut off";

	sh = (const void *)(image + eh->e_shoff);
	for (unsigned int i = 0; i < eh->e_shnum; i++) {
		const Elf64_Shdr *str;
		const Elf64_Sym *sym;
		size_t n;

		if (sh[i].sh_type != SHT_SYMTAB || sh[i].sh_link >= eh->e_shnum)
			continue;
		str = &sh[sh[i].sh_link];
		if (sh[i].sh_offset > size || sh[i].sh_size > size - sh[i].sh_offset ||
		    str->sh_offset > size || str->sh_size > size - str->sh_offset ||
		    !str->sh_size || image[str->sh_offset + str->sh_size - 1])
			return "symbol table is cut off";
		sym = (const void *)(image + sh[i].sh_offset);
		n = sh[i].sh_size / sizeof(*sym);
		table = calloc(n ? n : 1, sizeof(*table));
		if (!table)
			return "out of memory";
		for (size_t s = 0; s < n; s++) {
			int type = ELF64_ST_TYPE(sym[s].st_info);

			if ((type != STT_FUNC && type != STT_NOTYPE) ||
			    sym[s].st_shndx == SHN_UNDEF ||
			    sym[s].st_shndx == SHN_ABS ||
			    sym[s].st_name >= str->sh_size)
				continue;
			table[nr_symbols++] = (struct symbol) {
				sym[s].st_value,
				(const char *)image + str->sh_offset + sym[s].st_name,
			};
		}
		qsort(table, nr_symbols, sizeof(*table), by_address);
		return nr_symbols ? NULL : "no symbols";
	}
	return "no symbol table";
}

/**
 * symbols_load - read the symbol table of a kernel
 * @vmlinux: path of an uncompressed, unstripped x86-64 kernel
 *
 * Return: NULL, or what is wrong with the file.
 */
const char *symbols_load(const char *vmlinux)
{
	int fd = open(vmlinux, O_RDONLY);
	struct stat st;
	uint8_t *image;

	if (fd < 0)
		return strerror(errno);
	if (fstat(fd, &st)) {
		close(fd);
		return strerror(errno);
	}
	image = mmap(NULL, st.st_size ? st.st_size : 1, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (image == MAP_FAILED)
		return strerror(errno);
	return read_symtab(image, st.st_size);
}

/* Address of symbol @name; 0 if there is none */
uint64_t symbols_address(const char *name)
{
	for (size_t i = 0; i < nr_symbols; i++)
		if (!strcmp(table[i].name, name))
			return table[i].addr;
	return 0;
}

/* Name of the symbol at or below @addr; NULL if there is none */
const char *symbols_name(uint64_t addr, uint64_t *offset)
{
	size_t lo = 0, hi = nr_symbols;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (table[mid].addr <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	/* Kernel text has no gap of 1 MiB: beyond that it is a module or garbage */
	if (!lo || addr - table[lo - 1].addr > 1 << 20)
		return NULL;
	*offset = addr - table[lo - 1].addr;
	return table[lo - 1].name;
}

/* "symbol+0x1c", "user 0x401136" or the bare address */
void symbols_format(uint64_t addr, char *buf, size_t size)
{
	uint64_t offset;
	const char *name = symbols_name(addr, &offset);

	if (!(addr >> 63))
		snprintf(buf, size, "user 0x%" PRIx64, addr);
	else if (name)
		snprintf(buf, size, "%s+0x%" PRIx64, name, offset);
	else
		snprintf(buf, size, "0x%" PRIx64, addr);
}
