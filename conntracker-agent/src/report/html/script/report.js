// The report: what the numbers of the columns mean, and how they are written.

const { report, words, addresses, sites, shapes, causes, ruleset } = columns;
const flows = columns.src.length;
const namespaces = new Map(report.namespaces);
const HOOKS = ["ingress", "prerouting", "input", "forward", "output", "postrouting", "egress"];
const FLAGS = { entry: 1, confirmed: 2, dropped: 4, lost: 8, several: 16, resumed: 32, counted: 64 };
const has = (flow, flag) => (columns.flags[flow] & FLAGS[flag]) !== 0;
const word = (column, flow) => words[columns[column][flow]];

// Of columns that have several numbers for a flow: where those of each flow begin.
const starts = (counts) => {
  const at = new Uint32Array(counts.length + 1);
  counts.forEach((count, n) => { at[n + 1] = at[n] + count; });
  return at;
};
const pathsAt = starts(columns.paths);
const dropsAt = starts(columns.drops);
function* range(at, flow) {
  for (let n = at[flow]; n < at[flow + 1]; n++) yield n;
}

// Times are microseconds since the epoch.
const since = (offset) => report.start + (offset % 2 ? -(offset + 1) / 2 : offset / 2);
const first = Float64Array.from(columns.first, since);
const last = Float64Array.from(columns.last, since);

// Rules by number, as the last ruleset lists them or, if it does not, as packets met them last.
const rules = [];
for (const { rule, label, chain, kind, position, text, netns } of sites) {
  rules[rule] = { label, chain, kind, position, text: text ?? "", netns, met: true };
}
for (const { label, netns, chains } of ruleset) {
  for (const { name, rows } of chains) {
    for (const { rule, kind, position, text } of rows) {
      rules[rule] = { label, chain: name, kind, position, text, netns, met: Boolean(rules[rule]) };
    }
  }
}

const ruleName = ({ label, chain, kind, position }) => {
  const what = { rule: ` rule ${position ?? "?"}`, policy: " policy", return: " end of the chain", chain: "" }[kind];
  return `${label}/${chain}${what}`;
};

const causeName = (cause) => {
  switch (cause.kind) {
    case "rule": return ruleName(rules[sites[cause.site].rule]);
    case "conntrack": return `conntrack: ${cause.name}`;
    case "kernel": return cause.function ? `${cause.name}()` : cause.name;
    case "more": return "other drop points";
    default: return "a rule that is not known";
  }
};
const causeIsLoss = (cause) => cause.kind === "kernel" || (cause.kind === "more" && cause.lost);

// What rules a path met, each once; and what hooks a flow's packets met, as bits.
const rulesOf = shapes.map(({ steps, unplaced }) => [...new Set([...steps, ...unplaced].map(([site]) => sites[site].rule))]);
const hookOf = shapes.map(({ hook }) => HOOKS.indexOf(hook));
const hooksOf = new Uint8Array(flows);
for (let flow = 0; flow < flows; flow++) {
  for (const n of range(pathsAt, flow)) hooksOf[flow] |= 1 << hookOf[columns.path_shape[n]];
  for (const n of range(dropsAt, flow)) {
    if (columns.drop_hook[n]) hooksOf[flow] |= 1 << (columns.drop_hook[n] - 1);
  }
}

// Input and output interface as one number: those of the flow or, if they are not known, of its first drop.
const PAIR = 2 ** 24;
const pairOf = (iif, oif) => iif * PAIR + oif;
const pairs = Float64Array.from({ length: flows }, (_, flow) => {
  const drop = dropsAt[flow];
  const known = columns.iif[flow] || drop === dropsAt[flow + 1];
  return known ? pairOf(columns.iif[flow], columns.oif[flow]) : pairOf(columns.drop_iif[drop], columns.drop_oif[drop]);
});
const pairName = (pair) => {
  const name = (of) => words[of] || "not known";
  return `${name(Math.floor(pair / PAIR))} → ${name(pair % PAIR)}`;
};

const number = (value) => value.toLocaleString("en-US");
const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;
const bytes = (value) => {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  for (; value >= 1000 && unit < units.length - 1; unit++) value /= 1000;
  return `${unit && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
};

const iso = (at) => new Date(Math.floor(at / 1000)).toISOString();
const oneDay = iso(report.start).slice(0, 10) === iso(report.end).slice(0, 10);
// Of a report of one day the day is said once, at the top.
const clock = (at, digits = 3) => {
  const micros = String(Math.floor(at % 1e6)).padStart(6, "0").slice(0, digits);
  const time = `${iso(at).slice(11, 19)}${digits ? `.${micros}` : ""}`;
  return oneDay ? time : `${iso(at).slice(5, 10)} ${time}`;
};
const weekday = (at) => new Date(at / 1000).toLocaleDateString("en-US", { weekday: "long", timeZone: "UTC" });
const duration = (length) => {
  const seconds = length / 1e6;
  if (seconds < 1) return `${Math.round(length / 1000)} ms`;
  if (seconds < 120) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
};

const atPort = (address, port) => (address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`);
// One end of a flow or of its reply, as reports write it.
const end = (flow, which, prefix = "") => {
  const address = addresses[columns[`${prefix}${which}`][flow] - (prefix ? 1 : 0)];
  const port = columns[`${prefix}${which === "src" ? "sport" : "dport"}`][flow];
  return [`${address}`, portText(flow, which, port)];
};
const portText = (flow, which, port) => {
  switch (columns.layout[flow]) {
    case 1: return `${port}`;
    case 2: return which === "src" ? (port ? `id ${port}` : "") : `type ${port >> 8} code ${port & 255}`;
    case 3: return `key ${port}`;
    default: return "";
  }
};
const endText = (flow, which, prefix = "") => {
  const [address, port] = end(flow, which, prefix);
  if (!port) return address;
  return columns.layout[flow] === 1 ? atPort(address, port) : `${address} (${port})`;
};
const protocolText = (flow) => {
  const name = word("protocol", flow);
  return addresses[columns.src[flow]].includes(":") && !name.endsWith("6") ? `${name}6` : name;
};

// What became of a flow: words, never colour alone.
const outcome = (flow) => [
  has(flow, "dropped") && ["dropped", "✕", "dropped"],
  has(flow, "lost") && ["lost", "◇", "lost"],
  has(flow, "confirmed") && ["confirmed", "✓", "confirmed"],
  !has(flow, "entry") && ["bare", "○", "no entry"],
  has(flow, "entry") && !has(flow, "confirmed") && !has(flow, "dropped") && !has(flow, "lost") && ["bare", "·", "unanswered"],
].filter(Boolean);
const sum = (at, flow, value) => {
  let total = 0;
  for (const n of range(at, flow)) total += value(n);
  return total;
};
const dropsOf = (flow, lost) =>
  sum(dropsAt, flow, (n) => (causeIsLoss(causes[columns.drop_cause[n]]) === lost ? columns.drop_packets[n] : 0));
