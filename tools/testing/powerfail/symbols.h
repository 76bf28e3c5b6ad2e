/* SPDX-License-Identifier: GPL-2.0 */
#ifndef SYMBOLS_H
#define SYMBOLS_H

#include <stddef.h>
#include <stdint.h>

const char *symbols_load(const char *vmlinux);
uint64_t symbols_address(const char *name);
const char *symbols_name(uint64_t addr, uint64_t *offset);
void symbols_format(uint64_t addr, char *buf, size_t size);

#endif
