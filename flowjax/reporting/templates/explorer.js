"use strict";
// Shows what lies in the page's data at the setting of each slider. It computes no science: flowjax did, and flowjax/reporting/explorer.py
// says what each entry is.

const data = JSON.parse(document.getElementById("data").textContent);
const by = (id) => document.getElementById(id);
const sliders = { t: by("t"), shift: by("shift"), low: by("low"), high: by("high") };
const queries = [...document.querySelectorAll(".query")];
const SETTLED = 0.5; // the weight from which on one sample counts as the only one, as at the turning point

// Numbers in words

const percent = (share) => {
  const of = 100 * share;
  if (of > 0 && of < 0.05) return "<0.1 %";
  return (of >= 10 || of === 0 ? of.toFixed(0) : of.toFixed(1)) + " %";
};
const time = (t) => t.toFixed(t > 0 && t < 0.1 ? 3 : 2);
const number = (value) => Number(value.toPrecision(3)).toString();
const steps = (count) => `${count} ${count === 1 ? "step" : "steps"}`;
const many = (value) => (value >= 10 ? Math.round(value).toLocaleString("en") : value.toFixed(1));

// Pictures: each is cut out of a sheet of many.

const sheets = {};
const picture = (canvas, kind, row, column) => {
  const { width, height } = data.pictures;
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, width, height);
  pen.drawImage(sheets[kind], column * width, row * height, width, height, 0, 0, width, height);
};
const sampleOf = (place) => {
  const { row, class: of } = data.samples[place];
  return `sample ${row.toLocaleString("en")}` + (of === null ? "" : `, class ${of}`);
};

// t

const stage = (t) => {
  if (!data.turn) return "";
  return t < data.turn.t ? ", in navigation" : ", in refinement";
};

function showTime() {
  const i = Number(sliders.t.value), t = data.t[i], mean = data.top1.mean[i];
  const tops = data.weights[i].map((weights) => weights[0]);
  const settled = tops.filter((weight) => weight >= SETTLED).length;
  for (const mark of document.querySelectorAll(".cursor, .dot")) mark.style.left = `${100 * t}%`;
  document.querySelector(".dot").style.top = `${100 * (1 - mean)}%`;
  by("t-value").value = `t = ${time(t)}`;
  sliders.t.setAttribute("aria-valuetext", `t = ${time(t)}${stage(t)}`);
  const turn = data.turn ? `; the turn is at ${time(data.turn.t)}` : "";
  by("time-words").textContent =
    `At t = ${time(t)}${stage(t)}${turn}, the likeliest sample has ${percent(mean)} of the weight on average. ` +
    `In ${settled || "none"} of the ${queries.length} queries shown one sample has half of it or more.`;
  queries.forEach((query, q) => showQuery(query, q, i));
}

function showQuery(query, q, i) {
  const heaviest = data.heaviest[i][q], weights = data.weights[i][q], t = time(data.t[i]);
  for (const canvas of query.querySelectorAll(".pictures canvas")) {
    const kind = canvas.dataset.kind;
    picture(canvas, kind, q, i);
    const what = kind === "x_t" ? `x_t at t = ${t}` : `Prediction of the ${kind} at t = ${t}`;
    canvas.setAttribute("aria-label", kind === "oracle" && weights[0] >= SETTLED ? `${what}: nearly ${sampleOf(heaviest[0])}` : what);
  }
  const others = Math.max(0, 1 - weights.reduce((sum, weight) => sum + weight, 0));
  query.querySelectorAll(".bars li").forEach((line, k) => {
    const weight = k < weights.length ? weights[k] : others;
    line.querySelector(".bar span").style.width = `${100 * weight}%`;
    line.querySelector(".weight").textContent = percent(weight);
    line.classList.toggle("weightless", weight < 5e-4);
    if (k < weights.length) {
      const place = heaviest[k], canvas = line.querySelector("canvas");
      picture(canvas, "samples", Math.floor(place / data.pictures.columns), place % data.pictures.columns);
      canvas.setAttribute("aria-label", sampleOf(place));
      canvas.title = sampleOf(place);
    }
  });
  const share = data.effective[i][q], competitors = data.competitors[q].toLocaleString("en");
  query.classList.toggle("settled", weights[0] >= SETTLED);
  query.querySelector(".share").textContent =
    share < 1.05 ? `One of ${competitors} has it all.` : `As if ${many(share)} of ${competitors} shared it.`;
}

// Steps and guidance

const chosen = () => data.frameworks[Number(by("framework").value)];
const beginnings = () => {
  const { steps: rows } = chosen();
  return rows[rows.length === 1 ? 0 : Number(sliders.shift.value)];
};

/** What the shift does, in a sentence or two. */
function shiftInWords(s, begins, before) {
  const { title, steps: rows, shift_lines: lines } = chosen();
  const where = data.turn
    ? `${before} of ${steps(begins.length)} lie before the turn (${percent(before / begins.length)})`
    : `${steps(begins.length)}`;
  const advised = data.advised.shift === null ? "" : ` Advised: ${number(data.shifts[data.advised.shift])}.`;
  if (lines.every((line) => line === "")) return `${title} has no shift: ${where}.`;
  if (rows.length === 1) return `${title}'s sampler keeps its steps, ${where}; s = ${number(s)} acts in its training.${advised}`;
  return `With s = ${number(s)}, ${where}: ${data.directions[Number(sliders.shift.value)]}.${advised}`;
}

