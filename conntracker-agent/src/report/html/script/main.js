// Shows everything, and listens to keys.

const search = element("search");
let typed = 0;
search.addEventListener("input", () => {
  cancelAnimationFrame(typed);
  typed = requestAnimationFrame(() => { selection.text = search.value; grid.viewport.scrollTop = 0; select(); });
});
search.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && search.value.trim()) {
    // What was typed becomes a filter of its own.
    const text = search.value.trim();
    selection.text = search.value = "";
    toggle("text", text);
  } else if (event.key === "ArrowDown" && selection.listed.length) {
    event.preventDefault();
    goTo(grid.active);
  }
});
document.addEventListener("keydown", (event) => {
  const typing = event.target === search;
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    search.focus();
    search.select();
  } else if (event.key === "Escape") {
    if (typing && search.value) {
      selection.text = search.value = "";
      select();
    } else if (selection.chosen !== null) {
      choose(selection.chosen);
    } else {
      clear();
    }
  }
});

// On paper all is open, and the first rows stand below each other.
const paper = (is) => {
  printing = is;
  document.body.classList.toggle("paper", is);
  showRows();
};
window.addEventListener("beforeprint", () => paper(true));
window.addEventListener("afterprint", () => paper(false));
new ResizeObserver(() => { redrawTimeline(); showRows(); }).observe(document.querySelector("main"));

source();
missing();
facts();
buildTable();
// What was dropped stands on top.
[selection.sort, selection.descending] = [COLUMNS[1], true];
listeners.push(answer, chips, showHooks, showCauses, showTimeline, showInterfaces, showRuleset, showTable, showFlow);
select();
buildRuleset();
document.documentElement.dataset.shown = String(Math.round(performance.now()));
