"use strict";
(() => {
  const table = document.getElementById("tracks");
  const bodies = Array.from(table.tBodies);
  const by = (id) => document.getElementById(id);

  // ---- opening a track: its detail is a template until somebody wants it -----------------------
  const open = (body, wanted) => {
    const opener = body.querySelector(".opener");
    let detail = body.querySelector(".detail");
    if (wanted && !detail) {
      body.append(body.querySelector("template").content.cloneNode(true));
      detail = body.querySelector(".detail");
      draw(detail);
    }
    if (detail) detail.hidden = !wanted;
    opener.setAttribute("aria-expanded", String(wanted));
  };
  const isOpen = (body) => body.querySelector(".opener").getAttribute("aria-expanded") === "true";
  table.addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (!row || String(getSelection())) return;
    const body = row.parentElement;
    open(body, !isOpen(body));
    if (isOpen(body)) history.replaceState(null, "", "#" + body.id);
  });
  const follow = () => {
    const body = bodies.find((b) => "#" + b.id === location.hash);
    if (body) { open(body, true); body.scrollIntoView(); }
  };
  addEventListener("hashchange", follow);

  // ---- sorting and filtering -------------------------------------------------------------------
  const keys = new Map(bodies.map((b) => [b, JSON.parse(b.dataset.keys)]));
  const texts = new Map();
  const textOf = (body) => {
    if (!texts.has(body)) {
      const findings = Array.from(body.querySelector("template").content.querySelectorAll("article"));
      texts.set(body, [body.querySelector(".row"), ...findings].map((e) => e.textContent).join(" ").toLowerCase());
    }
    return texts.get(body);
  };
  const sortBy = (key, direction) => {
    const factor = direction === "ascending" ? 1 : -1;
    const compare = (a, b) => {
      const x = keys.get(a)[key], y = keys.get(b)[key];
      const order = typeof x === "number" ? x - y : x.localeCompare(y, undefined, { numeric: true });
      return factor * order || keys.get(a).order - keys.get(b).order;
    };
    bodies.sort(compare);
    table.append(...bodies);
    for (const head of table.querySelectorAll("thead th")) {
      if (head.firstElementChild.dataset.sort === key) head.setAttribute("aria-sort", direction);
      else head.removeAttribute("aria-sort");
    }
  };
  for (const button of table.querySelectorAll("thead button")) {
    button.addEventListener("click", () => {
      const now = button.parentElement.getAttribute("aria-sort");
      const first = button.dataset.numeric ? "descending" : "ascending";
      const second = button.dataset.numeric ? "ascending" : "descending";
      sortBy(button.dataset.sort, now === first ? second : first);
    });
  }
  let worst = "";
  const filter = () => {
    const wanted = by("search").value.trim().toLowerCase(), check = by("check").value;
    let count = 0;
    for (const body of bodies) {
      const fits = (!worst || body.dataset.worst === worst) &&
        (!check || body.dataset.checks.split(" ").includes(check)) &&
        (!wanted || textOf(body).includes(wanted));
      body.hidden = !fits;
      count += fits;
    }
    by("shown").textContent = count === bodies.length ? count + " tracks" : count + " of " + bodies.length + " tracks";
    by("nothing").hidden = count > 0;
  };
  if (bodies.length > 1) {
    by("search").addEventListener("input", filter);
    by("check").addEventListener("change", filter);
    by("sort").addEventListener("change", (event) => {
      const button = table.querySelector(`thead button[data-sort="${event.target.value}"]`);
      sortBy(event.target.value, button.dataset.numeric ? "descending" : "ascending");
    });
    for (const tile of document.querySelectorAll(".tile")) {
      tile.addEventListener("click", () => {
        worst = tile.dataset.worst;
        for (const other of document.querySelectorAll(".tile")) other.setAttribute("aria-pressed", String(other === tile));
        filter();
      });
    }
    filter();
  }

  // ---- plots: the library is unpacked when the first plot is wanted ----------------------------
  let library = null;
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const loadLibrary = async () => {
    const packed = new Blob([bytes(by("plotting-library").textContent.trim())]);
    const stream = packed.stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.nonce = document.currentScriptNonce;
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    return window.Plotly;
  };
  document.currentScriptNonce = document.currentScript.nonce;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  // Plotly reads a little HTML in its texts; ours are plain.
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const PALETTE = ["#2f6fbf", "#c8661b", "#3b8f4f", "#8c5bb5", "#b5475f", "#6b7682"];

  const figureOf = (series, x) => {
    const several = series.columns.length > 1;
    const traces = series.columns.map((column, k) => ({
      x, y: new Float32Array(bytes(column).buffer), type: "scatter", mode: "lines", connectgaps: false,
      name: plain(series.labels[k] || series.name), line: { width: 1.4, color: PALETTE[k % PALETTE.length] },
      hovertemplate: "%{y:.6~g}",
    }));
    const isDot = x.length === 1;
    if (isDot) for (const trace of traces) { trace.mode = "markers"; }
    const shapes = series.ranges.map(([first, last, , severity]) => ({
      type: "rect", xref: "x", yref: "paper", x0: first - 0.5, x1: last + 0.5, y0: 0, y1: 1,
      fillcolor: css("--" + severity), opacity: 0.16, line: { width: 0 }, layer: "below",
    }));
    if (series.ranges.length) {
      traces.push({
        x: series.ranges.map(([first, last]) => (first + last) / 2), y: series.ranges.map(() => 0.96),
        text: series.ranges.map(([first, last, check]) => plain(check) + (last > first ? " (" + first + "–" + last + ")" : "")),
        yaxis: "y2", mode: "markers", type: "scatter", showlegend: false, hovertemplate: "%{text}<extra></extra>",
        marker: { symbol: "triangle-down", size: 8, color: series.ranges.map((r) => css("--" + r[3])) },
      });
    }
    const axis = { gridcolor: css("--grid"), zeroline: false, linecolor: css("--line"), automargin: true };
    const layout = {
      title: { text: plain(series.name + (series.unit ? ", " + series.unit : "")), font: { size: 13 }, x: 0.01, xanchor: "left", y: 0.97, yanchor: "top" },
      height: 238, margin: { l: 52, r: 12, t: 30, b: several ? 52 : 34 }, hovermode: "x", shapes,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: css("--text"), size: 11 },
      xaxis: { ...axis, hoverformat: "d" }, yaxis: { ...axis, exponentformat: "none" },
      separators: ".", modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--soft"), activecolor: css("--info") },
      yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true },
      showlegend: several, legend: { orientation: "h", y: -0.16, yanchor: "top", x: 0, font: { size: 11 } },
    };
    return { traces, layout };
  };
  const draw = async (detail) => {
    const data = detail.querySelector(".series");
    if (!data) return;
    const places = Array.from(detail.querySelectorAll(".plot"));
    if (!("DecompressionStream" in window)) {
      for (const place of places) place.textContent = "This browser is too old for the plots.";
      return;
    }
    for (const place of places) place.textContent = "…";
    const plots = JSON.parse(data.textContent);
    const Plotly = await (library ??= loadLibrary());
    const frames = plots.frames.map((text) => new Float64Array(bytes(text).buffer));
    // The buttons are listed: the library's own choice has one that sends the data away.
    const config = {
      displaylogo: false, displayModeBar: "hover", responsive: true, showSendToCloud: false, plotlyServerURL: "",
      modeBarButtons: [["toImage"], ["zoom2d", "pan2d", "resetScale2d"]],
    };
    let busy = false;
    for (const [k, series] of plots.series.entries()) {
      places[k].textContent = "";
      const { traces, layout } = figureOf(series, frames[series.frames]);
      await Plotly.newPlot(places[k], traces, layout, config);
      // Zooming into frames of one plot shows the same frames in the others.
      places[k].on("plotly_relayout", async (change) => {
        if (busy) return;
        const update = change["xaxis.autorange"] ? { "xaxis.autorange": true }
          : "xaxis.range[0]" in change ? { "xaxis.range": [change["xaxis.range[0]"], change["xaxis.range[1]"]] } : null;
        if (!update) return;
        busy = true;
        await Promise.all(places.filter((p) => p !== places[k]).map((p) => Plotly.relayout(p, update)));
        busy = false;
      });
    }
    detail.dataset.drawn = "1";
  };

  if (bodies.length === 1) open(bodies[0], true);
  follow();
})();