function showSteps() {
  const begins = beginnings(), s = data.shifts[Number(sliders.shift.value)];
  const isBefore = (t) => data.turn !== null && t < data.turn.t;
  const before = begins.filter(isBefore).length;
  by("shift-value").value = number(s);
  const marks = document.querySelector(".marks");
  marks.replaceChildren(
    ...begins.map((t) => {
      const mark = document.createElement("div");
      mark.style.left = `${100 * t}%`;
      mark.className = isBefore(t) ? "before" : "";
      return mark;
    }),
  );
  by("shift-words").textContent = shiftInWords(s, begins, before);
  sliders.shift.setAttribute("aria-valuetext", `s = ${number(s)}`);
  showInterval();
}

function showInterval() {
  const [low, high] = [Number(sliders.low.value), Number(sliders.high.value)];
  const [from, to] = [data.ends[low], data.ends[high]];
  const begins = beginnings(), guided = begins.filter((t) => from <= t && t < to);
  const early = data.turn === null ? 0 : guided.filter((t) => t < data.turn.t).length;
  by("low-value").value = number(from);
  by("high-value").value = number(to);
  sliders.low.setAttribute("aria-valuetext", `t = ${number(from)}`);
  sliders.high.setAttribute("aria-valuetext", `t = ${number(to)}`);
  const band = document.querySelector(".guided");
  band.style.left = `${100 * from}%`;
  band.style.width = `${100 * (to - from)}%`;
  const turn = data.turn ? `, ${early} of them before the turn` : "";
  const advised = data.advised.interval
    ? ` Advised: ${data.advised.interval.map((end) => number(data.ends[end])).join(" to ")}.`
    : " No interval is advised.";
  by("interval-words").textContent = `Guidance from t = ${number(from)} to ${number(to)}: ${steps(guided.length)}${turn}.${advised}`;
  showLines(low, high);
}

function showLines(low, high) {
  const framework = chosen(), shift = Number(sliders.shift.value), count = data.ends.length;
  const pair = low * count - (low * (low + 1)) / 2 + high - low - 1; // in the order of itertools.combinations
  const places = framework.interval_of[framework.interval_of.length === 1 ? 0 : shift];
  const lines = [framework.shift_lines[shift], framework.interval_lines[places[pair]]].filter((line) => line !== "");
  by("lines").textContent = lines.join("\n");
  by("note").textContent = `${framework.title}: ${framework.time}. ${framework.note}`;
}

/** The ends of the interval stay apart: the one that is moved pushes the other. */
function moveEnd(moved) {
  const last = data.ends.length - 1;
  let low = Number(sliders.low.value), high = Number(sliders.high.value);
  if (moved === "low") {
    low = Math.min(low, last - 1);
    high = Math.max(high, low + 1);
  } else {
    high = Math.max(high, 1);
    low = Math.min(low, high - 1);
  }
  sliders.low.value = low;
  sliders.high.value = high;
  showInterval();
}

// At the beginning

async function begin() {
  await Promise.all(
    Object.entries(data.pictures.sheets).map(async ([kind, address]) => {
      sheets[kind] = new Image();
      sheets[kind].src = address;
      await sheets[kind].decode();
    }),
  );
  document.body.classList.toggle("smooth", data.pictures.width >= 48);
  document.body.classList.toggle("smooth-bars", data.pictures.width >= 20);
  const turn = data.turn ? data.turn.t : null;
  document.querySelector(".navigation").style.width = turn === null ? "0" : `${100 * turn}%`;
  document.querySelector(".refinement").style.width = turn === null ? "0" : `${100 * (1 - turn)}%`;
  document.querySelector(".chart").classList.toggle("early", turn !== null && turn < 0.25);
  document.querySelector(".chart").classList.toggle("late", turn !== null && turn > 0.75);
  for (const name of turn === null ? [".navigation", ".refinement"] : []) document.querySelector(name).hidden = true;
  for (const mark of document.querySelectorAll(".turn")) {
    mark.hidden = turn === null;
    if (turn !== null) mark.style.left = `${100 * turn}%`;
  }
  document.querySelector(".slider-of-time input").style.width =
    `calc(${data.t[data.t.length - 1]} * (100% - var(--thumb)) + var(--thumb))`;
  const start = turn === null ? 0.5 : 0.8 * turn; // a little before the turn
  sliders.t.value = data.t.reduce((best, t, i) => (Math.abs(t - start) < Math.abs(data.t[best] - start) ? i : best), 0);
  sliders.shift.value = data.advised.shift ?? data.shifts.indexOf(1);
  const [low, high] = data.advised.interval ?? [0, data.ends.length - 1];
  sliders.low.value = low;
  sliders.high.value = high;
  sliders.t.addEventListener("input", showTime);
  sliders.shift.addEventListener("input", showSteps);
  sliders.low.addEventListener("input", () => moveEnd("low"));
  sliders.high.addEventListener("input", () => moveEnd("high"));
  by("framework").addEventListener("change", showSteps);
  showTime();
  showSteps();
  document.body.dataset.ready = "yes";
}

begin();
