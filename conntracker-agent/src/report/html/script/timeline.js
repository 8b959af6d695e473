// New flows and drops over time, with a line where the ruleset changed; and which interfaces packets came and went by.

const LANES = { top: 16, new: 54, drops: 54, listed: 34, gap: 14, axis: 20 };
// Columns of reports that have no counts by time.
const MOST_COLUMNS = 240;
const timeline = report.timeline ?? (() => {
  const width = Math.max(1000, Math.ceil((report.end - report.start) / MOST_COLUMNS));
  const columnCount = Math.max(1, Math.min(MOST_COLUMNS, Math.ceil((report.end - report.start) / width)));
  return { start: report.start, width, new_flows: Array(columnCount).fill(0), dropped: [], lost: [] };
})();
const columnsOfTime = timeline.new_flows.length;
const timeOf = (column) => timeline.start + column * timeline.width;
let cursor = null;
let anchor = null;

const begun = () => {
  const counts = new Array(columnsOfTime).fill(0);
  for (const flow of selection.listed) {
    const column = Math.floor((first[flow] - timeline.start) / timeline.width);
    if (column >= 0 && column < columnsOfTime) counts[column]++;
  }
  return counts;
};
const bars = (counts, below, classes, { x, width, base, scale }) => counts.map((count, column) => {
  const from = (below?.[column] ?? 0) * scale;
  const height = Math.max(count * scale, 1.5);
  return count ? draw("rect", { class: classes, x: x(column), width, y: base - from - height, height }) : null;
});

const showTimeline = () => {
  const wide = Math.max(320, body("timeline").clientWidth);
  const width = wide / columnsOfTime;
  const x = (column) => column * width;
  const lanes = [];
  const listed = begun();
  let y = LANES.top;
  const lane = (name, height, ...series) => {
    const sums = series[0][0].map((_, column) => series.reduce((total, [counts]) => total + (counts[column] ?? 0), 0));
    const highest = Math.max(1, ...sums);
    const base = y + height;
    const scale = (height - 12) / highest;
    lanes.push(draw("line", { x1: 0, x2: wide, y1: base, y2: base, class: "axis" }));
    let below = null;
    for (const [counts, classes] of series) {
      lanes.push(...bars(counts, below, classes, { x, width: Math.max(1, width - (width > 4 ? 1 : 0)), base, scale }));
      below = counts;
    }
    lanes.push(draw("text", { x: 2, y: y + 9, class: "lane" }, `${name}, most ${number(Math.max(0, ...sums))} in ${duration(timeline.width)}`));
    y = base + LANES.gap;
  };
  const all = selection.listed.length < flows ? ", filters aside" : "";
  if (report.timeline) {
    lane(`new flows${all}`, LANES.new, [timeline.new_flows, "new"]);
    lane(`packets dropped (solid) and lost (hatched)${all}`, LANES.drops, [timeline.dropped, "dropped"], [timeline.lost, "lost"]);
  }
  lane("first seen, of the flows below", LANES.listed, [listed, "first"]);
  const bottom = y - LANES.gap;
  const at = (time) => ((time - timeline.start) / timeline.width) * width;
  const chosen = selection.filters.filter(({ kind }) => kind === "time")
    .map(({ value: [from, to] }) => draw("rect", { class: "chosen", x: at(from), width: Math.max(2, at(to) - at(from)), y: 0, height: bottom }));
  const mark = cursor === null ? null
    : draw("rect", { class: "cursor", x: x(Math.min(cursor, anchor ?? cursor)), width: width * (Math.abs(cursor - (anchor ?? cursor)) + 1), y: 0, height: bottom });
  let labelled = -Infinity;
  const changes = report.changes.filter(([, epoch]) => epoch > 1).map(([netns, epoch, time]) => {
    const where = at(time);
    if (where < 0 || where > wide) return null;
    const label = where - labelled > 90;
    if (label) labelled = where;
    const right = where > wide - 90;
    return draw("g", { class: "change" },
      draw("title", {}, `ruleset ${epoch}${namespaces.size > 1 ? ` of ${netnsName(netns)}` : ""} from ${clock(time)}`),
      draw("line", { x1: where, x2: where, y1: 2, y2: bottom }),
      label ? draw("text", { x: where + (right ? -4 : 4), y: 10, "text-anchor": right ? "end" : "start" }, `ruleset ${epoch}`) : null);
  });
  const ticks = Math.max(2, Math.min(8, Math.floor(wide / 140)));
  const axis = Array.from({ length: ticks + 1 }, (_, n) => {
    const where = (wide * n) / ticks;
    const anchorAt = n === 0 ? "start" : n === ticks ? "end" : "middle";
    return draw("text", { x: where, y: bottom + 14, "text-anchor": anchorAt, class: "tick" }, clock(timeOf((columnsOfTime * n) / ticks), columnsOfTime * timeline.width < 60e6 ? 1 : 0));
  });
  const picture = draw("svg", {
    viewBox: `0 0 ${wide} ${bottom + LANES.axis}`, width: wide, height: bottom + LANES.axis, tabindex: 0, role: "slider", "data-key": "timeline",
    "aria-label": "Timeline: arrows move, with Shift they extend, Enter filters", "aria-valuemin": 0, "aria-valuemax": columnsOfTime - 1,
    "aria-valuenow": cursor ?? 0, "aria-valuetext": described(listed),
    onkeydown: moveCursor,
    onpointermove: (event) => { pointAt(event); },
    onpointerdown: (event) => { pointAt(event); anchor = cursor; event.currentTarget.setPointerCapture(event.pointerId); },
    onpointerup: filterTime,
    onpointerleave: () => { if (anchor === null) { cursor = null; redrawTimeline(); } },
  }, draw("defs", {}, hatch()), chosen, lanes, mark, changes, axis);
  replace(body("timeline"), picture, make("p", { class: "note", id: "column" }, described(listed)));
};
const hatch = () => draw("pattern", { id: "hatch", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
  draw("rect", { width: 5, height: 5, class: "under" }), draw("rect", { width: 2.5, height: 5, class: "over" }));
const described = (listed) => {
  if (cursor === null) return "Click or drag to list the flows that were seen then. Drops that the kernel counted together are spread evenly from the first to the last.";
  const [from, to] = [Math.min(cursor, anchor ?? cursor), Math.max(cursor, anchor ?? cursor)];
  const total = (counts) => counts.slice(from, to + 1).reduce((sumOf, count) => sumOf + count, 0);
  const known = report.timeline ? `${plural(total(timeline.new_flows), "new flow")}, ${number(total(timeline.dropped))} dropped, ${number(total(timeline.lost))} lost; ` : "";
  return `${clock(timeOf(from), 1)} to ${clock(timeOf(to + 1), 1)}: ${known}${number(total(listed))} of the flows below first seen.`;
};
let drawn = false;
// Once for each picture that the browser shows.
const redrawTimeline = () => {
  if (drawn) return;
  drawn = true;
  requestAnimationFrame(() => { drawn = false; showTimeline(); });
};
const pointAt = (event) => {
  const box = body("timeline").getBoundingClientRect();
  cursor = Math.max(0, Math.min(columnsOfTime - 1, Math.floor(((event.clientX - box.left) / box.width) * columnsOfTime)));
  redrawTimeline();
};
const filterTime = () => {
  const [from, to] = [Math.min(cursor, anchor ?? cursor), Math.max(cursor, anchor ?? cursor)];
  anchor = null;
  toggle("time", [timeOf(from), timeOf(to + 1)]);
};
const moveCursor = (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20, Home: -Infinity, End: Infinity }[event.key];
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    if (cursor !== null) filterTime();
  } else if (step !== undefined) {
    event.preventDefault();
    anchor = event.shiftKey ? anchor ?? cursor ?? 0 : null;
    cursor = Math.max(0, Math.min(columnsOfTime - 1, (cursor ?? 0) + step));
    redrawTimeline();
  }
};

