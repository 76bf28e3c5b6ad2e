# SPDX-License-Identifier: GPL-2.0
#
# The lines about the benchmark that stand in documents, base -> patched on ext4 and on XFS.
#
#	awk -v document=DOCUMENT -f figures.awk Documentation/bench-results
#
# DOCUMENT is "short", for README and a cover letter, "block" and "hot" for others, or for
# Documentation/performance.rst "long", "events", or "dearer": all that costs at least half a
# percent more than on the base.  "durable-ext4" and "durable-xfs" compare ways to make something
# durable, "durable-ext4" also in README.  ci/test looks for the lines there.

function figures(config, key)
{
	return (config, key) in base ? base[config, key] " -> " patched[config, key] : ""
}

function row(text, key, fs,	s)
{
	s = sprintf("%-" (document == "dearer" ? 52 : 41) "s %18s  %18s", text, figures("ext4-" fs, key), figures("xfs-" fs, key))
	sub(/ +$/, "", s)
	print s
}

# The ways to make pages durable
function durable(text, config, how, kernel,	i, j, key, s)
{
	s = sprintf("%-33s", text)
	for (i = 1; i <= 3; i++) {
		for (j = 1; j <= 3; j++) {
			key = "durable n=" word("1 16 4096", i) ",lines=" word("1 8 64", j) ",how=" how
			s = s sprintf(" %7s", kernel == "base" ? base[config, key] : patched[config, key])
		}
	}
	print s
}

function word(s, i,	list)
{
	split(s, list, " ")
	return list[i]
}

$2 == "base" { config = $1; next }

NF >= 5 {
	key = $1 " " $2
	base[config, key] = $3
	patched[config, key] = $4
	# Pages mapped by PMDs cost the same however many there are
	if (config ~ /pmem/ && $1 !~ /^(tlb|hot-threads|calls)$/ && $4 > $3 * 1.005 && !(key in dear) &&
	    (key !~ /^fsync-page .*pmd/ || key ~ /n=4096/)) {
		dear[key] = ++nr
		order[nr] = key
	}
}

END {
	tail = ",processes=1,entry="
	if (document == "dearer") {
		for (i = 1; i <= nr; i++)
			row(order[i], order[i], "pmem")
		exit
	}
	if (sub(/^durable-/, "", document)) {
		printf "%-33s %23s %23s %23s\n", "pages", "1", "16", "4096"
		printf "%-33s %7s %7s %7s %7s %7s %7s %7s %7s %7s\n", "stored to in each, cache lines", 1, 8, 64, 1, 8, 64, 1, 8, 64
		durable("mapping, fdatasync, v7.3", document "-pmem", "fdatasync", "base")
		durable("mapping, fdatasync, the series", document "-pmem", "fdatasync", "patched")
		durable("write, fdatasync, v7.3", document "-pmem", "write", "base")
		durable("write, fdatasync, the series", document "-pmem", "write", "patched")
		durable("MAP_SYNC, CLWB of whole pages", document "-pmem", "clwb-page", "patched")
		durable("MAP_SYNC, CLWB of these lines", document "-pmem", "clwb", "patched")
		durable("no DAX, mapping, fdatasync", document "-nodax", "fdatasync", "patched")
		durable("no DAX, write, fdatasync", document "-nodax", "write", "patched")
		exit
	}
	if (document == "block") {
		row("fdatasync, nothing to write back", "fsync-call n=0,call=fdatasync", "pmem")
		row("fdatasync, one dirty page", "fsync-call n=1,call=fdatasync", "pmem")
		row("fdatasync, 4096 dirty pages in a row", "fsync-page n=4096,order=dense" tail "pte", "pmem")
		exit
	}
	if (document == "hot") {
		row("one page", "hot n=1,order=dense", "pmem")
		row("16 pages in a row", "hot n=16,order=dense", "pmem")
		row("16 pages, every other one", "hot n=16,order=sparse", "pmem")
		row("16 pages, shuffled", "hot n=16,order=shuffled", "pmem")
		row("4096 pages in a row", "hot n=4096,order=dense", "pmem")
		row("4096 pages, every other one", "hot n=4096,order=sparse", "pmem")
		row("4096 pages, shuffled", "hot n=4096,order=shuffled", "pmem")
		row("50 rounds, 16 of 4096 pages in each", "decay-total n=4096,stored=16", "pmem")
		row("the longest of these", "decay-longest n=4096,stored=16", "pmem")
		exit
	}
	if (document == "events") {
		row("TLB flushes on another CPU", "tlb n=4096,event=remote_flush", "pmem")
		row("TLB flushes of one page, no DAX", "cache-tlb n=4096,folio=512,event=local_flush_one", "nodax")
		row("TLB flushes of everything, no DAX", "cache-tlb n=4096,folio=512,event=local_flush_all", "nodax")
		row("i_pages lock", "calls n=4096,function=_raw_spin_lock_irq", "pmem")
		row("down_read(), i_mmap lock and others", "calls n=4096,function=down_read", "pmem")
		row("arch_wb_cache_pmem()", "calls n=4096,function=arch_wb_cache_pmem", "pmem")
		row("function calls", "calls n=4096,function=any", "pmem")
		exit
	}
	row("fdatasync, 4096 dirty pages in a row", "fsync-page n=4096,order=dense" tail "pte", "pmem")
	row("fdatasync, 4096 pages, every other one", "fsync-page n=4096,order=sparse" tail "pte", "pmem")
	row("TLB flushes on another CPU for 4096 pages", "tlb n=4096,event=remote_flush", "pmem")
	row("store to a page cleaned by fsync", "fault-cleaned n=4096,entry=pte", "pmem")
	row("fsync, whole call, one dirty page", "fsync-call n=1,call=fsync", "pmem")
	row("fsync of a file of large folios, no DAX", "cache-fsync n=4096,folio=512", "nodax")
	if (document == "short")
		exit
	row("fdatasync, nothing to write back", "fsync-call n=0,call=fdatasync", "pmem")
	row("fsync, whole call, 4096 dirty pages", "fsync-call n=4096,call=fsync", "pmem")
	row("fdatasync, 4096 pages, shuffled", "fsync-page n=4096,order=shuffled" tail "pte", "pmem")
	row("fdatasync in a row, ran on two CPUs", "fsync-page n=4096,order=dense" tail "pte,cpus=2", "pmem")
	row("fdatasync in a row, two processes", "fsync-page n=4096,order=dense,processes=2,entry=pte", "pmem")
	row("fdatasync, 4096 pages mapped by PMDs", "fsync-page n=4096,order=dense" tail "pmd", "pmem")
	row("fdatasync of one of 1048576 mapped pages", "fsync-one mapped=1048576", "pmem")
	row("first store to a page", "fault-first n=4096,entry=pte", "pmem")
	row("truncate 16384 dirty pages, unmapped", "remove n=16384,how=truncate,mapped=0", "pmem")
	row("truncate 16384 dirty pages, mapped", "remove n=16384,how=truncate,mapped=1", "pmem")
	row("unlink 16384 dirty pages, unmapped", "remove n=16384,how=unlink,mapped=0", "pmem")
	row("write(2) of 4 KiB to shared blocks", "write-cow at=0", "pmem")
	row("the same, not aligned to pages", "write-cow at=100", "pmem")
	row("longest store during fsync of PMDs", "stall n=512,entry=pmd,other=fsync", "pmem")
}
