// The flows as a table of which only the rows in view are elements; and the chosen flow with the paths of its packets.

const ROW = 26;
// Browsers do not make elements higher than that: of longer tables the scroll bar is coarser.
const HIGHEST = 8e6;
// So many rows are printed.
const PRINTED = 500;

const counted = (flow, ...names) => (has(flow, "counted") ? names.reduce((total, name) => total + columns[name][flow], 0) : null);
const COLUMNS = [
  { name: "Outcome", size: "8.5em", cell: (flow) => outcome(flow).map(([classes, mark, name]) => make("span", { class: classes, title: name }, `${mark} ${name} `)), key: (flow) => outcome(flow)[0]?.[2] ?? "" },
  { name: "Lost", size: "5em", right: true, title: "Packets that were dropped (✕) or lost in the kernel (◇)",
    cell: (flow) => [[dropsOf(flow, false), DROPPED, "dropped"], [dropsOf(flow, true), LOST, "lost"]].filter(([count]) => count).map(([count, mark, classes]) => make("span", { class: classes }, `${mark} ${number(count)} `)),
    key: (flow) => dropsOf(flow, false) + dropsOf(flow, true) },
  { name: "Protocol", size: "5.5em", cell: protocolText, key: protocolText },
  { name: "Source", size: "minmax(12em,1.4fr)", cell: (flow) => endText(flow, "src"), key: (flow) => endText(flow, "src") },
  { name: "Destination", size: "minmax(12em,1.4fr)", cell: (flow) => endText(flow, "dst"), key: (flow) => endText(flow, "dst") },
  { name: "In → out", size: "minmax(10em,1fr)", cell: (flow) => (columns.iif[flow] || columns.oif[flow] ? `${word("iif", flow)} → ${word("oif", flow)}` : ""), key: (flow) => `${word("iif", flow)} ${word("oif", flow)}` },
  { name: "Packets", wide: true, size: "5.5em", right: true, cell: (flow) => shown(counted(flow, "packets", "reply_packets"), number), key: (flow) => counted(flow, "packets", "reply_packets") ?? -1 },
  { name: "Bytes", wide: true, size: "5em", right: true, cell: (flow) => shown(counted(flow, "bytes", "reply_bytes"), bytes), key: (flow) => counted(flow, "bytes", "reply_bytes") ?? -1 },
  { name: "Process", wide: true, size: "minmax(5em,.6fr)", cell: (flow) => word("program", flow), key: (flow) => word("program", flow) },
  { name: "First seen", wide: true, size: "9em", cell: (flow) => clock(first[flow]), key: (flow) => first[flow] },
  { name: "For", wide: true, size: "5em", right: true, title: "From the first to the last packet seen", cell: (flow) => (last[flow] > first[flow] ? duration(last[flow] - first[flow]) : ""), key: (flow) => last[flow] - first[flow] },
  ...(namespaces.size > 1 ? [{ name: "Netns", size: "6em", cell: (flow) => word("netns", flow), key: (flow) => word("netns", flow) }] : []),
];
const shown = (value, text) => (value === null ? "" : text(value));

const grid = { rows: null, spacer: null, viewport: null, head: null, active: 0 };
const buildTable = () => {
  const sizes = (all) => all.map(({ size }) => size).join(" ");
  grid.head = make("div", { class: "head", role: "row" });
  grid.rows = make("div", { class: "lines", role: "presentation" });
  grid.spacer = make("div", { class: "spacer", role: "presentation" }, grid.rows);
  grid.viewport = make("div", { class: "viewport", role: "presentation", onscroll: () => requestAnimationFrame(showRows) }, grid.head, grid.spacer);
  const table = make("div", { class: "grid", role: "grid", "aria-label": "Flows", onkeydown: moveRow }, grid.viewport);
  table.style.setProperty("--columns", sizes(COLUMNS));
  table.style.setProperty("--columns-beside", sizes(COLUMNS.filter(({ wide }) => !wide)));
  body("flows").replaceChildren(table, make("p", { class: "note" }, "Arrows move, Enter chooses, / searches, Esc clears. ✕ dropped by netfilter, ◇ lost elsewhere in the kernel, ✓ packets in both directions, · no answer seen, ○ conntrack has no entry."));
};
const showTable = () => {
  replace(grid.head, COLUMNS.map((column, at) => {
    const sorted = selection.sort === column;
    const sort = clickable(() => sortBy(column), { "data-key": `sort ${at}`, title: column.title });
    return make("div", { role: "columnheader", class: `${column.right ? "right" : ""}${column.wide ? " wide" : ""}`, "aria-sort": sorted ? (selection.descending ? "descending" : "ascending") : "none" },
      make("span", sort, `${column.name}${sorted ? (selection.descending ? " ↓" : " ↑") : ""}`));
  }));
  grid.active = Math.max(0, Math.min(grid.active, selection.listed.length - 1));
  grid.spacer.style.height = `${Math.min(HIGHEST, selection.listed.length * ROW)}px`;
  grid.viewport.firstElementChild.parentElement.parentElement.setAttribute("aria-rowcount", selection.listed.length + 1);
  showRows();
};
// A column is sorted highest first, then lowest first, then not at all.
const sortBy = (column) => {
  if (selection.sort !== column) [selection.sort, selection.descending] = [column, Boolean(column.right)];
  else if (selection.descending === Boolean(column.right)) selection.descending = !selection.descending;
  else [selection.sort, selection.descending] = [null, false];
  grid.viewport.scrollTop = 0;
  select();
};

