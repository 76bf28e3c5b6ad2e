# SPDX-License-Identifier: GPL-2.0
#
# The table of ci/fstests, from lines "CONFIG TEST KERNEL VERDICT REASON", and one line
# "result PASSED FAILED SKIPPED".  kernels: the names of the kernels, patched the last.

{
	config = $1
	test = $2
	kernel = $3
	verdict = $4
	id = config " " test
	if (!(config in seen_config)) {
		seen_config[config]
		config_of[++configs] = config
	}
	if (!(id in seen)) {
		seen[id]
		ids[++tests] = id
	}
	n[id, kernel, verdict]++
	runs[id, kernel]++
	if (verdict != "pass" && verdict != "notrun") {
		bad[id, kernel]++
		$1 = $2 = $3 = $4 = ""
		sub(/^ +/, "")
		sub(/ +$/, "")
		if ($0 != "")
			reason[id, kernel] = $0
	}
}

# "pass", "notrun", or how many of the runs went wrong in which way
function what(id, kernel,	i, s) {
	if (!runs[id, kernel])
		return "-"
	if (!bad[id, kernel])
		return n[id, kernel, "pass"] ? "pass" : "notrun"
	for (i = 1; i <= 3; i++)
		if (n[id, kernel, way[i]])
			s = s (s ? ", " : "") way[i] " " n[id, kernel, way[i]] "/" runs[id, kernel]
	return s
}

END {
	split("fail crash slow", way)
	count = split(kernels, kernel_of)
	printf "\nTests: passed, failed, not run\n\n%-14s", ""
	for (k = 1; k <= count; k++)
		printf " %-20s", kernel_of[k]
	printf "\n"
	for (i = 1; i <= tests; i++) {
		split(ids[i], part, " ")
		some_bad = differ = 0
		for (k = 1; k <= count; k++) {
			kernel = kernel_of[k]
			group = !runs[ids[i], kernel] ? "-" : bad[ids[i], kernel] ? "bad" : \
				n[ids[i], kernel, "pass"] ? "pass" : "notrun"
			sum[part[1], kernel, group]++
			some_bad += group == "bad"
			if (k > 1 && group != before)
				differ = 1
			before = group
		}
		if (group == "bad" && some_bad == 1 && count > 1)
			failed++
		else if (group == "pass")
			passed++
		else
			skipped++
		if (some_bad || differ)
			show[++shown] = ids[i]
	}
	for (i = 1; i <= configs; i++) {
		printf "%-14s", config_of[i]
		for (k = 1; k <= count; k++)
			printf " %-20s", sum[config_of[i], kernel_of[k], "pass"] + 0 ", " \
				sum[config_of[i], kernel_of[k], "bad"] + 0 ", " \
				sum[config_of[i], kernel_of[k], "notrun"] + 0
		printf "\n"
	}
	printf "\nTests that fail, runs of all runs; slow: longer than the limit\n\n"
	for (i = 1; i <= shown; i++) {
		split(show[i], part, " ")
		printf "%-14s %-14s", part[2], part[1]
		for (k = 1; k <= count; k++)
			printf " %s: %-20s", kernel_of[k], what(show[i], kernel_of[k])
		printf "\n"
		for (k = 1; k <= count; k++)
			if ((show[i], kernel_of[k]) in reason)
				printf "    %s: %s\n", kernel_of[k], reason[show[i], kernel_of[k]]
	}
	printf "\nresult %d %d %d\n", passed, failed, skipped
}
