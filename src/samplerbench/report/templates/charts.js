// Draws a chart when it comes into view, in the page's colours. A place has its chart as a function.
const charts = (() => {
  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    const [ink, grid, panel, soft, accent] = ["--ink", "--grid", "--panel", "--soft", "--accent"]
      .map((name) => style.getPropertyValue(name).trim());
    const axis = (name) => ({ [`${name}.gridcolor`]: grid, [`${name}.linecolor`]: grid, [`${name}.zeroline`]: false });
    return { "font.color": ink, "hoverlabel.bgcolor": panel, "hoverlabel.font.color": ink,
      "hoverlabel.bordercolor": grid, "modebar.bgcolor": "rgba(0,0,0,0)", "modebar.color": soft,
      "modebar.activecolor": accent, ...axis("xaxis"), ...axis("yaxis") };
  };
  let plotly;  // it is unpacked when the first chart is drawn, so the tables do not wait for it
  const loaded = () => plotly ??= unpacked("plotly").then((code) => {
    const script = document.createElement("script");
    script.textContent = code;
    document.head.append(script);
  });
  const drawn = new Set();
  async function draw(place) {
    drawn.add(place);
    await loaded();
    const { data, layout: own } = place.chart();
    const layout = { ...own };
    for (const name of ["xaxis", "yaxis"]) {
      layout[name] = { ...layout[name], automargin: true };
      if (layout[name].title) layout[name].title = { ...layout[name].title, standoff: 8, font: { size: 13 } };
    }
    Object.assign(layout, {
      height: own.height ?? 350, showlegend: false, autosize: true, margin: { l: 58, r: 14, t: 30, b: 40 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12.5 },
    });
    layout.hoverlabel = { align: "left" };
    // the default buttons of plotly include one that uploads the chart to its website
    const options = { responsive: true, displaylogo: false, plotlyServerURL: "",
      modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]] };
    await Plotly.react(place, data, layout, options);
    await Plotly.relayout(place, colours());
    if (place.pick && !place.picks) {  // a point is touched, or chosen by a click
      place.picks = true;
      place.on("plotly_hover", ({ points }) => place.pick(points[0], false));
      place.on("plotly_click", ({ points }) => place.pick(points[0], true));
    }
    legend(place, data);
  }

  // plotly's own legend covers the axis where names are long, and scrolls where they are many
  const SHAPES = { circle: '<circle cx="16" cy="7" r="4"/>', square: '<path d="M12 3h8v8h-8z"/>',
    diamond: '<path d="M16 2l5 5-5 5-5-5z"/>', "triangle-up": '<path d="M16 2l5 9h-10z"/>',
    cross: '<path d="M14 2h4v3h3v4h-3v3h-4v-3h-3v-4h3z"/>', x: '<path d="M12 3l8 8m0-8l-8 8" stroke-width="2.5"/>' };
  const STROKES = { dash: "6 3", dot: "2 2" };
  function key({ line = {}, marker = {}, mode = "", fill }) {
    const colour = line.color ?? [marker.color].flat()[0];
    const open = /-open/.test(marker.symbol), shape = SHAPES[(marker.symbol ?? "circle").replace(/-open.*/, "")];
    const stroke = mode.includes("lines") || fill ? `<path d="M1 7h30" stroke-width="${Math.min(line.width ?? 2, 7)}"
      stroke-dasharray="${STROKES[line.dash] ?? ""}"/>` : "";
    return `<svg width="32" height="14" stroke="${colour}" fill="${open ? "var(--paper)" : colour}" aria-hidden="true">` +
      stroke + (mode.includes("markers") || !mode ? shape : "") + "</svg>";
  }
  function legend(place, data) {
    const named = data.filter((trace) => trace.name && trace.showlegend !== false);
    place.parentElement.querySelector(".legend")?.remove();
    if (named.length < 2) return;
    const box = document.createElement("div");
    box.className = "legend";
    const groupOf = (trace) => trace.legendgroup ?? trace.name;
    const off = new Set();
    const update = () => {
      Plotly.restyle(place, { visible: data.map((trace) => !off.has(groupOf(trace))) });
      for (const button of box.children) button.setAttribute("aria-pressed", !off.has(button.value));
    };
    for (const trace of named) {
      const button = document.createElement("button");
      button.type = "button";
      button.value = groupOf(trace);
      button.innerHTML = key(trace);
      button.append(new DOMParser().parseFromString(trace.name, "text/html").body.textContent);
      button.setAttribute("aria-pressed", true);
      button.addEventListener("click", () => { off[off.has(button.value) ? "delete" : "add"](button.value); update(); });
      button.addEventListener("dblclick", () => {
        off.clear();
        for (const other of named) if (groupOf(other) !== button.value) off.add(groupOf(other));
        update();
      });
      box.append(button);
    }
    place.after(box);
  }
  const places = new Set();
  const watch = new IntersectionObserver((seen) => {
    for (const { isIntersecting, target } of seen) if (isIntersecting && !drawn.has(target)) draw(target);
  }, { rootMargin: "400px" });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const place of drawn) Plotly.relayout(place, colours());
  });
  addEventListener("beforeprint", () => places.forEach((place) => drawn.has(place) || draw(place)));
  return {
    add(place, chart, pick) { Object.assign(place, { chart, pick }); places.add(place); watch.observe(place); },
    remove(place) { watch.unobserve(place); places.delete(place); drawn.delete(place); },
    // those in view now, the others when they come into view
    again() {
      drawn.clear();
      for (const place of places) {
        watch.unobserve(place);
        watch.observe(place);
      }
    },
    key,
  };
})();
for (const place of document.querySelectorAll("[data-chart]")) {
  charts.add(place, () => content.figures[place.dataset.chart]);
}
