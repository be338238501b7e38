// Clamp: hold a neuron at a value, and watch next token, concept and answer change.
import { stream } from "./api.js";
import { fixed, make, probability, readings, signed, three, whole } from "./dom.js";
import { last_concept } from "./search.js";

const PLACES = {
  post: "post: what the neuron writes with",
  linear: "linear: what up says, before the gate",
  gate: "gate: what opens it, before the activation",
};
const MODES = {
  set: "set: always this value",
  add: "add: its own value and this",
  scale: "scale: its own value times this",
  max: "max: at least this",
  "if-active": "if active: this, where it is on that side",
};
// What was set stays set from one neuron to the next.
const kept = { place: "post", mode: "set", unit: "sd", value: 10, prompt: null, chat: null, concept: null, tokens: 40 };

const field = (text, ...controls) => make("div", { class: "field" }, make("label", { for: controls[0].id }, text), ...controls);
const select = (id, names, chosen) => make("select", { id },
  ...Object.entries(names).map(([value, text]) => make("option", { value, selected: value === chosen }, text)));

function side(name, title) {
  const said = make("p", { class: "said", id: `said-${name}` });
  const next = make("div", { id: `next-${name}` });
  return {
    said, next,
    element: make("section", { class: `side ${name}` }, make("h3", {}, title), said, make("h3", {}, "Likeliest next tokens after the prompt"), next),
  };
}

const figure = (id, title, unit) => {
  const value = make("dd", { class: "after", id }), how = make("dd", { class: "how" }, unit);
  return { value, how, element: make("div", { class: "figure" }, make("dt", {}, title), value, how) };
};

