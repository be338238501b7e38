// Search: a box with completion, which neurons read or write the concept, and what means nothing beside them.
import { get } from "./api.js";
import { bar, fixed, make, neuron_link, probability, rows_choice, token, tokens, whole } from "./dom.js";

const POLE = { top: "for", bottom: "against" };

function box(wanted, go) {
  const input = make("input", {
    id: "concept", name: "concept", value: wanted, autocomplete: "off", spellcheck: "false", role: "combobox",
    "aria-expanded": "false", "aria-controls": "options", "aria-autocomplete": "list", placeholder: "dog",
  });
  const list = make("ul", { id: "options", class: "options", role: "listbox", "aria-label": "Tokens that begin like this", hidden: true });
  let chosen = -1, asked = 0, timer = 0;
  const close = () => {
    asked += 1;
    clearTimeout(timer);
    list.hidden = true;
    chosen = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const choose = (index) => {
    chosen = index;
    [...list.children].forEach((option, i) => option.setAttribute("aria-selected", String(i === index)));
    if (index >= 0) {
      input.setAttribute("aria-activedescendant", list.children[index].id);
      list.children[index].scrollIntoView({ block: "nearest" });
    } else input.removeAttribute("aria-activedescendant");
  };
  const complete = async () => {
    const turn = ++asked;
    const start = input.value.trim();
    if (!start) return close();
    const found = await get("tokens", { start, limit: 24 }).catch(() => ({ tokens: [] }));
    if (turn !== asked) return;
    // Spellings of one concept are one entry.
    const texts = [...new Map(found.tokens.map((one) => [one.text.trim().toLowerCase(), one.text.trim()])).values()]
      .filter((text) => text !== "").slice(0, 8);
    list.replaceChildren(...texts.map((text, i) => {
      const option = make("li", { id: `option-${i}`, role: "option", "aria-selected": "false" }, token(text));
      option.addEventListener("mousedown", (event) => {
        event.preventDefault();
        input.value = text;
        close();
        go(text);
      });
      option.dataset.text = text;
      return option;
    }));
    list.hidden = texts.length === 0;
    chosen = -1;
    input.setAttribute("aria-expanded", String(texts.length > 0));
  };
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(complete, 120);
  });
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    const count = list.hidden ? 0 : list.children.length;
    if (event.key === "ArrowDown" && count) choose((chosen + 1) % count);
    else if (event.key === "ArrowUp" && count) choose((chosen + count) % (count + 1) === count ? -1 : chosen - 1);
    else if (event.key === "Escape" && count) close();
    else if (event.key === "Enter" && chosen >= 0) {
      input.value = list.children[chosen].dataset.text;
      close();
      go(input.value);
    } else return;
    event.preventDefault();
  });
  return { element: make("label", { class: "combo", for: "concept" }, "A word that is one token", input, list), input, close };
}

const role = (rows) => (rows === "down" ? "writes" : "reads");

function sentence(control) {
  const p = make("p", { class: "control" },
    "Control: of all ", control.rows, " vectors, ", neuron_link(control.best), " gives ", token(control.text),
    ` the largest probability ${control.pole === "bottom" ? "at the negative pole" : "at the positive pole"}, ${probability(control.best_p)}`);
  if (control.random_p === null) p.append("; this atlas holds no random directions to compare with");
  else
    p.append(`; the best of ${whole(control.random_directions)} random directions gives ${probability(control.random_p)}`);
  if (control.above_tokens !== null)
    p.append(`. ${fixed(100 * control.above_tokens, 0)} % of the other tokens have a best neuron with a smaller probability`);
  p.append(".");
  return p;
}

function controls_table(controls) {
  return make("details", { class: "numbers" }, make("summary", {}, "All controls"),
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "All controls" }, make("table", {},
      make("thead", {}, make("tr", {}, ...["Token", "Vector", "Pole", "Best neuron"].map((name) => make("th", { scope: "col" }, name)),
        ...["p", "p, best random", "Above other tokens, %"].map((name) => make("th", { scope: "col", class: "n" }, name)))),
      make("tbody", {}, ...controls.map((one) => make("tr", {},
        make("td", {}, token(one.text)), make("td", {}, one.rows), make("td", {}, one.pole === "top" ? "+" : "−"),
        make("td", {}, neuron_link(one.best)), make("td", { class: "n" }, probability(one.best_p)),
        make("td", { class: "n" }, probability(one.random_p)),
        make("td", { class: "n" }, one.above_tokens === null ? "none" : fixed(100 * one.above_tokens, 1))))))));
}

