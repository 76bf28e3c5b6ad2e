# SPDX-License-Identifier: GPL-2.0
#
# A gnuplot script that draws the cost of fsync per page over the number of pages for
# configuration "config" into file "svg".
#
#	awk -v config=ext4-pmem -v svg=FILE -f plot.awk base=FILE patched=FILE
#
# FILE are what the program has printed on that kernel.

BEGIN {
	# Sparse and shuffled may cost the same, so their points differ
	points["dense"] = points["2 MiB entries"] = 6
	points["sparse"] = 4
	points["shuffled"] = 8
	colours["dense"] = "#0060ad"
	colours["sparse"] = "#dd181f"
	colours["shuffled"] = "#008000"
	colours["2 MiB entries"] = "#806000"
	for (i = 1; i < ARGC; i++) {
		split(ARGV[i], word, "=")
		kernel[word[2]] = word[1]
		ARGV[i] = word[2]
	}
}

$1 == "bench" && $2 == config && $3 == "fsync-page" && $4 !~ /cpus=/ {
	n = split($4, param, /[=,]/)
	for (i = 1; i < n; i += 2)
		p[param[i]] = param[i + 1]
	# The graph of one or two processes, and the curve in it
	graph = p["processes"]
	curve = p["entry"] == "pmd" ? "2 MiB entries" : p["order"]
	name = graph " " curve
	if (!(name in data_base) && !(name in data_patched)) {
		nr_curves[graph]++
		curves[graph, nr_curves[graph]] = curve
	}
	if (kernel[FILENAME] == "base")
		data_base[name] = data_base[name] p["n"] " " $5 "\n"
	else
		data_patched[name] = data_patched[name] p["n"] " " $5 "\n"
	if ($5 > highest)
		highest = $5
}

function draw(graph,		i, curve, style)
{
	for (i = 1; i <= nr_curves[graph]; i++) {
		printf "$base%d << EOD\n%sEOD\n", i, data_base[graph " " curves[graph, i]]
		printf "$patched%d << EOD\n%sEOD\n", i, data_patched[graph " " curves[graph, i]]
	}
	printf "set title '%s: %s'\nplot ", config,
		graph == 1 ? "one process" : graph " processes map the pages"
	for (i = 1; i <= nr_curves[graph]; i++) {
		curve = curves[graph, i]
		style = "lw 1.5 ps 0.6 pt " points[curve] " lc rgb '" colours[curve] "'"
		printf "$base%d with linespoints dt 2 %s title '%s, base', ", i, style, curve
		printf "$patched%d with linespoints dt 1 %s title '%s, patched'", i, style, curve
		printf i < nr_curves[graph] ? ", " : "\n"
	}
}

END {
	print "set terminal svg size 1100,460 dynamic background rgb 'white' font 'sans,12'"
	printf "set output \"%s\"\n", svg
	print "set logscale x 4\nset xrange [0.8:400000]"
	print "set xtics ('1' 1, '4' 4, '16' 16, '64' 64, '256' 256, '1 Ki' 1024, '4 Ki' 4096, " \
		"'16 Ki' 16384, '64 Ki' 65536, '256 Ki' 262144)"
	print "set xlabel \"dirty pages of 4 KiB\""
	print "set ylabel \"fdatasync, ns (with -icount: instructions) per page\""
	printf "set yrange [0:%d]\n", highest * 1.05
	print "set grid ytics lc rgb '#dddddd'\nset key top right\nset multiplot layout 1,2"
	draw(1)
	draw(2)
	print "unset multiplot"
}
