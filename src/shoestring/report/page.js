// Draws each chart from the JSON beside it, and says on the root element how that went.
(function () {
  "use strict";
  const root = document.documentElement;
  const plots = Array.from(document.querySelectorAll("[data-spec]"));
  const options = {
    actions: false,
    ast: true, // expressions are interpreted: the page's policy forbids making code of text
    defaultStyle: false,
    renderer: "svg",
    tooltip: { theme: "page", disableDefaultStyle: true },
  };

  function draw(plot) {
    const spec = JSON.parse(document.getElementById(plot.dataset.spec).textContent);
    // The outer element is an image with a sentence, and stays one; Vega would have hundreds of
    // marks read out, which the table below says better.
    const inner = plot.appendChild(document.createElement("div"));
    inner.setAttribute("aria-hidden", "true");
    return vegaEmbed(inner, spec, options).then(
      () => true,
      () => {
        plot.textContent = "This chart could not be drawn; its table is below.";
        plot.removeAttribute("role");
        return false;
      },
    );
  }

  root.dataset.charts = "drawing";
  Promise.all(plots.map(draw)).then((drawn) => {
    root.dataset.charts = drawn.every(Boolean) ? "drawn" : "failed";
  });

  // Paper shows what is folded away on a screen.
  const folded = () => document.querySelectorAll("details:not([open])");
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = Array.from(folded());
    opened.forEach((one) => { one.open = true; });
  });
  window.addEventListener("afterprint", () => {
    opened.forEach((one) => { one.open = false; });
  });
})();
