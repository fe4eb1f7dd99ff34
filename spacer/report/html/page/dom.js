// Nodes. Whatever comes from data goes through `el` or `svg` as text or as an attribute that cannot run.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    else if (name === "style") for (const [key, entry] of Object.entries(value)) node.style.setProperty(key, entry);
    else if (name === "tip") hover(node, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(3)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
  return node;
}

// In place of what is inside a node.
const refill = (node, ...children) => {
  node.replaceChildren();
  return fill(node, {}, children);
};

const el = (tag, props, ...children) => fill(document.createElement(tag), props, children);
const svg = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);

// A table's head: columns of words, then columns of numbers.
const headOf = (words, numbers) =>
  el(
    "thead",
    {},
    el(
      "tr",
      {},
      ...words.map((head) => el("th", { scope: "col" }, head)),
      ...numbers.map((head) => el("th", { scope: "col", class: "number" }, head)),
    ),
  );

function select(label, options, value, change) {
  const node = el("select", { "aria-label": label, on: { change: () => change(node.value) } });
  for (const [key, text] of options)
    node.append(el("option", { value: key, selected: String(key) === String(value) }, text));
  return el("label", { class: "field" }, el("span", {}, label), node);
}

// Frames side by side: they fit the page, or are moved along where they would become too small.
function strip(address) {
  const picture = el("img", {
    src: address,
    alt: "frames of the video",
    on: { load: () => picture.classList.toggle("wide", picture.naturalWidth > 1.5 * box.clientWidth) },
  });
  const box = el("div", { class: "strip" }, picture);
  return box;
}

// One tip for the whole page: what a mark stands for, in words.
const tip = el("div", { id: "tip", role: "tooltip", hidden: true });

function hover(node, lines) {
  const show = (event) => {
    tip.replaceChildren(...lines(event).map((line) => el("div", {}, line)));
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const x = Math.min(event.clientX + 14, innerWidth - box.width - 8);
    const y = event.clientY + box.height + 24 > innerHeight ? event.clientY - box.height - 10 : event.clientY + 14;
    tip.style.left = `${Math.max(4, x)}px`;
    tip.style.top = `${Math.max(4, y)}px`;
  };
  node.addEventListener("mousemove", show);
  node.addEventListener("mouseleave", () => {
    tip.hidden = true;
  });
}

const percent = (value, digits = 1) => (100 * value).toFixed(digits);
const signed = (value, digits) => (Number(value.toFixed(digits)) < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
const count = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many || one + "s"}`;
const duration = (seconds) =>
  seconds < 120
    ? `${seconds.toFixed(0)} s`
    : seconds < 7200
      ? `${(seconds / 60).toFixed(1)} min`
      : `${(seconds / 3600).toFixed(1)} h`;
const counted = (numbers) => {
  const found = numbers.filter((n) => Number.isFinite(n));
  return found.length ? found.reduce((a, b) => a + b, 0) / found.length : null;
};
