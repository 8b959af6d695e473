// The ruleset with its hits in the margin. Rows are made when their chain is opened: rulesets may have many thousands.

// So many rows are shown from the beginning: of chains that packets met.
const ROWS_OPEN = 400;

// Without a listing, and of rules that are not in it any more: what packets met, by table and chain.
const metOnly = (listed) => {
  const tables = new Map();
  for (const { rule, label, chain, kind, position, text, netns, handle } of sites) {
    if (listed.has(rule)) continue;
    listed.add(rule);
    const key = JSON.stringify([netns, label]);
    const table = tables.get(key) ?? tables.set(key, { netns, label, chains: new Map() }).get(key);
    const rows = table.chains.get(chain) ?? table.chains.set(chain, []).get(chain);
    const end = { policy: "policy", return: "end of the chain", chain: "which of its rules packets met is not known" }[kind];
    rows.push({ rule, kind, position, handle, text: end ?? text ?? "" });
  }
  return Array.from(tables.values(), ({ netns, label, chains }) => ({
    netns, label,
    chains: Array.from(chains, ([name, rows]) => ({ name, rows: rows.sort((a, b) => (a.position ?? 0) - (b.position ?? 0)) })),
  }));
};

const rowsShown = new Map();
const hits = (rule) => {
  const { flows: counts, packets, dropped } = selection.tally.rules;
  return { flows: counts[rule], packets: packets[rule], dropped: dropped[rule] };
};
const ruleRow = ({ rule, kind, position, handle, text, packets }) => {
  const margin = make("span", { class: "hits" });
  const counter = packets === undefined ? "" : `; its own counter had ${plural(packets, "packet")} when it was listed`;
  const row = make("div", filtering("rule", rule, { class: `row ${kind}`, "data-rule": rule, "data-key": `rule ${rule}`, title: `${ruleName(rules[rule])}${handle ? `, handle ${handle}` : ""}${counter}` }),
    margin, make("span", { class: "position" }, kind === "rule" ? `${position ?? ""}` : ""), make("code", {}, text));
  rowsShown.set(rule, { row, margin });
  showHits(rule);
  return row;
};
const showHits = (rule) => {
  const { row, margin } = rowsShown.get(rule);
  const { packets, dropped } = hits(rule);
  const never = !rules[rule].met;
  row.classList.toggle("never", never);
  row.classList.toggle("unmet", !never && !packets && !dropped);
  row.setAttribute("aria-pressed", String(isFilter("rule", rule)));
  margin.replaceChildren(
    make("span", {}, never ? "–" : number(packets)),
    make("span", { class: "dropped" }, dropped ? `${DROPPED} ${number(dropped)}` : ""),
  );
};

let budget = ROWS_OPEN;
const chainView = ({ name, base, rows }) => {
  const met = rows.filter(({ rule }) => rules[rule].met).length;
  const list = make("div", { class: "rows" });
  const open = met > 0 && rows.length <= budget;
  if (open) budget -= rows.length;
  const fillIn = () => { if (!list.childElementCount) list.append(...rows.map(ruleRow)); };
  if (open) fillIn();
  return make("details", { class: "chain", open, ontoggle: fillIn },
    make("summary", {}, make("bdi", {}, name), base ? make("span", { class: "note" }, ` ${base}`) : null,
      make("span", { class: "note" }, ` · ${number(met)} of ${number(rows.length)} met`)), list);
};
const tableView = ({ netns, label, chains }, many) => make("section", { class: "table" },
  make("h3", {}, make("bdi", {}, label), many ? make("span", { class: "note" }, ` of ${netnsName(netns)}`) : null), chains.map(chainView));
const netnsName = (netns) => namespaces.get(netns) ?? `namespace ${netns}`;

const buildRuleset = () => {
  const listed = new Set(ruleset.flatMap(({ chains }) => chains.flatMap(({ rows }) => rows.map(({ rule }) => rule))));
  const many = namespaces.size > 1;
  const known = ruleset.length > 0;
  const others = metOnly(listed);
  const legend = `In the margin: packets that were traced, and ${DROPPED} packets dropped. –: no traced packet met it.`;
  body("ruleset").replaceChildren(
    make("p", { class: "note" }, known ? `The last ruleset. ${legend}` : `No ruleset is recorded: these are the rules that packets met. ${legend}`),
    make("div", { class: "scroll" },
      ...ruleset.map((table) => tableView(table, many)),
      known && others.length ? make("h3", { class: "earlier" }, "Met by packets, and not in the last ruleset") : "",
      ...others.map((table) => tableView(table, many))),
  );
  if (!known && !others.length) body("ruleset").replaceChildren(make("p", { class: "note" }, "No rule is known."));
};
const showRuleset = () => { for (const rule of rowsShown.keys()) showHits(rule); };