function hits_table(hits) {
  const longest = Math.max(...hits.map((hit) => hit.reading.p));
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Neurons" }, make("table", { class: "hits" },
    make("thead", {}, make("tr", {},
      make("th", { scope: "col" }, "Neuron"), make("th", { scope: "col" }, "Vector"), make("th", { scope: "col" }, "Pole"),
      make("th", { scope: "col" }, "Token"), make("th", { scope: "col", class: "n" }, "p"),
      make("th", { scope: "col", class: "low" }, make("span", { class: "hidden" }, "Bar")),
      make("th", { scope: "col", class: "n" }, "Rank in it"), make("th", { scope: "col", class: "low" }, "Its first token"),
      make("th", { scope: "col", class: "n low" }, "Kurtosis"))),
    make("tbody", {}, ...hits.map((hit) => make("tr", { class: hit.pole },
      make("td", {}, neuron_link(hit.id)),
      make("td", {}, `${hit.rows}, ${role(hit.rows)}${hit.head === "other" ? ", other head" : ""}`),
      make("td", {}, hit.pole === "top" ? "+" : "−"),
      make("td", {}, token(hit.reading.text)),
      make("td", { class: "n" }, probability(hit.reading.p)),
      make("td", { class: "wide-bar low" }, bar(hit.reading.p, longest)),
      make("td", { class: "n" }, String(hit.rank)),
      make("td", { class: "low" }, token(hit.first)),
      make("td", { class: "n low" }, fixed(hit.kurtosis, 2)))))));
}

/** The last concept that was found: what a clamp is watched by. */
export let last_concept = "";

export async function show_search(wanted, { header, signal }) {
  let rows = show_search.rows ?? "";
  const go = (text) => {
    const hash = `#/search/${encodeURIComponent(text.trim())}`;
    if (location.hash === hash) dispatchEvent(new Event("hashchange"));
    else location.hash = hash;
  };
  const { element, input, close } = box(wanted, go);
  const form = make("form", {
    class: "ask", role: "search",
    onsubmit: (event) => {
      event.preventDefault();
      close();
      go(input.value);
    },
  }, element, rows_choice(header.rows, rows, (value) => {
    show_search.rows = value;
    if (wanted) go(wanted);
  }, "all"), make("button", { class: "main" }, "Find"));
  const content = [make("h1", {}, wanted ? `Neurons for “${wanted}”` : "Which neurons say a word?"), form];
  if (!wanted) {
    content.push(make("p", {}, "Every neuron's vectors were read through the head of ", header.model,
      ". The up and gate vectors are what a neuron reads, the down vector is what it writes; at each pole stand the tokens that the vector points to and away from."));
    return { title: "Search", content, focus: input };
  }
  try {
    const found = await get("find", { concept: wanted, top: 40, ...(rows ? { rows } : {}) }, signal);
    last_concept = wanted.trim();
    content.push(make("p", {}, "Spelled by ", tokens(found.spellings.map((one) => one.text)), "."));
    const first = [...found.controls].sort((a, b) => b.best_p - a.best_p)[0];
    if (first) content.push(sentence(first), controls_table(found.controls));
    if (found.hits.length === 0) {
      content.push(make("p", {}, `No neuron has it among its first ${header.top} tokens at either pole.`));
    } else {
      content.push(make("h2", {}, `${found.hits.length} neurons, the likeliest first`), hits_table(found.hits),
        make("p", { class: "note" }, `+ and blue: the vector points to the token; − and grey: away from it. p is a softmax over all ${whole(header.vocabulary)} tokens; the longest bar is the largest p here.`));
    }
  } catch (error) {
    if (signal.aborted) throw error;
    content.push(make("p", { class: "wrong", role: "alert" }, error.message));
  }
  return { title: wanted, content, focus: null };
}
