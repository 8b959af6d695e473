// Which flows are listed: filters of one kind are alternatives, those of different kinds must all hold.

const selection = { filters: [], text: "", sort: null, descending: false, chosen: null, listed: new Uint32Array(0), tally: null };

const flagNames = { dropped: "dropped", lost: "lost", confirmed: "confirmed", unanswered: "unanswered", bare: "no entry" };
const KINDS = {
  hook: { name: (hook) => `hook ${HOOKS[hook]}`, test: (hook) => (flow) => (hooksOf[flow] & (1 << hook)) !== 0 },
  rule: {
    name: (rule) => ruleName(rules[rule]),
    test: (rule) => {
      const met = rulesOf.map((all) => all.includes(rule));
      return (flow) => some(pathsAt, flow, (n) => met[columns.path_shape[n]]) || some(dropsAt, flow, (n) => ruleOfDrop(n) === rule);
    },
  },
  pair: {
    name: (pair) => pairName(pair),
    test: (pair) => (flow) => pairs[flow] === pair
      || some(dropsAt, flow, (n) => pairOf(columns.drop_iif[n], columns.drop_oif[n]) === pair),
  },
  time: {
    name: ([from, to]) => `seen ${clock(from, 1)} to ${clock(to, 1)}`,
    test: ([from, to]) => (flow) => first[flow] < to && last[flow] >= from,
  },
  cause: {
    name: (cause) => `${causeIsLoss(causes[cause]) ? "lost" : "dropped"} by ${causeName(causes[cause])}`,
    test: (cause) => (flow) => some(dropsAt, flow, (n) => columns.drop_cause[n] === cause),
  },
  flag: {
    name: (flag) => flagNames[flag],
    test: (flag) => (flow) => outcome(flow).some(([, , name]) => name === flagNames[flag]),
  },
  flow: { name: (flow) => `${protocolText(flow)} ${endText(flow, "src")} → ${endText(flow, "dst")}`, test: (one) => (flow) => flow === one },
  text: { name: (text) => text, test: (text) => searched(text) },
};
const ruleOfDrop = (n) => {
  const cause = causes[columns.drop_cause[n]];
  return cause.kind === "rule" ? sites[cause.site].rule : -1;
};
const some = (at, flow, test) => {
  for (let n = at[flow]; n < at[flow + 1]; n++) if (test(n)) return true;
  return false;
};

const same = (a, b) => a.kind === b.kind && String(a.value) === String(b.value);
const isFilter = (kind, value) => selection.filters.some((filter) => same(filter, { kind, value }));
// Adds a filter; one that is there already goes.
const toggle = (kind, value) => {
  const filter = { kind, value };
  const others = selection.filters.filter((known) => !same(known, filter));
  const found = others.length < selection.filters.length;
  selection.filters = found ? others : [...others, filter];
  select();
};

// An address, a network, a port, both, or a part of a name: of a protocol, interface, process or rule.
const searched = (text) => {
  const terms = text.toLowerCase().split(/\s+/).filter(Boolean).map(term);
  return (flow) => terms.every((test) => test(flow));
};
const ENDS = [["src", "sport", 0], ["dst", "dport", 0], ["reply_src", "reply_sport", 1], ["reply_dst", "reply_dport", 1]];
const term = (text) => {
  const both = /^(?:\[([^\]]+)\]|([\d.]+)):(\d+)$/.exec(text);
  if (both) return byEnd(addressHits(both[1] ?? both[2]), Number(both[3]));
  const port = /^:?(\d+)$/.exec(text);
  if (port) return byEnd(null, Number(port[1]));
  const hits = addressHits(text);
  const byAddress = hits.some(Boolean) ? byEnd(hits, null) : () => false;
  const inWord = words.map((known) => known.toLowerCase().includes(text));
  const inRule = rules.map((rule) => `${ruleName(rule)} ${rule.text}`.toLowerCase().includes(text));
  const inShape = rulesOf.map((all) => all.some((rule) => inRule[rule]));
  const inCause = causes.map((cause) => causeName(cause).toLowerCase().includes(text));
  const fields = ["protocol", "netns", "state", "iif", "oif", "program", "process", "mark"];
  return (flow) => byAddress(flow)
    || fields.some((field) => inWord[columns[field][flow]])
    || some(pathsAt, flow, (n) => inShape[columns.path_shape[n]])
    || some(dropsAt, flow, (n) => inCause[columns.drop_cause[n]])
    || protocolText(flow) === text;
};
const byEnd = (hits, port) => (flow) => ENDS.some(([address, ports, above]) => {
  const at = columns[address][flow] - above;
  if (at < 0 || (hits && !hits[at])) return false;
  return port === null || (columns.layout[flow] === 1 && columns[ports][flow] === port);
});
// A whole address is that one alone; the beginning of an address is all that begin so.
const addressHits = (text) => {
  const [network, length] = text.split("/");
  if (length !== undefined && /^\d+$/.test(length)) {
    const bits = addressBits(network);
    return addresses.map((address) => bits !== null && address.includes(":") === network.includes(":")
      && addressBits(address).slice(0, Number(length)) === bits.slice(0, Number(length)));
  }
  const exact = addresses.indexOf(text);
  if (exact >= 0) return addresses.map((_, at) => at === exact);
  return addresses.map((address) => /[.:]/.test(text) && address.startsWith(text));
};
const addressBits = (text) => {
  const bits = (value, width) => value.toString(2).padStart(width, "0");
  if (/^\d+(\.\d+){3}$/.test(text)) return text.split(".").map((part) => bits(Number(part), 8)).join("");
  if (!text.includes(":")) return null;
  // The last 32 bits may be written as IPv4.
  const whole = text.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, a, b, c, d) => `${(a * 256 + +b).toString(16)}:${(c * 256 + +d).toString(16)}`);
  const [head, tail] = whole.split("::").map((half) => half.split(":").filter(Boolean));
  const zeros = Array(Math.max(0, 8 - head.length - (tail?.length ?? 0))).fill("0");
  return [...head, ...(tail ? zeros : []), ...(tail ?? [])].map((part) => bits(parseInt(part, 16) || 0, 16)).join("");
};

