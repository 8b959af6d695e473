// Elements are made of names that others chose, as text alone.

const SVG = "http://www.w3.org/2000/svg";
const fill = (element, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
};
const make = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
const draw = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);
const body = (id) => document.querySelector(`#${id} .body`);

// Something to click, also by Enter and space.
const clickable = (act, attributes = {}) => ({
  tabindex: 0,
  role: "button",
  ...attributes,
  onclick: act,
  onkeydown: (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    act(event);
  },
});
// A filter as something to click.
const filtering = (kind, value, attributes = {}) =>
  clickable(() => toggle(kind, value), { "aria-pressed": String(isFilter(kind, value)), "data-filter": kind, ...attributes });

// Shows new elements in place of old ones, and keeps the focus on the element that stands for the same.
const replace = (parent, ...children) => {
  const active = document.activeElement;
  const key = parent.contains(active) ? active.dataset.key : undefined;
  parent.replaceChildren(...children.flat(Infinity).filter(Boolean));
  if (key) Array.from(parent.querySelectorAll("[data-key]")).find((element) => element.dataset.key === key)?.focus({ preventScroll: true });
};

const DROPPED = "✕";
const LOST = "◇";
