# SPDX-License-Identifier: GPL-2.0
#
# The lines about the benchmark that stand in documents, base -> patched on ext4 and on XFS.
#
#	awk -v document=DOCUMENT -f figures.awk Documentation/bench-results
#
# DOCUMENT is "short", for README and a cover letter, or for Documentation/performance.rst
# "long", "events", or "dearer": all that costs at least half a percent more than on the base.
# ci/test looks for the lines there.

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

$2 == "base" { config = $1; next }

NF >= 5 {
	key = $1 " " $2
	base[config, key] = $3
	patched[config, key] = $4
	# Pages mapped by PMDs cost the same however many there are
	if (config ~ /pmem/ && $1 !~ /^(tlb|calls)$/ && $4 > $3 * 1.005 && !(key in dear) &&
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
