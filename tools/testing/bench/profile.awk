# SPDX-License-Identifier: GPL-2.0
#
# Where the instructions of a measure go, by function.
#
#   nm -n vmlinux | awk -f profile.awk -v want=REGEX - RESULTS PROFILE
#
# RESULTS are the lines of the benchmark, PROFILE what profile.so made in the same run.
# Prints, of each measure whose line matches REGEX, the functions that take 0.2% of its
# instructions or more, in the unit of the measure: instructions a page, mostly.  Then the
# longest time with interrupts off, in instructions, and the function that turned them off.

# The last symbol at or before @pc, by bisection
function symbol(pc,	low, high, mid) {
	low = 0
	high = nr
	while (high - low > 1) {
		mid = int((low + high) / 2)
		if (at[mid] <= pc)
			low = mid
		else
			high = mid
	}
	return pc < at[0] ? "(user)" : name[low]
}

function finish(	f, cmd) {
	if (total && line[result] ~ want) {
		print line[result]
		cmd = "sort -k1,1nr"
		for (f in count)
			if (count[f] * 500 >= total)
				printf "%9.1f %5.1f%%  %s\n", count[f] * value[result] / total,
					100 * count[f] / total, f | cmd
		close(cmd)
		if (irqs_off)
			printf "%9d with interrupts off, from %s\n", irqs_off, irqs_off_at
	}
	delete count
	total = 0
	irqs_off = 0
}

# 16 hexadecimal digits compare as strings
FNR == 1 { file++ }
file == 1 && tolower($2) ~ /^[tw]$/ { at[nr] = $1 ""; name[nr++] = $3 }
file == 2 && /^bench / {
	line[++lines] = $2 " " $3 " " $4
	value[lines] = $5
}
file == 3 && /^result/ {
	finish()
	result++
	next
}
file == 3 && /^irqs-off/ {
	irqs_off = $2
	irqs_off_at = symbol($3 "")
	next
}
file == 3 { f = symbol($1 ""); count[f] += $2; total += $2 }
END { finish() }
