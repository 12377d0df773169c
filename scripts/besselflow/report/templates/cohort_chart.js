"use strict";
(() => {
  const data = JSON.parse(document.getElementById("chart-data").textContent);
  const metric = document.getElementById("metric");
  const by = document.getElementById("by");
  const WIDTH = 860, HEIGHT = 320, LEFT = 56, TOP = 12, BOTTOM = 40, FEWEST = 5;

  function make(name, attributes, parent, text) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  }

  function quantile(sorted, share) {
    const at = (sorted.length - 1) * share, low = Math.floor(at);
    return sorted[low] + (at - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
  }

  function ticks(low, high) {
    const rough = (high - low) / 5, decade = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((each) => each * decade).find((each) => each >= rough);
    const found = [];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9 * step; n += 1) found.push(n * step);
    return [found, Math.max(0, -Math.floor(Math.log10(step) + 1e-9))];
  }

  // One series per method, or per method and group.
  function series(key) {
    const grouping = by && by.value ? data.groups[by.value] : null;
    const found = [];
    data.methods.forEach((method, place) => {
      const values = data.values[key][method];
      const parts = grouping ? grouping.values : [null];
      parts.forEach((part, number) => {
        const points = [];
        values.forEach((value, index) => {
          if (value !== null && (part === null || grouping.of[index] === part)) {
            points.push({ value, sample: data.samples[index], index });
          }
        });
        const sorted = points.map((point) => point.value).sort((a, b) => a - b);
        found.push({ method, part, place, number, count: parts.length, points, sorted });
      });
    });
    return found.filter((each) => each.points.length > 0);
  }

  function draw(key, all) {
    const heading = data.metrics.find((each) => each.key === key).heading;
    const holder = document.getElementById("drawing");
    holder.replaceChildren();
    const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" }, holder);
    svg.setAttribute("aria-label", `${heading} of every sample by method; the numbers follow below`);
    const values = all.flatMap((each) => each.sorted);
    let low = Math.min(...values), high = Math.max(...values);
    const margin = 0.06 * (high - low) || 0.05 * Math.abs(high) || 1;
    low -= margin; high += margin;
    const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low);
    const [marks, decimals] = ticks(low, high);
    for (const mark of marks) {
      make("line", { class: "grid", x1: LEFT, x2: WIDTH - 8, y1: y(mark), y2: y(mark) }, svg);
      make("text", { x: LEFT - 6, y: y(mark) + 4, "text-anchor": "end" }, svg, mark.toFixed(decimals));
    }
    const methods = data.methods.filter((method) => all.some((each) => each.method === method));
    const room = (WIDTH - LEFT - 8) / methods.length;
    methods.forEach((method, place) => {
      const label = { x: LEFT + room * (place + 0.5), y: HEIGHT - 16, "text-anchor": "middle" };
      const final = method === data.final;
      make("text", final ? { ...label, class: "final" } : label, svg, method);
      if (final) make("text", { ...label, y: HEIGHT - 2 }, svg, "(final)");
    });
    for (const each of all) {
      const width = 0.8 * room / each.count;
      const centre = LEFT + room * (methods.indexOf(each.method) + 0.1) + width * (each.number + 0.5);
      const half = Math.min(0.36 * width, 26), colour = colourOf(each);
      const spread = Math.min(half, 2 + each.points.length);
      for (const point of each.points) {
        // The golden ratio spreads points evenly, and each sample stays at its place.
        const shift = spread * (2 * ((point.index * 0.618034) % 1) - 1);
        const dot = make("circle", { cx: centre + shift, cy: y(point.value), r: 3, fill: colour }, svg);
        make("title", {}, dot, `${point.sample}: ${point.value}`);
      }
      const [first, middle, last] = [0.25, 0.5, 0.75].map((share) => y(quantile(each.sorted, share)));
      // A box around fewer points would claim more than they tell.
      if (each.points.length >= FEWEST) make("rect", { class: "box", x: centre - half, width: 2 * half, y: last, height: first - last, stroke: colour }, svg);
      make("line", { class: "median", x1: centre - half, x2: centre + half, y1: middle, y2: middle, stroke: colour }, svg);
    }
    document.getElementById("chart-title").textContent = `${heading} by method`
      + (by && by.value ? ` and ${by.value}` : "");
  }

  function colourOf(each) {
    return `var(--c${(each.part === null ? each.place : each.number) % 12})`;
  }

  function explain(all) {
    const legend = document.getElementById("legend");
    legend.replaceChildren();
    const seen = new Set();
    for (const each of all) {
      if (each.part === null || seen.has(each.part)) continue;
      seen.add(each.part);
      const entry = document.createElement("span");
      entry.style.setProperty("--own", colourOf(each));
      entry.textContent = each.part;
      legend.append(entry);
    }
  }

  function number(key, all) {
    const digits = data.metrics.find((each) => each.key === key).digits;
    const text = (value) => value.toFixed(digits).replace("-", "−");
    const table = document.getElementById("numbers");
    table.replaceChildren();
    const grouped = all.some((each) => each.part !== null);
    const heads = ["Method", ...(grouped ? [by.value] : []), "Samples", "Median", "Middle half"];
    const head = table.createTHead().insertRow();
    for (const name of heads) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = name;
      head.append(cell);
    }
    const body = table.createTBody();
    for (const each of all) {
      const row = body.insertRow();
      const name = document.createElement("th");
      name.scope = "row";
      name.textContent = each.method;
      row.append(name);
      const [first, middle, last] = [0.25, 0.5, 0.75].map((share) => text(quantile(each.sorted, share)));
      for (const cell of [...(grouped ? [each.part] : []), each.points.length, middle, `${first} to ${last}`]) {
        row.insertCell().textContent = cell;
      }
    }
  }

  function compare(key) {
    const table = document.getElementById("comparisons");
    if (!table) return;
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      row.hidden = row.dataset.metric !== key;
      if (!row.hidden) shown += 1;
    }
    table.hidden = shown === 0;
    document.getElementById("no-comparison").hidden = shown > 0;
  }

  function show() {
    const all = series(metric.value);
    draw(metric.value, all);
    explain(all);
    number(metric.value, all);
    compare(metric.value);
  }

  document.getElementById("chart-controls").hidden = false;
  document.getElementById("distribution").hidden = false;
  metric.addEventListener("change", show);
  if (by) by.addEventListener("change", show);
  show();
})();
