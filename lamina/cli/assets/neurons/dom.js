// Elements, tokens and numbers. All text enters the page as text.

/** make("p", {class: "note"}, "text", child, ...): null children are left out. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// Control characters, spaces of other kinds, marks that turn the direction of text, and the sign for a space itself.
const HIDDEN = /[\u0000-\u001f\u007f-\u00a0\u00ad\u00b7\u061c\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff\ufff0-\ufffb]/u;
const NAMED = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/** A token with what cannot be seen made visible. */
export function token(text) {
  const element = make("code", { class: "token" });
  if (text === "") element.append(make("span", { class: "escaped" }, "(empty)"));
  let plain = "";
  const flush = () => {
    if (plain) element.append(make("bdi", {}, plain));
    plain = "";
  };
  for (const character of text) {
    if (character === " ") {
      flush();
      element.append(make("span", { class: "sign" }, "·"));
    } else if (HIDDEN.test(character)) {
      flush();
      const code = character.codePointAt(0).toString(16).padStart(4, "0");
      element.append(make("span", { class: "escaped" }, NAMED[character] ?? `\\u${code}`));
    } else {
      plain += character;
    }
  }
  flush();
  return element;
}

export const tokens = (texts) => make("span", { class: "list" }, ...texts.map(token));

const SUPERSCRIPT = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

/** A probability with three digits, small ones as a power of ten. */
export function probability(p) {
  if (p === null || p === undefined) return "none";
  if (p === 0) return "0";
  if (p >= 0.001) return p.toFixed(3);
  const [digits, power] = p.toExponential(1).split("e");
  return `${digits}\u00a0×\u00a010${[...power].map((c) => SUPERSCRIPT[c] ?? "").join("")}`;
}

export const fixed = (value, digits) =>
  value === null || value === undefined ? "none" : value.toFixed(digits).replace(/^-/, "−");
export const signed = (value, digits) => (value > 0 ? "+" : "") + fixed(value, digits);
export const whole = (value) => value.toLocaleString("en-US");
/** Three digits, whatever the size. */
export const three = (value) => {
  if (value === null || value === undefined) return "none";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const sign = value < 0 ? "−" : "";
  if (size < 1e-3) return sign + probability(size);
  return sign + (size < 1000 ? size.toPrecision(3) : whole(Math.round(size)));
};

/** A bar whose length is value / longest. The numbers beside it say the same. */
export function bar(value, longest) {
  const element = make("span", { class: "p", "aria-hidden": "true" });
  element.style.width = `${longest > 0 ? Math.max(0, Math.min(100, (100 * value) / longest)) : 0}%`;
  return element;
}

/** Tokens with their probabilities and bars; `longest`: the p of a full bar. */
export function readings(list, longest, label) {
  return make("table", { class: "bars", "aria-label": label },
    make("tbody", {}, ...list.map((one) => make("tr", {},
      make("td", {}, token(one.text)),
      make("td", { class: "bar-cell" }, bar(one.p, longest)),
      make("td", { class: "n" }, probability(one.p))))));
}

export const neuron_link = (id) => make("a", { href: `#/neuron/${id}` }, id);

/** Choices of which vector is read; calls `change` with the name. */
export function rows_choice(names, chosen, change, all = null) {
  const select = make("select", { name: "rows", onchange: () => change(select.value) },
    all === null ? null : make("option", { value: "" }, all),
    ...names.map((name) => make("option", { value: name, selected: name === chosen }, name)));
  return make("label", {}, "Vector", select);
}
