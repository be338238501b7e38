// Blocks: a strip of all of them, shaded by median kurtosis, and the neurons of one, the most peaked first.
import { get } from "./api.js";
import { fixed, make, neuron_link, rows_choice, tokens, whole } from "./dom.js";

const PAGE = 50;
let rows = null;

function strip(blocks, count, chosen) {
  const values = blocks.map((block) => block.median_kurtosis).filter((value) => value !== null);
  const low = Math.min(...values), high = Math.max(...values);
  const by_number = new Map(blocks.map((block) => [block.block, block]));
  const cells = [];
  for (let i = 0; i < count; ++i) {
    const block = by_number.get(i);
    if (!block) {
      cells.push(make("a", { class: "empty", "aria-label": `Block ${i}: not mapped`, "aria-disabled": "true" }, make("b", {}, String(i)), "none"));
      continue;
    }
    const tone = high > low ? Math.min(8, Math.floor((9 * (block.median_kurtosis - low)) / (high - low))) : 4;
    cells.push(make("a", {
      href: `#/block/${i}`, class: `tone${tone}`, "aria-current": i === chosen ? "true" : null,
      "aria-label": `Block ${i}: median kurtosis ${fixed(block.median_kurtosis, 2)}, ${fixed(100 * block.high_kurtosis, 1)} % of neurons above 4`,
      title: `${fixed(100 * block.high_kurtosis, 1)} % of neurons above 4`,
    }, make("b", {}, String(i)), fixed(block.median_kurtosis, 2)));
  }
  const links = cells.filter((cell) => cell.hasAttribute("href"));
  const start = links.find((cell) => cell.hasAttribute("aria-current")) ?? links[0];
  links.forEach((cell) => { cell.tabIndex = cell === start ? 0 : -1; });
  const list = make("div", { class: "strip", role: "navigation", "aria-label": "Blocks by median kurtosis" }, ...cells);
  list.addEventListener("keydown", (event) => {
    const at = links.indexOf(event.target.closest("a"));
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const to = event.key === "Home" ? 0 : event.key === "End" ? links.length - 1 : at + (step ?? NaN);
    if (at < 0 || !links[to]) return;
    event.preventDefault();
    links[at].tabIndex = -1;
    links[to].tabIndex = 0;
    links[to].focus();
  });
  return { list, low, high };
}

export async function show_block(what, { header, signal }) {
  rows = header.rows.includes(rows) ? rows : header.rows[0];
  const [number, page = "0"] = what.split("/");
  const block = /^\d+$/.test(number) ? Number(number) : -1;
  const offset = PAGE * (/^\d+$/.test(page) ? Number(page) : 0);
  const address = (to) => `#/block/${block < 0 ? "all" : block}/${to / PAGE}`;
  const [summary, listed] = await Promise.all([
    get("blocks", { rows }, signal), get("neurons", { rows, block, limit: PAGE, offset }, signal)]);
  const { list, low, high } = strip(summary.blocks, header.blocks, block);
  const total = block < 0 ? summary.blocks.reduce((sum, one) => sum + one.neurons, 0)
    : (summary.blocks.find((one) => one.block === block)?.neurons ?? 0);
  const ask = make("div", { class: "ask" }, rows_choice(header.rows, rows, (value) => {
    rows = value;
    dispatchEvent(new Event("hashchange"));
  }));
  const last = Math.min(total, offset + listed.hits.length);
  const table = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Neurons" }, make("table", { class: "hits" },
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Neuron"), make("th", { scope: "col", class: "n" }, "Kurtosis"),
      make("th", { scope: "col" }, "Points to (+)"), make("th", { scope: "col", class: "low" }, "Points away from (−)"))),
    make("tbody", {}, ...listed.hits.map((hit) => make("tr", {},
      make("td", {}, neuron_link(hit.id)), make("td", { class: "n" }, fixed(hit.kurtosis, 2)),
      make("td", {}, tokens((hit.top ?? []).map((one) => one.text))),
      make("td", { class: "low" }, tokens((hit.bottom ?? []).map((one) => one.text))))))));
  const step = (to, text, possible) => make("button", { type: "button", disabled: !possible, onclick: () => { location.hash = address(to); } }, text);
  const pager = make("div", { class: "pager" }, step(offset - PAGE, "Previous", offset > 0), step(offset + PAGE, "Next", last < total),
    make("span", {}, total ? `${whole(offset + 1)} to ${whole(last)} of ${whole(total)}` : "none"));
  return {
    title: block < 0 ? "Blocks" : `Block ${block}`,
    content: [
      make("h1", {}, block < 0 ? "All blocks" : `Block ${block}`), ask,
      make("p", { class: "lead scale" }, `Median kurtosis of a block's ${rows} vectors: ${fixed(low, 2)}`,
        make("span", { class: "ramp", "aria-hidden": "true" }, ...Array.from({ length: 9 }, (_, i) => make("span", { class: `tone${i}` }))), fixed(high, 2)),
      list, make("p", { class: "note" }, "Kurtosis is taken over the scores of all tokens. A normal distribution has 3; a vector that singles out few tokens has more."),
      block < 0 ? null : make("p", { class: "note" }, make("a", { href: "#/block/all" }, "All blocks in one list")),
      make("h2", {}, block < 0 ? "The most peaked neurons of all" : `The most peaked neurons of block ${block}`),
      total ? table : make("p", {}, "This block was not mapped."), pager,
    ].filter((one) => one !== null),
  };
}
