// The charts: each is drawn when it comes into view, in the page's colours.
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    const [ink, grid, panel, soft, accent] = ["--ink", "--grid", "--panel", "--soft", "--accent"]
      .map((name) => style.getPropertyValue(name).trim());
    const axis = (name) => ({ [`${name}.gridcolor`]: grid, [`${name}.linecolor`]: grid, [`${name}.zeroline`]: false });
    return { "font.color": ink, "hoverlabel.bgcolor": panel, "hoverlabel.font.color": ink,
      "hoverlabel.bordercolor": grid, "modebar.bgcolor": "rgba(0,0,0,0)", "modebar.color": soft,
      "modebar.activecolor": accent, ...axis("xaxis"), ...axis("yaxis") };
  };
  const drawn = new Set();
  async function draw(place) {
    if (drawn.has(place)) return;
    drawn.add(place);
    const { data, layout } = figures[place.dataset.chart];
    const names = data.filter((trace) => trace.name && trace.showlegend !== false);
    const longest = Math.max(8, ...names.map((trace) => trace.name.length));
    const columns = Math.max(1, Math.floor((place.clientWidth - 40) / (longest * 6.6 + 44)));
    const legend = names.length > 1 ? 22 * Math.ceil(names.length / columns) + 12 : 0;
    const titled = Boolean(layout.xaxis?.title?.text);
    const below = titled ? 54 : 32;
    if (titled) Object.assign(layout.xaxis.title, { standoff: 8, font: { size: 13 } });
    if (layout.yaxis?.title) Object.assign(layout.yaxis.title, { standoff: 8, font: { size: 13 } });
    Object.assign(layout, {
      template: undefined, height: 350 + legend, showlegend: legend > 0, autosize: true,
      margin: { l: 58, r: 14, t: 30, b: below + legend },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12.5 },
      legend: { orientation: "h", x: 0, xanchor: "left", yref: "container", y: 0, yanchor: "bottom",
        entrywidth: longest * 6.6 + 8, entrywidthmode: "pixels", itemsizing: "constant", font: { size: 12 } },
    });
    layout.hoverlabel = { align: "left" };
    // the default buttons of plotly include one that uploads the chart to its website
    const options = { responsive: true, displaylogo: false, plotlyServerURL: "",
      modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]] };
    await Plotly.newPlot(place, data, layout, options);
    await Plotly.relayout(place, colours());
  }
  const places = [...document.querySelectorAll(".chart")];
  const watch = new IntersectionObserver((seen) => {
    for (const { isIntersecting, target } of seen) if (isIntersecting) draw(target);
  }, { rootMargin: "400px" });
  places.forEach((place) => watch.observe(place));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const place of drawn) Plotly.relayout(place, colours());
  });
  addEventListener("beforeprint", () => places.forEach(draw));
})();
