// A neuron: what its vectors say at both poles, how they stand to each other, and a panel to hold it at a value.
import { get } from "./api.js";
import { clamp_panel } from "./clamp.js";
import { fixed, make, readings, three, whole } from "./dom.js";

const DOES = { up: "what it reads", gate: "what opens it", down: "what it writes" };

function vector(set, longest) {
  const name = set.head === "other" ? `${set.rows}, read with the other head` : set.rows;
  return make("section", { class: "vector" },
    make("h2", {}, `${name}: ${DOES[set.rows]}`),
    make("p", { class: "note" }, `kurtosis ${fixed(set.kurtosis, 2)}, rank ${whole(set.kurtosis_rank)} of ${whole(set.of)}; norm ${three(set.norm)}`),
    make("h3", {}, "+  points to"), readings(set.top, longest, `${name}, tokens it points to`),
    make("h3", {}, "−  points away from"),
    make("div", { class: "bottom" }, readings(set.bottom, longest, `${name}, tokens it points away from`)));
}

function stands(cosine) {
  if (cosine === null) return null;
  if (Math.abs(cosine) < 0.1) return "nearly at right angles";
  return cosine > 0 ? "the same way" : "opposite ways";
}

function angles_of(angles) {
  if (!angles) return null;
  const pairs = [["up", "down", angles.up_down], ["gate", "down", angles.gate_down], ["gate", "up", angles.gate_up]]
    .filter(([, , value]) => value !== null);
  if (pairs.length === 0) return null;
  return make("p", {}, "Cosines: ", pairs.map(([a, b, value]) => `${a} and ${b} ${signed_cosine(value)} (${stands(value)})`).join("; "),
    ". While the gate is open, up and down the same way strengthen what up finds; opposite ways, they take it away.");
}
const signed_cosine = (value) => (value > 0 ? "+" : "") + fixed(value, 2);

export async function show_neuron(id, { header, signal }) {
  const neuron = await get("neuron", { id }, signal);
  const [block, number] = neuron.id.split(".").map(Number);
  const longest = Math.max(...neuron.sets.flatMap((set) => [...set.top, ...set.bottom]).map((one) => one.p));
  const order = ["up", "gate", "down"];
  neuron.sets.sort((a, b) => order.indexOf(a.rows) - order.indexOf(b.rows) || (a.head === "own" ? -1 : 1));
  const beside = (to, text) => (to < 0 || to >= header.neurons ? null : make("a", { href: `#/neuron/${block}.${to}` }, text));
  return {
    title: `Neuron ${neuron.id}`,
    content: [
      make("div", { class: "title" }, make("h1", {}, `Neuron ${neuron.id}`),
        make("p", {}, make("a", { href: `#/block/${block}` }, `Block ${block}`), beside(number - 1, "Previous"), beside(number + 1, "Next"))),
      angles_of(neuron.angles),
      make("div", { class: "vectors" }, ...neuron.sets.map((set) => vector(set, longest))),
      make("p", { class: "note" }, `The number beside a token is its p, a softmax over all tokens, at − of the negated scores. The longest bar is the largest p of this neuron.`),
      ...clamp_panel(neuron, header, signal),
    ].filter((one) => one !== null),
  };
}
