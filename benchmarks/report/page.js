// What a report does beyond showing: tables sort and filter, charts zoom and name their values, the gallery filters.
// Everything is in the page before this runs; without scripts nothing is missing but these three.
"use strict";
(() => {
  const make = (tag, attributes = {}, ...children) => {
    const found = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
    found.append(...children);
    return found;
  };
  const drawn = (tag, attributes = {}) => {
    const found = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
    return found;
  };

  // -- tables -------------------------------------------------------------------------------------------------------
  const numberOf = (text) => {
    const found = text.replace(/−/g, "-").replace(/,(?=\d{3})/g, "").match(/^[^\d+-]{0,2}([+-]?\d+(\.\d+)?(e[+-]?\d+)?)/i);
    return found ? parseFloat(found[1]) : NaN;
  };

  function sortable(table) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    const names = heads.map((head) => head.textContent);
    const values = new Map([...body.rows].map((row) => [row, [...row.cells].map((cell) => cell.dataset.value ?? cell.textContent.trim())]));
    const select = make("select", { "aria-label": "sort by" }, make("option", { value: "" }, "as written"));
    names.forEach((name, column) => select.append(make("option", { value: `${column} 1` }, `${name} ▲`), make("option", { value: `${column} -1` }, `${name} ▼`)));

    const sort = (column, way) => {
      const numeric = [...values.values()].filter((row) => !Number.isNaN(numberOf(row[column]))).length;
      const compare = (a, b) => {
        const [left, right] = [values.get(a)[column], values.get(b)[column]];
        if (column && numeric) {
          const [x, y] = [numberOf(left), numberOf(right)];
          if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y); // what has no number is last
          return way * (x - y);
        }
        return way * left.localeCompare(right, "en", { numeric: true });
      };
      const rows = [...values.keys()];
      const floors = rows.filter((row) => row.classList.contains("floor"));
      const others = rows.filter((row) => !row.classList.contains("floor"));
      if (column >= 0) others.sort(compare);
      body.append(...(column >= 0 ? [...others, ...floors] : rows));
      heads.forEach((head, place) => head.setAttribute("aria-sort", place !== column ? "none" : way > 0 ? "ascending" : "descending"));
      select.value = column >= 0 ? `${column} ${way}` : "";
    };
    heads.forEach((head, column) => {
      const button = make("button", { type: "button" }, names[column]);
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort"); // first names from A, numbers from the largest; then turned round
        sort(column, now === "descending" || (now !== "ascending" && !column) ? 1 : -1);
      });
      head.replaceChildren(button);
    });
    select.addEventListener("change", () => {
      const [column, way] = select.value ? select.value.split(" ").map(Number) : [-1, 1];
      sort(column, way);
    });
    const tools = make("div", { class: "tools" }, make("label", { class: "sort" }, "Sort by", select));
    if (body.rows.length > 12) tools.prepend(rowFilter(body, values));
    table.parentElement.before(tools);
  }

  function rowFilter(body, values) {
    const input = make("input", { type: "search", "aria-label": "show rows with these words" });
    const count = make("span", { class: "soft", "aria-live": "polite" });
    const texts = new Map([...values].map(([row, cells]) => [row, cells.join(" ").toLowerCase()]));
    const show = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const [row, text] of texts) {
        row.hidden = !words.every((word) => text.includes(word));
        shown += !row.hidden;
      }
      count.textContent = words.length ? ` ${shown} of ${body.rows.length} rows` : "";
    };
    input.addEventListener("input", show);
    return make("label", {}, "Filter rows: ", input, count);
  }

  // -- charts -------------------------------------------------------------------------------------------------------
  const LEFT = 56, RIGHT = 14, TOP = 12, BOTTOM = 44; // as in chart.py

  const ticks = (low, high, most) => {
    const rough = (high - low) / Math.max(most, 1);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => power * factor).find((each) => each >= rough * (1 - 1e-9));
    const found = [];
    for (let place = Math.ceil(low / step - 1e-9); place <= Math.floor(high / step + 1e-9); place++) found.push(+(place * step).toPrecision(12));
    return found;
  };

  function interactive(figure) {
    const svg = figure.querySelector("svg.plot"), inside = svg.querySelector("svg.inside"), axes = svg.querySelector("g.axes");
    const log = figure.dataset.log === "1";
    const pair = (name) => figure.dataset[name].split(" ").map(Number);
    const along = (value) => (log ? Math.log(value) : value), back = (value) => (log ? Math.exp(value) : value);
    const pairs = (element) => element.dataset.p.split(" ").map((each) => each.split(",").map(Number));
    const things = [...inside.querySelectorAll("[data-p]")].map((element) => ({ element, points: pairs(element), mark: element.classList.contains("mark") }));
    const start = { x: pair("x").map(along), y: pair("y") };
    let view = { x: [...start.x], y: [...start.y] }, width = 720, height = 400, chosen = null;
    const value = make("p", { class: "value", "aria-live": "polite" });
    const atX = (x) => LEFT + ((along(x) - view.x[0]) / (view.x[1] - view.x[0])) * (width - LEFT - RIGHT);
    const atY = (y) => height - BOTTOM - ((y - view.y[0]) / (view.y[1] - view.y[0])) * (height - TOP - BOTTOM);

    function draw() {
      width = Math.max(260, Math.round(figure.clientWidth));
      height = Math.round(Math.min(420, Math.max(270, width * 0.56)));
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      const box = [LEFT, TOP, width - LEFT - RIGHT, height - TOP - BOTTOM];
      inside.setAttribute("viewBox", box.join(" "));
      ["x", "y", "width", "height"].forEach((name, place) => inside.setAttribute(name, box[place]));
      for (const { element, points, mark } of things) {
        if (mark) element.setAttribute("transform", `translate(${atX(points[0][0]).toFixed(1)} ${atY(points[0][1]).toFixed(1)})`);
        else element.setAttribute("points", points.map(([x, y]) => `${atX(x).toFixed(1)},${atY(y).toFixed(1)}`).join(" "));
      }
      for (const line of inside.querySelectorAll("line.level")) {
        const y = atY(+line.dataset.y);
        for (const [name, at] of [["x1", LEFT], ["x2", width - RIGHT], ["y1", y], ["y2", y]]) line.setAttribute(name, at);
      }
      axes.replaceChildren();
      const label = (text, x, y, anchor) => {
        const found = drawn("text", { x, y, "text-anchor": anchor });
        found.textContent = String(text);
        axes.append(found);
      };
      for (const y of ticks(...view.y, 6)) {
        axes.append(drawn("line", { x1: LEFT, x2: width - RIGHT, y1: atY(y), y2: atY(y) }));
        label(y, LEFT - 6, atY(y) + 4, "end");
      }
      let last = -Infinity;
      for (const x of ticks(back(view.x[0]), back(view.x[1]), Math.max(3, Math.floor(width / 90)))) {
        if ((log && x <= 0) || atX(x) - last < 40) continue;
        last = atX(x);
        axes.append(drawn("line", { x1: last, x2: last, y1: TOP, y2: height - BOTTOM }));
        label(x, last, height - BOTTOM + 16, "middle");
      }
      const names = { x: svg.querySelector(".name-x"), y: svg.querySelector(".name-y") };
      names.x.setAttribute("x", (LEFT + width - RIGHT) / 2);
      names.x.setAttribute("y", height - 6);
      names.y.setAttribute("transform", `translate(13 ${(TOP + height - BOTTOM) / 2}) rotate(-90)`);
    }

    const shown = () => things.filter(({ element, mark }) => mark && !element.closest(".series").hasAttribute("hidden"));
    const zoom = (factor, at = [0.5, 0.5]) => {
      ["x", "y"].forEach((name, place) => {
        const [low, high] = view[name], middle = low + (high - low) * at[place];
        view[name] = [middle - (middle - low) * factor, middle + (high - middle) * factor];
      });
      draw();
    };
    const pan = (right, up) => {
      const [dx, dy] = [right * 0.15 * (view.x[1] - view.x[0]), up * 0.15 * (view.y[1] - view.y[0])];
      view = { x: view.x.map((end) => end + dx), y: view.y.map((end) => end + dy) };
      draw();
    };
    const reset = () => { view = { x: [...start.x], y: [...start.y] }; draw(); };
    const everything = () => {
      const points = things.filter(({ element }) => !element.closest(".series").hasAttribute("hidden")).flatMap((thing) => thing.points);
      if (!points.length) return;
      const range = (values) => {
        const [low, high] = [Math.min(...values), Math.max(...values)], room = 0.06 * (high - low) || 0.5;
        return [low - room, high + room];
      };
      view = { x: range(points.map(([x]) => along(x))), y: range(points.map(([, y]) => y)) };
      draw();
    };
    const choose = (thing) => {
      chosen?.element.classList.remove("chosen");
      chosen = thing;
      thing?.element.classList.add("chosen");
      value.textContent = thing ? thing.element.querySelector("title").textContent : "";
    };

    const buttons = [["Zoom in", () => zoom(0.7)], ["Zoom out", () => zoom(1 / 0.7)], ["Everything", everything], ["Reset", reset]];
    const tools = make("div", { class: "tools" });
    for (const [name, act] of buttons) {
      const button = make("button", { type: "button" }, name);
      button.addEventListener("click", act);
      tools.append(button);
    }
    svg.before(tools);
    svg.after(value);
    for (const item of figure.querySelectorAll(".legend li[data-name]")) {
      const button = make("button", { type: "button", "aria-pressed": "true" }, ...item.childNodes);
      const own = [...inside.querySelectorAll(".series")].filter((series) => series.dataset.name === item.dataset.name);
      button.addEventListener("click", () => {
        const hide = button.getAttribute("aria-pressed") === "true";
        button.setAttribute("aria-pressed", String(!hide));
        for (const series of own) hide ? series.setAttribute("hidden", "") : series.removeAttribute("hidden");
        if (hide && chosen && own.some((series) => series.contains(chosen.element))) choose(null);
      });
      item.replaceChildren(button);
    }

    // The pointer: the nearest mark is named; a dragged rectangle becomes the view; a double click takes it back.
    const place = (event) => {
      const box = svg.getBoundingClientRect();
      return [((event.clientX - box.left) * width) / box.width, ((event.clientY - box.top) * height) / box.height];
    };
    let from = null, rectangle = null;
    svg.addEventListener("pointermove", (event) => {
      const [x, y] = place(event);
      if (from) {
        const [a, b] = [from, [x, y]];
        rectangle ??= inside.appendChild(drawn("rect", { class: "select" }));
        for (const [name, at] of [["x", Math.min(a[0], b[0])], ["y", Math.min(a[1], b[1])], ["width", Math.abs(a[0] - b[0])], ["height", Math.abs(a[1] - b[1])]]) rectangle.setAttribute(name, at);
        return;
      }
      let best = null, nearest = 24 ** 2;
      for (const thing of shown()) {
        const far = (atX(thing.points[0][0]) - x) ** 2 + (atY(thing.points[0][1]) - y) ** 2;
        if (far < nearest) [best, nearest] = [thing, far];
      }
      if (best !== chosen) choose(best);
    });
    svg.addEventListener("pointerdown", (event) => { if (event.pointerType === "mouse" && event.button === 0) from = place(event); });
    window.addEventListener("pointerup", (event) => {
      if (!from) return;
      const [a, b] = [from, place(event)];
      from = null;
      rectangle?.remove();
      rectangle = null;
      if (Math.abs(a[0] - b[0]) < 8 || Math.abs(a[1] - b[1]) < 8) return;
      const toX = (x) => view.x[0] + ((x - LEFT) / (width - LEFT - RIGHT)) * (view.x[1] - view.x[0]);
      const toY = (y) => view.y[0] + ((height - BOTTOM - y) / (height - TOP - BOTTOM)) * (view.y[1] - view.y[0]);
      view = { x: [a[0], b[0]].map(toX).sort((l, r) => l - r), y: [a[1], b[1]].map(toY).sort((l, r) => l - r) };
      draw();
    });
    svg.addEventListener("dblclick", reset);

    // Keys: arrows go from mark to mark, with Shift they move the view; +, − and 0 zoom.
    svg.setAttribute("tabindex", "0");
    svg.setAttribute("role", "application");
    svg.setAttribute("aria-roledescription", "chart; arrows go from mark to mark, Shift and arrows move, plus and minus zoom, 0 resets");
    svg.addEventListener("keydown", (event) => {
      const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (way && event.shiftKey) pan(...way);
      else if (way) {
        const marks = shown();
        if (!marks.length) return;
        const at = marks.indexOf(chosen), step = way[0] + way[1] > 0 ? 1 : -1;
        choose(marks[at < 0 ? (step > 0 ? 0 : marks.length - 1) : (at + step + marks.length) % marks.length]);
      } else if (event.key === "+" || event.key === "=") zoom(0.7);
      else if (event.key === "-") zoom(1 / 0.7);
      else if (event.key === "0") reset();
      else if (event.key === "Escape") choose(null);
      else return;
      event.preventDefault();
    });
    new ResizeObserver(() => { if (Math.abs(figure.clientWidth - width) > 1) draw(); }).observe(figure);
    draw();
  }

  // -- the gallery --------------------------------------------------------------------------------------------------
  function gallery(section) {
    const list = section.querySelector(".gallery"), items = [...list.children];
    const kinds = [...new Set(items.map((item) => item.dataset.kind))].filter(Boolean).sort();
    const orders = { differ: "strategies differ most", worst: "worst errors first", best: "most often right first", written: "as in the test split" };
    const order = make("select", {}, ...Object.entries(orders).map(([key, text]) => make("option", { value: key }, text)));
    const kind = make("select", {}, make("option", { value: "" }, "all"), ...kinds.map((each) => make("option", { value: each }, each)));
    const which = make("select", {}, ...[["", "all"], ["wrong", "with a wrong answer"], ["right", "all right"]].map(([key, text]) => make("option", { value: key }, text)));
    const count = make("span", { class: "soft", "aria-live": "polite" });
    const show = () => {
      const [key, way] = order.value === "best" ? ["worst", -1] : [order.value, 1];
      list.append(...[...items].sort((a, b) => way * (a.dataset[key] - b.dataset[key])));
      let shown = 0;
      for (const item of items) {
        const right = item.dataset.right === "1";
        item.hidden = (kind.value && item.dataset.kind !== kind.value) || (which.value && (which.value === "right") !== right);
        shown += !item.hidden;
      }
      count.textContent = `${shown} of ${items.length} items`;
    };
    const tools = make("div", { class: "tools" }, make("label", {}, "Order: ", order));
    if (kinds.length > 1) tools.append(make("label", {}, `${section.dataset.kinds}: `, kind));
    tools.append(make("label", {}, "Show: ", which), count);
    for (const select of [order, kind, which]) select.addEventListener("change", show);
    list.before(tools);
    show();
  }

  document.querySelectorAll("table").forEach(sortable);
  document.querySelectorAll("figure.chart").forEach(interactive);
  document.querySelectorAll("section.asked").forEach(gallery);
  document.documentElement.dataset.ready = "1";
})();
