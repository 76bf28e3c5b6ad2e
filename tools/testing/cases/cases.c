// SPDX-License-Identifier: GPL-2.0
/*
 * What a user of DAX does before a sync call, and what the call then promises.
 *
 * The tables of cases, in the order in which they run: a file for each family.  One has two
 * tables if cases of others run in between.  Content that is wrong without a power failure, and
 * what crashes v7.3, comes last: it may be content of another file that is overwritten.
 */
#include <stddef.h>

#include "guest.h"

extern const struct test_case mmap_cases[], write_cases[], mapsync_cases[],
	elsewhere_cases[], shared_cases[], zero_cases[], pin_cases[], setting_cases[],
	poison_cases[], unbind_cases[], bad_block_cases[], kernel_store_cases[],
	remap_cases[], again_cases[], pmd_cases[], content_cases[], alone_pmd_cases[];

const struct test_case *const families[] = {
	mmap_cases, write_cases, mapsync_cases, elsewhere_cases, shared_cases,
	zero_cases, pin_cases, setting_cases, poison_cases, unbind_cases,
	bad_block_cases, kernel_store_cases, remap_cases, again_cases, pmd_cases, content_cases,
	alone_pmd_cases, NULL
};
