// The answer, what is missing, filters, and why packets were dropped.

const element = (id) => document.getElementById(id);

// The epoch in which a packet met a rule first, if a ruleset was there before.
const firstMet = (rule) => {
  const epoch = selection.tally.rules.epoch[rule];
  const netns = rules[rule].netns;
  const ofNetns = report.changes.filter(([of]) => of === netns);
  const before = ofNetns.some(([, known]) => known < epoch);
  const change = ofNetns.find(([, known]) => known === epoch);
  if (!before || !change) return "";
  return `, which no traced packet met before the ruleset changed on ${weekday(change[2])} at ${clock(change[2], 0)}`;
};

const most = (lost) => {
  const all = selection.tally.causes.map(({ packets }, cause) => [packets, cause]);
  return all.filter(([packets, cause]) => packets > 0 && causeIsLoss(causes[cause]) === lost).sort(([a], [b]) => b - a);
};
const share = (packets, total) => (packets === total ? "all" : packets * 2 > total ? "most" : `${number(packets)} of them`);
const answer = () => {
  const { total } = selection.tally;
  const some = selection.filters.length || selection.text.trim();
  const of = some ? "In this selection " : "";
  const parts = [];
  if (total.droppedPackets) {
    const [[packets, cause]] = most(false);
    const by = causes[cause];
    const when = by.kind === "rule" ? firstMet(sites[by.site].rule) : "";
    parts.push(`${plural(total.droppedPackets, "packet")} of ${plural(total.dropped, "flow")} dropped, ${share(packets, total.droppedPackets)} by ${causeName(by)}${when}`);
  }
  if (total.lostPackets) {
    const [[packets, cause]] = most(true);
    parts.push(`${plural(total.lostPackets, "packet")} of ${plural(total.lost, "flow")} lost in the kernel, ${share(packets, total.lostPackets)} by ${causeName(causes[cause])}`);
  }
  if (!parts.length) parts.push(total.flows ? "no packet was dropped" : "no flow matches");
  const text = `${of}${parts.join("; ")}.`;
  element("answer").textContent = text[0].toUpperCase() + text.slice(1);
  const bare = total.flows - total.confirmed;
  element("more").textContent = total.flows
    ? `${plural(total.flows, "line")} of flows (${number(total.merged)} conntrack flows): ${number(total.confirmed)} confirmed by packets in both directions, ${number(bare)} not.`
    : "";
};

const source = () => {
  const { host, kernel, backend, start, end: to, filters, version } = report;
  const where = [...namespaces.values()].filter((name) => name !== "-");
  const date = (at) => iso(at).slice(0, 19).replace("T", " ");
  element("source").textContent = [
    host || "unknown host",
    where.length ? `netns ${where.join(", ")}` : null,
    `${date(start)} to ${oneDay ? date(to).slice(11) : date(to)} UTC (${duration(to - start)})`,
    `${backend}, Linux ${kernel}`,
    filters.length ? `recorded with ${filters.join(" ")}` : null,
    `conntracker ${version}`,
  ].filter(Boolean).join(" · ");
  document.title = `${host || "conntracker"}: report of ${date(start)}`;
};

// What is missing in the report, for all to see.
const missing = () => {
  const lost = report.losses.filter(([, count]) => count > 0);
  const banner = element("banner");
  if (lost.length || report.untold.length) {
    banner.hidden = false;
    banner.replaceChildren(
      make("strong", {}, "⚠ This report is not complete."),
      make("ul", {}, [
        ...report.untold.map((why) => make("li", {}, why)),
        ...lost.map(([name, count, sentence]) => make("li", {}, `${number(count)} ${sentence} `, make("code", {}, name))),
      ]),
    );
  }
  const notes = [
    ...report.notes,
    ...(report.epochs === null ? ["Rules were not traced: no paths, and hooks of dropped packets alone."] : []),
    ...report.others.map(({ protocol, flows: other, packets, dropped, lost: gone }) =>
      `Not listed: ${plural(other, "flow")} of ${protocol}, ${plural(packets, "packet")}, ${number(dropped)} dropped, ${number(gone)} lost.`),
  ];
  if (!notes.length) return;
  element("notes").hidden = false;
  element("notes").replaceChildren(
    make("details", { open: notes.length <= 3 }, make("summary", {}, plural(notes.length, "note")), make("ul", {}, notes.map((note) => make("li", {}, note)))),
  );
};

const chips = () => {
  const all = selection.filters.map(({ kind, value }) => {
    const name = KINDS[kind].name(value);
    return make("button", { class: "chip", "data-key": `${kind} ${value}`, title: "Remove this filter", onclick: () => toggle(kind, value) }, make("bdi", {}, name), make("span", { "aria-label": "remove" }, " ×"));
  });
  if (all.length > 1) all.push(make("button", { class: "chip clear", onclick: clear }, "clear all"));
  replace(element("chips"), all);
  const listed = selection.listed.length;
  element("count").textContent = listed === flows ? plural(flows, "flow") : `${number(listed)} of ${plural(flows, "flow")}`;
};
const clear = () => {
  selection.filters = [];
  selection.text = element("search").value = "";
  select();
};

// So many causes are shown: those of most packets.
const MOST_CAUSES = 50;
const showCauses = () => {
  const all = [...most(false), ...most(true)];
  const widest = Math.max(...all.map(([packets]) => packets));
  const rows = all.slice(0, MOST_CAUSES).map(([packets, cause]) => {
    const of = causes[cause];
    const lost = causeIsLoss(of);
    const text = of.kind === "rule" ? rules[sites[of.site].rule].text : of.meaning;
    const bar = make("span", { class: `share ${lost ? "lost" : "dropped"}`, "aria-hidden": "true" });
    bar.style.width = `${(100 * packets) / widest}%`;
    return make("li", filtering("cause", cause, { "data-key": `cause ${cause}` }),
      make("span", { class: lost ? "mark lost" : "mark dropped" }, `${lost ? LOST : DROPPED} ${number(packets)}`),
      make("span", { class: "what" }, make("bdi", {}, causeName(of)), text ? make("code", {}, text) : null, bar),
      make("span", { class: "note" }, plural(selection.tally.causes[cause].flows, "flow")));
  });
  const more = all.length > MOST_CAUSES ? make("p", { class: "note" }, `${number(all.length - MOST_CAUSES)} more causes of fewer packets.`) : null;
  replace(body("causes"), rows.length ? make("ul", { class: "causes" }, rows) : make("p", { class: "note" }, "No packet was dropped or lost."), more);
};

const facts = () => {
  const list = (pairs) => make("dl", {}, pairs.map(([name, value]) => [make("dt", {}, name), make("dd", {}, number(value))]));
  element("facts").replaceChildren(
    make("details", {}, make("summary", {}, "Sources and losses"),
      make("p", { class: "note" }, report.backend_reason),
      list(report.sources),
      make("h3", {}, "Losses"),
      list(report.losses.map(([name, count]) => [name, count]))),
    make("p", { class: "note" }, `Times are UTC. ${report.folded ? "Source ports above 1023 are folded to 1024: a line may be many flows. " : ""}Counts at hooks and rules are of packets that were traced: of a flow whose paths are known few are.`),
  );
};