let printing = false;
const firstRow = () => {
  const [all, view] = [selection.listed.length, Math.ceil(grid.viewport.clientHeight / ROW)];
  const real = all * ROW;
  if (real <= HIGHEST) return Math.floor(grid.viewport.scrollTop / ROW);
  const share = grid.viewport.scrollTop / Math.max(1, HIGHEST - grid.viewport.clientHeight);
  return Math.floor(share * Math.max(0, all - view + 2));
};
const showRows = () => {
  const view = printing ? PRINTED : Math.ceil(grid.viewport.clientHeight / ROW) + 2;
  const from = printing ? 0 : Math.max(0, firstRow());
  const to = Math.min(selection.listed.length, from + view);
  const rows = [];
  for (let at = from; at < to; at++) {
    const flow = selection.listed[at];
    const classes = `line${flow === selection.chosen ? " chosen" : ""}${has(flow, "dropped") ? " bad" : ""}`;
    rows.push(make("div", { role: "row", class: classes, tabindex: at === grid.active ? 0 : -1, "aria-rowindex": at + 2, "aria-selected": String(flow === selection.chosen), "data-key": `flow ${flow}`, "data-flow": flow, onclick: () => choose(flow, at) },
      COLUMNS.map(({ cell, right, wide }) => make("div", { role: "gridcell", class: `${right ? "right" : ""}${wide ? " wide" : ""}` }, cell(flow)))));
  }
  const top = selection.listed.length * ROW <= HIGHEST ? from * ROW : grid.viewport.scrollTop;
  grid.rows.style.transform = printing ? "none" : `translateY(${top}px)`;
  if (!rows.length) rows.push(make("p", { class: "note empty" }, "No flow matches."));
  replace(grid.rows, rows);
};
const moveRow = (event) => {
  if (!event.target.classList.contains("line")) return;
  const page = Math.max(1, Math.floor(grid.viewport.clientHeight / ROW) - 2);
  const step = { ArrowUp: -1, ArrowDown: 1, PageUp: -page, PageDown: page, Home: -Infinity, End: Infinity }[event.key];
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    choose(selection.listed[grid.active], grid.active);
  } else if (step !== undefined) {
    event.preventDefault();
    goTo(Math.max(0, Math.min(selection.listed.length - 1, grid.active + step)));
  }
};
// Brings a row into view and gives it the focus.
const goTo = (at) => {
  grid.active = at;
  const all = selection.listed.length;
  const height = grid.viewport.clientHeight - ROW;
  if (all * ROW <= HIGHEST) {
    const top = grid.viewport.scrollTop;
    if (at * ROW < top) grid.viewport.scrollTop = at * ROW;
    else if ((at + 1) * ROW > top + height) grid.viewport.scrollTop = (at + 1) * ROW - height;
  } else if (at < firstRow() || at >= firstRow() + Math.floor(height / ROW)) {
    grid.viewport.scrollTop = (at / all) * (HIGHEST - grid.viewport.clientHeight);
  }
  showRows();
  grid.rows.querySelector("[tabindex='0']")?.focus({ preventScroll: true });
};

// The chosen flow is shown, and its hooks are lit. Chosen again it is not any more.
const choose = (flow, at = grid.active) => {
  grid.active = at;
  selection.chosen = selection.chosen === flow ? null : flow;
  showRows();
  showFlow();
  showHooks();
};

