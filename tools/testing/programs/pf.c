// SPDX-License-Identifier: GPL-2.0
/*
 * The power-fail model for scripts.
 *
 *   pf point TEXT	power may fail now; TEXT says what has been promised until then
 *   pf settle		all that was stored is durable
 *   pf restore N SEED	be in the state that point N has left, see ../powerfail/mark.h; prints
 *			the name of the point and the number of cache lines that were volatile
 *   pf extents DIR	where the files below DIR are: "DEVICE-OFFSET LENGTH FILE-OFFSET FILE"
 *
 * The name of a point is that of the program that runs, $POWERFAIL_PROGRAM, and TEXT.
 * Exit status 1: there is no model, or no such point.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <ftw.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "point.h"

static const char *top;

static int print_extents(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	enum { MAX = 512 };
	struct fiemap *map = calloc(1, sizeof(*map) + MAX * sizeof(map->fm_extents[0]));
	int fd;

	(void)st;
	(void)ftw;
	if (type != FTW_F || !map)
		return 0;
	fd = open(path, O_RDONLY);
	map->fm_length = FIEMAP_MAX_OFFSET;
	map->fm_extent_count = MAX;
	if (fd >= 0 && !ioctl(fd, FS_IOC_FIEMAP, map))
		for (unsigned int i = 0; i < map->fm_mapped_extents; i++) {
			const struct fiemap_extent *e = &map->fm_extents[i];

			printf("%llu %llu %llu %s\n", e->fe_physical, e->fe_length, e->fe_logical,
			       path + strlen(top) + 1);
		}
	close(fd);
	free(map);
	return 0;
}

int main(int argc, char **argv)
{
	const char *op = argc > 1 ? argv[1] : "";

	if (!strcmp(op, "point") && argc == 3)
		return !power_may_fail(argv[2]);
	if (!strcmp(op, "settle") && argc == 2) {
		mark_request.op = MARK_SETTLE;
	} else if (!strcmp(op, "restore") && argc == 4) {
		mark_request.op = MARK_RESTORE;
		mark_request.point = strtoull(argv[2], NULL, 10);
		mark_request.seed = strtoull(argv[3], NULL, 10);
	} else if (!strcmp(op, "extents") && argc == 3) {
		top = argv[2];
		return !!nftw(top, print_extents, 16, FTW_PHYS);
	} else {
		fprintf(stderr, "usage: pf point TEXT | settle | restore N SEED | extents DIR\n");
		return 2;
	}
	mark(&mark_request);
	if (mark_request.status != MARK_OK)
		return 1;
	if (mark_request.op == MARK_RESTORE)
		printf("%s\n%llu\n", mark_request.text, (unsigned long long)mark_request.lines);
	return 0;
}