export function clamp_panel(neuron, header, leaving) {
  const heading = make("h2", { id: "clamp" }, "Hold it at a value");
  const bench = header.bench;
  if (!bench) {
    return [heading, make("p", { id: "reads-only" }, "This page only reads. To clamp neurons and watch the answer change, start it with a model: ",
      make("code", {}, header.how_to_clamp), ".")];
  }
  kept.chat ??= bench.chat;
  kept.prompt ??= bench.chat ? "What is your favorite animal?" : "My favorite animal is the";
  const read = neuron.sets.find((set) => set.rows === "up") ?? neuron.sets[0];
  const watched = kept.concept ?? (last_concept || (read.top[0]?.text.trim() ?? ""));

  const place = select("place", Object.fromEntries(bench.places.map((name) => [name, PLACES[name] ?? name])), kept.place);
  const mode = select("mode", MODES, kept.mode);
  const slider = make("input", { id: "slider", type: "range", min: "-50", max: "50", step: "1", value: String(kept.value), "aria-describedby": "held" });
  const number = make("input", { id: "value", type: "number", step: "any", value: String(kept.value), "aria-label": "Value, as a number" });
  const unit = select("unit", { sd: "standard deviations", absolute: "as it is" }, kept.unit);
  const prompt = make("textarea", { id: "prompt", maxlength: "8000" });
  prompt.value = kept.prompt;
  const chat = make("input", { id: "chat", type: "checkbox", checked: kept.chat && bench.chat, disabled: !bench.chat });
  const concept = make("input", { id: "concept-watched", value: watched, autocomplete: "off", spellcheck: "false", size: "14" });
  const length = make("input", { id: "tokens", type: "number", min: "0", max: String(bench.answer_tokens), value: String(kept.tokens) });
  const run = make("button", { id: "run", class: "main" }, "Run");
  const stop = make("button", { id: "stop", type: "button", disabled: true }, "Stop");
  const status = make("p", { id: "status", class: "note", role: "status" });
  const held = make("p", { id: "held", class: "note" },
    `A standard deviation is taken on ${whole(bench.statistics_tokens)} tokens of the calibration text.`);

  slider.addEventListener("input", () => { number.value = slider.value; });
  number.addEventListener("input", () => { slider.value = number.value; });
  const units = () => {
    unit.disabled = mode.value === "scale";
    const in_deviations = !unit.disabled && unit.value === "sd";
    slider.disabled = !in_deviations;
  };
  mode.addEventListener("change", units);
  unit.addEventListener("change", units);
  units();

  const before = side("before", "Without the clamp"), after = side("after", "With the clamp");
  const figures = {
    concept: figure("figure-concept", "Log-probability of the concept", ""),
    kl: figure("figure-kl", "KL of the next token", "nats, unclamped to clamped, after the prompt"),
    mean: figure("figure-mean-kl", "Mean KL", "nats a token, over all positions of the prompt"),
  };
  const results = make("div", { id: "results", hidden: true },
    make("dl", { class: "figures" }, figures.concept.element, figures.kl.element, figures.mean.element),
    make("div", { class: "sides" }, before.element, after.element));

  let running = null;
  leaving.addEventListener("abort", () => running?.abort());
  stop.addEventListener("click", () => running?.abort());

  const show_bars = (answers) => {
    const longest = Math.max(...Object.values(answers).flatMap((answer) => answer.next.map((one) => one.p)));
    before.next.replaceChildren(readings(answers.before.next, longest, "Next tokens without the clamp"));
    if (answers.after) after.next.replaceChildren(readings(answers.after.next, longest, "Next tokens with the clamp"));
  };

  const submit = async () => {
    if (running) return;
    Object.assign(kept, {
      place: place.value, mode: mode.value, unit: unit.value, value: Number(number.value), prompt: prompt.value,
      chat: chat.checked, tokens: Number(length.value),
    });
    if (concept.value !== watched) kept.concept = concept.value;
    running = new AbortController();
    run.disabled = true;
    stop.disabled = false;
    status.textContent = "Asking.";
    status.className = "note";
    results.hidden = false;
    results.setAttribute("aria-busy", "true");
    const said = {};
    for (const [name, one] of Object.entries({ before, after })) {
      said[name] = make("span", {});
      one.said.replaceChildren(...(chat.checked ? [] : [make("span", { class: "prompt" }, prompt.value)]), said[name]);
      one.next.replaceChildren();
    }
    for (const one of Object.values(figures)) one.value.textContent = "";
    figures.concept.how.textContent = "";
    const answers = {};
    const started = performance.now();
    try {
      const body = {
        prompt: prompt.value, chat: chat.checked, concept: concept.value, tokens: Number(length.value),
        clamps: [{ id: neuron.id, place: place.value, mode: mode.value, value: Number(number.value), unit: unit.value }],
      };
      let complete = false;
      await stream("clamp", body, (event) => {
        if (event.event === "measuring") status.textContent = "Measuring the neuron on the calibration text.";
        if (event.event === "start") {
          const [one] = event.clamps;
          held.textContent = `${one.mode === "scale" ? "Factor" : "Value"} ${three(one.value)}. On ${whole(one.positions)} tokens of the calibration text it has ` +
            `mean ${three(one.mean)}, standard deviation ${three(one.deviation)}, from ${three(one.smallest)} to ${three(one.largest)}.`;
          status.textContent = `Reading the prompt, ${event.prompt_tokens} tokens.`;
        }
        if (event.event === "before") {
          answers.before = event.answer;
          show_bars(answers);
        }
        if (event.event === "after") {
          answers.after = event.answer;
          show_bars(answers);
          const was = answers.before.concept_log_p, is = event.answer.concept_log_p;
          if (was === null || is === null) {
            figures.concept.value.textContent = "none";
            figures.concept.how.textContent = "name a concept to watch it";
          } else {
            figures.concept.value.textContent = signed(event.answer.change, 2);
            figures.concept.how.textContent = `nats, from ${fixed(was, 2)} to ${fixed(is, 2)}: p ${probability(Math.exp(was))} before, ${probability(Math.exp(is))} after`;
          }
          figures.kl.value.textContent = three(event.answer.kl);
          figures.mean.value.textContent = three(event.answer.mean_kl);
          status.textContent = "Writing the answers.";
        }
        if (event.event === "text") said[event.side].textContent += event.text;
        if (event.event === "done") complete = true;
      }, running.signal);
      status.textContent = complete ? `Done in ${fixed((performance.now() - started) / 1000, 1)} s.` : "The program ended before the answer was whole.";
    } catch (error) {
      const stopped = error.name === "AbortError";
      status.textContent = stopped ? "Stopped." : error.message;
      status.className = stopped ? "note" : "wrong";
    } finally {
      running = null;
      run.disabled = false;
      stop.disabled = true;
      results.removeAttribute("aria-busy");
    }
  };

  const form = make("form", { class: "panel", "aria-labelledby": "clamp", onsubmit: (event) => { event.preventDefault(); submit(); } },
    make("div", {},
      field("Place", place), field("Mode", mode),
      make("div", { class: "field" }, make("label", { for: "slider" }, "Value"), make("div", { class: "slide" }, slider, number),
        make("div", { class: "ends", "aria-hidden": "true" }, make("span", {}, "−50"), make("span", {}, "0"), make("span", {}, "+50"))),
      field("Unit", unit), held),
    make("div", {},
      field("Prompt", prompt),
      make("div", { class: "row" }, make("label", { class: "check" }, chat, bench.chat ? "as a chat message" : "as a chat message (this model has no chat template)")),
      make("div", { class: "row" }, field("Concept to watch", concept), field("New tokens", length)),
      make("div", { class: "row" }, run, stop), status));
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit();
  });
  return [heading, form, results];
}
