"use strict";
// Keeps what is typed in this browser, counts what is left, and saves points.json. It reads the page's own boxes and nothing else.
(() => {
  const main = document.querySelector("main");
  const key = "unroll-points:" + main.dataset.kept;
  const cards = [...document.querySelectorAll("[data-student]")];
  const status = document.getElementById("status");
  const points = (card) => card.querySelector("input[type=number]");
  const comment = (card) => card.querySelector("textarea");
  const seen = (card) => card.querySelector("input[type=checkbox]");
  const name = (card) => JSON.stringify([card.dataset.student, card.dataset.item]);

  // What is typed belongs to the answer that was shown: where another has come since, the person is asked to look again.
  const read = (card) =>
    card.dataset.item === "all"
      ? { seen: seen(card).checked, of: card.dataset.of }
      : { points: points(card).value, comment: comment(card).value, of: card.dataset.of };

  let kept = {};
  try {
    kept = JSON.parse(localStorage.getItem(key) || "{}") || {};
  } catch {
    status.textContent = "This browser keeps nothing of what is typed: save points.json before you leave.";
  }

  const store = () => {
    try {
      localStorage.setItem(key, JSON.stringify(kept));
    } catch {
      status.textContent = "This browser has not kept what was typed: save points.json before you leave.";
    }
  };

  const isDone = (card) => {
    if (!card.querySelector(".changed").hidden) return false;
    if (card.dataset.item === "all") return seen(card).checked;
    return points(card).value !== "" && points(card).validity.valid;
  };
  const required = cards.filter((card) => card.dataset.left === "1");

  const show = () => {
    for (const card of cards) card.classList.toggle("done", isDone(card));
    const left = required.filter((card) => !isDone(card)).length;
    document.getElementById("left").textContent = left ? `${left} of ${required.length} left` : "Nothing is left";
  };

  for (const card of cards) {
    const before = kept[name(card)];
    if (before && typeof before === "object") {
      if (card.dataset.item === "all") seen(card).checked = before.seen === true;
      else {
        if (typeof before.points === "string") points(card).value = before.points;
        if (typeof before.comment === "string") comment(card).value = before.comment;
      }
      const typed = before.seen === true || before.points || before.comment;
      card.querySelector(".changed").hidden = !typed || before.of === card.dataset.of;
    }
    card.addEventListener("input", () => {
      card.querySelector(".changed").hidden = true;
      kept[name(card)] = read(card);
      store();
      show();
    });
  }

  const boxes = cards.map((card) => points(card) || seen(card));
  const go = (box) => {
    box.focus();
    box.closest("[data-student]").scrollIntoView({ block: "nearest" });
  };
  document.addEventListener("keydown", (event) => {
    const at = boxes.indexOf(event.target);
    if (event.key !== "Enter" || at < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const next = boxes[at + (event.shiftKey ? -1 : 1)];
    if (next) go(next);
  });

  document.getElementById("next").addEventListener("click", () => {
    const open = required.find((card) => !isDone(card));
    if (open) go(points(open) || seen(open));
  });

  document.getElementById("save").addEventListener("click", () => {
    const whole = { lab: main.dataset.lab, points: {}, seen: [] };
    let wrong = 0;
    for (const card of cards) {
      const student = card.dataset.student;
      if (card.dataset.item === "all") {
        if (isDone(card)) whole.seen.push(student);
        continue;
      }
      const given = {};
      if (!points(card).validity.valid) wrong += 1;
      else if (isDone(card)) given.points = points(card).valueAsNumber;
      if (comment(card).value.trim()) given.comment = comment(card).value.trim();
      if (Object.keys(given).length) (whole.points[student] ||= {})[card.dataset.item] = given;
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(whole, null, 1) + "\n"], { type: "application/json" }));
    link.download = "points.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    const left = required.filter((card) => !isDone(card)).length;
    status.textContent =
      "points.json was saved" +
      (wrong ? `; left out, for they hold no number that fits: ${wrong}` : "") +
      (left ? `; still open: ${left}.` : ".");
  });

  show();
})();
