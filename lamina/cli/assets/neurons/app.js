// The frame: which view an address names, and what the atlas is. An address is #/VIEW/WHAT.
import { get } from "./api.js";
import { make } from "./dom.js";
import { show_block } from "./block.js";
import { show_neuron } from "./neuron.js";
import { show_search } from "./search.js";

const views = { search: show_search, block: show_block, neuron: show_neuron };
const main = document.getElementById("view");
let header = null;
let leaving = new AbortController();

async function show() {
  const [, view = "search", ...rest] = location.hash.split("/");
  const name = views[view] ? view : "search";
  let what = rest.join("/");
  try {
    what = decodeURIComponent(what);
  } catch {
    // An address that was typed with a bare percent sign means itself.
  }
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  main.setAttribute("aria-busy", "true");
  try {
    const page = await views[name](what, { header, signal });
    if (signal.aborted) return;
    document.title = `${page.title} · ${header.model}`;
    main.replaceChildren(...page.content);
    page.focus?.focus();
  } catch (error) {
    if (signal.aborted) return;
    document.title = "Neurons";
    main.replaceChildren(make("h1", {}, "That did not work"), make("p", { class: "wrong", role: "alert" }, error.message));
  } finally {
    if (!signal.aborted) main.removeAttribute("aria-busy");
  }
  scrollTo(0, 0);
}

document.getElementById("jump").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = document.getElementById("jump-id").value.trim();
  if (id) location.hash = `#/neuron/${encodeURIComponent(id)}`;
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

try {
  header = await get("header");
  document.getElementById("model").textContent = header.model;
  const sets = header.sets.filter((set) => set.head === "own").map((set) => set.rows).filter((rows) => rows !== "random");
  header.rows = [...new Set(sets)];
  document.getElementById("atlas").textContent =
    `Atlas of ${header.model}: ${header.decoded_blocks.length} of ${header.blocks} blocks with ${header.neurons.toLocaleString("en-US")} neurons each, ` +
    `vectors ${header.rows.join(", ")}, lens ${header.lens}, norm ${header.norm}; model ${header.model_sha256.slice(0, 12)}, lamina ${header.lamina}.`;
  addEventListener("hashchange", show);
  await show();
} catch (error) {
  main.replaceChildren(make("p", { class: "wrong", role: "alert" }, error.message));
}
