// The packet flow through the hooks of netfilter, with counts of the listed flows; the hooks of the chosen flow are lit.

const BOX = { width: 132, height: 64 };
const BOXES = {
  ingress: [8, 128], prerouting: [164, 128], input: [268, 14], forward: [440, 128], output: [612, 14], postrouting: [716, 128], egress: [872, 128],
};
// From where to where packets go, and the hooks that a flow has met if its packets went there.
// Edges that end where ways join have no arrow.
const EDGES = [
  ["M0,160H6", [], false],
  ["M140,160H162", ["ingress", "prerouting"], true],
  ["M296,160H334", ["prerouting"], false],
  ["M334,160V80", ["input"], true],
  ["M334,160H438", ["forward"], true],
  ["M400,46H438", ["input"], true],
  ["M572,46H610", ["output"], true],
  ["M572,160H678", ["forward", "postrouting"], false],
  ["M678,80V160", ["output", "postrouting"], false],
  ["M678,160H714", ["postrouting"], true],
  ["M848,160H870", ["postrouting", "egress"], true],
  ["M1004,160H1010", [], false],
];

// The hooks that the chosen flow met, in order, of each direction; and those where its packets were dropped.
const trail = (flow) => {
  const met = { original: [], reply: [] };
  const stopped = new Set();
  if (flow === null) return { met, stopped };
  for (const n of range(pathsAt, flow)) {
    const { hook, direction, dropped } = shapes[columns.path_shape[n]];
    if (!met[direction].includes(hook)) met[direction].push(hook);
    if (dropped) stopped.add(hook);
  }
  for (const n of range(dropsAt, flow)) {
    const lost = causeIsLoss(causes[columns.drop_cause[n]]);
    const hook = HOOKS[columns.drop_hook[n] - 1];
    if (hook && !lost) stopped.add(hook);
    if (hook && ![...met.original, ...met.reply].includes(hook)) met.original.push(hook);
  }
  return { met, stopped };
};

const showHooks = () => {
  const { met, stopped } = trail(selection.chosen);
  const lit = (hook) => met.original.includes(hook) || met.reply.includes(hook);
  const dim = selection.chosen !== null;
  const edges = EDGES.map(([path, hooks, arrow]) =>
    draw("path", { d: path, class: hooks.length && hooks.every(lit) ? "edge lit" : "edge", "marker-end": arrow && "url(#arrow)" }));
  const boxes = HOOKS.map((hook, at) => {
    const [x, y] = BOXES[hook];
    const { flows: count, packets, dropped, lost } = selection.tally.hooks[at];
    const empty = !count && !dropped && !lost;
    const state = [lit(hook) ? "lit" : dim ? "dim" : "", stopped.has(hook) ? "stopped" : "", empty ? "empty" : ""].join(" ");
    const losses = [dropped && `${DROPPED} ${number(dropped)} dropped`, lost && `${LOST} ${number(lost)} lost`].filter(Boolean);
    const order = ["original", "reply"].map((direction) => {
      const position = met[direction].indexOf(hook);
      return position < 0 ? "" : `${direction === "reply" ? "←" : ""}${position + 1}${direction === "reply" ? "" : "→"}`;
    }).filter(Boolean).join(" ");
    const said = `${hook}: ${plural(count, "flow")}, ${plural(packets, "traced packet")}, ${number(dropped)} dropped, ${number(lost)} lost after it`;
    return draw("g", filtering("hook", at, { class: `hook ${state}`, transform: `translate(${x},${y})`, "aria-label": said, "data-key": `hook ${hook}`, "data-hook": hook }),
      draw("title", {}, said),
      draw("rect", { ...BOX, rx: 6 }),
      draw("text", { x: 10, y: 20, class: "name" }, hook),
      draw("text", { x: 10, y: 37 }, empty ? "–" : plural(count, "flow")),
      losses.map((text, n) => draw("text", { x: 10, y: 54, dx: n ? 60 : 0, class: n || !dropped ? "lost" : "dropped" }, losses.length > 1 ? text.replace(/ (dropped|lost)$/, "") : text)),
      order ? draw("text", { x: BOX.width - 8, y: 20, class: stopped.has(hook) ? "order stop" : "order", "text-anchor": "end" }, stopped.has(hook) ? `${order} ${DROPPED}` : order) : null);
  });
  const labels = [
    draw("rect", { x: 440, y: 14, ...BOX, rx: 32, class: "process" }),
    draw("text", { x: 506, y: 51, "text-anchor": "middle", class: "process" }, "local process"),
    draw("circle", { cx: 334, cy: 160, r: 4, class: "joint" }),
    draw("text", { x: 334, y: 182, "text-anchor": "middle", class: "hint" }, "routing"),
    draw("circle", { cx: 678, cy: 160, r: 4, class: "joint" }),
  ];
  const arrow = draw("defs", {}, draw("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 9, markerHeight: 9, markerUnits: "userSpaceOnUse", orient: "auto" }, draw("path", { d: "M0,0L8,4L0,8z" })));
  const picture = draw("svg", { viewBox: "0 0 1010 206", role: "group", "aria-label": "Packet flow through the hooks" }, arrow, edges, labels, boxes);
  const hint = dim
    ? "Lit: the hooks of the chosen flow; 1→ in the order of its packets, ←1 of those that answer."
    : "Flows whose packets met each hook, and packets that ended there. Click a hook to list its flows.";
  replace(body("hooks"), picture, make("p", { class: "note" }, hint));
};
