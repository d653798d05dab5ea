"use strict";
// The next-token explorer: logits of the whole vocabulary, likeliest first, under any temperature.

function unpacked(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float64Array.from({ length: bytes.length / 4 }, (_, at) => view.getFloat32(4 * at, true));
}

// Probabilities of softmax(logits / T), the log of their sum before division, and the entropy in nats.
function distribution(logits, temperature) {
  const scaled = logits.map((logit) => (logit - logits[0]) / temperature);
  const logSum = Math.log(scaled.reduce((sum, one) => sum + Math.exp(one), 0));
  const losses = scaled.map((one) => logSum - one);
  const p = losses.map((loss) => Math.exp(-loss));
  const entropy = p.reduce((sum, one, at) => sum + (one > 0 ? one * losses[at] : 0), 0);
  return { p, losses, entropy };
}

// How many of the likeliest tokens both cuts keep, and the probability they hold.
function cut(p, topP, minP) {
  let mass = 0;
  let kept = 0;
  while (kept < p.length && (topP >= 1 || mass < topP) && p[kept] >= minP * p[0]) mass += p[kept++];
  return { kept, mass };
}

function percent(share) {
  return share >= 0.0001 || share === 0 ? `${(100 * share).toFixed(2)} %` : `${(100 * share).toExponential(1)} %`;
}

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

(() => {
  const root = document.getElementById("explorer");
  const prompts = JSON.parse(document.getElementById("explorer-data").textContent);
  const find = (id) => document.getElementById(id);
  const sliders = ["temperature", "top-p", "min-p"].map(find);
  const body = root.querySelector(".bars tbody");
  let chosen, rows;

  function choose(prompt) {
    chosen = prompt;
    chosen.logits ??= unpacked(prompt.logits_V);
    chosen.plain ??= distribution(chosen.logits, 1);
    for (const button of root.querySelectorAll(".prompts button")) {
      button.setAttribute("aria-pressed", String(button.prompt === prompt));
    }
    const context = root.querySelector(".context");
    context.replaceChildren(prompt.text, element("mark", "", prompt.next_label ?? "?"));
    const shown = prompt.labels.map((label, rank) => ({ label, rank }));
    if (prompt.next_rank !== null && prompt.next_rank >= shown.length) {
      shown.push({ label: prompt.next_label, rank: prompt.next_rank });
    }
    rows = shown.map(row);
    body.replaceChildren(...rows.map((one) => one.line));
    draw();
  }

  function row({ label, rank }) {
    const line = document.createElement("tr");
    const token = element("td", "token", "");
    token.append(element("code", "", label));
    if (rank === chosen.next_rank) {
      line.classList.add("next");
      token.append(element("small", "", rank < chosen.labels.length ? "follows" : `follows, rank ${rank + 1}`));
    }
    const cell = element("td", "", "");
    const track = element("div", "track", "");
    const bar = element("i", "", "");
    const ghost = element("s", "", "");
    track.append(bar, ghost);
    cell.append(track);
    const p = element("td", "number", "");
    const loss = element("td", "number", "");
    line.append(token, cell, p, loss);
    return { line, rank, bar, ghost, p, loss };
  }

  function draw() {
    const [temperature, topP, minP] = sliders.map((slider) => Number(slider.value));
    const now = distribution(chosen.logits, temperature);
    const cuts = cut(now.p, topP, minP);
    const widest = Math.max(now.p[0], chosen.plain.p[0]);
    for (const one of rows) {
      const p = now.p[one.rank];
      const loss = now.losses[one.rank];
      one.bar.style.width = `${(100 * p) / widest}%`;
      one.ghost.style.width = `${(100 * chosen.plain.p[one.rank]) / widest}%`;
      one.p.textContent = percent(p);
      one.loss.textContent = loss.toFixed(3);
      one.line.dataset.p = String(p);
      one.line.classList.toggle("cut", one.rank >= cuts.kept);
      one.line.title = `p = ${p.toPrecision(5)}, −log p = ${loss.toFixed(4)} nats at T = ${temperature}`
        + `; p = ${chosen.plain.p[one.rank].toPrecision(5)} at T = 1`;
    }
    const next = chosen.next_rank;
    find("entropy").textContent = `${(now.entropy / Math.LN2).toFixed(3)} bits`;
    find("choices").textContent = Math.exp(now.entropy).toFixed(2);
    find("next-title").textContent = next === null ? "−log P of the likeliest" : "−log P of what follows";
    const at = next ?? 0;
    find("next-loss").replaceChildren(
      `${now.losses[at].toFixed(3)} nats`, element("small", "", `${chosen.plain.losses[at].toFixed(3)} at T = 1`));
    find("kept").replaceChildren(cuts.kept.toLocaleString("en"), element("small", "", `${percent(cuts.mass)} of p`));
    sliders[0].previousElementSibling.textContent = temperature.toFixed(2);
    sliders[1].previousElementSibling.textContent = topP < 1 ? topP.toFixed(2) : "off";
    sliders[2].previousElementSibling.textContent = minP > 0 ? minP.toFixed(3) : "off";
  }

  for (const prompt of prompts) {
    const button = element("button", "", prompt.text.slice(-28) || "start of a document");
    button.type = "button";
    button.prompt = prompt;
    button.title = prompt.origin;
    button.prepend(element("small", "", prompt.origin.split(",")[0]));
    button.addEventListener("click", () => choose(prompt));
    root.querySelector(".prompts").append(button);
  }
  for (const slider of sliders) {
    slider.addEventListener("input", draw);
    slider.addEventListener("dblclick", () => { slider.value = slider.defaultValue; draw(); });
  }
  choose(prompts[0]);
  root.hidden = false;
})();