const stepView = ([site, verdict, target, depth, isEnd, how]) => {
  const { rule, label, chain, kind, position, text } = sites[site];
  const end = { policy: "policy", return: "end of the chain", chain: "which of its rules the packets met is not known" }[kind];
  const leads = target && !(text ?? "").endsWith(` ${target}`) ? ` → ${target}` : "";
  const where = make("span", { class: "where" }, `${depth ? "" : `${label}/`}${chain}${position === null ? "" : ` ${position}`}`);
  where.style.paddingInlineStart = `${depth * 1.25}em`;
  return make("div", filtering("rule", rule, { class: `step ${isEnd ? "ended" : verdict}`, "data-key": `step ${site}`, title: `List the flows that met ${ruleName(rules[rule])}` }),
    where,
    make("span", { class: "verdict" }, isEnd ? `${DROPPED} ${verdict.toUpperCase()}` : verdict),
    make("code", {}, `${end ?? text ?? "(no text)"}${leads}`, how ? make("span", { class: "note" }, ` (${how})`) : null));
};
const pathView = (n) => {
  const { hook, dropped, steps, unplaced, marks, remarks } = shapes[columns.path_shape[n]];
  const lines = [];
  const remark = (text) => lines.push(make("div", { class: "remark" }, text));
  steps.forEach((step, at) => {
    lines.push(stepView(step));
    marks.filter(([after]) => after === at).forEach(([, text]) => remark(text));
  });
  if (unplaced.length) remark("met as well, in an order that is not known:");
  lines.push(...unplaced.map(stepView));
  marks.filter(([after]) => after === null).forEach(([, text]) => remark(text));
  for (const text of [...words[columns.path_nat[n]].split("\n").filter(Boolean), ...remarks]) remark(text);
  return make("section", { class: `path${dropped ? " stopped" : ""}`, "data-hook": hook },
    make("h4", {}, `${hook}: ${words[columns.path_taken[n]]}`, dropped ? make("strong", { class: "dropped" }, `, ${DROPPED} DROPPED`) : null), lines);
};
const showFlow = () => {
  const flow = selection.chosen;
  const panel = document.getElementById("flow");
  panel.hidden = flow === null;
  document.body.classList.toggle("with-flow", flow !== null);
  if (flow === null) return;
  panel.querySelector("h2").textContent = `${protocolText(flow)} ${endText(flow, "src")} → ${endText(flow, "dst")}`;
  const both = (names, text) => (has(flow, "counted") ? `${text(columns[names[0]][flow])}, reply ${text(columns[names[1]][flow])}` : "");
  const known = [
    ["outcome", outcome(flow).map(([, mark, name]) => `${mark} ${name}`).join("  ")],
    ["flows", columns.flows[flow] > 1 ? `${number(columns.flows[flow])} conntrack flows, ${number(columns.ended[flow])} ended` : columns.ended[flow] ? "ended" : ""],
    ["reply", columns.reply_src[flow] ? `${endText(flow, "src", "reply_")} → ${endText(flow, "dst", "reply_")}` : ""],
    ["namespace", namespaces.size > 1 ? word("netns", flow) : ""],
    ["zone", columns.zone[flow] || ""],
    ["state", word("state", flow)],
    ["status", word("status", flow)],
    ["mark", word("mark", flow)],
    ["packet mark", word("packet_mark", flow)],
    ["packets", both(["packets", "reply_packets"], number)],
    ["bytes", both(["bytes", "reply_bytes"], number)],
    ["interfaces", columns.iif[flow] || columns.oif[flow] ? `${word("iif", flow)} → ${word("oif", flow)}` : ""],
    ["process", word("process", flow)],
    ["seen", `${clock(first[flow], 6)} to ${clock(last[flow], 6)}`],
    ["", has(flow, "several") ? "these packets may belong to several flows" : ""],
    ["", has(flow, "resumed") ? "it was summed up before: earlier packets are not counted here" : ""],
    ...word("remarks", flow).split("\n").map((line) => [/^[a-z ]+(?=: )/.exec(line)?.[0] ?? "", line.replace(/^[a-z ]+: /, "")]),
  ].filter(([, value]) => value !== "");
  const directions = Map.groupBy(range(pathsAt, flow), (n) => shapes[columns.path_shape[n]].direction);
  const paths = Array.from(directions, ([direction, all]) => [make("h3", {}, `${direction} `, make("span", { class: "note" }, "packets that were traced")), all.map(pathView)]);
  const port = columns.layout[flow] === 1 ? [`:${columns.dport[flow]}`] : [];
  const terms = [addresses[columns.src[flow]], addresses[columns.dst[flow]], ...port];
  replace(body("flow"),
    make("p", { class: "tools" },
      make("button", { class: "chip", onclick: () => toggle("flow", flow) }, "only this flow"),
      terms.map((text) => make("button", { class: "chip", title: "List its flows", onclick: () => toggle("text", text) }, text)),
      make("button", { class: "chip clear", onclick: () => choose(flow), "aria-label": "Close" }, "close")),
    make("dl", {}, known.map(([name, value]) => [make("dt", {}, name), make("dd", {}, make("bdi", {}, String(value)))])),
    make("div", { class: "paths" }, paths.length ? paths : make("p", { class: "note" }, report.epochs === null ? "Rules were not traced." : "No packet of it was traced.")));
};
