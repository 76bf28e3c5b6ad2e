# SPDX-License-Identifier: GPL-2.0
#
# Compare the verdicts of the cases with what is expected of them:
#
#   awk -f table.awk expected [ids=FILE] base=FILE patched=FILE ...
#
# where each FILE has the lines that a guest wrote, see guest.c, and that of ids has
# lines "KERNEL CONFIG/CASE" of what must be there.  Kernel group-N is the one with the
# groups up to N: what is expected of base holds if a later group mends it.  A case fails
# if it or one of its replays does.  Prints the table (a line for each case and
# configuration), then the unexpected verdicts, then "result PASSED FAILED SKIPPED".
# With -v ktap=FILE, the same is left there as KTAP: a test is ok if its verdict is the
# expected one.

function verdict(kernel, id) {
	return (kernel, id) in v ? v[kernel, id] : "-"
}

# Does rule i hold for a kernel?
function applies(i, kernel) {
	return rule_kernel[i] == kernel || rule_kernel[i] == "both" ||
		(rule_kernel[i] == "base" && kernel ~ /^group-/ &&
		 "group-" mended[rule_why[i]] > kernel)
}

# The expectation for a case: sets want and why
function expect(kernel, id,	i) {
	for (i = 1; i <= nr; i++)
		if (applies(i, kernel) && id ~ ("^(" rule_case[i] ")$") &&
		    (rule_verdict[i] != "SKIP" ||
		     (verdict(kernel, id) == "SKIP" && reason[kernel, id] ~ rule_why[i]))) {
			want = rule_verdict[i]
			why = rule_why[i]
			return
		}
	want = "PASS"
	why = ""
}

# One result for FILE, as KTAP
function report(is_ok, name, directive)
{
	reported[++nr_reported] = (is_ok ? "ok " : "not ok ") nr_reported " " name \
		(directive != "" ? " # " directive : "")
}

function rest(first,	s, i) {
	s = ""
	for (i = first; i <= NF; i++)
		s = s (i > first ? " " : "") $i
	return s
}

BEGIN {
	# expected first, then KERNEL=FILE arguments: awk would take them as assignments
	for (i = 2; i < ARGC; i++) {
		split(ARGV[i], a, "=")
		kernel_of[a[2]] = a[1]
		if (a[1] != "ids" && !(a[1] in is_kernel)) {
			is_kernel[a[1]] = 1
			kernels[++nr_kernels] = a[1]
		}
		ARGV[i] = a[2]
	}
}

FILENAME == ARGV[1] {
	if (/^#/ || !NF)
		next
	if ($1 == "mended") {
		mended[rest(3)] = $2
		next
	}
	rule_kernel[++nr] = $1
	rule_verdict[nr] = $2
	rule_case[nr] = $3
	rule_why[nr] = rest(4)
	next
}

{ k = kernel_of[FILENAME] }

k == "ids" {
	must[$1, $2] = 1
	if (!($2 in known)) {
		known[$2] = 1
		ids[++nr_ids] = $2
	}
	next
}

# Of cases that fail when they are run, no crash state is mounted
$1 == "point" { point_of[k, ++nr_points[k]] = $3 }

$1 == "case" {
	if (!($2 in known)) {
		known[$2] = 1
		ids[++nr_ids] = $2
	}
	v[k, $2] = $3
	reason[k, $2] = rest(4)
	ran_into[k, $2] = $3
}

$1 == "replay" && $3 == "FAIL" && v[k, $2] != "FAIL" {
	v[k, $2] = "FAIL"
	reason[k, $2] = "after a power failure: " rest(4)
}

# "replay ID VERDICT point N seed S: ...", perhaps more than one of a state
$1 == "replay" && !((k, $2, $5, $7) in seen) {
	seen[k, $2, $5, $7] = 1
	replays[k]++
	same[k] += $3 == "SAME"
}

END {
	printf "%-58s", "case"
	for (i = 1; i <= nr_kernels; i++)
		printf " %-8s", kernels[i]
	print ""
	for (n = 1; n <= nr_ids; n++) {
		id = ids[n]
		printf "%-58s", id
		hole = ""
		for (i = 1; i <= nr_kernels; i++) {
			k = kernels[i]
			got = verdict(k, id)
			expect(k, id)
			ok = got == want || (want == "ANY" && got ~ /^(PASS|FAIL)$/)
			printf " %-8s", got
			if (got == "-" && !((k, id) in must))
				continue	# the model is tested once
			if (got == "FAIL" && want == "FAIL" && why != "")
				hole = why
			report(ok, k "/" id, !ok || got == "PASS" ? "" : got == "SKIP" ? \
				"SKIP " reason[k, id] : "XFAIL " why)
			if (ok && got == "SKIP")
				skipped++
			else if (ok)
				passed++
			else {
				failed++
				bad[++nr_bad] = "unexpected: " k " " id " " got \
					" (expected " want "): " reason[k, id]
			}
		}
		print " " hole
	}
	for (i = 1; i <= nr_bad; i++)
		print bad[i]
	for (i = 1; i <= nr_kernels; i++) {
		k = kernels[i]
		if (!nr_points[k])
			continue
		for (n = 1; n <= nr_points[k]; n++)
			points[k] += ran_into[k, point_of[k, n]] != "FAIL"
		printf "%s: %d crash states of %d points were mounted; " \
			"%d points have one state only\n", \
			k, replays[k] - same[k], points[k], same[k]
		# Two seeds, see job_replay
		report(replays[k] == 2 * points[k], k "/crash_states")
		if (replays[k] == 2 * points[k])
			passed++
		else {
			print "unexpected: " k ": some crash states were not mounted"
			failed++
		}
	}
	if (ktap != "") {
		print "KTAP version 1\n1.." nr_reported >ktap
		for (i = 1; i <= nr_reported; i++)
			print reported[i] >ktap
	}
	printf "result %d %d %d\n", passed, failed, skipped
}