// So many interfaces are shown, those of most flows.
const MOST_INTERFACES = 16;
const showInterfaces = () => {
  const [ins, outs] = [new Map(), new Map()];
  for (const [pair, { flows: count, dropped, lost }] of selection.tally.pairs) {
    const weight = count + dropped + lost;
    for (const [all, of] of [[ins, Math.floor(pair / PAIR)], [outs, pair % PAIR]]) all.set(of, (all.get(of) ?? 0) + weight);
  }
  const largest = (all) => [...all].sort((a, b) => b[1] - a[1]).slice(0, MOST_INTERFACES).map(([of]) => of);
  const [rows, heads] = [largest(ins), largest(outs)];
  const highest = Math.max(1, ...Array.from(selection.tally.pairs.values(), ({ flows: count }) => count));
  const name = (of) => {
    const text = words[of] === "-" ? "this machine" : words[of] || "not known";
    return make("bdi", { title: text }, text);
  };
  const cell = (iif, oif) => {
    const pair = pairOf(iif, oif);
    const counts = selection.tally.pairs.get(pair);
    if (!counts) return make("td", { class: "none" }, "");
    const lines = [plural(counts.flows, "flow"), counts.dropped && `${DROPPED} ${number(counts.dropped)}`, counts.lost && `${LOST} ${number(counts.lost)}`];
    const td = make("td", {}, make("div", filtering("pair", pair, { "data-key": `pair ${pair}`, title: pairName(pair) }),
      lines.filter(Boolean).map((line, n) => make("span", { class: n ? (line.startsWith(DROPPED) ? "dropped" : "lost") : "" }, line))));
    td.style.setProperty("--share", Math.log1p(counts.flows) / Math.log1p(highest));
    return td;
  };
  const table = make("table", { class: "matrix" },
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "in ↓ out →"), heads.map((of) => make("th", { scope: "col" }, name(of))))),
    make("tbody", {}, rows.map((iif) => make("tr", {}, make("th", { scope: "row" }, name(iif)), heads.map((oif) => cell(iif, oif))))));
  const more = Math.max(ins.size - rows.length, 0) + Math.max(outs.size - heads.length, 0);
  replace(body("interfaces"), selection.tally.pairs.size ? make("div", { class: "scroll" }, table) : make("p", { class: "note" }, "None."),
    more ? make("p", { class: "note" }, `${number(more)} interfaces of fewer flows are not shown.`) : null);
};