// What the listed flows have in common, by hook, rule, interfaces and cause.
const tallied = (listed) => {
  const hooks = HOOKS.map(() => ({ flows: 0, packets: 0, dropped: 0, lost: 0 }));
  const counts = () => new Float64Array(rules.length);
  const byRule = { flows: counts(), packets: counts(), dropped: counts(), epoch: counts() };
  const seen = new Int32Array(rules.length).fill(-1);
  const byCause = causes.map(() => ({ flows: 0, packets: 0 }));
  const byPair = new Map();
  const pair = (of) => byPair.get(of) ?? byPair.set(of, { flows: 0, dropped: 0, lost: 0 }).get(of);
  const total = { flows: listed.length, merged: 0, confirmed: 0, dropped: 0, droppedPackets: 0, lost: 0, lostPackets: 0 };
  for (const flow of listed) {
    total.merged += columns.flows[flow];
    for (const flag of ["confirmed", "dropped", "lost"]) total[flag] += has(flow, flag);
    pair(pairs[flow]).flows++;
    for (let hook = 0; hook < HOOKS.length; hook++) hooks[hook].flows += (hooksOf[flow] >> hook) & 1;
    for (let n = pathsAt[flow]; n < pathsAt[flow + 1]; n++) {
      const [shape, packets, epoch] = [columns.path_shape[n], columns.path_packets[n], columns.path_epoch[n]];
      hooks[hookOf[shape]].packets += packets;
      for (const rule of rulesOf[shape]) {
        byRule.packets[rule] += packets;
        if (!byRule.epoch[rule] || epoch < byRule.epoch[rule]) byRule.epoch[rule] = epoch;
        if (seen[rule] !== flow) byRule.flows[rule]++;
        seen[rule] = flow;
      }
    }
    for (let n = dropsAt[flow]; n < dropsAt[flow + 1]; n++) {
      const [cause, packets] = [columns.drop_cause[n], columns.drop_packets[n]];
      const what = causeIsLoss(causes[cause]) ? "lost" : "dropped";
      total[`${what}Packets`] += packets;
      byCause[cause].packets += packets;
      byCause[cause].flows++;
      if (columns.drop_hook[n]) hooks[columns.drop_hook[n] - 1][what] += packets;
      if (columns.drop_iif[n] || columns.drop_oif[n]) pair(pairOf(columns.drop_iif[n], columns.drop_oif[n]))[what] += packets;
      const rule = ruleOfDrop(n);
      if (rule >= 0) byRule.dropped[rule] += packets;
    }
  }
  return { hooks, rules: byRule, causes: byCause, pairs: byPair, total };
};

const listeners = [];
// Lists the flows that the filters allow, and has everything shown anew.
const select = () => {
  const byKind = Map.groupBy(selection.filters, ({ kind }) => kind);
  const tests = [];
  for (const [kind, filters] of byKind) {
    const alternatives = filters.map(({ value }) => KINDS[kind].test(value));
    // Words that were searched one after the other must all match, as they do in one search.
    tests.push((flow) => (kind === "text" ? alternatives.every((test) => test(flow)) : alternatives.some((test) => test(flow))));
  }
  if (selection.text.trim()) tests.push(searched(selection.text));
  const listed = [];
  for (let flow = 0; flow < flows; flow++) if (tests.every((test) => test(flow))) listed.push(flow);
  if (selection.sort) {
    const keys = [];
    for (const flow of listed) keys[flow] = selection.sort.key(flow);
    const turn = selection.descending ? -1 : 1;
    // Flows of equal keys stay in the order of the report.
    listed.sort((a, b) => (keys[a] === keys[b] ? a - b : keys[a] < keys[b] ? -turn : turn));
  }
  selection.listed = Uint32Array.from(listed);
  selection.tally = tallied(selection.listed);
  for (const show of listeners) show();
};
