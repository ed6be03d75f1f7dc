// The page's life: everything shown follows from data.js and from the address's hash, e.g. #error=part&page=2.
// Ids and names are only ever set as text, never as markup.
"use strict";
(() => {
  const PAGE_SIZE = 48;
  const MOST_PAIRS = 50;
  const SORTS = { worst: "worst IoU first", best: "best IoU first", unsure: "least certain first", id: "by id" };
  const TITLES = {
    max_box_acc: "MaxBoxAcc", max_box_acc_v2: "MaxBoxAccV2",
    peak_iou_threshold: "peak pixel IoU's threshold", pixels: "masks", iou: "IoU", at_iou: "",
  };
  const byId = (id) => document.getElementById(id);

  if (!window.REPORT || !window.REPORT_IMAGES) {
    byId("facts").textContent = "data.js is missing beside this page, or cut short; the rows are in images.csv.";
    return;
  }
  const { classes, metrics, pixel_metrics: pixelMetrics, error_types: errorTypes, interrupted, results } = window.REPORT;
  const images = window.REPORT_IMAGES.map(
    ([id, label, predicted, probability, iou, error, picture, failure]) =>
      ({ id, label, predicted, probability, iou, error, picture, failure, lower: id.toLowerCase() }));
  const hasIou = images.some((image) => image.iou !== null);
  const DEFAULTS = { sort: hasIou ? "worst" : "id", class: "", predicted: "", error: "", text: "", page: "1" };

  // ---- small helpers ----
  function make(name, attributes = {}, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value !== null && value !== undefined) node.setAttribute(key, value);
    }
    node.append(...children.filter((child) => child !== null));
    return node;
  }
  function show(id, ...children) {
    byId(id).hidden = false;
    (byId(id).querySelector("div") ?? byId(id)).append(...children);
  }
  const isGroup = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  const className = (label) => (label === null ? "" : classes[label] ?? `class ${label}`);
  const percent = (value) => (typeof value === "number" ? value.toFixed(2) : "");
  const pretty = (key) => TITLES[key] ?? metrics[key] ?? key.replaceAll("_", " ");
  const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

  function countBy(items, keyOf) {
    const counts = new Map();
    for (const item of items) counts.set(keyOf(item), (counts.get(keyOf(item)) ?? 0) + 1);
    return counts;
  }
  // Cells are texts or ready <td>; a column of names is flush left, as its head.
  function table(head, rows) {
    const isName = (i) => rows[0]?.[i] instanceof Node && rows[0][i].className === "name";
    const body = rows.map((row) => make("tr", {}, ...row.map((cell, i) => (cell instanceof Node && cell.tagName === "TD"
      ? cell : make(i ? "td" : "th", i ? {} : { scope: "row" }, cell)))));
    const heads = head.map((text, i) => make("th", { scope: "col", class: isName(i) ? "name" : null }, text));
    return make("table", {}, ...(head.length ? [make("thead", {}, make("tr", {}, ...heads))] : []), make("tbody", {}, ...body));
  }
  // Nested figures as rows of [name, text]; long lists are left to results.json.
  function flatten(value, name = []) {
    const label = name.filter((part) => part).join(", ");
    if (isGroup(value) && "value" in value) {
      const { value: figure, threshold, iou, ...rest } = value;
      const where = threshold === undefined ? "" : ` at threshold ${text(threshold)}, the best on these pictures`;
      return [[label + (iou === undefined ? "" : ` IoU ${text(iou)}`), text(figure) + where], ...flatten(rest, name)];
    }
    if (isGroup(value)) return Object.entries(value).flatMap(([key, item]) => flatten(item, [...name, pretty(key)]));
    if (Array.isArray(value)) {
      if (value.length && value.every((item) => isGroup(item) && "value" in item)) return value.flatMap((item) => flatten(item, name));
      if (value.length > 12 || value.some((item) => item !== null && typeof item === "object")) return [];
      return [[label, value.map(text).join(", ")]];
    }
    return value === null ? [] : [[label, text(value)]];
  }
  function text(value) {
    return typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(5))) : String(value);
  }

  // ---- state: the address's hash ----
  function readState() {
    const given = new URLSearchParams(location.hash.slice(1));
    return Object.fromEntries(Object.entries(DEFAULTS).map(([key, value]) => [key, given.get(key) ?? value]));
  }
  function go(changes, { quietly = false } = {}) {
    const state = { ...readState(), page: "1", ...changes };
    const kept = Object.entries(state).filter(([key, value]) => value !== DEFAULTS[key]);
    const hash = `#${new URLSearchParams(kept)}`;
    if (quietly) location.replace(hash);
    else location.hash = hash;
  }
  function goAndLook(changes) {
    go({ ...DEFAULTS, ...changes });
    byId("gallery").scrollIntoView();
  }
  const filterButton = (label, changes) =>
    make("button", { type: "button", class: "link", onclick: () => goAndLook(changes) }, label);

  // ---- figures ----
  function showFacts() {
    const missed = images.filter((image) => image.error === "missed").length;
    const words = [plural(images.length, "picture")];
    if (missed) words.push(`${missed.toLocaleString("en")} without a prediction`);
    if (interrupted) words.unshift("Stopped early: this is what there was");
    const links = [make("a", { href: "images.csv" }, "images.csv")];
    if (!interrupted) links.push(make("a", { href: "results.json" }, "results.json"));
    byId("facts").replaceChildren(words.join(", "), ...links.flatMap((link) => [" · ", link]));
  }
  function showScores() {
    const tables = [];
    if (isGroup(results.scores)) {
      const summaries = "images" in results.scores ? { "": results.scores } : results.scores;
      const published = results.published ?? {};
      const columns = Object.entries(summaries).flatMap(([name, summary]) =>
        ["class_mean", "image_mean"].map((kind) => [`${name} ${pretty(kind)}`.trim(), (metric) => summary[metric]?.[kind]]));
      if (Object.keys(published).length) columns.push(["published", (metric) => published[metric]]);
      const rows = Object.keys(metrics).map((metric) => [metrics[metric], ...columns.map(([, value]) => percent(value(metric)))])
        .filter(([, ...cells]) => cells.some((cell) => cell));
      tables.push(table(["percent", ...columns.map(([name]) => name)], rows));
    }
    if (isGroup(results.pixels)) {
      const { pixels, published } = results;
      const where = { iou: results.threshold, peak_iou: pixels.peak_iou_threshold };
      const ofPixels = table([`pixels, ${plural(pixels.images, "mask")}`, "percent", "at threshold", "published"],
        Object.keys(pixelMetrics).filter((key) => key in pixels).map((key) => [
          pixelMetrics[key], percent(pixels[key]), where[key] === undefined ? "" : text(where[key]), percent(published?.[key])]));
      // Where there are masks and no boxes, they are what the evaluation is about.
      if (results.scores?.boxed) tables.push(ofPixels);
      else tables.unshift(ofPixels);
    }
    tables.push(...compareMaps(results.maps ?? {}, results.mean ?? "image_mean"));
    const known = ["scores", "pixels", "published", "errors", "curves", "settings", "versions", "maps", "sweep"];
    const more = Object.entries(results).filter(([key, value]) => isGroup(value) && !known.includes(key));
    for (const [key, value] of more) {
      const rows = flatten(value);
      if (rows.length) tables.push(table([pretty(key), ""], rows));
    }
    if (tables.length) show("scores", ...tables);
    const other = Object.entries(results).filter(([key, value]) =>
      ["settings", "versions"].includes(key) || (!isGroup(value) && !["curves", "failures"].includes(key)));
    const rows = other.flatMap(([key, value]) => flatten(value, isGroup(value) ? [] : [pretty(key)]));
    if (rows.length) show("settings", table([], rows.map(([key, value]) => [key, make("td", { class: "name" }, value)])));
  }

  // Several kinds of maps beside one another, and, after a sweep, what was best on these very pictures.
  function compareMaps(maps, mean) {
    const tables = [];
    const loc = ["top1_loc", "top5_loc", "gt_known_loc"];
    if (Object.keys(maps).length > 1) {
      const columns = [
        ...loc.map((metric) => [metrics[metric], (one) => one.scores[metric][mean]]),
        ["MaxBoxAcc", (one) => one.max_box_acc?.max_box_acc.value],
        ["MaxBoxAccV2", (one) => one.max_box_acc?.max_box_acc_v2.value],
        ...Object.entries(pixelMetrics).map(([key, title]) => [title, (one) => one.pixels?.[key]]),
      ].filter(([, value]) => Object.values(maps).some((one) => typeof value(one) === "number"));
      const means = columns.some(([title]) => title === metrics.gt_known_loc) ? `Loc: ${pretty(mean)}` : "percent";
      tables.push(table([means, "threshold", ...columns.map(([title]) => title)], Object.entries(maps).map(
        ([title, one]) => [title, text(one.threshold), ...columns.map(([, value]) => percent(value(one)))])));
    }
    if (Array.isArray(results.sweep)) {
      const head = ["sweep", "threshold in force", metrics.gt_known_loc, "best on this test set", metrics.gt_known_loc];
      tables.push(table(head, results.sweep.map((row) => [
        row.map, text(row.threshold), percent(row.scores.gt_known_loc[mean]),
        text(row.best_threshold), percent(row.best_scores.gt_known_loc[mean]),
      ])));
    }
    return tables;
  }

  // ---- types of error ----
  function showErrors() {
    const counted = countBy(images.filter((image) => image.error), (image) => image.error);
    const given = isGroup(results.errors) ? results.errors : Object.fromEntries(
      [...counted].map(([error, count]) => [error, { count, percent: (100 * count) / images.length }]));
    const types = Object.keys(given).filter((error) => isGroup(given[error])); // beside them stands a number of images
    const rows = orderedErrors(types).map((error) => [error, given[error].count, given[error].percent]);
    if (!rows.length) return;
    const largest = Math.max(...rows.map(([, count]) => count), 1);
    const bars = rows.map(([error, count, share]) => make("li", {}, make("button",
      { type: "button", "data-error": error, "aria-pressed": "false", onclick: () => goAndLook({ error }) },
      make("span", {}, error),
      make("span", { class: "track" }, make("span", { class: "fill", style: `width:${(100 * count) / largest}%` })),
      make("span", { class: "count" }, `${count.toLocaleString("en")} · ${percent(share)}%`))));
    show("errors", make("ul", { class: "bars" }, ...bars));
  }
  function orderedErrors(errors) {
    const others = errors.filter((error) => !errorTypes.includes(error));
    return [...errorTypes.filter((error) => errors.includes(error)), ...others.sort()];
  }

  // ---- confusion ----
  function showConfusion() {
    const labelled = images.filter((image) => image.label !== null);
    const confused = labelled.filter((image) => image.predicted !== null && image.predicted !== image.label);
    const pairs = [...countBy(confused, (image) => `${image.label} ${image.predicted}`)].sort((a, b) => b[1] - a[1]);
    if (pairs.length) {
      const rows = pairs.slice(0, MOST_PAIRS).map(([key, count]) => {
        const [label, predicted] = key.split(" ");
        const button = filterButton(className(Number(label)), { class: label, predicted });
        return [make("td", { class: "name" }, button), make("td", { class: "name" }, className(Number(predicted))), String(count)];
      });
      show("pairs", table(["true class", "predicted as", "pictures"], rows));
    }
    const groups = new Map();
    for (const image of labelled) {
      const group = groups.get(image.label) ?? { images: 0, right: 0, ious: [] };
      group.images++;
      if (image.predicted === image.label) group.right++;
      if (image.iou !== null) group.ious.push(image.iou);
      groups.set(image.label, group);
    }
    const accuracy = (group) => group.right / group.images;
    const worst = [...groups].sort((a, b) => accuracy(a[1]) - accuracy(b[1]) || b[1].images - a[1].images);
    const rows = worst.map(([label, group]) => [
      make("td", { class: "name" }, filterButton(className(label), { class: String(label) })), String(group.images),
      percent(100 * accuracy(group)),
      group.ious.length ? (group.ious.reduce((sum, iou) => sum + iou, 0) / group.ious.length).toFixed(2) : "",
    ]);
    if (rows.length) show("classes", table(["class", "pictures", "Top-1 Cls, %", "mean IoU"], rows));
  }

  // ---- gallery ----
  const form = document.querySelector(".filters");
  const collator = new Intl.Collator("en", { numeric: true });
  const orders = {};
  function sorted(sort) {
    // A missed picture is the worst of all; one that has no true box is neither good nor bad and comes last.
    const iou = (image, last) => image.iou ?? (image.error === "missed" ? -1 : last);
    const compare = {
      worst: (a, b) => iou(a, 2) - iou(b, 2),
      best: (a, b) => iou(b, -2) - iou(a, -2),
      unsure: (a, b) => (a.probability ?? -1) - (b.probability ?? -1),
      id: (a, b) => collator.compare(a.id, b.id),
    };
    const known = sort in compare ? sort : DEFAULTS.sort;
    orders[known] ??= [...images].sort(compare[known]);
    return orders[known];
  }
  function select(state) {
    const text = state.text.toLowerCase();
    return sorted(state.sort).filter((image) =>
      (state.class === "" || String(image.label) === state.class) &&
      (state.predicted === "" || String(image.predicted) === state.predicted) &&
      (state.error === "" || image.error === state.error) && image.lower.includes(text));
  }
  function card(image) {
    const isRight = image.label !== null && image.label === image.predicted;
    const picture = image.picture
      ? make("img", { src: image.picture, loading: "lazy", decoding: "async",
        alt: `${image.id}: left with its boxes, right under its map` })
      : make("span", {}, "no picture");
    const words = [make("span", { class: "id" }, image.id)];
    if (image.label !== null) words.push(make("span", {}, "true: ", make("b", {}, className(image.label))));
    if (image.predicted !== null) {
      const sign = image.label === null ? null : make("span", { class: isRight ? "sign right" : "sign" }, isRight ? " ✓" : " ✗");
      const sure = image.probability === null ? "" : ` ${image.probability.toFixed(2)}`;
      words.push(make("span", {}, "predicted: ", make("b", {}, className(image.predicted)), sure, sign));
    }
    if (image.failure) words.push(make("span", { class: "failure" }, image.failure));
    words.push(make("span", { class: "foot" }, make("span", {}, image.iou === null ? "" : `IoU ${image.iou.toFixed(2)}`),
      image.error ? make("span", { class: image.error === "right" ? "badge right" : "badge" }, image.error) : null));
    return make("li", { class: "card" }, make("div", { class: "picture" }, picture), make("div", { class: "words" }, ...words));
  }
  function render() {
    const state = readState();
    const found = select(state);
    const pages = Math.max(1, Math.ceil(found.length / PAGE_SIZE));
    const page = Math.max(1, Math.min(pages, Math.floor(Number(state.page)) || 1));
    const shown = found.slice((page - 1) * PAGE_SIZE, page * PAGE_SIZE);
    document.querySelector(".cards").replaceChildren(...shown.map(card));
    for (const output of document.querySelectorAll(".pager output")) {
      output.textContent = found.length ? `${plural(found.length, "picture")}, page ${page} of ${pages}` : "no such picture";
    }
    const targets = { first: 1, previous: page - 1, next: page + 1, last: pages };
    for (const button of document.querySelectorAll(".pager button")) {
      const target = targets[button.dataset.go];
      button.dataset.page = target;
      button.disabled = target < 1 || target > pages || target === page;
    }
    for (const control of form.querySelectorAll("[name]")) {
      if (control !== document.activeElement || control.tagName === "SELECT") control.value = state[control.name];
    }
    for (const bar of document.querySelectorAll("#errors button")) {
      bar.setAttribute("aria-pressed", String(bar.dataset.error === state.error));
    }
  }
  function fillControls() {
    const option = (value, label) => make("option", { value }, label);
    form.elements.sort.append(...Object.entries(SORTS).map(([value, label]) => option(value, label)));
    for (const [name, field] of [["class", "label"], ["predicted", "predicted"]]) {
      const counts = [...countBy(images.filter((image) => image[field] !== null), (image) => image[field])];
      counts.sort((a, b) => collator.compare(className(a[0]), className(b[0])));
      form.elements[name].append(option("", "all"), ...counts.map(([label, n]) => option(label, `${className(label)} (${n})`)));
      form.elements[name].parentElement.hidden = !counts.length;
    }
    const errors = orderedErrors([...new Set(images.map((image) => image.error))].filter((error) => error));
    form.elements.error.append(option("", "all"), ...errors.map((error) => option(error, error)));
    form.elements.error.parentElement.hidden = !errors.length;
    form.addEventListener("change", (event) => {
      if (event.target.tagName === "SELECT") go({ [event.target.name]: event.target.value });
    });
    form.elements.text.addEventListener("input", (event) => go({ text: event.target.value }, { quietly: true }));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", (event) => {
      event.preventDefault();
      form.elements.text.value = "";
      go(DEFAULTS);
    });
    for (const button of document.querySelectorAll(".pager button")) {
      button.addEventListener("click", () => {
        go({ page: button.dataset.page });
        document.querySelector("#gallery").scrollIntoView();
      });
    }
    window.addEventListener("hashchange", render);
  }

  showFacts();
  showScores();
  showErrors();
  showConfusion();
  fillControls();
  render();
})();
