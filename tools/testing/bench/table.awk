# SPDX-License-Identifier: GPL-2.0
#
# The table of the benchmark.
#
#	awk -f table.awk tools/testing/bench/bars base=FILE patched=FILE
#
# FILE are what the program has printed on that kernel.  Of the lines for kernel
# functions only the more interesting ones are shown.  The last line is
# "result MET MISSED MISSING"; MISSING counts what only one kernel has reported, and bars
# that are about nothing.

function known(config, measure, params,		i, n, word)
{
	for (i = 1; i <= nr_bars; i++) {
		n = split(bar[i], word, " ")
		if (config ~ word[1] && measure ~ word[2] && params ~ word[3]) {
			used[i]
			return word[n]
		}
	}
	return ""
}

function pattern(s)
{
	gsub(/\*/, ".*", s)
	return "^" s "$"
}

BEGIN {
	shown = "=(any|_raw_spin_lock.*|down_read|flush_tlb_mm_range|ptep_clear_flush|" \
		"pmdp_invalidate|dax_flush|arch_wb_cache_pmem|page_vma_mapped_walk|handle_mm_fault)$"
	for (i = 2; i < ARGC; i++) {
		split(ARGV[i], word, "=")
		kernel[word[2]] = word[1]
		ARGV[i] = word[2]
	}
}

!(FILENAME in kernel) && !/^#/ && NF {
	bar[++nr_bars] = pattern($1) " " pattern($2) " " pattern($3) " " $4
}

(FILENAME in kernel) && $1 == "bench" && ($3 != "calls" || $4 ~ shown) {
	key = $2 " " $3 " " $4
	if (!(key in seen))
		order[++nr] = key
	seen[key]
	value[key, kernel[FILENAME]] = $5
}

END {
	for (i = 1; i <= nr; i++) {
		split(order[i], word, " ")
		base = value[order[i], "base"]
		patched = value[order[i], "patched"]
		if (word[1] != config) {
			config = word[1]
			printf "\n%-14s %-46s %10s %10s %7s  %s\n", config, "", "base", "patched",
				"ratio", "bar"
		}
		ratio = "-"
		if (base != "" && patched + 0)
			ratio = sprintf("%.2f", base / patched)
		verdict = ""
		want = known(word[1], word[2], word[3])
		if (patched == "" || base == "") {
			missing += word[2] != "calls"
		} else if (want ~ /^<=/) {
			verdict = patched + 0 <= substr(want, 3) + 0 ? "met" : "MISSED"
		} else if (want != "") {
			verdict = base + 0 >= want * patched ? "met" : "MISSED"
		}
		met += verdict == "met"
		missed += verdict == "MISSED"
		line = sprintf("%-14s %-46s %10s %10s %7s  %s %s", word[2], word[3],
			base == "" ? "-" : base, patched == "" ? "-" : patched, ratio, want, verdict)
		sub(/ +$/, "", line)
		print line
	}
	for (i = 1; i <= nr_bars; i++) {
		if (!(i in used)) {
			print "nothing is measured for the bar " bar[i]
			missing++
		}
	}
	printf "\nresult %d %d %d\n", met, missed, missing
}
